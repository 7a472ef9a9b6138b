module edgehold.internal/tools/edge

go 1.26.0

require (
	edgehold.internal/libs v0.0.0
	github.com/google/go-cmp v0.7.0
	github.com/spf13/pflag v1.0.10
	go.uber.org/goleak v1.3.0
	golang.org/x/net v0.59.0
	pgregory.net/rapid v1.3.0
)

require golang.org/x/text v0.42.0 // indirect

replace edgehold.internal/libs => ../../libs
