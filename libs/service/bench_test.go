package service

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"edgehold.internal/libs/client"
	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
)

// BenchmarkCall is what a call costs over loopback with all that is in its way: a token, validation, metrics and, for the
// one that changes something, an audit line in a file.
func BenchmarkCall(b *testing.B) {
	file := filepath.Join(b.TempDir(), "tokens.yaml")
	if err := os.WriteFile(file, []byte(tokens), 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{Name: "fleet", TokensFile: file, AuditLog: filepath.Join(b.TempDir(), "audit"), LogLevel: "warn", Log: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	path, h := fleetv1connect.NewFleetServiceHandler(&fleet{}, s.HandlerOptions()...)
	s.Handle(fleetv1connect.FleetServiceName, path, h)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(b.Context()) }()
	<-s.Ready()
	c, err := client.New(client.Config{Address: "http://" + s.Addr().String(), Token: "operator-operator-operator"})
	if err != nil {
		b.Fatal(err)
	}
	fleets := fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...)
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := fleets.ListPops(b.Context(), &fleetv1.ListPopsRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		for b.Loop() {
			if _, err := fleets.CutOver(b.Context(), cutOver()); err != nil {
				b.Fatal(err)
			}
		}
	})
	c.Close()
}

// BenchmarkStart is New and Handle: a service that restarts during a rollback has to be back at once.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := New(Config{Name: "fleet", Log: io.Discard})
		if err != nil {
			b.Fatal(err)
		}
		path, h := fleetv1connect.NewFleetServiceHandler(&fleet{}, s.HandlerOptions()...)
		s.Handle(fleetv1connect.FleetServiceName, path, h)
	}
}
