module edgehold.internal/tools/edgehold

go 1.26.0

require (
	edgehold.internal/libs v0.0.0
	edgehold.internal/proto v0.0.0
	edgehold.internal/services/fleet v0.0.0
	edgehold.internal/tools/edge v0.0.0
)

replace (
	edgehold.internal/libs => ../../libs
	edgehold.internal/proto => ../../proto
	edgehold.internal/services/fleet => ../../services/fleet
	edgehold.internal/tools/edge => ../../tools/edge
)
