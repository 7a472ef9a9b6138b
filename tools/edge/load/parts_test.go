package load

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// TestSchedule: the times depend on the seed and the rate alone, never go back, and keep the rate.
func TestSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.1, 50_000).Draw(t, "rate")
		arrivals := rapid.SampledFrom([]Arrivals{Poisson, Constant}).Draw(t, "arrivals")
		seed := rapid.Uint64().Draw(t, "seed")
		const n = 3000
		times := func() []time.Duration {
			s := newSchedule(rate, arrivals, seed)
			out := make([]time.Duration, n)
			for i := range out {
				out[i] = s.next()
			}
			return out
		}
		a := times()
		if !slices.Equal(a, times()) {
			t.Fatal("the same seed gives other times")
		}
		if a[0] < 0 || !slices.IsSorted(a) {
			t.Fatal("the times go back")
		}
		want := float64(n) / rate
		if got := a[n-1].Seconds(); got < want*0.85 || got > want*1.15 {
			t.Errorf("%d requests take %v s at %v/s", n, got, rate)
		}
		if gap := time.Duration(1e9 / rate); arrivals == Constant {
			for i := 1; i < n; i++ {
				if d := a[i] - a[i-1] - gap; d < -2 || d > 2 {
					t.Fatalf("the gap before %d is off by %v", i, d)
				}
			}
		}
	})
	if newSchedule(0, Poisson, 1).next() != never {
		t.Error("a rate of 0 sends")
	}
}

// TestSteps compares with keeping every answer.
func TestSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type answer struct{ opened, at time.Duration }
		var all []answer
		var s steps
		now := time.Duration(0)
		for range rapid.IntRange(0, 60).Draw(t, "answers") {
			now += time.Duration(rapid.IntRange(0, 3).Draw(t, "later"))
			a := answer{time.Duration(rapid.IntRange(0, int(now)).Draw(t, "opened")), now}
			all = append(all, a)
			s = s.add(a.opened, a.at)
		}
		for after := range now + 2 {
			want, found := time.Duration(-1), false
			for _, a := range all {
				if a.opened >= after && a.at >= want {
					want, found = a.at, true
				}
			}
			got, ok := time.Duration(-1), false
			for i := len(s) - 1; i >= 0; i-- { // as Run.steps turns it around and lastAfter reads it
				if s[i].opened >= after {
					got, ok = s[i].last, true
					break
				}
			}
			if ok != found || got != want {
				t.Fatalf("last answer on a connection opened after %d: %d %v, want %d %v (answers %v, steps %v)", after, got, ok, want, found, all, s)
			}
		}
	})
}

// TestFold: however long a run gets, nothing is lost and the series stay bounded.
func TestFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := newTally()
		l := latencies{width: bucketWidth}
		n := rapid.IntRange(1, 200).Draw(t, "answers")
		for range n {
			at := time.Duration(rapid.Int64Range(0, int64(5*time.Hour)).Draw(t, "at"))
			switch rapid.IntRange(0, 2).Draw(t, "outcome") {
			case 0:
				y.done(&call{}, &answer{colour: "blue"}, at)
			case 1:
				y.done(&call{}, &answer{colour: "green", fault: true}, at)
			default:
				y.fail(&call{}, EOF, at)
			}
			l.record(at, time.Millisecond)
		}
		sum := func(s []uint32) (total int) {
			if len(s) > maxBuckets {
				t.Fatalf("%d buckets", len(s))
			}
			for _, v := range s {
				total += int(v)
			}
			return total
		}
		got := sum(y.failedOver)
		for _, k := range y.colours {
			got += sum(k.goodOver) + sum(k.badOver)
		}
		latencies := int64(0)
		for i := range l.slices {
			latencies += l.slices[i].Count()
		}
		if got != n || latencies != int64(n) || len(l.slices) > maxBuckets {
			t.Errorf("%d answers, %d in the series, %d latencies", n, got, latencies)
		}
	})
}

func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(2*time.Minute)), 1, 200).Draw(t, "latencies")
		var h Histogram
		for _, v := range values {
			h.record(time.Duration(v))
		}
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			rank := max(1, int(q*float64(len(values))+0.999999))
			want := values[min(rank, len(values))-1]
			got, ok := h.Quantile(q)
			if off := float64(int64(got) - want); !ok || off > 0.017*float64(want)+1000 || off < -0.017*float64(want)-1000 {
				t.Errorf("quantile %v is %v, want %v", q, got, time.Duration(want))
			}
		}
	})
	var none Histogram
	if _, ok := none.Quantile(0.5); ok {
		t.Error("a histogram of nothing has a median")
	}
	if err := none.UnmarshalJSON([]byte("[[99999,1]]")); err == nil {
		t.Error("a bin that does not exist is read")
	}
	for i := range numBins - 1 {
		if bin(value(i)) != i {
			t.Fatalf("the middle of bin %d, %v, is in bin %d", i, value(i), bin(value(i)))
		}
	}
	if bin(time.Hour) != numBins-1 || bin(-1) != 0 {
		t.Error("latencies beyond the ends are lost")
	}
}

func TestTail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l tail
		var all []byte
		for range rapid.IntRange(0, 8).Draw(t, "pieces") {
			piece := []byte(rapid.StringOfN(rapid.SampledFrom([]rune("end\nx")), 0, 7, -1).Draw(t, "piece"))
			all = append(all, piece...)
			l.add(piece)
		}
		if l.ended() != bytes.HasSuffix(all, []byte("end\n")) {
			t.Errorf("%q ended = %v", all, l.ended())
		}
	})
}

func TestBounds(t *testing.T) {
	y := newTally()
	for i := range 100 {
		a := answer{colour: strings.Repeat("c", i), version: strings.Repeat("v", i)}
		y.done(&call{}, &a, time.Duration(i))
	}
	if len(y.colours) != maxColours || y.colours[maxColours-1].name != moreColours || y.colours[0].name != noColour || len(y.colours[maxColours-1].versions) != maxVersions {
		t.Errorf("%d colours, the last %+v", len(y.colours), y.colours[len(y.colours)-1])
	}
	var n names
	for i := range 1000 {
		n.of([]byte(strings.Repeat("n", i)))
	}
	if len(n.known) > maxVersions+maxColours || len(n.of(make([]byte, 5000))) > 63 {
		t.Errorf("%d names are remembered", len(n.known))
	}
}

func parse(text []byte, small bool) (h head, body []byte, err error) {
	var r io.Reader = bytes.NewReader(text)
	if small {
		r = iotest.OneByteReader(r)
	}
	br := bufio.NewReaderSize(r, readBuffer)
	var n names
	if h, err = readHead(br, &n); err != nil {
		return h, nil, err
	}
	err = readBody(br, &h, func(b []byte) { body = append(body, b...) })
	return h, body, err
}

func TestParse(t *testing.T) {
	for text, want := range map[string]struct {
		h    head
		body string
	}{
		ok: {head{answer: answer{200, "v1", "blue", false}, length: 2}, "hi"},
		"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n":                                                                     {head{answer: answer{status: 200}}, ""},
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\n":                                    {head{answer: answer{status: 204}}, ""},
		"HTTP/1.0 200 OK\r\n\r\nto the end":                                                                            {head{answer: answer{status: 200}, length: -1, close: true}, "to the end"},
		"HTTP/1.1 500 No\r\nEDGE-FAULT: injected\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\n!":                {head{answer: answer{status: 500, fault: true}, length: 1, close: true}, "!"},
		"HTTP/1.1 200 OK\nKeep-Alive: timeout=5, max=9\nTransfer-Encoding: chunked\n\n2;x=y\nhi\n0\nTrailer: x\n\n":    {head{answer: answer{status: 200}, length: -1, chunked: true, keepAlive: 5 * time.Second}, "hi"},
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\nKeep-Alive: timeout=99999999999999\r\n\r\nabcde": {head{answer: answer{status: 200}, length: 3}, "abc"},
	} {
		for _, small := range []bool{false, true} {
			h, body, err := parse([]byte(text), small)
			if err != nil || h != want.h || string(body) != want.body {
				t.Errorf("%q: %+v %q %v; want %+v %q", text, h, body, err, want.h, want.body)
			}
		}
	}
}

// FuzzParse: whatever a server sends, the parser ends, stays within its buffer, and does not depend on how the bytes arrive. What
// it takes for a whole answer, net/http takes for the same one.
func FuzzParse(f *testing.F) {
	for _, s := range []string{ok, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nx", "HTTP/1.1 100 C\r\n\r\n" + ok,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "HTTP/1.1 304 N\r\nKeep-Alive: timeout=5\r\nConnection: close\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, body, err := parse(text, false)
		h2, body2, err2 := parse(text, true)
		if h != h2 || !bytes.Equal(body, body2) || (err == nil) != (err2 == nil) {
			t.Fatalf("%+v %q %v, and byte by byte %+v %q %v", h, body, err, h2, body2, err2)
		}
		if len(body) > len(text) {
			t.Fatalf("%d bytes of body from %d", len(body), len(text))
		}
		if err != nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(text))
		resp, err := http.ReadResponse(br, nil)
		for err == nil && resp.StatusCode < 200 {
			resp, err = http.ReadResponse(br, nil)
		}
		if err != nil {
			return // it is stricter about what we do not read
		}
		theirs, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != h.status || !bytes.Equal(theirs, body)) {
			t.Errorf("%q: we read %d %q, net/http %d %q", text, h.status, body, resp.StatusCode, theirs)
		}
	})
}

func FuzzHistogram(f *testing.F) {
	f.Add([]byte("[[1,2],[700,1]]"))
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var h, again Histogram
		if h.UnmarshalJSON(text) != nil {
			return
		}
		out, err := h.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalJSON(out); err != nil || !slices.Equal(h.bins, again.bins) && h.Count() > 0 {
			t.Errorf("%s is written as %s, which is another: %v", text, out, err)
		}
	})
}
