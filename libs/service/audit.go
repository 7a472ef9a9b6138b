package service

import (
	"bytes"
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
	Target         json.RawMessage `json:"target,omitempty"`
	Code           string          `json:"code"`
	Error          string          `json:"error,omitempty"` // the sentence that the caller got
	DurationMS     float64         `json:"duration_ms"`
	RequestID      string          `json:"request_id"`
	Operation      string          `json:"operation,omitempty"`
	TraceID        string          `json:"trace_id,omitempty"`
}

const (
	maxAuditText   = 1024     // bytes of one text of the request
	maxAuditTarget = 16 << 10 // bytes of the target
)

// targetFields are the fields of a request that say what it is done to and how, under the names that all our protos use.
var targetFields = map[protoreflect.Name]bool{"pop": true, "fleet": true, "id": true, "scope": true, "kind": true, "to": true, "version": true, "until": true, "force": true}

// describe takes reason, key and target out of a request: from its top level, and from the messages in it that are not
// targets themselves, such as an Act or the runbook of a StartRequest.
func (l *auditLine) describe(m protoreflect.Message) {
	target := make(map[string]json.RawMessage)
	l.walk(m, target, 1)
	if len(target) == 0 {
		return
	}
	line, err := json.Marshal(target) // keys in order
	if err != nil || len(line) > maxAuditTarget {
		line = fmt.Appendf(nil, `{"omitted_bytes":%d}`, len(line))
	}
	l.Target = line
}

func (l *auditLine) walk(m protoreflect.Message, target map[string]json.RawMessage, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) || redacted(f) {
			continue
		}
		switch name := f.Name(); {
		case name == "reason" && f.Kind() == protoreflect.StringKind && !f.IsList():
			l.Reason = truncate(m.Get(f).String())
		case name == "idempotency_key" && f.Kind() == protoreflect.StringKind && !f.IsList():
			l.IdempotencyKey = truncate(m.Get(f).String())
		case name == "on_behalf_of" && f.Kind() == protoreflect.StringKind && !f.IsList():
			l.OnBehalfOf = truncate(m.Get(f).String())
		case targetFields[name]:
			if _, taken := target[string(name)]; !taken { // the outer one wins
				target[string(name)] = fieldJSON(m, f)
			}
		case depth < 2 && f.Message() != nil && !f.IsList() && !f.IsMap():
			l.walk(m.Get(f).Message(), target, depth+1)
		}
	}
}

// fieldJSON is the field in protobuf JSON. Going through a message of the same type with only this field keeps enums,
// times and nested messages in the form that the API itself uses.
func fieldJSON(m protoreflect.Message, f protoreflect.FieldDescriptor) json.RawMessage {
	one := m.New()
	one.Set(f, m.Get(f))
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

// message returns the protobuf message of a request, or nil.
func message(msg any) proto.Message {
	m, _ := msg.(proto.Message)
	return m
}
