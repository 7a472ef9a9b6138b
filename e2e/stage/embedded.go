package stage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"edgehold.internal/services/fleet/kube/v1alpha1"
	"edgehold.internal/tools/edge/report"
	"edgehold.internal/tools/edgehold/platform"
)

// Embedded is the Config of a stage on an embedded platform that is up; what is not said there is left to the caller.
func Embedded(state platform.State, root, bin, dir string) Config {
	c := Config{Kubeconfig: state.Kubeconfig, Root: root, Bin: bin, Dir: dir, Overlay: "embedded", Door: loopback}
	for _, cluster := range state.Clusters {
		c.Contexts = append(c.Contexts, cluster.Context)
	}
	if state.Temporal != nil {
		c.Temporal = state.Temporal.Address
	}
	return c
}

// loopback is where the embedded platform's node serves the address of a Service: the same one in 127.0.0.0/8.
func loopback(clusterIP string) string {
	if rest, is := strings.CutPrefix(clusterIP, "10."); is {
		return "127." + rest
	}
	return clusterIP
}

// Root is the checkout that the working directory is in: where its go.work is.
func Root() (string, error) {
	dir, err := platform.DefaultDir()
	if err != nil {
		return "", err
	}
	root := filepath.Dir(dir)
	if _, err := os.Stat(filepath.Join(root, "go.work")); err != nil {
		return "", errors.New("run it inside a checkout: no go.work was found above the working directory")
	}
	return root, nil
}

// Timelines is what each fleet recorded of its last cutover to the colour, for a report.
func (s *Stage) Timelines(to v1alpha1.Colour) []report.Pop {
	var out []report.Pop
	for _, p := range s.Pops {
		row := report.Pop{Name: p.Name, Region: p.Region, Cluster: p.Context, To: string(to), Outcome: "Unknown"}
		f, ok := s.Board.Fleet(p.Namespace)
		c := f.Status.LastCutover
		if !ok || c == nil || c.To != to {
			row.Message = "the fleet records no cutover to " + string(to)
			out = append(out, row)
			continue
		}
		row.From, row.Outcome, row.Message = string(c.From), string(c.Outcome), c.Message
		row.Declared = c.DeclaredAt.Time
		for _, t := range []struct {
			to *time.Time
			at *metav1.MicroTime
		}{{&row.Switched, c.SwitchedAt}, {&row.Settled, c.SettledAt}, {&row.Drained, c.DrainedAt}} {
			if t.at != nil {
				*t.to = t.at.Time
			}
		}
		row.ConnectionsDrained, row.ConnectionsReset = c.ConnectionsDrained, c.ConnectionsReset
		row.RolledBack = f.Status.Active == to && c.Outcome == v1alpha1.OutcomeCompleted
		out = append(out, row)
	}
	return out
}

// Parity keeps the lowest ratio of the standby's ready pods to the active's over every state that it is shown.
type Parity struct {
	mu  sync.Mutex
	low *float64
}

// Sample takes one state into account. A fleet whose active colour has no ready pod has no ratio.
func (p *Parity) Sample(f v1alpha1.Fleet) {
	active, standby := f.Status.Blue, f.Status.Green
	switch f.Status.Active {
	case v1alpha1.Green:
		active, standby = standby, active
	case v1alpha1.Blue:
	default:
		return
	}
	if active.Ready == 0 {
		return
	}
	ratio := float64(standby.Ready) / float64(active.Ready)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.low == nil || ratio < *p.low {
		p.low = &ratio
	}
}

// Min is the lowest so far, nil before the first sample.
func (p *Parity) Min() *float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.low
}

// SampleNow shows p the present state of every fleet of the stage.
func (s *Stage) SampleNow(p *Parity) {
	for _, pop := range s.Pops {
		if f, ok := s.Board.Fleet(pop.Namespace); ok {
			p.Sample(f)
		}
	}
}
