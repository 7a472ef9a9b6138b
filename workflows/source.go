package workflows

import "embed"

// Source is the code that decides. It is part of what identifies a worker's version.
//
//go:embed operation.go request.go run.go verify.go
var Source embed.FS
