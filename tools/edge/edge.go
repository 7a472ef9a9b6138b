// Package edge is what the demo's edge proxy and its load generator agree on: the headers of every answer, the last line of
// a stream, and the fault that makes a release a bad one. It does no I/O.
//
// serve is the proxy, load the open-loop generator, report what a rollback looked like from outside; cmd/edge is the binary.
// Start at Fault here, and at load.Start for the measurements.
package edge

// The headers of every answer of the proxy, in canonical form.
const (
	// HeaderVersion is the release that answered.
	HeaderVersion = "Edge-Version"
	// HeaderColour is blue or green.
	HeaderColour = "Edge-Colour"
	// HeaderPop is the PoP that answered.
	HeaderPop = "Edge-Pop"
	// HeaderFault is on answers that carry an injected fault; its value is FaultInjected. Such an answer is bad, which is
	// not the same as failed: it is why one rolls back, and it ended as it should.
	HeaderFault = "Edge-Fault"
	// FaultInjected is the value of HeaderFault.
	FaultInjected = "injected"
)

// EndOfStream is the last line of a stream that the server ended on purpose, with its newline. A stream without it was cut.
const EndOfStream = "end\n"
