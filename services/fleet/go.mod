module edgehold.internal/services/fleet

go 1.26.0

require (
	edgehold.internal/libs v0.0.0
	edgehold.internal/proto v0.0.0
)

replace (
	edgehold.internal/libs => ../../libs
	edgehold.internal/proto => ../../proto
)
