package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// auditLine is what is kept of a mutating call. The order of the fields is the order in the line.
type auditLine struct {
	Audit          bool            `json:"audit"` // tells the lines apart where they share a stream with the log
	Time           time.Time       `json:"time"`  // of the call's start
	Service        string          `json:"service"`
	Principal      string          `json:"principal"`
	Roles          []Role          `json:"roles"`
	Procedure      string          `json:"procedure"`
	Reason         string          `json:"reason,omitempty"`
	IdempotencyKey string          `json:"idempotency_key,omitempty"`
	OnBehalfOf     string          `json:"on_behalf_of,omitempty"`
	Request        json.RawMessage `json:"request,omitempty"` // what else was asked for
	Code           string          `json:"code"`
	Error          string          `json:"error,omitempty"` // the sentence that the caller got
	DurationMS     float64         `json:"duration_ms"`
	RequestID      string          `json:"request_id"`
	Operation      string          `json:"operation,omitempty"`
	TraceID        string          `json:"trace_id,omitempty"`
}

const (
	maxAuditText    = 1024     // bytes of a text that has a column of its own
	maxAuditRequest = 16 << 10 // bytes of the rest of the request
)

// describe takes reason, key and the rest out of a request: from its top level, and from messages in it that carry one of
// them, such as an Act.
func (l *auditLine) describe(m protoreflect.Message) {
	rest := make(map[string]json.RawMessage)
	l.walk(m, rest, true)
	if len(rest) == 0 {
		return
	}
	line, err := json.Marshal(rest) // keys in order
	if err != nil || len(line) > maxAuditRequest {
		line = omitted(len(line))
	}
	l.Request = line
}

func (l *auditLine) walk(m protoreflect.Message, rest map[string]json.RawMessage, top bool) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) || redacted(f) {
			continue
		}
		if column := l.column(f); column != nil {
			*column = truncate(m.Get(f).String())
			continue
		}
		if top && f.Message() != nil && !f.IsList() && !f.IsMap() && l.hasColumn(f.Message()) {
			l.walk(m.Get(f).Message(), rest, false)
			continue
		}
		if _, taken := rest[string(f.Name())]; !taken { // the outer one wins
			rest[string(f.Name())] = fieldJSON(m, f)
		}
	}
}

// column of the line that a field has for itself, under the names that all our protos use, or nil.
func (l *auditLine) column(f protoreflect.FieldDescriptor) *string {
	if f.Kind() != protoreflect.StringKind || f.IsList() {
		return nil
	}
	switch f.Name() {
	case "reason":
		return &l.Reason
	case "idempotency_key":
		return &l.IdempotencyKey
	case "on_behalf_of":
		return &l.OnBehalfOf
	}
	return nil
}

func (l *auditLine) hasColumn(m protoreflect.MessageDescriptor) bool {
	for i := range m.Fields().Len() {
		if l.column(m.Fields().Get(i)) != nil {
			return true
		}
	}
	return false
}

// fieldJSON is the field in protobuf JSON, without what the proto forbids in logs. Going through a message of the same type
// with only this field keeps enums, times and nested messages in the form that the API itself uses.
func fieldJSON(m protoreflect.Message, f protoreflect.FieldDescriptor) json.RawMessage {
	one := m.New()
	one.Set(f, m.Get(f))
	if size := proto.Size(one.Interface()); size > maxAuditRequest {
		return omitted(size)
	}
	one = proto.Clone(one.Interface()).ProtoReflect()
	redact(one)
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one.Interface())
	var fields map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(raw, &fields)
	}
	var out bytes.Buffer
	if err == nil {
		err = json.Compact(&out, fields[string(f.Name())]) // protojson varies its spaces on purpose
	}
	if err != nil {
		return json.RawMessage(`"unreadable"`)
	}
	return out.Bytes()
}

func omitted(size int) json.RawMessage { return fmt.Appendf(nil, `{"omitted_bytes":%d}`, size) }

// redact clears what the proto forbids in logs, at any depth.
func redact(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case redacted(f):
			m.Clear(f)
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					redact(v.Message())
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message())
			}
		default:
			redact(v.Message())
		}
		return true
	})
}

// redacted says whether the proto forbids the field in logs.
func redacted(f protoreflect.FieldDescriptor) bool {
	opts, ok := f.Options().(interface{ GetDebugRedact() bool })
	return ok && opts.GetDebugRedact()
}

func truncate(s string) string { return string(limit(s, maxAuditText)) }

// auditLog appends lines to a file. Each line is one write, so it is in the kernel before the caller has its answer and
// survives the death of the process; a goroutine brings the lines to the disk, all that have come since the last time at
// once, so that a fleet-wide rollback does not wait for 21 disk flushes.
type auditLog struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool

	file  *os.File // nil for a standard stream
	dirty chan struct{}
	done  chan struct{}
}

func openAudit(cfg Config) (*auditLog, error) {
	a := &auditLog{dirty: make(chan struct{}, 1), done: make(chan struct{})}
	switch cfg.AuditLog {
	case "stderr":
		a.w = cfg.Log
	case "stdout":
		a.w = os.Stdout
	default:
		f, err := os.OpenFile(cfg.AuditLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		a.w, a.file = f, f
	}
	return a, nil
}

// sync runs until close.
func (a *auditLog) sync() {
	defer close(a.done)
	for range a.dirty {
		if a.file != nil {
			_ = a.file.Sync() // a device that cannot sync still has the lines in order
		}
	}
}

// write appends one line.
func (a *auditLog) write(l *auditLine) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(l); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed { // a handler that outlived the stop
		return os.ErrClosed
	}
	if _, err := a.w.Write(line.Bytes()); err != nil {
		return err
	}
	select {
	case a.dirty <- struct{}{}:
	default: // a sync is coming that will see this line
	}
	return nil
}

// close syncs and closes the file. What is written afterwards fails with os.ErrClosed.
func (a *auditLog) close() error {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	close(a.dirty)
	<-a.done
	if a.file == nil {
		return nil
	}
	_ = a.file.Sync()
	return a.file.Close()
}

// keep writes the line. When that fails all goes on: a full disk must not be what stops a rollback. The line is kept where it
// can be.
func (s *Server) keep(ctx context.Context, l *auditLine) {
	if err := s.audit.write(l); err != nil {
		s.metrics.audit.WithLabelValues("failed").Inc()
		s.log.ErrorContext(ctx, "the audit line could not be written: free space for --audit-log or mend its path", "error", err, "line", l)
		return
	}
	s.metrics.audit.WithLabelValues("written").Inc()
}

// message returns the protobuf message of a request, or nil.
func message(msg any) proto.Message {
	m, _ := msg.(proto.Message)
	return m
}
