package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"edgehold.internal/services/llmmock"
)

// LLM measures the mock of model providers: the figures of `make bench-llm`. The server under test has one core, the client the
// other.
type LLM struct {
	// Bin holds llmmock. Self is the program that runs BareLLM when its first argument is "bare".
	Bin, Self string
	// Cache is the folder that keeps what is built or fetched, Node.js packages too.
	Cache string
	// Runs of each figure; their median counts.
	Runs int
	// Only these parts, of LLMParts; nil for all.
	Only []string
	// Say receives a line per step.
	Say func(format string, args ...any)
}

// The figures: name, unit, goal.
var llm = struct{ cpu, events, late, memory, quantiles, same [3]string }{
	cpu:       [3]string{"processor time of a chat completion over a bare net/http handler's", "times", "<= 1.5"},
	events:    [3]string{"SSE events flushed one by one, over a bare net/http flush loop's", "times", ">= 1.2"},
	late:      [3]string{"late at half load, 5,000 streams, 99th percentile", "ms", "<= 1"},
	memory:    [3]string{"memory of an idle open stream", "KiB", "<= 20"},
	quantiles: [3]string{"error of a named quantile over 100,000 samples, largest", "%", "<= 1"},
	same:      [3]string{"different bytes and schedules of 3 servers with one seed, other concurrency", "", "== 1"},
}

// llmParts are what is measured, in this order: the load of late is that of a core, which events measures.
var llmParts = []struct {
	name   string
	figure [3]string
	do     func(*LLM, context.Context, *Table, [3]string) error
}{
	{"cpu", llm.cpu, (*LLM).cpu}, {"events", llm.events, (*LLM).events}, {"late", llm.late, (*LLM).late},
	{"memory", llm.memory, (*LLM).memory}, {"quantiles", llm.quantiles, (*LLM).quantiles}, {"same", llm.same, (*LLM).same},
}

// LLMParts are the names of what LLM measures.
func LLMParts() []string {
	var names []string
	for _, p := range llmParts {
		names = append(names, p.name)
	}
	return names
}

// Run measures everything. A figure that fails is a row that says why, and the others go on.
func (b *LLM) Run(ctx context.Context) *Table {
	t := &Table{}
	if err := settle(1); err != nil {
		b.Say("the client is on any core: %v", err)
	}
	for _, part := range llmParts {
		if b.Only != nil && !slices.Contains(b.Only, part.name) {
			continue
		}
		b.Say("== %s", part.figure[0])
		if err := part.do(b, ctx, t, part.figure); err != nil {
			b.Say("%v", err)
			t.Missing(part.figure[0], part.figure[1], part.figure[2], err)
		}
	}
	return t
}

// peer is a server under test, in a process of its own on the first core.
type peer struct {
	cmd     *exec.Cmd
	api     string // host:port
	metrics string // URL; empty for none
}

// settle binds all threads of this process, and those that it will have, to a core.
func settle(core int) error {
	var one unix.CPUSet
	one.Set(core)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &one); err != nil {
			return fmt.Errorf("bind to core %d: %w", core, err)
		}
	}
	return nil
}

// onCore runs f on a thread that is bound to a core. What f starts is bound to it too.
func onCore(core int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(core)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind to core %d: %w", core, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }() // the same as before
	return f()
}

// start runs a command that prints a line of JSON with its addresses when it is ready.
func (b *LLM) start(ctx context.Context, path string, args ...string) (*peer, error) {
	p := &peer{cmd: exec.CommandContext(ctx, path, args...)}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := onCore(0, p.cmd.Start); err != nil {
		return nil, err
	}
	var ready struct{ Address, API string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s was not ready: %w", filepath.Base(path), err)
	}
	p.api = ready.API
	if ready.Address != "" {
		p.metrics = "http://" + ready.Address + "/metrics"
	}
	return p, nil
}

// mock runs llmmock with one scenario.
func (b *LLM) mock(ctx context.Context, scenario string) (*peer, error) {
	dir, err := os.MkdirTemp("", "bench-llm")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing of it is needed once the server is ready
	file := filepath.Join(dir, "scenario.yaml")
	if err := os.WriteFile(file, []byte(scenario), 0o600); err != nil {
		return nil, err
	}
	return b.start(ctx, filepath.Join(b.Bin, "llmmock"), "--api-listen", "127.0.0.1:0", "--log-level", "error", "--audit-log", os.DevNull, "--scenarios", file)
}

func (p *peer) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // it was told to end
}

// spent is the processor time of the process so far.
func (p *peer) spent() (time.Duration, error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return time.Duration(ticks(body)) * 10 * time.Millisecond, nil
}

// question is a chat request; each number makes another one. fields are lines for its header.
func question(n int, stream bool, fields string) []byte {
	body := fmt.Sprintf(`{"model":"gpt-4o","stream":%t,"temperature":0.7,"messages":[{"role":"system","content":"You are a helpful assistant that answers briefly."},`+
		`{"role":"user","content":"What is the capital of country number %d, and why?"}]}`, stream, n)
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: mock\r\nAuthorization: Bearer sk-bench\r\nContent-Type: application/json\r\nUser-Agent: bench\r\n%sContent-Length: %d\r\n\r\n%s", fields, len(body), body)
}

// ask sends requests over n connections, count in all, and gives each answer to took.
func ask(ctx context.Context, address string, n, count int, stream bool, fields string, took func(i int, h http.Header, body []byte)) error {
	group, ctx := errgroup.WithContext(ctx)
	for c := range n {
		group.Go(func() error {
			var conn net.Conn
			var in *bufio.Reader
			for i := c; i < count; i += n {
				if conn == nil {
					var err error
					if conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address); err != nil {
						return err
					}
					defer conn.Close()
					in = bufio.NewReaderSize(conn, 64<<10)
				}
				if _, err := conn.Write(question(i, stream, fields)); err != nil {
					return err
				}
				r, err := http.ReadResponse(in, nil)
				if err != nil {
					return err
				}
				body, err := io.ReadAll(r.Body)
				_ = r.Body.Close()
				if err != nil || r.StatusCode != http.StatusOK {
					return fmt.Errorf("answer %d: %s, %w", i, r.Status, err)
				}
				if took != nil {
					took(i, r.Header, body)
				}
				if r.Close {
					conn = nil
				}
			}
			return nil
		})
	}
	return group.Wait()
}

const plainScenario = "name: bench\nseed: 1\nanswers:\n- say: The capital is where the government sits, mostly for reasons of history.\n"

// against is one measurement of a peer: its rate, and the processor time of each.
type against struct{ rates, micros []float64 }

// measure counts what do does n of, and what the server spends on them.
func (p *peer) measure(do func() (n int, err error)) (rate, micros float64, err error) {
	before, err := p.spent()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	n, err := do()
	if err != nil {
		return 0, 0, err
	}
	wall := time.Since(began)
	after, err := p.spent()
	return float64(n) / wall.Seconds(), float64((after - before).Microseconds()) / float64(n), err
}

// compare measures peers by turns, so that what else the machine does hits all of them. The first round warms up.
func (b *LLM) compare(what string, do func(p *peer) (n int, err error), names []string, peers ...*peer) ([]against, error) {
	all := make([]against, len(peers))
	for i := range b.Runs + 1 {
		line := ""
		for j, p := range peers {
			rate, micros, err := p.measure(func() (int, error) { return do(p) })
			if err != nil {
				return nil, fmt.Errorf("%s: %w", names[j], err)
			}
			line += fmt.Sprintf(", %s %.0f/s at %.1f µs", names[j], rate, micros)
			if i > 0 {
				all[j].rates, all[j].micros = append(all[j].rates, rate), append(all[j].micros, micros)
			}
		}
		b.Say("run %d of %s: %s", i, what, line[2:])
	}
	return all, nil
}

// over is by how much each of a is more than the one of b in the same run.
func over(a, b []float64) []float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return ratios
}

const bareHandler, aimockPeer = "bare net/http", "@copilotkit/aimock 1.43.0"

// cpu compares the processor time of a request with that of a handler that reads the body and writes one of the same size.
func (b *LLM) cpu(ctx context.Context, t *Table, figure [3]string) error {
	ours, err := b.mock(ctx, plainScenario)
	if err != nil {
		return err
	}
	defer ours.stop()
	var sample []byte
	if err := ask(ctx, ours.api, 1, 1, false, "", func(_ int, _ http.Header, body []byte) { sample = body }); err != nil {
		return err
	}
	bare, err := b.start(ctx, b.Self, "bare", strconv.Itoa(len(sample)))
	if err != nil {
		return err
	}
	defer bare.stop()
	asking := func(requests int) func(p *peer) (int, error) {
		return func(p *peer) (int, error) { return requests, ask(ctx, p.api, 8, requests, false, "", nil) }
	}
	got, err := b.compare("requests", asking(30_000), []string{"ours", bareHandler}, ours, bare)
	if err != nil {
		return err
	}
	t.figure(figure, over(got[0].micros, got[1].micros)...)
	t.Add("processor time of a chat completion", "µs", "", got[0].micros).Against(bareHandler, got[1].micros)
	t.Add("chat completions a second, one core", "1/s", "", got[0].rates).Against(bareHandler, got[1].rates)

	// The others' figures do not count, and may be missing.
	mock, err := b.aimock(ctx)
	if err != nil {
		b.Say("%s is not measured: %v", aimockPeer, err)
		return nil
	}
	defer mock.stop()
	if got, err = b.compare("requests", asking(5_000), []string{"ours", aimockPeer}, ours, mock); err != nil {
		return err
	}
	t.Add("processor time of a chat completion, beside the popular mock", "µs", "", got[0].micros).Against(aimockPeer, got[1].micros)
	t.Add("chat completions a second, beside the popular mock", "1/s", "", got[0].rates).Against(aimockPeer, got[1].rates)
	return nil
}

const events = 20_000

// events compares long streams without any waiting: with net/http, and with the least that there can be, which is write(2) alone.
func (b *LLM) events(ctx context.Context, t *Table, figure [3]string) error {
	ours, err := b.mock(ctx, fmt.Sprintf("name: bench\nseed: 1\nanswers:\n- lorem: %d\n", events))
	if err != nil {
		return err
	}
	defer ours.stop()
	size := 0
	if err := ask(ctx, ours.api, 1, 1, true, "", func(_ int, _ http.Header, body []byte) { size = len(body) / bytes.Count(body, []byte("\n\n")) }); err != nil {
		return err
	}
	bare, err := b.start(ctx, b.Self, "bare", strconv.Itoa(size))
	if err != nil {
		return err
	}
	defer bare.stop()
	floor, err := b.start(ctx, b.Self, "floor", strconv.Itoa(size))
	if err != nil {
		return err
	}
	defer floor.stop()
	streaming := func(conns, requests int) func(p *peer) (int, error) {
		return func(p *peer) (int, error) {
			var n atomic.Int64
			err := ask(ctx, p.api, conns, requests, true, "", func(_ int, _ http.Header, body []byte) { n.Add(int64(bytes.Count(body, []byte("\n\n")))) })
			return int(n.Load()), err
		}
	}
	const alone = "write(2) alone"
	names := []string{"ours", bareHandler, alone}
	one, err := b.compare("events on one connection", streaming(1, 4), names, ours, bare, floor)
	if err != nil {
		return err
	}
	eight, err := b.compare("events on 8 connections", streaming(8, 8), names, ours, bare, floor)
	if err != nil {
		return err
	}
	t.figure(figure, over(one[0].rates, one[1].rates)...)
	t.Add(llmRate, "1/s", "", one[0].rates).Against(bareHandler, one[1].rates)
	t.Add("processor time of an SSE event", "µs", "", one[0].micros).Against(bareHandler, one[1].micros)
	t.Add("processor time of an SSE event, beside write(2) alone", "µs", "", one[0].micros).Against(alone, one[2].micros)
	t.Add("SSE events a second, one core, 8 connections", "1/s", "", eight[0].rates).Against(bareHandler, eight[1].rates)
	t.Add("processor time of an SSE event, 8 connections", "µs", "", eight[0].micros).Against(bareHandler, eight[1].micros)
	return nil
}

const llmRate = "SSE events a second, one core"

const streams = 5_000

// hold opens that many streams and keeps them until the function that it returns is called, which waits for their ends unless
// cut is set.
func hold(ctx context.Context, address string) (wait func(cut bool) error, err error) {
	var ends sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	var broken error
	release := func(cut bool) error {
		if cut {
			for _, c := range conns {
				_ = c.Close()
			}
		}
		ends.Wait()
		if cut {
			return nil
		}
		return broken
	}
	for i := range streams {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		if _, err := conn.Write(question(i, true, "")); err != nil {
			return nil, err
		}
		ends.Go(func() {
			defer conn.Close()
			r, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
			}
			if err != nil {
				mu.Lock()
				broken = err
				mu.Unlock()
			}
		})
	}
	return release, nil
}

// late has as many events a second, over 5,000 streams, as take half of the core. How many these are is measured first: an event of
// one stream among thousands takes more than twice the time of one of a stream alone, for nothing of it is in the caches.
func (b *LLM) late(ctx context.Context, t *Table, figure [3]string) error {
	gap := 400 * time.Millisecond
	first, err := b.paced(ctx, gap)
	if err != nil {
		return err
	}
	var p99, load, rates []float64
	for i := range min(b.Runs, 3) {
		gap = time.Duration(float64(gap) * first.load / 0.5)
		run, err := b.paced(ctx, gap)
		if err != nil {
			return err
		}
		b.Say("run %d: %.0f events/s take %.0f %% of the core; 99 of 100 at most %.2f ms late", i+1, run.rate, 100*run.load, run.late)
		p99, load, rates = append(p99, run.late), append(load, 100*run.load), append(rates, run.rate)
		first = run
	}
	t.figure(figure, p99...)
	t.Add("load of the core meanwhile", "%", "", load)
	t.Add("events a second meanwhile", "1/s", "", rates)
	return nil
}

// pace is what was seen of streams with gaps: the share of the core that they took, how many events a second they had, and how late 99 of
// 100 of these were at most, in ms.
type pace struct{ load, rate, late float64 }

// paced keeps 5,000 streams open whose events come at random, and looks at them for a while when all have begun.
func (b *LLM) paced(ctx context.Context, gap time.Duration) (p pace, err error) {
	const begin, look = 6 * time.Second, 5 * time.Second
	ours, err := b.mock(ctx, fmt.Sprintf("name: bench\nseed: 1\nlatency: {firstToken: {lognormal: {p50: 3s, p99: 4500ms}}, interToken: {gamma: {mean: %dus, shape: 2}}}\nanswers:\n- lorem: %d\n",
		gap.Microseconds(), 10+int(2*(begin+look)/gap)))
	if err != nil {
		return p, err
	}
	defer ours.stop()
	opened := time.After(begin)
	release, err := hold(ctx, ours.api)
	if err != nil {
		return p, err
	}
	defer func() { _ = release(true) }() // they have served
	if err := after(ctx, opened); err != nil {
		return p, err
	}
	before, err := lateness(ours.metrics)
	if err != nil {
		return p, err
	}
	spentBefore, err := ours.spent()
	if err != nil {
		return p, err
	}
	began := time.Now()
	if err := after(ctx, time.After(look)); err != nil {
		return p, err
	}
	spent, err := ours.spent()
	if err != nil {
		return p, err
	}
	wall := time.Since(began)
	seen, err := lateness(ours.metrics)
	if err != nil {
		return p, err
	}
	seen = seen.since(before)
	if early := seen.counts[0]; early > 0 && seen.bounds[0] < 0 {
		return p, fmt.Errorf("%.0f events were early", early)
	}
	p = pace{load: (spent - spentBefore).Seconds() / wall.Seconds(), rate: seen.counts[len(seen.counts)-1] / wall.Seconds()}
	p.late, err = seen.quantile(0.99)
	return p, err
}

func after(ctx context.Context, c <-chan time.Time) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// histogram is one of Prometheus's: how many were at most each bound, of which the last is infinite.
type histogram struct{ bounds, counts []float64 }

// lateness is what the server has measured of its own.
func lateness(url string) (h histogram, err error) {
	r, err := http.Get(url) //nolint:noctx // a bench of a process that was started for it
	if err != nil {
		return h, err
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), `edgehold_mock_late_seconds_bucket{le="`)
		if !ok {
			continue
		}
		bound, count, _ := strings.Cut(rest, `"} `)
		le, err := strconv.ParseFloat(bound, 64)
		if err != nil {
			return h, err
		}
		n, err := strconv.ParseFloat(count, 64)
		if err != nil {
			return h, err
		}
		h.bounds, h.counts = append(h.bounds, le), append(h.counts, n)
	}
	if len(h.counts) == 0 {
		return h, fmt.Errorf("the server has no histogram of lateness")
	}
	return h, lines.Err()
}

// since is what was added to before.
func (h histogram) since(before histogram) histogram {
	for i := range h.counts {
		h.counts[i] -= before.counts[i]
	}
	return h
}

// quantile is in milliseconds, linear within the bucket that it falls into.
func (h histogram) quantile(q float64) (float64, error) {
	want := q * h.counts[len(h.counts)-1]
	if want == 0 {
		return 0, fmt.Errorf("the server has measured no lateness")
	}
	for i, n := range h.counts {
		if n < want {
			continue
		}
		low, below := 0.0, 0.0
		if i > 0 {
			low, below = max(h.bounds[i-1], 0), h.counts[i-1]
		}
		if math.IsInf(h.bounds[i], 1) {
			return 1000 * low, nil
		}
		return 1000 * (low + (h.bounds[i]-low)*(want-below)/(n-below)), nil
	}
	return 0, fmt.Errorf("the histogram has no end")
}

// memory is what 5,000 streams that wait for their second token take.
func (b *LLM) memory(ctx context.Context, t *Table, figure [3]string) error {
	var kib []float64
	for i := range min(b.Runs, 3) {
		ours, err := b.mock(ctx, "name: bench\nseed: 1\nlatency: {interToken: 59m}\nanswers:\n- lorem: 2\n")
		if err != nil {
			return err
		}
		each, err := idle(ctx, ours)
		ours.stop()
		if err != nil {
			return err
		}
		b.Say("run %d: %.1f KiB", i+1, each)
		kib = append(kib, each)
	}
	t.figure(figure, kib...)
	return nil
}

func idle(ctx context.Context, p *peer) (kib float64, err error) {
	before, err := resident(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	release, err := hold(ctx, p.api)
	if err != nil {
		return 0, err
	}
	defer func() { _ = release(true) }()
	for {
		n, err := open(p.metrics)
		if err != nil {
			return 0, err
		}
		if n == streams {
			break
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	after, err := resident(p.cmd.Process.Pid)
	return (after - before) * 1024 / streams, err
}

// open is how many exchanges are under way.
func open(url string) (int, error) {
	r, err := http.Get(url) //nolint:noctx // a bench of a process that was started for it
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(body), "\nedgehold_mock_exchanges_open ")
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(line)
}

// quantiles draws from a table as providers have them.
func (b *LLM) quantiles(_ context.Context, t *Table, figure [3]string) error {
	table := map[float64]time.Duration{0.5: 639 * time.Millisecond, 0.9: 980 * time.Millisecond, 0.95: 1144 * time.Millisecond, 0.99: 4517 * time.Millisecond}
	q, err := llmmock.NewQuantiles(table)
	if err != nil {
		return err
	}
	var worst []float64
	for run := range b.Runs {
		r := rand.New(rand.NewPCG(uint64(run), 1))
		samples := make([]time.Duration, 100_000)
		for i := range samples {
			samples[i] = q.Sample(r)
		}
		slices.Sort(samples)
		largest := 0.0
		for p, want := range table {
			got := samples[int(p*float64(len(samples)))]
			largest = max(largest, 100*math.Abs(float64(got-want))/float64(want))
		}
		worst = append(worst, largest)
	}
	t.figure(figure, worst...)
	return nil
}

// same asks three servers the same, one at a time, 8 and 64 at a time.
func (b *LLM) same(ctx context.Context, t *Table, figure [3]string) error {
	const requests = 300
	const schedule = "X-Edgehold-Schedule"
	different := map[[sha256.Size]byte]bool{}
	var unsaid atomic.Int64
	for _, concurrency := range []int{1, 8, 64} {
		ours, err := b.mock(ctx, "name: bench\nseed: 5\nlatency: {firstToken: {lognormal: {p50: 2ms, p99: 9ms}}, interToken: {gamma: {mean: 100us, shape: 2}}}\nanswers:\n- {match: {contains: '7'}, lorem: 30}\n")
		if err != nil {
			return err
		}
		answers := make([][]byte, requests)
		// The schedule is what the server says that it keeps; that it does keep it is another figure.
		err = ask(ctx, ours.api, concurrency, requests, true, schedule+": wanted\r\n", func(i int, h http.Header, body []byte) {
			answers[i] = append(body, h.Get(schedule)...)
			if h.Get(schedule) == "" {
				unsaid.Add(1)
			}
		})
		ours.stop()
		if err != nil {
			return err
		}
		different[sha256.Sum256(bytes.Join(answers, []byte{0}))] = true
	}
	if n := unsaid.Load(); n > 0 {
		return fmt.Errorf("%d answers do not say their schedule", n)
	}
	t.figure(figure, float64(len(different)))
	return nil
}

// BareLLM is what the mock is compared with: a handler that reads the body and writes one of the given size, or flushes as many
// events of it as the mock's stream has; with floor it does the latter by write(2) alone. It serves until ctx ends, and prints where.
func BareLLM(ctx context.Context, size int, floor bool, out io.Writer) error {
	body := bytes.Repeat([]byte("x"), size)
	event := append(append([]byte("data: "), body[:max(size-8, 0)]...), "\n\n"...)
	handler := func(w http.ResponseWriter, r *http.Request) {
		asked, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client left
		}
		if !bytes.Contains(asked, []byte(`"stream":true`)) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		if floor {
			_ = write2(control, event) // the client sees what is missing
			return
		}
		for range events {
			if _, err := w.Write(event); err != nil || control.Flush() != nil {
				return
			}
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := json.NewEncoder(out).Encode(map[string]string{"api": l.Addr().String()}); err != nil {
		return err
	}
	_ = server.Serve(l) // it ends with ctx
	return nil
}

// write2 sends a stream of events with a call of the system's for each and nothing else, and closes the connection.
func write2(control *http.ResponseController, event []byte) error {
	conn, _, err := control.Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event)
	rest, n := chunk, 0
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for n < events {
			sent, err := syscall.Write(int(fd), rest)
			if errors.Is(err, syscall.EAGAIN) {
				return false
			}
			if failed = err; err != nil {
				return true
			}
			if rest = rest[sent:]; len(rest) == 0 {
				rest = chunk
				n++
			}
		}
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	_, err = io.WriteString(conn, "0\r\n\r\n")
	return err
}
