package service

import (
	"context"
	"encoding/json"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/problem"
)

// Act is something that a service did without being called for it at that moment, such as a controller that carries out what
// was declared. It is kept in the audit log beside the calls.
type Act struct {
	// Name of what was done, such as "fleet-controller/switch"; it takes the place of a call's procedure.
	Name string
	// Principal who wanted it, with the Reason and IdempotencyKey that they gave; empty as far as nobody knows.
	Principal, Reason, IdempotencyKey string
	// Request says what was done to what. It is encoded as JSON, up to 16 KiB.
	Request map[string]any
	// Err is why it could not be done; nil when it was.
	Err error
}

// Audit keeps an act. It may be called as soon as there is a Server, and blocks for one write to the file.
func (s *Server) Audit(ctx context.Context, a Act) {
	id := call.From(ctx)
	l := &auditLine{Audit: true, Time: s.now().UTC(), Service: s.cfg.Name, Principal: a.Principal, Roles: []Role{}, Procedure: a.Name,
		Reason: truncate(a.Reason), IdempotencyKey: truncate(a.IdempotencyKey), Code: "ok", RequestID: id.Request, Operation: id.Operation, TraceID: traceID(ctx)}
	if len(a.Request) > 0 {
		line, err := json.Marshal(a.Request)
		if err != nil || len(line) > maxAuditRequest {
			line = omitted(len(line))
		}
		l.Request = line
	}
	if a.Err != nil {
		l.Code, l.Error = problem.KindOf(a.Err).String(), truncate(a.Err.Error())
	}
	s.keep(ctx, l)
}
