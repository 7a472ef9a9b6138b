package record

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

// planted are secrets by what they look like.
func planted(t *rapid.T) string {
	return rapid.OneOf(
		rapid.StringMatching(`sk-[A-Za-z0-9]{20,40}`),
		rapid.StringMatching(`sk-ant-api03-[A-Za-z0-9_-]{20,40}`),
		rapid.StringMatching(`AKIA[A-Z0-9]{16}`),
		rapid.StringMatching(`AIza[A-Za-z0-9_-]{35}`),
		rapid.StringMatching(`ghp_[A-Za-z0-9]{36}`),
		rapid.StringMatching(`eyJ[A-Za-z0-9]{10}\.eyJ[A-Za-z0-9]{10}\.[A-Za-z0-9_-]{10}`),
	).Draw(t, "secret")
}

// header of an AWS frame.
func frameOf(payload []byte) []byte {
	var headers []byte
	for _, h := range [][2]string{{":event-type", "chunk"}, {":message-type", "event"}} {
		headers = append(append(append(headers, byte(len(h[0]))), h[0]...), 7)
		headers = append(binary.BigEndian.AppendUint16(headers, uint16(len(h[1]))), h[1]...)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(headers)+len(payload)+4))
	b = binary.BigEndian.AppendUint32(b, uint32(len(headers)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(append(b, headers...), payload...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// A secret never comes into the file, wherever it stands and in however many pieces it came; borders and lengths stay.
func TestNoSecretIsWritten(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		looks, own := planted(t), rapid.StringMatching(`[a-z0-9"/+é-]{9,30}`).Draw(t, "own")
		if strings.Trim(own, "-") == "" {
			return // what is left of a secret
		}
		extra := rapid.StringMatching(`zz-[0-9]{6}`).Draw(t, "extra")
		quoted, _ := json.Marshal(own) // a string
		say := fmt.Sprintf(`{"a":"tell %s or %s","b":%s,"password":"hunter%s","c":"{\"api_key\":\"%s\"}"}`, looks, extra, quoted, extra, "plain-"+extra)
		kind := rapid.SampledFrom([]string{"text/event-stream", "application/json", framesType, framesType + "-bytes"}).Draw(t, "kind")
		var body []byte
		switch kind {
		case "text/event-stream":
			body = []byte("data: " + say + "\n\ndata: [DONE]\n\n")
		case framesType:
			body = append(frameOf([]byte(say)), frameOf([]byte(`{"p":"abc"}`))...)
		case framesType + "-bytes":
			kind = framesType
			body = frameOf([]byte(`{"bytes":"` + base64.StdEncoding.EncodeToString([]byte(say)) + `","p":"ab"}`))
		default:
			body = []byte(say)
		}
		x := &Exchange{At: t0, Vendor: llmmock.OpenAI, Request: Request{Method: "POST", Path: "/v1/" + looks, Query: "beta=true&key=" + url.QueryEscape(own) + "&q=" + looks,
			Header: http.Header{"User-Agent": {"me " + looks}}, Body: []byte(say)},
			Answer: llmmock.Recording{Status: 200, Header: map[string][]string{"Content-Type": {kind}, "Set-Cookie": {"session=" + looks}, "X-Request-Id": {own}}}}
		var lengths []int
		for rest := bytes.Clone(body); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			x.Answer.Pieces = append(x.Answer.Pieces, llmmock.RecordedPiece{Data: rest[:n:n]})
			lengths = append(lengths, n)
			rest = rest[n:]
		}
		r, err := NewRedactor(true, []string{`zz-[0-9]+`})
		if err != nil {
			t.Fatal(err)
		}
		secrets := Secrets(http.Header{"Authorization": {"Bearer " + own}, "Accept": {"text/plain"}}, x.Request.Query)
		if n := r.Exchange(x, secrets); n < 8 {
			t.Fatalf("%d secrets were found in %q", n, body)
		}
		for i, p := range x.Answer.Pieces {
			if len(p.Data) != lengths[i] {
				t.Fatalf("piece %d has %d bytes and had %d", i, len(p.Data), lengths[i])
			}
		}
		path := filepath.Join(dir, fmt.Sprint(time.Now().UnixNano()))
		w, err := Append(path, Head{At: t0, Redacted: true}, MaxFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(x); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Concat(text, f.Exchanges[0].Answer.Body())
		n := 0
		for e := range Events(kind, f.Exchanges[0].Answer.Body()) {
			all = append(all, e.Data...)
			n++
		}
		if n == 0 {
			t.Fatalf("%q has no whole event", f.Exchanges[0].Answer.Body())
		}
		for _, secret := range []string{looks, own, extra, string(quoted), url.QueryEscape(own), base64.StdEncoding.EncodeToString([]byte(looks))} {
			if bytes.Contains(all, []byte(secret)) {
				t.Fatalf("%q is in\n%s", secret, all)
			}
		}
		for e := range Events("application/json", x.Request.Body) {
			if !json.Valid(e.Data) {
				t.Fatalf("the request is no JSON any longer: %s", e.Data)
			}
		}
	})
}

func TestRedaction(t *testing.T) {
	r, err := NewRedactor(true, []string{`customer-(\d+)`})
	if err != nil {
		t.Fatal(err)
	}
	key := "AbC/123+xyz=="
	spelled := spellings([]string{key})
	for text, want := range map[string]string{
		`nothing to see: sk-short, AKIA, "max_tokens":5, "total_tokens":"7"`: "",
		`Incorrect API key provided: sk-abcdefghijklmnopqrstuv.`:             `Incorrect API key provided: REDACTED-----------------.`,
		`{"k":"AbC\/123+xyz=="}`:                                                    `{"k":"REDACTED------"}`,
		`u=AbC%2F123%2Bxyz%3D%3D&v=1`:                                               `u=REDACTED-------------&v=1`,
		`Authorization: Bearer abcdefghijklmnop0123`:                                `Authorization: Bearer REDACTED------------`,
		`for customer-12345678, please`:                                             `for customer-REDACTED, please`,
		`for customer-12, please`:                                                   `for customer-RE, please`,
		`{"client_secret" : "a\"b\\c"}`:                                             `{"client_secret" : "REDACTE"}`,
		`{"schema":{"password":{"type":"string"}}}`:                                 "",
		`{"arguments":"{\"password\":\"hunter22\",\"n\":1}"}`:                       `{"arguments":"{\"password\":\"REDACTED\",\"n\":1}"}`,
		`{"arguments":"{\"password\":\"hu\\\"nter\",\"n\":1}"}`:                     `{"arguments":"{\"password\":\"REDACTED--\",\"n\":1}"}`,
		`{"logprobs":[{"token":"Hello","bytes":[1]}],"max_tokens":"many"}`:          "",
		`the basic internationalization of tasks, and "password": 5, "secret":null`: "",
		"-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----":            "REDACTED" + strings.Repeat("-", 52),
	} {
		b := []byte(text)
		n := r.mask(b, spelled)
		if want == "" && (n > 0 || string(b) != text) || want != "" && (n != 1 || string(b) != want) {
			t.Errorf("%s\nbecame %s (%d), want %s", text, b, n, want)
		}
		if again := bytes.Clone(b); r.mask(again, spelled) > 0 || !bytes.Equal(again, b) {
			t.Errorf("a second time %s became %s", b, again)
		}
	}
	plain, err := NewRedactor(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &Exchange{Request: Request{Path: "/v1/x", Query: "alt=sse&key=abcdefghij", Body: []byte("sk-abcdefghijklmnopqrstuv")}, Answer: llmmock.Recording{Header: map[string][]string{"Set-Cookie": {"a"}}}}
	if plain.Exchange(x, nil); string(x.Request.Body) != "sk-abcdefghijklmnopqrstuv" || x.Request.Query != "alt=sse&key=REDACTED" || len(x.Answer.Header) > 0 {
		t.Errorf("without bodies: %+v", x)
	}
	for _, tc := range []struct {
		patterns []string
		says     string
	}{{[]string{"("}, "no regular expression"}, {[]string{""}, "1 to 1024"}, {[]string{"a*"}, "finds nothing"}, {make([]string, MaxPatterns+1), "too many"}} {
		if _, err := NewRedactor(true, tc.patterns); problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%q: %v", tc.patterns, err)
		}
	}
}

// However deep JSON is in JSON, the values of secret members are found to their end, and it is JSON after that.
func TestSecretMembers(t *testing.T) {
	r, err := NewRedactor(true, nil)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"password", "api_key", "apiKey", "X-API-Key", "client_secret", "AWS_SECRET_ACCESS_KEY", "Authorization"}).Draw(t, "name")
		text := rapid.StringMatching(`["\\a{:, é]{0,6}s3cr3t["\\a}:, é]{0,6}`).Draw(t, "text")
		doc := any(map[string]any{"a": "before", name: text, "z": []string{"after", text[:1]}})
		depth := rapid.IntRange(0, 3).Draw(t, "depth")
		for range depth {
			inner, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			doc = map[string]any{"arguments": string(inner), "key": 1}
		}
		b, err := json.MarshalIndent(doc, "", rapid.SampledFrom([]string{"", " "}).Draw(t, "indent"))
		if err != nil {
			t.Fatal(err)
		}
		was := string(b)
		if n := r.mask(b, nil); n != 1 || bytes.Contains(b, []byte("s3cr3t")) || !bytes.Contains(b, []byte("after")) {
			t.Fatalf("%d found in %s, which became %s", n, was, b)
		}
		for range depth {
			var outer struct{ Arguments string }
			if err := json.Unmarshal(b, &outer); err != nil {
				t.Fatalf("%s became %s: %v", was, b, err)
			}
			b = []byte(outer.Arguments)
		}
		var got map[string]any
		if err := json.Unmarshal(b, &got); err != nil || got["a"] != "before" || !strings.HasPrefix(fmt.Sprint(got[name]), "REDACT") {
			t.Fatalf("%s became %s: %v", was, b, err)
		}
	})
}

func TestSecrets(t *testing.T) {
	got := Secrets(http.Header{
		"Authorization":        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260504/eu-central-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=0123456789abcdef"},
		"X-Amz-Security-Token": {"a-session-token"}, "Cookie": {"a=1; sid=cookie-value"}, "Idempotency-Key": {"not-a-secret"}, "Accept": {"application/json"},
		"Ocp-Apim-Subscription-Key": {"gateway-key"}, "X-Short-Token": {"short"}}, "key=query-key-1&alt=sse&page_token=no-secret-1")
	for _, want := range []string{"AKIAIOSFODNN7EXAMPLE", "0123456789abcdef", "a-session-token", "cookie-value", "gateway-key", "query-key-1"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not among %q", want, got)
		}
	}
	for _, not := range []string{"not-a-secret", "application/json", "short", "AWS4-HMAC-SHA256", "no-secret-1", "sse"} {
		if slices.Contains(got, not) {
			t.Errorf("%q is among them", not)
		}
	}
	basic := Secrets(http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("user:swordfish1"))}}, "")
	if !slices.Contains(basic, "swordfish1") {
		t.Errorf("the password is not among %q", basic)
	}
}
