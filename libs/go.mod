module edgehold.internal/libs

go 1.26.0

require (
	edgehold.internal/proto v0.0.0
)

replace (
	edgehold.internal/proto => ../proto
)
