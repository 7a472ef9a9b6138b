// Package proxy stands between a client and a real provider and records what they say to each other. It forwards to the hosts it was
// given by name and to nothing else, whatever a request says: it is no proxy in HTTP's sense, does not look at Host, and follows no
// redirect. It listens on loopback only. A client's credentials go through to the provider and are never written. Start at Run.
package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/serve"
)

// Limits of what is recorded; what is over them is forwarded all the same, and said to be.
const (
	// MaxExchange is how many bytes a request and its answer may have together.
	MaxExchange = 32 << 20
	// mostHeld is how many bytes all exchanges under way may have that are to be recorded.
	mostHeld = 512 << 20
	// perPiece is what a piece takes beside its bytes.
	perPiece = 64
	// mostAtOnce is how many requests are forwarded at a time; the next ones wait.
	mostAtOnce = 1000
	readSize   = 32 << 10
	// afterLeft is how long an answer is still listened to whose client has left: many leave at the last event of a stream, in front of its
	// end.
	afterLeft = 2 * time.Second
)

// Config of a Run.
type Config struct {
	// File that is recorded into; it is made, or gone on with.
	File string
	// To is where requests go.
	To []Target
	// Listen is host:port, on loopback.
	Listen string
	// Bodies are looked through for secrets, and for these patterns (RE2) too. Without it only credentials in headers and queries are
	// taken out.
	Bodies   bool
	Patterns []string
	// MaxFile is how many bytes the file may have; 0 for record.MaxFile.
	MaxFile int64
	// Observe hears of every exchange when it has ended; nil for nobody. It must not block.
	Observe func(Note)
}

// Target is a provider.
type Target struct {
	// Vendor whose requests go there; empty for all that have no Target of their own.
	Vendor llmmock.Vendor
	// URL has a scheme and a host; its path goes before a request's.
	URL *url.URL
}

var vendors = []llmmock.Vendor{llmmock.OpenAI, llmmock.Azure, llmmock.Anthropic, llmmock.Gemini, llmmock.Bedrock}

// ParseTarget reads [VENDOR=]URL. The error is a problem of kind Invalid.
func ParseTarget(s string) (t Target, err error) {
	const field = "--to"
	address := s
	if name, rest, ok := strings.Cut(s, "="); ok && !strings.ContainsAny(name, ":/") {
		t.Vendor, address = llmmock.Vendor(name), rest
		if !slices.Contains(vendors, t.Vendor) {
			return t, problem.Invalidf(field, "%q is no vendor; use openai, azure, anthropic, gemini or bedrock", name)
		}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return t, problem.Invalidf(field, "%q is no address of a provider; use https://HOST, or VENDOR=https://HOST", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return t, problem.Invalidf(field, "%q has more than a host and a path; the client brings credentials and queries", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	if last := u.Path[strings.LastIndexByte(u.Path, '/')+1:]; last == "v1" || last == "v1beta" {
		return t, problem.Invalidf(field, "%q ends in /%s, which a request brings along itself; leave it out", s, last)
	}
	t.URL = u
	return t, nil
}

// Note is what became of an exchange.
type Note struct {
	Vendor       llmmock.Vendor
	Method, Path string
	// Status is 0 when there was no answer.
	Status int
	// Pieces and Bytes of the answer, and Took until its end.
	Pieces int
	Bytes  int64
	Took   time.Duration
	// Redacted is how many secrets were taken out.
	Redacted int
	// Unrecorded says why it was not recorded; empty when it was.
	Unrecorded string
}

// Started is what Run tells when it listens.
type Started struct {
	Address net.Addr
	// Before is how many exchanges the file had, and Dropped how many bytes of one that was not whole.
	Before  int
	Dropped int64
}

// Validate says Invalid with the flag that cannot be.
func (c *Config) Validate() error {
	if len(c.To) == 0 {
		return problem.Invalidf("--to", "is missing; name the provider that is recorded, such as https://HOST or openai=https://HOST")
	}
	seen := map[llmmock.Vendor]bool{}
	for _, t := range c.To {
		if seen[t.Vendor] {
			return problem.Invalidf("--to", "%s is given twice for the same requests; name the vendor of each, such as openai=%[1]s", t.URL)
		}
		seen[t.Vendor] = true
	}
	if c.MaxFile < 0 || c.MaxFile > record.MaxFile {
		return problem.Invalidf("--max-file-bytes", "%d is not allowed; use 0 to %d", c.MaxFile, int64(record.MaxFile))
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return problem.Invalidf("--listen", "%q is no HOST:PORT", c.Listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return problem.Invalidf("--listen", "%q is beyond loopback; whoever reaches a recorder spends somebody's keys and reads what is recorded, so it listens on 127.0.0.1 only", c.Listen)
	}
	return nil
}

// Run forwards and records until ctx ends; then what is under way has ten seconds to end. started is called once it listens. Errors are
// problems: those of Validate, record.NewRedactor and record.Append.
func Run(ctx context.Context, c Config, started func(Started)) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	redactor, err := record.NewRedactor(c.Bodies, c.Patterns)
	if err != nil {
		return err
	}
	limit := c.MaxFile
	if limit == 0 {
		limit = record.MaxFile
	}
	w, err := record.Append(c.File, record.Head{At: time.Now(), Redacted: c.Bodies, Patterns: c.Patterns}, limit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return problem.Invalidf("--listen", "%q: %v", c.Listen, err)
	}
	p := newProxy(c, redactor, w.Write)
	defer p.transport.CloseIdleConnections()
	under, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return under }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	started(Started{listener.Addr(), w.Before, w.Dropped})
	select {
	case err := <-served:
		return fmt.Errorf("serving on %s ended: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(under, 10*time.Second)
	defer cancel()
	if err := server.Shutdown(bounded); errors.Is(err, context.DeadlineExceeded) {
		end() // which ends what is under way, and it is not recorded
		_ = server.Close()
	}
	for range mostAtOnce { // until the last one has given its slot back
		p.slots <- struct{}{}
	}
	return nil
}

// proxy is the handler.
type proxy struct {
	redactor  *record.Redactor
	write     func(*record.Exchange) error
	observe   func(Note)
	targets   map[llmmock.Vendor]*url.URL
	transport *http.Transport
	slots     chan struct{}
	held      atomic.Int64
}

func newProxy(c Config, redactor *record.Redactor, write func(*record.Exchange) error) *proxy {
	p := &proxy{redactor: redactor, write: write, observe: c.Observe, targets: map[llmmock.Vendor]*url.URL{}, slots: make(chan struct{}, mostAtOnce)}
	if p.observe == nil {
		p.observe = func(Note) {}
	}
	allowed := map[string]bool{}
	for _, t := range c.To {
		p.targets[t.Vendor] = t.URL
		allowed[address(t.URL)] = true
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	p.transport = &http.Transport{
		// No Proxy: what the environment says is for other programs. No compression: pieces shall be readable.
		DisableCompression: true, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 100, IdleConnTimeout: 90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			if !allowed[to] {
				return nil, fmt.Errorf("%s is not among the hosts that are recorded", to)
			}
			return dialer.DialContext(ctx, network, to)
		},
	}
	return p
}

// address is host:port of a URL.
func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	vendor, prefix := serve.Pick(r)
	to := p.targets[vendor]
	if to == nil {
		to = p.targets[""]
	}
	switch {
	case r.Method == http.MethodConnect || !strings.HasPrefix(r.RequestURI, "/"):
		refuse(w, http.StatusBadRequest, "this records one provider and is no proxy for others; ask for a path, such as /v1/chat/completions")
		return
	case r.Header.Get("Upgrade") != "":
		refuse(w, http.StatusNotImplemented, "connections that change their protocol are not recorded")
		return
	case to == nil:
		refuse(w, http.StatusNotFound, fmt.Sprintf("this is a request to %s, and no --to says where it goes; add --to %[1]s=https://HOST", vendor))
		return
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-r.Context().Done():
		return
	}
	e := &exchange{proxy: p, w: w, r: r, at: at, note: Note{Vendor: vendor, Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, prefix)}}
	defer func() {
		p.held.Add(-e.size)
		e.note.Took = time.Since(at)
		p.observe(e.note)
	}()
	e.run(to, prefix)
}

func refuse(w http.ResponseWriter, status int, text string) { http.Error(w, "edgehold: "+text, status) }

// exchange is one request on its way there and back.
type exchange struct {
	*proxy
	w    http.ResponseWriter
	r    *http.Request
	at   time.Time
	note Note
	// size is what is held to be recorded, in bytes.
	size int64
	body []byte
	rec  llmmock.Recording
	done bool // recorded, or not for a reason
}

// skip gives up recording the exchange, for the first of the reasons.
func (e *exchange) skip(why string) {
	if !e.done {
		e.note.Unrecorded, e.done = why, true
	}
	e.body, e.rec.Pieces = nil, nil
	e.held.Add(-e.size)
	e.size = 0
}

// hold says whether n more bytes may be held.
func (e *exchange) hold(n int) bool {
	if e.done {
		return false
	}
	e.size += int64(n)
	switch held := e.held.Add(int64(n)); {
	case e.size > MaxExchange:
		e.skip(fmt.Sprintf("has more than %d MiB", MaxExchange>>20))
	case held > mostHeld:
		e.skip(fmt.Sprintf("exchanges under way have more than %d MiB together", mostHeld>>20))
	}
	return !e.done
}

func (e *exchange) run(to *url.URL, prefix string) {
	r := e.r
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(r.Context(), func() { time.AfterFunc(afterLeft, cancel) })()
	out := &http.Request{Method: r.Method, URL: join(to, r.URL, prefix), Host: to.Host, Header: forwarded(r.Header), ContentLength: r.ContentLength}
	if err := e.read(out); err != nil {
		e.skip("the client left while it spoke")
		return
	}
	if coded(r.Header) {
		e.unreadable("request")
	}
	res, err := e.transport.RoundTrip(out.WithContext(ctx))
	switch {
	case ctx.Err() != nil:
		e.skip("the client left")
		return
	case err != nil:
		e.skip("no answer: " + err.Error())
		refuse(e.w, http.StatusBadGateway, "no answer from "+to.Host+": "+err.Error())
		return
	}
	defer res.Body.Close()
	if coded(res.Header) {
		e.unreadable("answer")
	}
	e.note.Status = res.StatusCode
	e.rec.Status, e.rec.HeaderAt, e.rec.Header = res.StatusCode, time.Since(e.at), answered(res.Header)
	maps.Copy(e.w.Header(), e.rec.Header)
	control := http.NewResponseController(e.w)
	e.w.WriteHeader(res.StatusCode)
	left := control.Flush() != nil
	e.copy(ctx, res, control, left)
}

// read takes as much of the body as may be recorded, and forwards the rest as it comes.
func (e *exchange) read(out *http.Request) error {
	if e.r.Body == nil || e.r.Body == http.NoBody {
		out.Body = http.NoBody
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(e.r.Body, MaxExchange+1))
	if err != nil {
		return err
	}
	if len(body) > MaxExchange {
		e.skip(fmt.Sprintf("has more than %d MiB", MaxExchange>>20))
		out.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), e.r.Body), e.r.Body}
		return nil
	}
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	if e.hold(len(body)) {
		e.body = body
	}
	return nil
}

// coded says that a body is compressed.
func coded(h http.Header) bool {
	c := h.Get("Content-Encoding")
	return c != "" && !strings.EqualFold(c, "identity")
}

// unreadable gives up what cannot be looked into.
func (e *exchange) unreadable(what string) {
	if e.redactor.Bodies() {
		e.skip("the " + what + " is compressed and cannot be looked through for secrets")
	}
}

// copy forwards the answer piece by piece. An exchange is in the file before the client can see that it is complete.
func (e *exchange) copy(ctx context.Context, res *http.Response, control *http.ResponseController, left bool) {
	buffer := make([]byte, readSize)
	for {
		n, err := res.Body.Read(buffer)
		at := time.Since(e.at)
		if n > 0 {
			e.note.Pieces++
			e.note.Bytes += int64(n)
			if e.hold(n + perPiece) {
				e.rec.Pieces = append(e.rec.Pieces, llmmock.RecordedPiece{At: at, Data: bytes.Clone(buffer[:n])})
			}
			if e.note.Bytes == res.ContentLength {
				e.record(at)
			}
			if !left {
				_, err := e.w.Write(buffer[:n])
				left = err != nil || control.Flush() != nil
			}
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			e.record(at)
			return
		case ctx.Err() != nil:
			e.skip("the client left")
			return
		}
		e.rec.End = llmmock.ResetMidStream
		if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
			e.rec.End = llmmock.CutMidEvent
		}
		e.record(at)
		panic(http.ErrAbortHandler) // which ends the connection to the client too
	}
}

// record writes the exchange, once.
func (e *exchange) record(end time.Duration) {
	if e.done {
		return
	}
	e.done = true
	e.rec.EndAt = end
	x := &record.Exchange{At: e.at, Vendor: e.note.Vendor, Answer: e.rec,
		Request: record.Request{Method: e.note.Method, Path: e.note.Path, Query: e.r.URL.RawQuery, Header: record.Headers(e.r.Header), Body: bytes.Clone(e.body)}}
	x.Answer.Header = http.Header(x.Answer.Header).Clone()
	e.note.Redacted = e.redactor.Exchange(x, record.Secrets(e.r.Header, e.r.URL.RawQuery))
	switch err := e.write(x); {
	case errors.Is(err, record.ErrFull):
		e.note.Unrecorded = "the file has as many bytes as it may; record into another, or raise --max-file-bytes"
	case err != nil:
		e.note.Unrecorded = err.Error()
	}
}

// join is where a request goes: the target's path and then its own, as it is spelled there.
func join(to, asked *url.URL, prefix string) *url.URL {
	u := *to
	u.Path = to.Path + strings.TrimPrefix(asked.Path, prefix)
	u.RawPath = to.EscapedPath() + strings.TrimPrefix(asked.EscapedPath(), prefix)
	u.RawQuery, u.ForceQuery = asked.RawQuery, asked.ForceQuery
	return &u
}

// hops are the fields that are of one connection (RFC 9110 §7.6.1), and those that would send a client elsewhere the next time.
var hops = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Alt-Svc", "Strict-Transport-Security"}

func endToEnd(h http.Header) http.Header {
	h = h.Clone()
	for _, field := range h["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hops {
		delete(h, name)
	}
	return h
}

// forwarded is the header that the provider gets: the client's own, without what was for this program.
func forwarded(h http.Header) http.Header {
	h = endToEnd(h)
	for _, name := range []string{"Expect", serve.ScenarioHeader, serve.ClientHeader, serve.RunHeader, serve.RegionHeader} {
		delete(h, name)
	}
	h["Accept-Encoding"] = []string{"identity"}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // or net/http would name itself
	}
	return h
}

func answered(h http.Header) http.Header { return endToEnd(h) }
