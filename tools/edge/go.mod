module edgehold.internal/tools/edge

go 1.26.0

require (
	edgehold.internal/libs v0.0.0
	github.com/spf13/pflag v1.0.10
)

replace edgehold.internal/libs => ../../libs
