// Package record is recordings of real providers: files of exchanges in the pieces and at the times they came, written so that a
// process killed at any moment leaves all exchanges it had finished, and without the secrets of whoever recorded them. Player gives their
// answers again; record/proxy makes them; record/drift holds them against the vendors' specifications.
//
// A file has a line of JSON for each exchange, behind one that says how it was made. Each line ends with a checksum of what is in front of
// it, as the member crc, so that a line that was not written to its end is known by itself:
//
//	{"edgehold":"recording","version":1,"at":"…","redacted":true,"crc":"…"}
//	{"at":"…","vendor":"openai","request":{"method":"POST","path":"/v1/chat/completions","header":{…},"text":"…"},
//	 "answer":{"status":200,"header":{…},"headerAt":241003,"pieces":[{"at":241170,"text":"data: …"}, …],"endAt":980332},"crc":"…"}
//
// Times are microseconds from the request's arrival. A body or piece that is no UTF-8 is in base64 in the place of text. Start at Parse and
// Append.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"edgehold.internal/libs/problem"
	"edgehold.internal/services/llmmock"
)

// Version of the format that is written, and the latest that is read.
const Version = 1

// Limits of what is read.
const (
	MaxFile  = 256 << 20 // bytes
	Longest  = 24 * time.Hour
	maxLines = 1 << 20
)

// Head says how a recording was made.
type Head struct {
	Version int
	At      time.Time
	// Redacted says that bodies were looked through for secrets, for these patterns too beside those that are always looked for.
	Redacted bool
	Patterns []string
}

// Exchange is a request and its answer.
type Exchange struct {
	// Number in its file, from 1.
	Number  int
	At      time.Time
	Vendor  llmmock.Vendor
	Request Request
	Answer  llmmock.Recording
}

// Request that was recorded.
type Request struct {
	Method string
	// Path without what is in front of the vendor's own.
	Path, Query string
	// Header has what answers depend on, and no credentials.
	Header http.Header
	Body   []byte
}

// File is a recording that was read.
type File struct {
	Head      Head
	Exchanges []*Exchange
	// Dropped is how many bytes at its end are no whole exchange: what was being written when the recording process ended. Whole is how
	// many are in front of them.
	Dropped, Whole int64
}

// Operation is what was asked, for people.
func (r *Request) Operation() string { return r.Method + " " + r.Path }

// wire forms.
type (
	headLine struct {
		Edgehold string    `json:"edgehold"`
		Version  int       `json:"version"`
		At       time.Time `json:"at"`
		Redacted bool      `json:"redacted"`
		Patterns []string  `json:"patterns,omitempty"`
	}
	exchangeLine struct {
		At      time.Time      `json:"at"`
		Vendor  llmmock.Vendor `json:"vendor"`
		Request requestPart    `json:"request"`
		Answer  answerPart     `json:"answer"`
	}
	requestPart struct {
		Method string      `json:"method"`
		Path   string      `json:"path"`
		Query  string      `json:"query,omitempty"`
		Header http.Header `json:"header,omitempty"`
		data
	}
	answerPart struct {
		Status   int         `json:"status"`
		Header   http.Header `json:"header,omitempty"`
		HeaderAt int64       `json:"headerAt"`
		Pieces   []piecePart `json:"pieces,omitempty"`
		End      string      `json:"end,omitempty"`
		EndAt    int64       `json:"endAt"`
	}
	piecePart struct {
		At int64 `json:"at"`
		data
	}
	// data is text, or base64 of what is none.
	data struct {
		Text   string `json:"text,omitempty"`
		Base64 []byte `json:"base64,omitempty"`
	}
)

func dataOf(b []byte) data {
	if utf8.Valid(b) {
		return data{Text: string(b)}
	}
	return data{Base64: b}
}

func (d *data) bytes() ([]byte, error) {
	if d.Text != "" && d.Base64 != nil {
		return nil, errors.New("has text and base64; only one is allowed")
	}
	if d.Base64 != nil {
		return d.Base64, nil
	}
	return []byte(d.Text), nil
}

const kind = "recording"

// how an answer ended: nothing when it was complete.
var ends = map[string]llmmock.FaultKind{"": llmmock.NoFault, "cut": llmmock.CutMidEvent, "reset": llmmock.ResetMidStream}

var endNames = func() map[llmmock.FaultKind]string {
	names := map[llmmock.FaultKind]string{}
	for name, k := range ends {
		names[k] = name
	}
	return names
}()

var table = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, table) }

const (
	crcBefore = `,"crc":"`
	crcAfter  = "\"}\n"
	crcSize   = len(crcBefore) + 8 + len(crcAfter)
)

// line is v as a line with its checksum.
func line(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	b.Truncate(b.Len() - len("}\n"))
	fmt.Fprintf(&b, "%s%08x%s", crcBefore, checksum(b.Bytes()), crcAfter)
	return b.Bytes(), nil
}

// whole says whether a line, with its end, is as it was written.
func whole(l []byte) bool {
	n := len(l) - crcSize
	return n > 0 && string(l[n:]) == fmt.Sprintf("%s%08x%s", crcBefore, checksum(l[:n]), crcAfter)
}

func encode(x *Exchange) ([]byte, error) {
	r, a := &x.Request, &x.Answer
	l := exchangeLine{At: x.At.UTC(), Vendor: x.Vendor,
		Request: requestPart{r.Method, r.Path, r.Query, r.Header, dataOf(r.Body)},
		Answer:  answerPart{Status: a.Status, Header: a.Header, HeaderAt: a.HeaderAt.Microseconds(), End: endNames[a.End], EndAt: a.EndAt.Microseconds()}}
	for _, p := range a.Pieces {
		l.Answer.Pieces = append(l.Answer.Pieces, piecePart{p.At.Microseconds(), dataOf(p.Data)})
	}
	return line(l)
}

// Load reads a file. Errors are problems: NotFound, or Invalid for what cannot be read and those of Parse.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, problem.NotFoundf("recording", "%s does not exist", path)
	}
	if err != nil {
		return nil, problem.Invalidf("recording", "%s cannot be read: %w", path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, problem.Invalidf("recording", "%s cannot be read: %w", path, err)
	}
	file, err := Parse(text)
	if err != nil {
		var p *problem.Error
		if errors.As(err, &p) {
			return nil, problem.Invalidf("recording", "%s:%s", path, strings.TrimPrefix(p.Error(), "line "))
		}
	}
	return file, err
}

// Parse reads the text of a file. What is damaged at its end is dropped, and File says how much that was; what is damaged in front of
// something whole is Invalid, with the line as its field.
func Parse(text []byte) (*File, error) {
	if len(text) > MaxFile {
		return nil, problem.Invalidf("line 1", "the file has more than %d bytes; record into several", MaxFile)
	}
	f := &File{}
	broken := 0 // the first line that is
	for n, rest := 1, text; len(rest) > 0; n++ {
		if n > maxLines {
			return nil, problem.Invalidf(field(n), "a recording has at most %d lines; record into several files", maxLines)
		}
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			end = len(rest)
		}
		l := rest[:end]
		rest = rest[end:]
		if !whole(l) {
			if broken == 0 {
				broken = n
			}
			continue
		}
		if broken > 0 {
			return nil, problem.Invalidf(field(broken), "is damaged: its checksum does not fit, and there are whole lines after it; take it out or record again")
		}
		if err := f.add(n, l); err != nil {
			return nil, err
		}
		f.Whole += int64(len(l))
	}
	f.Dropped = int64(len(text)) - f.Whole
	if f.Head.Version == 0 && !begun(text) {
		return nil, problem.Invalidf("line 1", "is no recording: the first line of one is %s,…", headBegin)
	}
	return f, nil
}

const headBegin = `{"edgehold":"` + kind + `"`

// begun says that text is what may be left of a recording that had only been begun.
func begun(text []byte) bool {
	text = bytes.TrimRight(text, "\x00")
	n := min(len(text), len(headBegin))
	return string(text[:n]) == headBegin[:n] && !bytes.ContainsRune(text, '\n')
}

func field(n int) string { return fmt.Sprintf("line %d", n) }

func (f *File) add(n int, l []byte) error {
	if n == 1 {
		var h headLine
		if err := json.Unmarshal(l, &h); err != nil || h.Edgehold != kind {
			return problem.Invalidf(field(n), "is no recording: the first line of one is %s,…", headBegin)
		}
		if h.Version < 1 || h.Version > Version {
			return problem.Invalidf(field(n), "version %d is not known; this program reads 1 to %d", h.Version, Version)
		}
		f.Head = Head{h.Version, h.At, h.Redacted, h.Patterns}
		return nil
	}
	var l2 exchangeLine
	if err := json.Unmarshal(l, &l2); err != nil {
		return problem.Invalidf(field(n), "is no exchange: %v", err)
	}
	x, err := l2.exchange()
	if err != nil {
		return problem.Invalidf(field(n), "%v", err)
	}
	x.Number = len(f.Exchanges) + 1
	f.Exchanges = append(f.Exchanges, x)
	return nil
}

func (l *exchangeLine) exchange() (*Exchange, error) {
	r, a := &l.Request, &l.Answer
	end, known := ends[a.End]
	switch {
	case !slices.Contains([]llmmock.Vendor{llmmock.OpenAI, llmmock.Azure, llmmock.Anthropic, llmmock.Gemini, llmmock.Bedrock}, l.Vendor):
		return nil, fmt.Errorf("vendor: %.40q is not known; use openai, azure, anthropic, gemini or bedrock", l.Vendor)
	case !token(r.Method):
		return nil, fmt.Errorf("request.method: %.40q is none", r.Method)
	case !strings.HasPrefix(r.Path, "/"):
		return nil, fmt.Errorf("request.path: %.40q does not begin with /", r.Path)
	case a.Status < 200 || a.Status > 599:
		return nil, fmt.Errorf("answer.status: %d is not allowed; use 200 to 599", a.Status)
	case !known:
		return nil, fmt.Errorf("answer.end: %.40q is not known; use cut or reset, or leave it out", a.End)
	}
	x := &Exchange{At: l.At, Vendor: l.Vendor, Request: Request{Method: r.Method, Path: r.Path, Query: r.Query, Header: r.Header},
		Answer: llmmock.Recording{Status: a.Status, Header: a.Header, End: end}}
	var err error
	if x.Request.Body, err = r.bytes(); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	for _, h := range []http.Header{r.Header, a.Header} {
		if err := fields(h); err != nil {
			return nil, err
		}
	}
	last := int64(0)
	at := func(name string, us int64) (time.Duration, error) {
		if us < last || us > Longest.Microseconds() {
			return 0, fmt.Errorf("%s: %d µs is not allowed; use %d, which is when what is in front of it came, to %d", name, us, last, Longest.Microseconds())
		}
		last = us
		return time.Duration(us) * time.Microsecond, nil
	}
	if x.Answer.HeaderAt, err = at("answer.headerAt", a.HeaderAt); err != nil {
		return nil, err
	}
	for i := range a.Pieces {
		p := &a.Pieces[i]
		name := fmt.Sprintf("answer.pieces[%d]", i)
		piece := llmmock.RecordedPiece{}
		if piece.At, err = at(name+".at", p.At); err != nil {
			return nil, err
		}
		if piece.Data, err = p.bytes(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(piece.Data) == 0 {
			return nil, fmt.Errorf("%s: is empty; leave it out", name)
		}
		x.Answer.Pieces = append(x.Answer.Pieces, piece)
	}
	if x.Answer.EndAt, err = at("answer.endAt", a.EndAt); err != nil {
		return nil, err
	}
	return x, nil
}

// fields says what of a header could not be sent as it is.
func fields(h http.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if !token(name) || textproto.CanonicalMIMEHeaderKey(name) != name {
			return fmt.Errorf("header: %.40q is no name of a field in the form that it has here, such as Content-Type", name)
		}
		for _, v := range h[name] {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("header %s: %.40q has characters that are not allowed", name, v)
			}
		}
	}
	return nil
}

// token is one of HTTP (RFC 9110 §5.6.2).
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
