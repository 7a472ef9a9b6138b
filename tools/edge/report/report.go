// Package report says what a global rollback looked like from outside: the figures as JSON and a page for people. It makes no
// number up. What was not measured is null, with the reason in Missing.
//
// Start at New. The page needs no network and reads in the light, in the dark and on paper.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/tools/edge/load"
)

// Input is what was measured. All times are of clocks that agree; on one machine they do.
type Input struct {
	// Operation, Principal and Reason as they were declared; empty ones are left out.
	Operation string `json:"operation"`
	Principal string `json:"principal"`
	Reason    string `json:"reason"`
	// Command is when the operator's command began to run.
	Command time.Time `json:"command"`
	// Clusters is the number of clusters that the PoPs are in.
	Clusters int `json:"clusters"`
	// ParityMin is the lowest ratio of the standby's ready pods to the active's that was seen before the command; nil: not observed.
	ParityMin *float64 `json:"parity_min"`
	// Pops is what the fleet says, in the order of the page.
	Pops []Pop `json:"pops"`
	// Load is what the clients say. Targets are matched to Pops by name.
	Load load.Result `json:"load"`
}

// Pop is what one PoP's fleet recorded about its cutover. Zero times were not reached or not recorded, nil counts are unknown.
type Pop struct {
	Name    string `json:"name"`
	Region  string `json:"region"`
	Cluster string `json:"cluster"`
	// From is the bad colour, To the one that was asked for.
	From string `json:"from"`
	To   string `json:"to"`
	// Declared in the PoP's cluster; Switched: the Service's selector was set; Settled: the endpoints were the new colour's only;
	// Drained: no connection was left on the old colour.
	Declared time.Time `json:"declared,omitzero"`
	Switched time.Time `json:"switched,omitzero"`
	Settled  time.Time `json:"settled,omitzero"`
	Drained  time.Time `json:"drained,omitzero"`
	// ConnectionsDrained ended by themselves after the switch, ConnectionsReset were reset at the drain's deadline.
	ConnectionsDrained *int64 `json:"connections_drained"`
	ConnectionsReset   *int64 `json:"connections_reset"`
	// RolledBack says that the PoP serves To and its operation has completed.
	RolledBack bool `json:"rolled_back"`
	// Outcome as the fleet names it, and why if it is not Completed.
	Outcome string `json:"outcome"`
	Message string `json:"message"`
}

// Validate names the first field that is wrong.
func (in *Input) Validate() error {
	if in.Command.IsZero() {
		return problem.Invalidf("command", "is missing: without the time of the command there is nothing to count from")
	}
	if len(in.Pops) == 0 {
		return problem.Invalidf("pops", "is empty; a report is about at least one PoP")
	}
	seen := map[string]bool{}
	for i, p := range in.Pops {
		if p.Name == "" || seen[p.Name] {
			return problem.Invalidf("pops["+strconv.Itoa(i)+"].name", "%q is empty or used twice", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// Rollback is the JSON report. Seconds are since the command, nil is not measured and explained in Missing.
type Rollback struct {
	Operation string    `json:"operation,omitempty"`
	Principal string    `json:"principal,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Command   time.Time `json:"command"`

	Pops       int `json:"pops"`
	RolledBack int `json:"rolled_back"`
	Clusters   int `json:"clusters"`
	// ToLastCutover is to the last switch of a selector.
	ToLastCutover *float64 `json:"seconds_to_last_cutover"`
	// ToLastBadResponse is to the last answer of a PoP's bad colour on any connection that was opened after its switch.
	ToLastBadResponse *float64 `json:"seconds_to_last_bad_response"`
	// ToLastBadResponseAny is the same on any connection.
	ToLastBadResponseAny *float64 `json:"seconds_to_last_bad_response_any"`
	// ToClean is when new connections got the good colour only, in every PoP: the later of the two above of each PoP, its switch
	// and its last bad answer on a connection opened after it.
	ToClean *float64 `json:"seconds_to_clean"`
	// ToDrained is when the last PoP's old colour had no connection left.
	ToDrained *float64 `json:"seconds_to_drained"`
	// Requests of the whole run that ended, long streams included.
	Requests int64 `json:"requests"`
	// BadResponses carry the injected fault of the bad release. They ended as they should.
	BadResponses int64 `json:"bad_responses"`
	// Failed is everything else that did not end as it should.
	Failed         int64                 `json:"failed"`
	FailedByReason map[load.Reason]int64 `json:"failed_by_reason"`
	// Availability is 1 − Failed/Requests.
	Availability       *float64 `json:"availability"`
	ConnectionsDrained *int64   `json:"connections_drained"`
	ConnectionsReset   *int64   `json:"connections_reset"`
	ParityMin          *float64 `json:"parity_min"`
	// P99Before is over the requests to be sent before the command, P99During from it until the last PoP was drained.
	P99Before *float64 `json:"p99_ms_before"`
	P99During *float64 `json:"p99_ms_during"`

	// Missing explains every nil above, Notes what limits a number that is there.
	Missing []Missing `json:"missing"`
	Notes   []string  `json:"notes"`
	PerPop  []PopRow  `json:"per_pop"`
	// Failures are the first MaxListed ones, FailuresLeft how many more there were.
	Failures     []load.Failure `json:"failures"`
	FailuresLeft int64          `json:"failures_left"`
}

// Missing explains a nil.
type Missing struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
	// Measured: it was looked for and there was nothing, such as no bad answer at all.
	Measured bool `json:"measured"`
}

// PopRow is one PoP's part of the report.
type PopRow struct {
	Pop                  string   `json:"pop"`
	Region               string   `json:"region,omitempty"`
	Cluster              string   `json:"cluster,omitempty"`
	RolledBack           bool     `json:"rolled_back"`
	Outcome              string   `json:"outcome"`
	Message              string   `json:"message,omitempty"`
	ToDeclared           *float64 `json:"seconds_to_declared"`
	ToSwitched           *float64 `json:"seconds_to_switched"`
	ToSettled            *float64 `json:"seconds_to_settled"`
	ToLastBadResponse    *float64 `json:"seconds_to_last_bad_response"`
	ToLastBadResponseAny *float64 `json:"seconds_to_last_bad_response_any"`
	ToDrained            *float64 `json:"seconds_to_drained"`
	Requests             int64    `json:"requests"`
	BadResponses         int64    `json:"bad_responses"`
	Failed               int64    `json:"failed"`
	ConnectionsDrained   *int64   `json:"connections_drained"`
	ConnectionsReset     *int64   `json:"connections_reset"`
}

// MaxListed is how many failures the report carries whole.
const MaxListed = 100

// Report is a Rollback with what the page draws.
type Report struct {
	Rollback
	in Input
}

// New computes the report; errors are problem.Invalid.
func New(in Input) (*Report, error) {
	if err := in.Validate(); err != nil {
		return nil, err
	}
	r := &Report{in: in, Rollback: Rollback{
		Operation: in.Operation, Principal: in.Principal, Reason: in.Reason, Command: in.Command.UTC(),
		Pops: len(in.Pops), Clusters: in.Clusters,
		Requests: in.Load.Requests, BadResponses: in.Load.Bad, Failed: in.Load.Failed,
		FailedByReason: in.Load.FailedByReason, ParityMin: in.ParityMin,
		Missing: []Missing{}, Notes: []string{}, Failures: []load.Failure{},
	}}
	if r.FailedByReason == nil {
		r.FailedByReason = map[load.Reason]int64{}
	}
	r.Failures = append(r.Failures, in.Load.Failures[:min(len(in.Load.Failures), MaxListed)]...)
	r.FailuresLeft = in.Load.FailuresLeft + int64(len(in.Load.Failures)-len(r.Failures))
	r.measure()
	return r, nil
}

// Complete says that nothing is missing but what was looked for and did not happen.
func (r *Rollback) Complete() bool {
	return !slices.ContainsFunc(r.Missing, func(m Missing) bool { return !m.Measured })
}

func (r *Rollback) missing(field, format string, args ...any) {
	r.Missing = append(r.Missing, Missing{Field: field, Reason: fmt.Sprintf(format, args...)})
}

func (r *Rollback) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// since is t in seconds after the command, to the millisecond; nil for a zero time.
func (r *Rollback) since(t time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	s := float64(t.Sub(r.Command).Round(time.Millisecond).Milliseconds()) / 1000 // prints as it should, unlike Seconds()
	return &s
}

func (r *Report) measure() {
	in := &r.in
	targets := map[string]*load.TargetResult{}
	for i := range in.Load.Targets {
		targets[in.Load.Targets[i].Pop] = &in.Load.Targets[i]
	}
	var lastCutover, lastNew, lastAny, clean, lastDrained time.Time
	var notSwitched, notDrained, unseen, notDrainedCount, notResetCount []string
	var drained, reset int64
	switched := 0
	for _, p := range in.Pops {
		row := PopRow{
			Pop: p.Name, Region: p.Region, Cluster: p.Cluster, RolledBack: p.RolledBack, Outcome: p.Outcome, Message: p.Message,
			ToDeclared: r.since(p.Declared), ToSwitched: r.since(p.Switched), ToSettled: r.since(p.Settled), ToDrained: r.since(p.Drained),
			ConnectionsDrained: p.ConnectionsDrained, ConnectionsReset: p.ConnectionsReset,
		}
		if p.RolledBack {
			r.RolledBack++
		}
		t := targets[p.Name]
		if t != nil {
			row.Requests, row.BadResponses, row.Failed = t.Requests, t.Bad, t.Failed
		}
		if p.Switched.IsZero() {
			notSwitched = append(notSwitched, p.Name)
			r.PerPop = append(r.PerPop, row)
			continue
		}
		switched++
		lastCutover = latest(lastCutover, p.Switched)
		if p.Drained.IsZero() {
			notDrained = append(notDrained, p.Name)
		}
		lastDrained = latest(lastDrained, p.Drained)
		drained += count(p.ConnectionsDrained, p.Name, &notDrainedCount)
		reset += count(p.ConnectionsReset, p.Name, &notResetCount)
		if t == nil || p.From == "" || t.LastOpened.Before(p.Switched) {
			unseen = append(unseen, p.Name)
			r.PerPop = append(r.PerPop, row)
			continue
		}
		clean = latest(clean, p.Switched)
		if bad := t.Colour(p.From); bad != nil {
			if last, ok := bad.LastOpenedAfter(p.Switched); ok {
				row.ToLastBadResponse = r.since(last)
				lastNew, clean = latest(lastNew, last), latest(clean, last)
			}
			if bad.Last.After(in.Command) {
				row.ToLastBadResponseAny = r.since(bad.Last)
				lastAny = latest(lastAny, bad.Last)
			}
		}
		r.PerPop = append(r.PerPop, row)
	}

	if switched == 0 {
		for _, f := range []string{"seconds_to_last_cutover", "seconds_to_last_bad_response", "seconds_to_last_bad_response_any", "seconds_to_clean",
			"seconds_to_drained", "connections_drained", "connections_reset"} {
			r.missing(f, "no PoP was switched")
		}
	} else {
		r.ToLastCutover = r.since(lastCutover)
		if len(notSwitched) > 0 {
			r.note("The seconds are over the %d PoPs that were switched. Not switched: %s.", switched, list(notSwitched))
		}
		r.lastAnswers(lastNew, lastAny, clean, unseen)
		if len(notDrained) > 0 {
			r.missing("seconds_to_drained", "not drained, or not recorded: %s", list(notDrained))
		} else {
			r.ToDrained = r.since(lastDrained)
		}
		r.ConnectionsDrained = r.total("connections_drained", drained, notDrainedCount)
		r.ConnectionsReset = r.total("connections_reset", reset, notResetCount)
	}
	if in.ParityMin == nil {
		r.missing("parity_min", "the two colours' ready pods were not observed before the command")
	}
	r.quality(lastDrained)
}

// lastAnswers sets the three times at which the bad colour was heard last.
func (r *Report) lastAnswers(lastNew, lastAny, clean time.Time, unseen []string) {
	fields := []string{"seconds_to_last_bad_response", "seconds_to_last_bad_response_any", "seconds_to_clean"}
	if len(unseen) > 0 {
		for _, f := range fields {
			r.missing(f, "no connection was opened after the switch, or the bad colour is not known: %s", list(unseen))
		}
		return
	}
	r.ToClean = r.since(clean)
	if r.ToLastBadResponse = r.since(lastNew); lastNew.IsZero() {
		r.Missing = append(r.Missing, Missing{fields[0], "there was none: every connection opened after its PoP's switch got the good colour", true})
	}
	if r.ToLastBadResponseAny = r.since(lastAny); lastAny.IsZero() {
		r.Missing = append(r.Missing, Missing{fields[1], "there was none: the bad colour answered nothing after the command", true})
	}
}

// quality sets what the clients saw over time.
func (r *Report) quality(lastDrained time.Time) {
	l := &r.in.Load
	if r.Requests == 0 {
		r.missing("availability", "no request was sent")
	} else {
		a := 1 - float64(r.Failed)/float64(r.Requests)
		r.Availability = &a
	}
	end := lastDrained
	if r.ToDrained == nil {
		end = l.Stopped
		r.note("p99_ms_during is until the end of the traffic, because not every PoP is known to have drained.")
	}
	before, during := l.Latency(l.Started, r.in.Command), l.Latency(r.in.Command, end)
	r.P99Before = r.p99("p99_ms_before", &before, "before the command")
	r.P99During = r.p99("p99_ms_during", &during, "between the command and the end of the drain")
	if late, ok := l.Lateness.Quantile(0.99); ok {
		r.note("The generator itself was late to send by %s at the 99th percentile. The latencies contain that.", milliseconds(float64(late)/1e6))
	}
	if n := l.FailedByReason[load.Overload]; n > 0 {
		r.note("%s of the failed requests were never sent, because the generator could not (overload).", thousands(n))
	}
	if l.Resent > 0 {
		r.note("%s HTTP/2 requests were sent again after the server had said that it would not process them (RFC 9113 §6.8); no other request was repeated.", thousands(l.Resent))
	}
}

func (r *Report) p99(field string, h *load.Histogram, when string) *float64 {
	d, ok := h.Quantile(0.99)
	if !ok {
		r.missing(field, "no request was to be sent %s", when)
		return nil
	}
	ms := float64(d.Round(10*time.Microsecond)) / 1e6
	return &ms
}

func (r *Report) total(field string, sum int64, unknown []string) *int64 {
	if len(unknown) > 0 {
		r.missing(field, "not known for %s", list(unknown))
		return nil
	}
	return &sum
}

func count(n *int64, pop string, unknown *[]string) int64 {
	if n == nil {
		*unknown = append(*unknown, pop)
		return 0
	}
	return *n
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// list names at most five.
func list(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

// JSON is the content of rollback.json.
func (r *Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(&r.Rollback)
	return b.Bytes(), err
}

// Write puts rollback.json and rollback.html into the directory, which it makes. A reader never sees half a file.
func (r *Report) Write(dir string) error {
	text, err := r.JSON()
	if err != nil {
		return err
	}
	page, err := r.HTML()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"rollback.json": text, "rollback.html": page} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", content, 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}
