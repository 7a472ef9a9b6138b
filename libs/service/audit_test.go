package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"edgehold.internal/libs/call"
	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
)

var update = flag.Bool("update", false, "write the golden files again")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

// TestAudit is an hour at night: what was done, what was refused, and what could not be done.
func TestAudit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	now := time.Date(2026, 1, 22, 20, 25, 0, 0, time.UTC)
	s := start(t, Config{TokensFile: tokensFile(t), AuditLog: file}, &fleet{
		cutOver: func(_ context.Context, req *fleetv1.CutOverRequest) (*fleetv1.CutOverResponse, error) {
			switch req.GetPop() {
			case "mia1":
				return nil, problem.Preconditionf("", "the standby has 0 of 4 pods ready")
			case "ams1":
				return nil, errors.New("the cause is for the log")
			}
			return &fleetv1.CutOverResponse{}, nil
		},
	}, func(s *Server) { s.now = func() time.Time { return now } })
	olga, auto := s.client(client.Config{Token: "operator-operator-operator"}), s.client(client.Config{Token: "automation-automation"}, connect.WithGRPC())
	vera, nobody := s.client(client.Config{Token: "viewer-viewer-viewer"}), s.client(client.Config{})

	n := 0
	ctx := func() context.Context {
		n++
		return call.With(t.Context(), call.ID{Request: "request-" + string(rune('a'+n-1)), Operation: "rollback-edge"})
	}
	_, _ = olga.CutOver(ctx(), cutOver())
	_, _ = olga.ListPops(ctx(), &fleetv1.ListPopsRequest{}) // no line
	req := cutOver()
	req.Pop, req.Force, req.OnBehalfOf, req.Deadline = "mia1", true, "olga", durationpb.New(time.Second)
	_, _ = auto.CutOver(ctx(), req)
	req = cutOver()
	req.Pop = "ams1"
	_, _ = auto.CutOver(ctx(), req)
	_, _ = vera.CutOver(ctx(), cutOver())
	_, _ = nobody.CutOver(ctx(), cutOver())
	_, _ = olga.CutOver(ctx(), &fleetv1.CutOverRequest{Pop: "fra1", Reason: "which fleet?"})
	_, _ = olga.Freeze(ctx(), &fleetv1.FreezeRequest{Fleet: "edge", Scope: &fleetv1.Scope{Pops: []string{"fra1", "mia1"}},
		Until: timestamppb.New(time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC)), Reason: "Black Friday", IdempotencyKey: "freeze-1"})
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "audit.jsonl", string(lines))
}

// TestDescribe is what a line keeps of requests whose fields are deeper.
func TestDescribe(t *testing.T) {
	scope := &fleetv1.Scope{}
	for range 2000 {
		scope.Pops = append(scope.Pops, "pop-with-a-long-name")
	}
	var out bytes.Buffer
	for _, m := range []proto.Message{
		&runbookv1.StartRequest{Reason: "bad release", IdempotencyKey: "k", Runbook: &runbookv1.StartRequest_GlobalCutover{GlobalCutover: &runbookv1.GlobalCutover{
			Kind: runbookv1.Kind_KIND_ROLLBACK, Fleet: "edge", Scope: &fleetv1.Scope{All: true}, WaveSize: 3, Force: true}}},
		&runbookv1.ApproveRequest{Act: &runbookv1.Act{Id: "rollback-edge", Reason: "looks good", IdempotencyKey: "k2"}},
		&fleetv1.UnfreezeRequest{Fleet: "edge", Scope: scope, Reason: strings.Repeat("r", 5000)},
		&fleetv1.ListPopsRequest{},
	} {
		var l auditLine
		l.describe(m.ProtoReflect())
		if len(l.Reason) > maxAuditText {
			t.Errorf("a reason of %d bytes", len(l.Reason))
		}
		l.Reason = strings.Replace(l.Reason, strings.Repeat("r", maxAuditText), "<1024 bytes>", 1)
		line, err := json.Marshal(&l)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
	golden(t, "describe.jsonl", out.String())
}

// TestRedacted has a request with secrets at every depth. Its proto is made here: none of ours has any.
func TestRedacted(t *testing.T) {
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(`
		name: "test.proto" package: "test" syntax: "proto3"
		message_type { name: "Peer"
			field { name: "host" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "password" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL options { debug_redact: true } } }
		message_type { name: "Request"
			field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "key" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL options { debug_redact: true } }
			field { name: "peer" number: 3 type: TYPE_MESSAGE type_name: ".test.Peer" label: LABEL_OPTIONAL }
			field { name: "peers" number: 4 type: TYPE_MESSAGE type_name: ".test.Peer" label: LABEL_REPEATED }
			field { name: "by_name" number: 5 type: TYPE_MESSAGE type_name: ".test.Request.ByNameEntry" label: LABEL_REPEATED }
			field { name: "reason" number: 6 type: TYPE_STRING label: LABEL_OPTIONAL }
			nested_type { name: "ByNameEntry" options { map_entry: true }
				field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
				field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".test.Peer" label: LABEL_OPTIONAL } } }`), &file); err != nil {
		t.Fatal(err)
	}
	made, err := protodesc.NewFile(&file, nil)
	if err != nil {
		t.Fatal(err)
	}
	request := dynamicpb.NewMessage(made.Messages().ByName("Request"))
	if err := prototext.Unmarshal([]byte(`name: "n" key: "s3cret" reason: "r" peer { host: "a" password: "s3cret" }
		peers { host: "b" password: "s3cret" } by_name { key: "c" value { host: "c" password: "s3cret" } }`), request); err != nil {
		t.Fatal(err)
	}
	var l auditLine
	l.describe(request)
	want := `{"by_name":{"c":{"host":"c"}},"name":"n","peer":{"host":"a"},"peers":[{"host":"b"}]}`
	if string(l.Request) != want || l.Reason != "r" {
		t.Errorf("%q %s\nwant %s", l.Reason, l.Request, want)
	}
	if text := prototext.Format(request); strings.Count(text, "s3cret") != 4 {
		t.Errorf("the request was changed: %s", text)
	}
}

func TestAuditCannotBeWritten(t *testing.T) {
	if _, err := New(Config{Name: "fleet", AuditLog: filepath.Join(t.TempDir(), "no", "such", "directory")}); err == nil || !strings.Contains(err.Error(), "--audit-log") {
		t.Errorf("New: %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	_ = full.Close()
	s := start(t, Config{AuditLog: "/dev/full"}, &fleet{})
	if _, err := s.client(client.Config{}).CutOver(t.Context(), cutOver()); err != nil {
		t.Errorf("a full disk stops a cutover: %v", err)
	}
	if log := s.log.String(); !strings.Contains(log, "the audit line could not be written") || !strings.Contains(log, "bad release") {
		t.Error("the line is not in the log")
	}
	if _, body := get(t, s.url("http")+"/metrics"); !strings.Contains(body, `edgehold_audit_lines_total{result="failed"} 1`) {
		t.Error("no metric")
	}
}

// TestAct: what a service does by itself is in the same file, in the same form.
func TestAct(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, Config{AuditLog: file}, &fleet{}, func(s *Server) {
		s.now = func() time.Time { return time.Date(2026, 1, 22, 20, 25, 0, 0, time.UTC) }
	})
	s.Audit(call.With(t.Context(), call.ID{Request: "request-a"}), Act{Name: "fleet-controller/switch", Principal: "olga", Reason: "v2 answers 500", IdempotencyKey: "op-1",
		Request: map[string]any{"fleet": "edge", "from": "green", "to": "blue"}})
	s.Audit(call.With(t.Context(), call.ID{Request: "request-b"}), Act{Name: "fleet-controller/switch", Request: map[string]any{"long": strings.Repeat("x", 20<<10)}, Err: problem.Unavailablef("no route")})
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "acts.jsonl", string(lines))
}
