module edgehold.internal/tools/edge

go 1.26.0

require (
	edgehold.internal/libs v0.0.0
)

replace (
	edgehold.internal/libs => ../../libs
)
