package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"edgehold.internal/services/llmmock"
)

// take is one answer off the wire: its head, and its body in the chunks in which it was sent.
type take struct {
	status int
	header http.Header
	chunks []string
	// at is when each was there, since the request was sent.
	headAt time.Duration
	at     []time.Duration
	end    error // nil when it was complete
}

// ask sends a request on a connection of its own, and takes the answer apart without a client's help.
func ask(t *testing.T, url, body string) take {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	fmt.Fprintf(conn, "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	in := bufio.NewReader(conn)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		return take{end: err}
	}
	got := take{status: r.StatusCode, header: r.Header, headAt: time.Since(begin)}
	if r.ContentLength >= 0 {
		b, err := io.ReadAll(r.Body)
		got.chunks, got.at, got.end = []string{string(b)}, []time.Duration{time.Since(begin)}, err
		return got
	}
	for {
		size := 0
		if _, err := fmt.Fscanf(in, "%x\r\n", &size); err != nil {
			got.end = err
			return got
		}
		b := make([]byte, size+2)
		if _, got.end = io.ReadFull(in, b); got.end != nil || size == 0 {
			return got
		}
		got.chunks, got.at = append(got.chunks, string(b[:size])), append(got.at, time.Since(begin))
	}
}

func recordingOf(status int, header map[string][]string, pieces ...string) *llmmock.Recording {
	rec := &llmmock.Recording{Status: status, Header: header, HeaderAt: 4 * time.Millisecond, EndAt: time.Duration(10+5*len(pieces)) * time.Millisecond}
	for i, p := range pieces {
		rec.Pieces = append(rec.Pieces, llmmock.RecordedPiece{At: time.Duration(10+5*i) * time.Millisecond, Data: []byte(p)})
	}
	return rec
}

// playing decides on a recording as a Mock does.
func playing(rec *llmmock.Recording, f llmmock.Fault) func(*llmmock.Request, *llmmock.Exchange) {
	return func(_ *llmmock.Request, x *llmmock.Exchange) {
		x.Answer = &llmmock.Answer{Recorded: rec}
		x.Schedule = llmmock.Schedule{Header: rec.HeaderAt, First: 10 * time.Millisecond, Gaps: []time.Duration{5 * time.Millisecond}}
		if x.Fault = f; f.Kind != llmmock.NoFault {
			x.Rule = "rule"
		} else if rec.End != llmmock.NoFault {
			x.Fault = llmmock.Fault{Kind: rec.End, AtToken: len(rec.Pieces)}
		}
	}
}

var eventStream = map[string][]string{"Content-Type": {"text/event-stream"}, "Date": {"Mon, 04 May 2026 03:02:01 GMT"}, "X-Request-Id": {"req_1"}, "X-Two": {"a", "b"}}

// The answer is the recorded one, to the byte and to the border of each piece, and no piece of it is early.
func TestPlays(t *testing.T) {
	pieces := []string{"data: {\"a\"", ":1}\n\n", "\xc3", "\xa9data: [DONE]\n\n"}
	for _, status := range []int{200, 201, 429, 529} {
		rec := recordingOf(status, eventStream, pieces...)
		url, d := start(t, playing(rec, llmmock.Fault{}), nil)
		for _, body := range []string{"stream", "x", "bad"} { // what the vendor would refuse is answered as it was then
			got := ask(t, url, body)
			if got.status != status || got.end != nil || !slices.Equal(got.chunks, pieces) {
				t.Errorf("%d %s: got %d %q, %v", status, body, got.status, got.chunks, got.end)
			}
			delete(got.header, "Transfer-Encoding")
			if fmt.Sprint(got.header) != fmt.Sprint(http.Header(eventStream)) {
				t.Errorf("header %v, want %v", got.header, eventStream)
			}
			if got.headAt < rec.HeaderAt {
				t.Errorf("the header came after %s", got.headAt)
			}
			for i, at := range got.at {
				if at < rec.Pieces[i].At {
					t.Errorf("piece %d came after %s, and is due after %s", i, at, rec.Pieces[i].At)
				}
			}
			if e := <-d.done; e.Status != status || e.End != llmmock.Complete {
				t.Errorf("event %+v", e)
			}
		}
	}
}

// A body with a length has that length, and the connection is kept after it.
func TestPlaysWithLength(t *testing.T) {
	header := map[string][]string{"Content-Length": {"11"}, "Content-Type": {"application/json"}}
	url, d := start(t, playing(recordingOf(200, header, `{"a":`, `"b",`, `1}`), llmmock.Fault{}), nil)
	for range 3 {
		r, err := http.Post(url+"/v1/say", "", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if string(b) != `{"a":"b",1}` || err != nil || r.ContentLength != 11 || r.Header.Get("Date") != "" || r.Header.Get("X-Request-Id") != "" {
			t.Errorf("got %q %v, %v", b, r.Header, err)
		}
		<-d.done
	}
	none, d := start(t, playing(recordingOf(204, nil), llmmock.Fault{}), nil)
	for range 2 {
		if got := ask(t, none, "x"); got.status != 204 || got.end != nil || len(got.header) > 0 {
			t.Errorf("without a body: %+v", got)
		}
		<-d.done
	}
}

// It ends as it did then: cut off between two pieces, or reset.
func TestPlaysTheEnd(t *testing.T) {
	for _, header := range []map[string][]string{eventStream, {"Content-Length": {"100"}}} {
		for end, want := range map[llmmock.FaultKind]func(error) bool{
			llmmock.CutMidEvent:    func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) },
			llmmock.ResetMidStream: func(err error) bool { return errors.Is(err, syscall.ECONNRESET) },
		} {
			rec := recordingOf(200, header, "one", "two")
			rec.End = end
			url, d := start(t, playing(rec, llmmock.Fault{}), nil)
			got := ask(t, url, "stream")
			// A reset may overtake what was sent before it.
			if text := strings.Join(got.chunks, ""); end == llmmock.CutMidEvent && text != "onetwo" || !want(got.end) {
				t.Errorf("%s: %q, %v", end, text, got.end)
			}
			if e := <-d.done; e.End != llmmock.Truncated {
				t.Errorf("%s: event %+v", end, e)
			}
		}
	}
}

// Faults are committed on recorded answers too.
func TestPlaysWithFaults(t *testing.T) {
	stream, whole := recordingOf(200, eventStream, "data: {1}\n\n", "data: {2}\n\n", "data: {3}\n\n"), recordingOf(200, map[string][]string{"Content-Length": {"8"}, "Content-Type": {"application/json"}}, `{"a":12}`)
	failure := llmmock.Failure{Status: 503, Reason: llmmock.Overloaded}
	for _, tc := range []struct {
		rec   *llmmock.Recording
		body  string
		fault llmmock.Fault
		want  string
	}{
		{stream, "stream", llmmock.Fault{Kind: llmmock.FailStatus, Failure: failure}, `503 [{"error":"overloaded"}]`},
		{stream, "stream", llmmock.Fault{Kind: llmmock.FailInBody, Failure: failure}, `200 [{"error":"overloaded"}]`},
		{stream, "stream", llmmock.Fault{Kind: llmmock.Cut, AtToken: 1}, "200 [data: {1}\n\n]"},
		{stream, "stream", llmmock.Fault{Kind: llmmock.CutMidEvent, AtToken: 1}, "200 [data: {1}\n\n data:] EOF"},
		{stream, "stream", llmmock.Fault{Kind: llmmock.Malformed, AtToken: 1}, "200 [data: {1}\n\n data: {2]\n\n data: {3}\n\n]"},
		{stream, "stream", llmmock.Fault{Kind: llmmock.Duplicate, AtToken: 2}, "200 [data: {1}\n\n data: {2}\n\n data: {3}\n\n data: {3}\n\n]"},
		{stream, "stream", llmmock.Fault{Kind: llmmock.Reorder, AtToken: 1}, "200 [data: {1}\n\n data: {3}\n\n data: {2}\n\n]"},
		{stream, "stream", llmmock.Fault{Kind: llmmock.FailMidStream, AtToken: 1, Failure: failure}, "200 [data: {1}\n\n data: {\"error\":\"overloaded\"}\n\n]"},
		{stream, "stream", llmmock.Fault{Kind: llmmock.WrongType}, "200 [data: {1}\n\n data: {2}\n\n data: {3}\n\n] text/html"},
		{whole, "x", llmmock.Fault{Kind: llmmock.Cut, AtToken: 40}, `200 [{"a"] unexpected EOF`},
		{whole, "x", llmmock.Fault{Kind: llmmock.Malformed, AtToken: 40}, `200 [{"a":12]`},
		{whole, "x", llmmock.Fault{Kind: llmmock.WrongLength}, `200 [{"a":12}] unexpected EOF`},
		{whole, "x", llmmock.Fault{Kind: llmmock.ResetBefore}, "0 [] "},
	} {
		url, d := start(t, playing(tc.rec, tc.fault), nil)
		got := ask(t, url, tc.body)
		text := fmt.Sprint(got.status, " ", got.chunks)
		if got.end != nil && got.status > 0 {
			text += " " + got.end.Error()
		}
		if tc.fault.Kind == llmmock.WrongType {
			text += " " + got.header.Get("Content-Type")
		}
		if tc.fault.Kind == llmmock.ResetBefore {
			text += " "
		}
		if text != tc.want {
			t.Errorf("%+v:\ngot  %q\nwant %q", tc.fault, text, tc.want)
		}
		<-d.done
	}
}

// A client that leaves in the middle is noticed.
func TestPlayedAndLeft(t *testing.T) {
	for _, header := range []map[string][]string{eventStream, {"Content-Length": {"6"}}} {
		rec := recordingOf(200, header, "one", "two")
		url, d := start(t, func(q *llmmock.Request, x *llmmock.Exchange) {
			playing(rec, llmmock.Fault{})(q, x)
			x.Schedule.Gaps = []time.Duration{time.Hour}
		}, nil)
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "POST /v1/say HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nstream")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if e := <-d.done; e.End != llmmock.Left {
			t.Errorf("event %+v", e)
		}
	}
}
