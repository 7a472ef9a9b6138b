package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	claude "github.com/anthropics/anthropic-sdk-go"
	claudeoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"google.golang.org/genai"

	"edgehold.internal/libs/service"
	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/run"
)

// mock runs one with a scenario until the test ends, and says where it is.
func mock(t *testing.T, scenario string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run.Run(ctx, run.Config{Service: service.Config{Name: "llmmock", Log: t.Output()}, API: "127.0.0.1:0", Scenarios: []string{scenario}}, out)
		out.CloseWithError(err)
		done <- err
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the mock: %v", err)
		}
	})
	var ready struct{ API string }
	if err := json.NewDecoder(in).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	return "http://" + ready.API
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// session is what clients of three vendors do, each with the vendor's own client, and what they got in one text.
func session(t *testing.T, base string) string {
	t.Helper()
	ctx := t.Context()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var said strings.Builder
	note := func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }

	open := openai.NewClient(option.WithBaseURL(base+"/v1"), option.WithAPIKey("sk-abcdefghijklmnopqrstuvwx"), option.WithMaxRetries(0), option.WithHTTPClient(client))
	ask := openai.ChatCompletionNewParams{Model: "gpt-4o", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("What does sk-abcdefghijklmnopqrstuvwx mean?")}}
	for range 2 { // the second answer is another one
		c, err := open.Chat.Completions.New(ctx, ask)
		if err != nil {
			t.Fatal(err)
		}
		note("%s", c.RawJSON())
	}
	ask.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := open.Chat.Completions.NewStreaming(ctx, ask)
	for stream.Next() {
		note("%s", stream.Current().RawJSON())
	}
	if stream.Err() != nil {
		t.Fatal(stream.Err())
	}
	models, err := open.Models.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	note("%s", models.RawJSON())
	_, err = open.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "gpt-4o", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")}, Temperature: openai.Float(9)})
	note("%v", err)

	anthropic := claude.NewClient(claudeoption.WithBaseURL(base), claudeoption.WithAPIKey("sk-ant-abcdefghijklmnopqrstuvwx"), claudeoption.WithMaxRetries(0), claudeoption.WithHTTPClient(client))
	events := anthropic.Messages.NewStreaming(ctx, claude.MessageNewParams{Model: claude.ModelClaudeHaiku4_5, MaxTokens: 60, Messages: []claude.MessageParam{claude.NewUserMessage(claude.NewTextBlock("hi"))}})
	for events.Next() {
		note("%s", events.Current().RawJSON())
	}
	if events.Err() != nil {
		t.Fatal(events.Err())
	}

	gemini, err := genai.NewClient(ctx, &genai.ClientConfig{APIKey: "AIzaabcdefghijklmnopqrstuvwxyz0123456789a", Backend: genai.BackendGeminiAPI, HTTPClient: client, HTTPOptions: genai.HTTPOptions{BaseURL: base}})
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range gemini.Models.GenerateContentStream(ctx, "gemini-2.5-flash", genai.Text("hi"), nil) {
		if err != nil {
			t.Fatal(err)
		}
		note("%s", r.Text())
	}
	return said.String()
}

// The vendors' own clients get from a replay what they got when it was recorded, and it takes as long; recorded once more, the replay is the
// recording.
func TestReplay(t *testing.T) {
	dir := t.TempDir()
	source := mock(t, write(t, filepath.Join(dir, "source.yaml"), "name: source\nseed: 7\nanswers:\n- lorem: 20\nlatency: {firstToken: 40ms, interToken: 8ms}\n"))
	first := start(t, nil, source)
	want := session(t, first.url)
	recorded := first.stop()
	text, err := os.ReadFile(first.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"abcdefghijklmnop"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%s is in the recording", secret)
		}
	}
	write(t, filepath.Join(dir, "session.jsonl"), string(text))
	replay := mock(t, write(t, filepath.Join(dir, "replay.yaml"), "name: replay\nanswers:\n- play: session.jsonl\n"))
	second := start(t, nil, replay)
	if got := session(t, second.url); got != want {
		t.Errorf("the replay said\n%s\nand the recording\n%s", got, want)
	}
	replayed := second.stop()
	for _, f := range []*record.File{recorded, replayed} { // they are in the order in which they ended
		slices.SortFunc(f.Exchanges, func(a, b *record.Exchange) int { return a.At.Compare(b.At) })
	}
	if len(recorded.Exchanges) != 7 || len(replayed.Exchanges) != len(recorded.Exchanges) {
		t.Fatalf("%d exchanges, and in the replay %d", len(recorded.Exchanges), len(replayed.Exchanges))
	}
	var worst time.Duration
	for i, was := range recorded.Exchanges {
		is := replayed.Exchanges[i]
		if string(is.Request.Body) != string(was.Request.Body) || is.Answer.Status != was.Answer.Status || fmt.Sprint(is.Answer.Header) != fmt.Sprint(was.Answer.Header) ||
			string(is.Answer.Body()) != string(was.Answer.Body()) {
			t.Errorf("exchange %d %s is\n%d %v %s\nand was\n%d %v %s", i+1, was.Request.Operation(), is.Answer.Status, is.Answer.Header, is.Answer.Body(), was.Answer.Status, was.Answer.Header, was.Answer.Body())
		}
		worst = max(worst, late(t, was, is))
	}
	t.Logf("no byte was early; the latest one was %s late", worst)

	// And on the wire, where no client joins what comes close together: the pieces are chunks.
	for i, was := range recorded.Exchanges {
		if was.Answer.Header["Content-Length"] != nil {
			continue
		}
		got := chunks(t, replay, was)
		var pieces []string
		for _, p := range was.Answer.Pieces {
			pieces = append(pieces, string(p.Data))
		}
		if !slices.Equal(got, pieces) {
			t.Errorf("exchange %d %s: the pieces are\n%q\nand were\n%q", i+1, was.Request.Operation(), got, pieces)
		}
	}
}

// late is by how much the latest byte of an exchange came later than it was recorded. None may be earlier.
func late(t *testing.T, was, is *record.Exchange) (worst time.Duration) {
	t.Helper()
	due := func(x *record.Exchange, n int) time.Duration { // of the byte with the number n
		for _, p := range x.Answer.Pieces {
			if n -= len(p.Data); n < 0 {
				return p.At
			}
		}
		return x.Answer.EndAt
	}
	n := 0
	for _, p := range is.Answer.Pieces {
		n += len(p.Data)
		d := p.At - due(was, n-1)
		if d < 0 {
			t.Errorf("%s: byte %d came %s after the request, and was recorded after %s", was.Request.Operation(), n-1, p.At, due(was, n-1))
		}
		worst = max(worst, d)
	}
	return worst
}

// chunks asks what was asked, with what is left of the request, and takes the answer apart.
func chunks(t *testing.T, base string, x *record.Exchange) (got []string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q := &x.Request
	fmt.Fprintf(conn, "%s %s?%s HTTP/1.1\r\nHost: x\r\nX-Edgehold-Run: chunks\r\nContent-Length: %d\r\n", q.Method, q.Path, q.Query, len(q.Body))
	if err := q.Header.Write(conn); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "\r\n%s", q.Body)
	in := bufio.NewReader(conn)
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != x.Answer.Status {
		t.Fatalf("%s: %v, %v", q.Operation(), r, err)
	}
	for {
		size := 0
		if _, err := fmt.Fscanf(in, "%x\r\n", &size); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(in, b); err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			return got
		}
		got = append(got, string(b[:size]))
	}
}

// A scenario says what happens to a request that was not recorded, and where a recording is missing.
func TestReplayWithoutRecording(t *testing.T) {
	dir := t.TempDir()
	s := upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":"recorded"}`) })
	r := start(t, nil, s.URL)
	chat := func(base, text string) (int, string) {
		res, err := http.DefaultClient.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(fmt.Sprintf(`{"model":"gpt-4o","messages":[{"role":"user","content":%q}]}`, text)))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	chat(r.url, "hello")
	r.stop()
	recorded, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "one.jsonl"), string(recorded))
	strict := mock(t, write(t, filepath.Join(dir, "strict.yaml"), "name: strict\nanswers:\n- play: one.jsonl\n"))
	if status, text := chat(strict, "hello"); status != 200 || text != `{"id":"recorded"}` {
		t.Errorf("%d %s", status, text)
	}
	if status, text := chat(strict, "bye"); status != 404 || !strings.Contains(text, `"code":"no_recording"`) || !strings.Contains(text, "nearest is exchange 1, which differs in messages[0].content") {
		t.Errorf("%d %s", status, text)
	}
	otherwise := mock(t, write(t, filepath.Join(dir, "otherwise.yaml"), "name: otherwise\nanswers:\n- play: one.jsonl\n- echo: true\n"))
	if status, text := chat(otherwise, "bye"); status != 200 || !strings.Contains(text, `"content":"bye"`) {
		t.Errorf("%d %s", status, text)
	}
	for text, says := range map[string]string{"name: a\nanswers:\n- play: two.jsonl\n": "a.yaml:3:9: answers[0].play:", "name: a\nanswers:\n- play: strict.yaml\n": "strict.yaml:1: is no recording"} {
		err := run.Run(t.Context(), run.Config{Service: service.Config{Name: "llmmock", Log: io.Discard}, API: "127.0.0.1:0", Scenarios: []string{write(t, filepath.Join(dir, "a.yaml"), text)}}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want …%s…", err, says)
		}
	}
}

// The example that comes with the package, whose answers are those of the file.
func TestExample(t *testing.T) {
	f, err := record.Load("../example/session.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	base := mock(t, "../example/replay.yaml")
	for _, x := range f.Exchanges {
		r, err := http.NewRequestWithContext(t.Context(), x.Request.Method, base+x.Request.Path+"?"+x.Request.Query, strings.NewReader(string(x.Request.Body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = x.Request.Header
		begin := time.Now()
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if took := time.Since(begin); took < x.Answer.EndAt {
			t.Errorf("exchange %d took %s, and %s when it was recorded", x.Number, took, x.Answer.EndAt)
		}
		if res.StatusCode != x.Answer.Status || string(body) != string(x.Answer.Body()) || err != nil {
			t.Errorf("exchange %d: %s %s, %v", x.Number, res.Status, body, err)
		}
	}
	if len(f.Exchanges) != 5 || f.Dropped > 0 {
		t.Errorf("%d exchanges, %d bytes dropped", len(f.Exchanges), f.Dropped)
	}
}
