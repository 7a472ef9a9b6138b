package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"edgehold.internal/tools/edge/load"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"s":         seconds,
	"n":         thousands,
	"count":     known,
	"secondsOf": func(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) },
}).Parse(pageText))

// view is what page.html shows. All decisions are made here; the template only places them.
type view struct {
	*Rollback
	Title, Verdict string
	Good           bool // the verdict
	Subtitle       []string
	Tiles          []tile
	From, To       string // colours, for the legend
	FromPaint      string // CSS class
	ToPaint        string
	Axis, ZoomAxis []mark
	Zero, ZoomZero template.CSS
	Rows           []row
	Dense          bool
	Left           []PopRow // not rolled back
	Reasons        []reasonCount
	Listed         []failureRow
	How            []definition
}

type tile struct{ Value, Unit, Label, Detail string }

// mark is a place on an axis, as the CSS of its left edge.
type mark struct {
	Left  template.CSS
	Label string
}

// row is one PoP. Paths are in a box of one unit per bucket by 100, so that the browser stretches them.
type row struct {
	Name, Title            string
	Box                    string
	To, From, Bad, Failed  string
	Switched, Drained      template.CSS
	ZoomSwitched, ZoomLast template.CSS
	ZoomBad                template.CSS // from the switch to the last bad answer
	Figure                 string
	Trouble                bool // not rolled back
}

type reasonCount struct {
	Reason load.Reason
	Count  int64
}

type failureRow struct {
	load.Failure
	At  string // since the command
	Age string // of the connection
}

type definition struct{ Term, Value, Text string }

// HTML is the content of rollback.html.
func (r *Report) HTML() ([]byte, error) {
	var b bytes.Buffer
	err := page.Execute(&b, r.view())
	return b.Bytes(), err
}

func (r *Report) view() *view {
	v := &view{Rollback: &r.Rollback, Title: "Global rollback", Dense: len(r.in.Pops) > 60}
	v.From, v.To = colours(r.in.Pops)
	v.FromPaint, v.ToPaint = paint(v.From, "one"), paint(v.To, "two")
	v.Verdict, v.Good = r.verdict(v.To)
	v.Subtitle = r.subtitle()
	v.Tiles = r.tiles()
	r.draw(v)
	for reason, n := range r.FailedByReason {
		if n > 0 {
			v.Reasons = append(v.Reasons, reasonCount{reason, n})
		}
	}
	slices.SortFunc(v.Reasons, func(a, b reasonCount) int {
		if a.Count != b.Count {
			return int(b.Count - a.Count)
		}
		return strings.Compare(string(a.Reason), string(b.Reason))
	})
	for _, f := range r.Failures {
		row := failureRow{Failure: f, At: signed(f.Failed.Sub(r.Command).Seconds()), Age: "never opened"}
		if !f.Opened.IsZero() {
			row.Age = fmt.Sprintf("%.1f s, %s before", f.Failed.Sub(f.Opened).Seconds(), plural(f.Served, "answer"))
		}
		v.Listed = append(v.Listed, row)
	}
	v.How = r.how()
	return v
}

// colours are the bad one and the good one when all PoPs agree.
func colours(pops []Pop) (from, to string) {
	from, to = pops[0].From, pops[0].To
	for _, p := range pops {
		if p.From != from || p.To != to {
			return "the old colour", "the new colour"
		}
	}
	return from, to
}

// paint shows blue as blue and green as green.
func paint(colour, otherwise string) string {
	if colour == "blue" || colour == "green" {
		return colour
	}
	return otherwise
}

func (r *Report) verdict(to string) (string, bool) {
	var b strings.Builder
	good := r.RolledBack == r.Pops
	switch {
	case good && r.ToLastCutover != nil && r.Pops > 1:
		fmt.Fprintf(&b, "All %d PoPs were back on %s %s after the command.", r.Pops, to, seconds(r.ToLastCutover))
	case good && r.Pops > 1:
		fmt.Fprintf(&b, "All %d PoPs are back on %s.", r.Pops, to)
	case good && r.ToLastCutover != nil:
		fmt.Fprintf(&b, "%s was back on %s %s after the command.", r.in.Pops[0].Name, to, seconds(r.ToLastCutover))
	case good:
		fmt.Fprintf(&b, "%s is back on %s.", r.in.Pops[0].Name, to)
	default:
		var left []string
		for _, p := range r.in.Pops {
			if !p.RolledBack {
				left = append(left, p.Name)
			}
		}
		fmt.Fprintf(&b, "%d of %d PoPs are back on %s. Not back: %s.", r.RolledBack, r.Pops, to, list(left))
	}
	switch {
	case r.Requests == 0:
		b.WriteString(" No traffic was observed.")
		good = false
	case r.Failed == 0:
		fmt.Fprintf(&b, " Of %s requests, none failed.", thousands(r.Requests))
	default:
		fmt.Fprintf(&b, " Of %s requests, %s failed.", thousands(r.Requests), thousands(r.Failed))
		good = false
	}
	if !r.Complete() {
		b.WriteString(" Some figures could not be measured; see the end.")
		good = false
	}
	return b.String(), good
}

func (r *Report) subtitle() []string {
	out := []string{r.Command.UTC().Format("2006-01-02 15:04:05.000 UTC")}
	if r.Principal != "" {
		out = append(out, "by "+r.Principal)
	}
	if r.Reason != "" {
		out = append(out, "“"+r.Reason+"”")
	}
	if r.Operation != "" {
		out = append(out, r.Operation)
	}
	return append(out, plural(int64(r.Pops), "PoP")+" in "+plural(int64(r.Clusters), "cluster"))
}

func (r *Report) tiles() []tile {
	value := func(p *float64) (string, string) {
		if p == nil {
			return "–", ""
		}
		return fmt.Sprintf("%.2f", *p), "s"
	}
	tiles := []tile{{Value: strconv.Itoa(r.RolledBack), Unit: "of " + strconv.Itoa(r.Pops), Label: "PoPs rolled back"}}
	v, u := value(r.ToLastCutover)
	tiles = append(tiles, tile{v, u, "to the last switch", "of a PoP's selector"})
	v, u = value(r.ToClean)
	tiles = append(tiles, tile{v, u, "until new connections were clean", "last bad one on a new connection: " + none(r.ToLastBadResponse)})
	failed := tile{thousands(r.Failed), "of " + thousands(r.Requests), "requests failed", ""}
	if r.Availability != nil {
		failed.Detail = "availability " + percent(*r.Availability)
	}
	v, u = value(r.ToDrained)
	tiles = append(tiles, failed, tile{v, u, "until all connections had moved",
		known(r.ConnectionsDrained) + " let go, " + known(r.ConnectionsReset) + " reset"})
	p99 := tile{"–", "", "p99 during the rollback", "from when a request was to be sent"}
	if r.P99During != nil {
		p99.Value, p99.Unit, _ = strings.Cut(milliseconds(*r.P99During), " ")
	}
	if r.P99Before != nil {
		p99.Detail = milliseconds(*r.P99Before) + " before the command"
	}
	return append(tiles, p99)
}

// span is a stretch of time on the x axis, in seconds since the command.
type span struct{ from, to float64 }

func (s span) left(x float64) template.CSS {
	return template.CSS(fmt.Sprintf("left:%.3f%%", s.percent(x)))
}

func (s span) between(a, b float64) template.CSS {
	return template.CSS(fmt.Sprintf("left:%.3f%%;width:%.3f%%", s.percent(a), s.percent(b)-s.percent(a)))
}

func (s span) percent(x float64) float64 {
	return 100 * (min(max(x, s.from), s.to) - s.from) / (s.to - s.from)
}

// axis has at most about n marks at round numbers; the one at 0 is the command.
func (s span) axis(n int) []mark {
	var out []mark
	step := nice((s.to - s.from) / float64(n))
	for i := math.Ceil(s.from / step); i*step <= s.to+step/1e6; i++ {
		x := i * step
		label := strconv.FormatFloat(math.Round(x*1000)/1000, 'f', -1, 64) + " s"
		if i == 0 {
			label = "command"
		}
		out = append(out, mark{s.left(x), label})
	}
	return out
}

// nice is the smallest of 1, 2 and 5 times a power of ten that is not below x.
func nice(x float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if m*p >= x*(1-1e-9) {
			return m * p
		}
	}
	return 10 * p
}

// draw lays out the timeline: ten seconds before the command to a little after the last event that matters, and beside it the
// first moments, where all the switches are.
func (r *Report) draw(v *view) {
	l := &r.in.Load
	started, stopped := l.Started.Sub(r.Command).Seconds(), l.Stopped.Sub(r.Command).Seconds()
	all := span{from: max(-10, min(started, -1)), to: 5}
	zoom := span{from: 0, to: 0.5}
	for _, p := range r.PerPop {
		for _, at := range []*float64{p.ToDrained, p.ToLastBadResponseAny, p.ToSwitched} {
			if at != nil {
				all.to = max(all.to, *at+2)
			}
		}
		for _, at := range []*float64{p.ToSwitched, p.ToLastBadResponse} {
			if at != nil {
				zoom.to = max(zoom.to, *at*1.05)
			}
		}
	}
	if l.Requests > 0 {
		all.to = max(2, min(all.to, stopped))
	}
	zoom.from, zoom.to = -zoom.to*0.06, math.Ceil(zoom.to/nice(zoom.to/5))*nice(zoom.to/5)
	v.Axis, v.Zero = all.axis(8), all.left(0)
	v.ZoomAxis, v.ZoomZero = zoom.axis(6), zoom.left(0)
	targets := map[string]*load.TargetResult{}
	for i := range l.Targets {
		targets[l.Targets[i].Pop] = &l.Targets[i]
	}
	for i, p := range r.PerPop {
		row := row{Name: p.Pop, Figure: seconds(p.ToSwitched), Title: p.title()}
		if !p.RolledBack {
			v.Left = append(v.Left, p)
			row.Trouble = true
		}
		if p.ToSwitched != nil {
			row.Switched, row.ZoomSwitched = all.left(*p.ToSwitched), zoom.left(*p.ToSwitched)
		}
		if p.ToDrained != nil {
			row.Drained = all.left(*p.ToDrained)
		}
		if p.ToLastBadResponse != nil {
			row.ZoomLast, row.ZoomBad = zoom.left(*p.ToLastBadResponse), zoom.between(*p.ToSwitched, *p.ToLastBadResponse)
		}
		if t := targets[p.Pop]; t != nil && l.Bucket > 0 {
			row.paths(t, r.in.Pops[i].From, l.Bucket, started, all)
		}
		v.Rows = append(v.Rows, row)
	}
}

func (p *PopRow) title() string {
	parts := []string{p.Pop}
	if p.Region != "" {
		parts[0] += " (" + p.Region + ")"
	}
	parts = append(parts, "switched "+none(p.ToSwitched), "last bad on a new connection "+none(p.ToLastBadResponse), "drained "+none(p.ToDrained))
	return strings.Join(parts, " · ")
}

// paths draws the answers of each bucket as shares of its height: the good colour, over it the bad colour's answers from below,
// over those the bad ones, and over all a bar where something failed. A bucket without answers stays empty, which is not good.
func (w *row) paths(t *load.TargetResult, from string, bucket time.Duration, started float64, s span) {
	width := bucket.Seconds()
	first := int(math.Floor((s.from - started) / width))
	last := int(math.Ceil((s.to - started) / width))
	at := func(series []uint32, i int) float64 {
		if i < 0 || i >= len(series) {
			return 0
		}
		return float64(series[i])
	}
	var to, old, bad, failed steps
	for i := first; i < last; i++ {
		var all, oldN, badN float64
		for k := range t.Colours {
			c := &t.Colours[k]
			good, faulty := at(c.GoodOver, i), at(c.BadOver, i)
			all += good + faulty
			badN += faulty
			if c.Name == from {
				oldN += good
			}
		}
		failedN := at(t.FailedOver, i)
		x := float64(i-first) - ((s.from-started)/width - float64(first))
		if all == 0 && failedN == 0 {
			to.gap(x)
			old.gap(x)
			bad.gap(x)
			failed.gap(x)
			continue
		}
		to.to(x, 1)
		old.to(x, (oldN+badN)/max(all, 1))
		bad.to(x, badN/max(all, 1))
		failed.to(x, min(failedN, 1))
	}
	end := (s.to - s.from) / width
	w.Box = fmt.Sprintf("0 0 %s 100", short(end))
	w.To, w.From, w.Bad, w.Failed = to.path(end), old.path(end), bad.path(end), failed.path(end)
}

// steps is an SVG path of steps over a base line at 100, whose parts of no height are left out.
type steps struct {
	b      strings.Builder
	height float64
}

func (p *steps) gap(x float64) { p.to(x, 0) }

func (p *steps) to(x, height float64) {
	if math.Abs(height-p.height) < 0.005 {
		return
	}
	x = max(x, 0)
	switch {
	case p.height == 0:
		fmt.Fprintf(&p.b, "M%s 100V%s", short(x), short(100-100*height))
	case height == 0:
		fmt.Fprintf(&p.b, "H%sV100Z", short(x))
	default:
		fmt.Fprintf(&p.b, "H%sV%s", short(x), short(100-100*height))
	}
	p.height = height
}

func (p *steps) path(end float64) string {
	p.to(end, 0)
	return p.b.String()
}

func short(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }

// how says for each number how it came about, or why it is not there.
func (r *Report) how() []definition {
	why := map[string]string{}
	for _, m := range r.Missing {
		why[m.Field] = m.Reason
	}
	number := func(p *float64, format func(float64) string) string {
		if p == nil {
			return "–"
		}
		return format(*p)
	}
	sec := func(x float64) string { return fmt.Sprintf("%.3f s", x) }
	defs := []struct{ field, value, text string }{
		{"rolled_back", fmt.Sprintf("%d of %d", r.RolledBack, r.Pops), "PoPs that serve the good colour and whose operation has completed, as their fleets say."},
		{"seconds_to_last_cutover", number(r.ToLastCutover, sec), "From the command to the last time that a PoP's Service selector was set, as its fleet recorded it."},
		{"seconds_to_last_bad_response", number(r.ToLastBadResponse, sec), "From the command to the last answer of the bad colour, faulty or not, on any connection that was opened after its PoP's switch. A connection is opened when its client's connect returns."},
		{"seconds_to_last_bad_response_any", number(r.ToLastBadResponseAny, sec), "The same on any connection, kept ones and streams included; a stream answers when its header comes."},
		{"seconds_to_clean", number(r.ToClean, sec), "From the command until every connection opened later got the good colour, in every PoP: the later of a PoP's switch and its last bad answer on a new connection."},
		{"seconds_to_drained", number(r.ToDrained, sec), "From the command until the last PoP's old colour had no open connection, as the pods count them."},
		{"requests", thousands(r.Requests), "All requests of the run that ended, long streams included. They are sent on a schedule that no answer can hold up."},
		{"bad_responses", thousands(r.BadResponses), "Answers that carry the injected fault of the bad release. They are why one rolls back, and ended as they should."},
		{"failed", thousands(r.Failed), "Everything else that did not end as it should: refused, reset, timed out, cut short, 5xx of ours. No request is retried. A stream without its last line is cut short."},
		{"availability", number(r.Availability, percent), "1 − failed ÷ requests."},
		{"connections_drained", known(r.ConnectionsDrained), "Connections that were open on the old colour at the switch and ended by themselves."},
		{"connections_reset", known(r.ConnectionsReset), "Connections that were left at the drain's deadline and were reset, if the fleet asks for that."},
		{"parity_min", number(r.ParityMin, func(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) }), "Lowest ratio of the standby's ready pods to the active's that was seen before the command."},
		{"p99_ms_before", number(r.P99Before, milliseconds), "99th percentile of the latency of the requests to be sent before the command, from when they were to be sent, failed ones included."},
		{"p99_ms_during", number(r.P99During, milliseconds), "The same from the command until the last PoP was drained."},
	}
	out := make([]definition, 0, len(defs))
	for _, d := range defs {
		if m, ok := why[d.field]; ok {
			d.text += " Here: " + m + "."
		}
		out = append(out, definition{d.field, d.value, d.text})
	}
	return out
}

func seconds(p *float64) string {
	if p == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f s", *p)
}

func none(p *float64) string {
	if p == nil {
		return "none"
	}
	return seconds(p)
}

func signed(x float64) string { return fmt.Sprintf("%+.3f s", x) }

func milliseconds(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// percent never rounds up to 100: four nines are not five.
func percent(x float64) string {
	if x == 1 {
		return "100 %"
	}
	return strconv.FormatFloat(math.Floor(x*1e7)/1e5, 'f', -1, 64) + " %"
}

func known(n *int64) string {
	if n == nil {
		return "–"
	}
	return thousands(*n)
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return thousands(n) + " " + what + "s"
}
