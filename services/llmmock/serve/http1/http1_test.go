package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"edgehold.internal/libs/pkgdoc"
)

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

const usual = "POST /v1/chat/completions?x=%20y HTTP/1.1\r\nHost: mock:7400\r\nUser-Agent: OpenAI/Python 2.1\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n" +
	"authorization:\tBearer sk-1 \r\nX-Stainless-Retry-Count: 0\r\naccept: a\r\naccept: b\r\nContent-Length: 4\r\n\r\nbody"

// heads and what becomes of them. Those that are Unusual are net/http's, which refuses most of them.
var heads = []struct {
	head    string
	verdict Verdict
}{
	{usual, Plain},
	{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Plain},
	{"DELETE /v1/files/a%2Fb HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Close\r\n\r\n", Plain},
	{"GET //twice HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n", Plain},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 007\r\n\r\n", Plain},
	{"GET / HTTP/1.1\r\nHost: x\r\nX: \xff\r\n\r\n", Plain},
	{"", Incomplete},
	{"POST / HTTP/1.1\r\nHost: x\r\n", Incomplete},
	{"POST / HTTP/1.1\r", Incomplete},
	{"POST / HT", Incomplete},
	// Two ways to say how long a body is: request smuggling (RFC 9112 §11.2).
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\nContent-Length: 1\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", Unusual},
	// Lines that some read in another way than others.
	{"GET / HTTP/1.1\nHost: x\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\n\n", Unusual},
	{"\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\n Host: x\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost : x\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\n: x\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nno colon\r\n\r\n", Unusual},
	{"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	// Whose request it is.
	{"GET / HTTP/1.1\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", Unusual},
	{"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	{"GET * HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	{"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	{"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	{"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	// Other versions, and what only few clients send.
	{"GET / HTTP/1.0\r\nHost: x\r\n\r\n", Unusual},
	{"GET / HTTP/1.2\r\nHost: x\r\n\r\n", Unusual},
	{"GET /\r\nHost: x\r\n\r\n", Unusual},
	{"GET /\r\n", Unusual},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Unusual},
	{"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	{"post / HTTP/1.1\r\nHost: x\r\n\r\n", Unusual},
	{"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, keep-alive\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\nPragma: no-cache\r\n\r\n", Unusual},
	{"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", maxFields) + "\r\n", Unusual},
}

func TestVerdicts(t *testing.T) {
	var r Reader // one for all: nothing may stay of the request before
	for _, tc := range heads {
		if _, v := r.Parse([]byte(tc.head)); v != tc.verdict {
			t.Errorf("%q: verdict %d, want %d", tc.head, v, tc.verdict)
		}
		same(t, &r, []byte(tc.head))
	}
}

// same holds what is Plain against net/http.
func same(t *testing.T, r *Reader, b []byte) {
	t.Helper()
	n, v := r.Parse(b)
	if v != Plain {
		return
	}
	in := bufio.NewReaderSize(bytes.NewReader(b), len(b)+16)
	want, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("%q is plain, and net/http says %v", b, err)
	}
	got := &r.Request
	rest, _ := in.Peek(in.Buffered())
	if !bytes.Equal(rest, b[n:]) {
		t.Errorf("%q: the head has %d bytes, and after net/http's %q is left", b, n, rest)
	}
	if got.Host != want.Host || got.Method != want.Method || got.RequestURI != want.RequestURI || !reflect.DeepEqual(got.URL, want.URL) || got.Proto != want.Proto ||
		got.ProtoMajor != want.ProtoMajor || got.ProtoMinor != want.ProtoMinor || got.ContentLength != want.ContentLength || got.Close != want.Close ||
		len(want.TransferEncoding)+len(want.Trailer) > 0 || !reflect.DeepEqual(got.Header, want.Header) {
		t.Errorf("%q:\n got %+v\nwant %+v", b, got, want)
	}
	for i := range n {
		if _, v := new(Reader).Parse(b[:i]); v != Incomplete {
			t.Fatalf("%q: the first %d bytes of it get verdict %d", b, i, v)
		}
	}
}

// A request that follows another on its connection has nothing of it.
func TestReuse(t *testing.T) {
	var r Reader
	if _, v := r.Parse([]byte(usual)); v != Plain {
		t.Fatal(v)
	}
	kept := r.Request.Header["Authorization"][0]
	r.Request.Header.Set("Left-Over", "x")
	r.Request.SetPathValue("id", "1")
	r.Request.URL.Path = "/changed"
	same(t, &r, []byte(strings.Replace(usual, "sk-1", "sk-2", 1)))
	same(t, &r, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if kept != "Bearer sk-1" || r.Request.PathValue("id") != "" {
		t.Errorf("%q, path value %q", kept, r.Request.PathValue("id"))
	}
}

func FuzzParse(f *testing.F) {
	for _, tc := range heads {
		f.Add([]byte(tc.head))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<12 {
			return
		}
		same(t, new(Reader), b)
	})
}

func BenchmarkParse(b *testing.B) {
	var r Reader
	head := []byte(usual)
	b.ReportAllocs()
	for b.Loop() {
		if _, v := r.Parse(head); v != Plain {
			b.Fatal(v)
		}
	}
}

// The same by net/http, as a measure.
func BenchmarkParseByNetHTTP(b *testing.B) {
	source := bytes.NewReader(nil)
	in := bufio.NewReader(source)
	b.ReportAllocs()
	for b.Loop() {
		source.Reset([]byte(usual))
		in.Reset(source)
		r, err := http.ReadRequest(in)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func ExampleReader_Parse() {
	var r Reader
	_, verdict := r.Parse([]byte("POST /v1/embeddings HTTP/1.1\r\nHost: mock\r\nContent-Length: 2\r\n\r\n{}"))
	fmt.Println(verdict == Plain, r.Request.Method, r.Request.URL.Path, r.Request.ContentLength)
	// Output: true POST /v1/embeddings 2
}
