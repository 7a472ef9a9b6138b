package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	// Runs of each figure; their median counts.
	Runs int
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
	same:      [3]string{"different results of 3 servers with one seed and other concurrency", "", "== 1"},
}

// Run measures everything. A figure that fails is a row that says why, and the others go on.
func (b *LLM) Run(ctx context.Context) *Table {
	t := &Table{}
	if err := settle(1); err != nil {
		b.Say("the client is on any core: %v", err)
	}
	for _, part := range []struct {
		figure [3]string
		do     func(context.Context, *Table, [3]string) error
	}{{llm.cpu, b.cpu}, {llm.events, b.events}, {llm.late, b.late}, {llm.memory, b.memory}, {llm.quantiles, b.quantiles}, {llm.same, b.same}} {
		b.Say("== %s", part.figure[0])
		if err := part.do(ctx, t, part.figure); err != nil {
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

// question is a chat request; each number makes another one.
func question(n int, stream bool) []byte {
	body := fmt.Sprintf(`{"model":"gpt-4o","stream":%t,"temperature":0.7,"messages":[{"role":"system","content":"You are a helpful assistant that answers briefly."},`+
		`{"role":"user","content":"What is the capital of country number %d, and why?"}]}`, stream, n)
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: mock\r\nAuthorization: Bearer sk-bench\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// ask sends requests over n connections, count in all, and gives each answer's body to took.
func ask(ctx context.Context, address string, n, count int, stream bool, took func(i int, body []byte)) error {
	group, ctx := errgroup.WithContext(ctx)
	for c := range n {
		group.Go(func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			defer conn.Close()
			in := bufio.NewReaderSize(conn, 64<<10)
			for i := c; i < count; i += n {
				if _, err := conn.Write(question(i, stream)); err != nil {
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
					took(i, body)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

const plainScenario = "name: bench\nseed: 1\nanswers:\n- say: The capital is where the government sits, mostly for reasons of history.\n"

// cpu compares the processor time of a request with that of a handler that reads the body and writes one of the same size.
func (b *LLM) cpu(ctx context.Context, t *Table, figure [3]string) error {
	ours, err := b.mock(ctx, plainScenario)
	if err != nil {
		return err
	}
	defer ours.stop()
	var sample []byte
	if err := ask(ctx, ours.api, 1, 1, false, func(_ int, body []byte) { sample = body }); err != nil {
		return err
	}
	bare, err := b.start(ctx, b.Self, "bare", strconv.Itoa(len(sample)))
	if err != nil {
		return err
	}
	defer bare.stop()
	const requests = 30_000
	measure := func(p *peer) (micros, rate float64, err error) {
		before, err := p.spent()
		if err != nil {
			return 0, 0, err
		}
		began := time.Now()
		if err := ask(ctx, p.api, 8, requests, false, nil); err != nil {
			return 0, 0, err
		}
		wall := time.Since(began)
		after, err := p.spent()
		return float64((after - before).Microseconds()) / requests, requests / wall.Seconds(), err
	}
	var times, micros, rates []float64
	for i := range b.Runs + 1 {
		x, rate, err := measure(bare)
		if err != nil {
			return err
		}
		y, own, err := measure(ours)
		if err != nil {
			return err
		}
		b.Say("run %d: ours %.1f µs and %.0f/s, bare %.1f µs and %.0f/s", i, y, own, x, rate)
		if i > 0 { // the first one warms up
			times, micros, rates = append(times, y/x), append(micros, y), append(rates, own)
		}
	}
	t.figure(figure, times...)
	t.Add("processor time of a chat completion", "µs", "", micros)
	t.Add("chat completions a second, one core", "1/s", "", rates)
	return nil
}

const events = 20_000

// events compares long streams without any waiting.
func (b *LLM) events(ctx context.Context, t *Table, figure [3]string) error {
	ours, err := b.mock(ctx, fmt.Sprintf("name: bench\nseed: 1\nanswers:\n- lorem: %d\n", events))
	if err != nil {
		return err
	}
	defer ours.stop()
	bare, err := b.start(ctx, b.Self, "bare", "260")
	if err != nil {
		return err
	}
	defer bare.stop()
	measure := func(p *peer) (rate, micros float64, err error) {
		before, err := p.spent()
		if err != nil {
			return 0, 0, err
		}
		n := 0
		began := time.Now()
		if err := ask(ctx, p.api, 1, 4, true, func(_ int, body []byte) { n += bytes.Count(body, []byte("\n\n")) }); err != nil {
			return 0, 0, err
		}
		wall := time.Since(began)
		after, err := p.spent()
		return float64(n) / wall.Seconds(), float64((after - before).Microseconds()) / float64(n), err
	}
	var times, rates, micros []float64
	for i := range b.Runs + 1 {
		x, cost, err := measure(bare)
		if err != nil {
			return err
		}
		y, own, err := measure(ours)
		if err != nil {
			return err
		}
		b.Say("run %d: ours %.0f/s at %.1f µs, bare %.0f/s at %.1f µs", i, y, own, x, cost)
		if i > 0 {
			times, rates, micros = append(times, y/x), append(rates, y), append(micros, own)
		}
	}
	t.figure(figure, times...)
	t.Add("SSE events a second, one core", "1/s", "", rates)
	t.Add("processor time of an SSE event", "µs", "", micros)
	return nil
}

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
		if _, err := conn.Write(question(i, true)); err != nil {
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

// late has as many events a second as half of what a core can do, over 5,000 streams. Their first tokens are not due before all of
// them are open.
func (b *LLM) late(ctx context.Context, t *Table, figure [3]string) error {
	rate := 0.0
	for _, r := range t.Rows {
		if r.Name == "SSE events a second, one core" && r.Median != nil {
			rate = *r.Median
		}
	}
	if rate == 0 {
		return fmt.Errorf("how many events a core can do was not measured")
	}
	gap := time.Duration(float64(streams) / (rate / 2) * float64(time.Second))
	tokens := int((6 * time.Second) / gap)
	var p99 []float64
	for i := range min(b.Runs, 3) {
		ours, err := b.mock(ctx, fmt.Sprintf("name: bench\nseed: 1\nlatency: {firstToken: {lognormal: {p50: 4s, p99: 6s}}, interToken: %dus}\nanswers:\n- lorem: %d\n", gap.Microseconds(), tokens))
		if err != nil {
			return err
		}
		wait, err := hold(ctx, ours.api)
		if err == nil {
			err = wait(false)
		}
		var at float64
		if err == nil {
			at, err = lateness(ours.metrics, 0.99)
		}
		ours.stop()
		if err != nil {
			return err
		}
		b.Say("run %d: gaps of %s, %d tokens a stream; 99 of 100 at most %.2f ms late", i+1, gap, tokens, at)
		p99 = append(p99, at)
	}
	t.figure(figure, p99...)
	return nil
}

// lateness is a quantile in milliseconds, linear within the bucket of the histogram that it falls into.
func lateness(url string, q float64) (float64, error) {
	r, err := http.Get(url) //nolint:noctx // a bench of a process that was started for it
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	var bounds, counts []float64
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), `edgehold_mock_late_seconds_bucket{le="`)
		if !ok {
			continue
		}
		bound, count, _ := strings.Cut(rest, `"} `)
		le, err := strconv.ParseFloat(bound, 64)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseFloat(count, 64)
		if err != nil {
			return 0, err
		}
		bounds, counts = append(bounds, le), append(counts, n)
	}
	if len(counts) == 0 || counts[len(counts)-1] == 0 {
		return 0, fmt.Errorf("the server has measured no lateness")
	}
	want := q * counts[len(counts)-1]
	for i, n := range counts {
		if n < want {
			continue
		}
		low, below := 0.0, 0.0
		if i > 0 {
			low, below = bounds[i-1], counts[i-1]
		}
		if math.IsInf(bounds[i], 1) {
			return 1000 * low, nil
		}
		return 1000 * (low + (bounds[i]-low)*(want-below)/(n-below)), nil
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
	different := map[[sha256.Size]byte]bool{}
	for _, concurrency := range []int{1, 8, 64} {
		ours, err := b.mock(ctx, "name: bench\nseed: 5\nlatency: {firstToken: {lognormal: {p50: 2ms, p99: 9ms}}, interToken: {gamma: {mean: 100us, shape: 2}}}\nanswers:\n- {match: {contains: '7'}, lorem: 30}\n")
		if err != nil {
			return err
		}
		answers := make([][]byte, requests)
		err = ask(ctx, ours.api, concurrency, requests, true, func(i int, body []byte) { answers[i] = body })
		ours.stop()
		if err != nil {
			return err
		}
		different[sha256.Sum256(bytes.Join(answers, []byte{0}))] = true
	}
	t.figure(figure, float64(len(different)))
	return nil
}

// BareLLM is what the mock is compared with: a handler that reads the body and writes one of the given size, or flushes as many
// events of it as the mock's stream has. It serves until ctx ends, and prints where.
func BareLLM(ctx context.Context, size int, out io.Writer) error {
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
		flush := http.NewResponseController(w).Flush
		for range events {
			if _, err := w.Write(event); err != nil || flush() != nil {
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
