package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	. "edgehold.internal/services/fleet" //nolint:revive // the tests speak the domain's language
)

func TestPreflight(t *testing.T) {
	n := func(v int32) *int32 { return &v }
	for name, tc := range map[string]struct {
		change func(*Observation, *Change)
		// want is the reasons, those that may be forced with a question mark.
		want []string
	}{
		"all is well":              {nil, nil},
		"one pod is not ready":     {func(o *Observation, _ *Change) { o.Green.Ready, o.Green.Current = 2, 2 }, []string{"standby_not_ready?"}},
		"no pod is ready":          {func(o *Observation, _ *Change) { o.Green.Ready, o.Green.Current = 0, 0 }, []string{"standby_not_ready"}},
		"a rollout is under way":   {func(o *Observation, _ *Change) { o.Green.Current = 0 }, []string{"standby_not_ready"}},
		"as few as the active has": {func(o *Observation, _ *Change) { o.Green.Current, o.Blue.Ready = 2, 2 }, nil},
		"the active is down":       {func(o *Observation, _ *Change) { o.Green.Current, o.Blue.Ready = 1, 0 }, nil},
		"the active surges":        {func(o *Observation, _ *Change) { o.Blue.Ready = 6 }, nil},
		"a fleet of no pods": {func(o *Observation, _ *Change) {
			o.Spec.Replicas = 0
			*o.Blue, *o.Green = scaled(*o.Blue, 0), scaled(*o.Green, 0)
		}, nil},
		"another version":          {func(_ *Observation, c *Change) { c.Version = "v3" }, []string{"wrong_version"}},
		"the version":              {func(_ *Observation, c *Change) { c.Version = "v2" }, nil},
		"frozen":                   {freeze(-time.Hour, time.Hour), []string{"frozen?"}},
		"frozen from this moment":  {freeze(0, time.Hour), []string{"frozen?"}},
		"frozen until this moment": {freeze(-time.Hour, 0), nil},
		"frozen tomorrow":          {freeze(time.Hour, 2*time.Hour), nil},
		"perhaps frozen still": {func(o *Observation, c *Change) {
			freeze(-time.Hour, -time.Second)(o, c)
			o.Clock.Earliest = epoch.Add(-time.Minute)
		}, []string{"frozen?"}},
		"perhaps frozen already": {func(o *Observation, c *Change) {
			freeze(time.Second, time.Hour)(o, c)
			o.Clock.Latest = epoch.Add(time.Minute)
		}, []string{"frozen?"}},
		"must grow and can":       {func(o *Observation, _ *Change) { half(o); o.Headroom = Headroom{Nodes: n(2), Quota: n(2)} }, nil},
		"must grow, no room":      {func(o *Observation, _ *Change) { half(o); o.Headroom = Headroom{Nodes: n(1), Quota: n(2)} }, []string{"no_headroom?"}},
		"must grow, over quota":   {func(o *Observation, _ *Change) { half(o); o.Headroom = Headroom{Nodes: n(2), Quota: n(1)} }, []string{"quota?"}},
		"must grow, nobody knows": {func(o *Observation, _ *Change) { half(o) }, []string{"quota?", "no_headroom?"}},
		"half a standby that is broken": {func(o *Observation, _ *Change) {
			half(o)
			o.Green.Current = 1
			o.Headroom = Headroom{Nodes: n(9), Quota: n(9)}
		}, []string{"standby_not_ready?"}},
		"another writer a minute ago":        {contended(time.Minute, "argocd"), []string{"contended?"}},
		"another writer an hour ago":         {contended(time.Hour, "argocd"), nil},
		"set back by our own guard":          {contended(time.Minute, OwnManager), nil},
		"no Service":                         {func(o *Observation, _ *Change) { o.Service = nil }, []string{"misconfigured"}},
		"no Deployment":                      {func(o *Observation, _ *Change) { o.Green = nil }, []string{"misconfigured"}},
		"one Deployment for both":            {func(o *Observation, _ *Change) { o.Spec.Green = o.Spec.Blue }, []string{"misconfigured"}},
		"a selector that matches both":       {func(o *Observation, _ *Change) { delete(o.Service.Selector, ColourLabel); o.Service.Colour = None }, []string{"misconfigured"}},
		"no selector":                        {func(o *Observation, _ *Change) { o.Service.Selector, o.Service.Colour = nil, None }, []string{"misconfigured"}},
		"a third colour":                     {func(o *Observation, _ *Change) { o.Service.Selector[ColourLabel], o.Service.Colour = "red", None }, []string{"misconfigured"}},
		"a selector that green will not fit": {func(o *Observation, _ *Change) { o.Service.Selector["tier"] = "gold"; o.Blue.Labels["tier"] = "gold" }, []string{"misconfigured"}},
		"pods without the label":             {func(o *Observation, _ *Change) { delete(o.Green.Labels, ColourLabel) }, []string{"misconfigured"}},
		"pods with the other's label":        {func(o *Observation, _ *Change) { o.Green.Labels[ColourLabel] = "blue" }, []string{"misconfigured"}},
		"a Deployment that takes both":       {func(o *Observation, _ *Change) { delete(o.Blue.Selector, ColourLabel) }, []string{"misconfigured"}},
		"another Fleet":                      {func(o *Observation, _ *Change) { o.Rivals = []string{"edge-2"} }, []string{"misconfigured"}},
		"no colour":                          {func(_ *Observation, c *Change) { c.To = "red" }, []string{"misconfigured"}},
		"a fight that was over an hour ago, by a clock that is wrong": {func(o *Observation, c *Change) {
			contended(time.Hour, "argocd")(o, c)
			o.Clock.Server, o.Clock.Earliest = epoch, epoch.Add(-5*time.Hour)
		}, nil},
		"a standby that was made smaller": {func(o *Observation, _ *Change) { *o.Green = scaled(*o.Green, 1) }, []string{"standby_not_ready?"}},
		"both were scaled to nothing":     {func(o *Observation, _ *Change) { *o.Blue, *o.Green = scaled(*o.Blue, 0), scaled(*o.Green, 0) }, []string{"standby_not_ready"}},
		"several at once": {func(o *Observation, c *Change) {
			c.Version, o.Green.Current = "v3", 1
			freeze(0, time.Hour)(o, c)
		}, []string{"wrong_version", "standby_not_ready?", "frozen?"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(demoSpec())
			o := s.observe()
			o.Clock = Clock{Now: epoch, Earliest: epoch, Latest: epoch, Uptime: 1}
			o.Headroom = Headroom{}
			c := Change{ID: "op-1", To: Green}
			if tc.change != nil {
				tc.change(&o, &c)
			}
			var got []string
			for _, b := range Preflight(&o, c) {
				reason := b.Reason
				if b.Overridable {
					reason += "?"
				}
				if !slices.Contains(got, reason) {
					got = append(got, reason)
				}
				if b.Message == "" {
					t.Errorf("%s says nothing", b.Reason)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("held back by %v, want %v", got, tc.want)
			}
		})
	}
}

// TestPlanOfWhatIsServed: that a colour is served is not all that is asked for.
func TestPlanOfWhatIsServed(t *testing.T) {
	plan := func(alter func(*Observation, *Change)) Plan {
		s := newSim(demoSpec())
		o, c := s.observe(), Change{ID: "op-1", To: Blue}
		alter(&o, &c)
		return MakePlan(&o, c)
	}
	if p := plan(func(*Observation, *Change) {}); !p.Already || len(p.Steps)+len(p.Blockers) > 0 {
		t.Errorf("served: %+v", p)
	}
	if p := plan(func(_ *Observation, c *Change) { c.Version = "v2" }); p.Already || len(p.Blockers) != 1 || p.Blockers[0].Reason != WrongVersion {
		t.Errorf("served in another version: %+v", p)
	}
	p := plan(func(o *Observation, _ *Change) {
		o.Spec.Active, o.Spec.Change = Green, &Change{ID: "op-0", To: Green}
		freeze(0, time.Hour)(o, nil)
	})
	if p.Already || len(p.Blockers) > 0 || len(p.Steps) != 1 || !strings.Contains(p.Steps[0], "withdraw") {
		t.Errorf("served, and the other one declared: %+v", p)
	}
}

func TestParity(t *testing.T) {
	for _, tc := range []struct {
		active               Colour
		blue, green, percent int32
		want                 float64
		known                bool
	}{
		{Blue, 4, 4, 100, 1, true},
		{Green, 2, 4, 100, 0.5, true},
		{Blue, 4, 2, 50, 1, true}, // a standby that is small on purpose is no alarm
		{Blue, 5, 2, 50, 2.0 / 3, true},
		{Blue, 4, 0, 0, 1, true},
		{Blue, 0, 4, 100, 0, false},
		{None, 4, 4, 100, 0, false},
	} {
		s := Status{Active: tc.active, Blue: ColourState{Ready: tc.blue}, Green: ColourState{Ready: tc.green}}
		if got, known := s.Parity(tc.percent); got != tc.want || known != tc.known {
			t.Errorf("%+v: %g, %t", tc, got, known)
		}
	}
}

func scaled(d Deployment, n int32) Deployment {
	d.Desired, d.Pods, d.Ready, d.Current = n, n, n, n
	return d
}

// half makes a fleet of 4 with a standby of 2.
func half(o *Observation) {
	o.Spec.Replicas, o.Spec.StandbyPercent = 4, 50
	*o.Blue, *o.Green = scaled(*o.Blue, 4), scaled(*o.Green, 2)
}

func freeze(from, until time.Duration) func(*Observation, *Change) {
	return func(o *Observation, _ *Change) {
		o.Spec.Freezes = []Freeze{{From: epoch.Add(from), Until: epoch.Add(until), Reason: "black friday"}}
	}
}

func contended(ago time.Duration, by string) func(*Observation, *Change) {
	return func(o *Observation, _ *Change) {
		o.Status.LastCutover = &Cutover{ID: "op-0", From: Blue, To: Green, SwitchedAt: epoch.Add(-2 * time.Hour), Outcome: Completed}
		o.Service.Fence = 1
		o.Service.Managers = []Writer{{Name: by, At: epoch.Add(-ago)}}
	}
}

func TestMeter(t *testing.T) {
	at := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	pods := func(requests, errors float64) map[string]Counters {
		return map[string]Counters{"a": {requests, errors}}
	}
	var m Meter
	if m.Traffic(epoch) != nil {
		t.Error("traffic without a sample")
	}
	m.Add(at(1), Blue, 0, pods(1000, 900))
	if m.Traffic(epoch) != nil {
		t.Error("traffic from one sample: counters say nothing about a window")
	}
	m.Add(at(3), Blue, 0, pods(1100, 910))
	if got := m.Traffic(epoch); got == nil || got.Requests != 100 || got.Errors != 10 || got.RequestsPerSecond != 50 || got.ErrorRatio != 0.1 || got.Window != at(2) {
		t.Errorf("traffic %+v", got)
	}
	// A pod that restarted counts from zero, one that is new from its first sample.
	m.Add(at(4), Blue, 0, map[string]Counters{"a": {20, 0}, "b": {5000, 5000}})
	if got := m.Traffic(epoch); got.Requests != 120 || got.Errors != 10 {
		t.Errorf("after a restart: %+v", got)
	}
	// A switch begins a new window: what blue answered is not green's.
	m.Add(at(5), Green, at(5), pods(7, 7))
	if got := m.Traffic(epoch); got != nil {
		t.Errorf("after a switch: %+v", got)
	}
	m.Add(at(6), Green, at(5), pods(17, 7))
	if got := m.Traffic(epoch); got.Requests != 10 || got.Errors != 0 {
		t.Errorf("of green: %+v", got)
	}
	m.Break()
	if m.Traffic(epoch) != nil {
		t.Error("traffic of a pod that could not be read")
	}
	// The window slides, and its memory is bounded.
	for i := range 1000 {
		m.Add(at(10+float64(i)), Green, at(5), pods(float64(i), 0))
	}
	if got := m.Traffic(epoch); got.Window < 30*time.Second || got.Window > 32*time.Second {
		t.Errorf("a window of %s", got.Window)
	}
}
