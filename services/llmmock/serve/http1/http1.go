// Package http1 reads the heads of requests of HTTP/1.1 (RFC 9112) in the form in which clients usually send them, for a third of
// what net/http takes. Of everything else, malformed or only rare, it says that it is Unusual, and the connection is then net/http's:
// there is nothing here that could be lenient where it must not be. What is Plain means the same to net/http, which a fuzz
// test holds against it. Start at Reader.Parse.
package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// Verdict on the beginning of what a client sent.
type Verdict int

// The verdicts.
const (
	// Incomplete: the head has no end yet, and so far nothing is against it.
	Incomplete Verdict = iota
	// Plain: there is a request.
	Plain
	// Unusual: net/http shall see to it.
	Unusual
)

// maxFields of a header.
const maxFields = 64

// Reader parses one head after the other into the same memory. The zero value is ready.
type Reader struct {
	// Request is the one that was parsed last, until the next call of Parse: with a header that has no Host, with a ContentLength,
	// and without a body, which is for the caller to set. Its strings stay valid.
	Request http.Request

	url    url.URL
	target string // that it was made of
	asked  url.URL
	header http.Header
	values [maxFields]string
}

// Parse looks at the beginning of b. With Plain, n is the length of the head, and the body of Request.ContentLength bytes follows.
func (r *Reader) Parse(b []byte) (n int, v Verdict) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, r.begun(b)
	}
	// One string that all others are parts of.
	head := string(b[:end+2])
	line, fields, _ := strings.Cut(head, "\r\n")
	r.Request = http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if r.header == nil {
		r.header = make(http.Header, 16)
	}
	clear(r.header)
	if !r.requestLine(line) || !r.fields(fields) || !r.meaning() {
		return 0, Unusual
	}
	return end + 4, Plain
}

// begun is the verdict on a head without an end. What will not become plain is not waited for: there may be no more.
func (r *Reader) begun(b []byte) Verdict {
	if i := bytes.Index(b, []byte("\r\n")); i >= 0 && !r.requestLine(string(b[:i])) {
		return Unusual
	}
	for {
		i := bytes.IndexByte(b, '\n')
		switch {
		case i < 0:
			return Incomplete
		case i == 0 || b[i-1] != '\r':
			return Unusual
		}
		b = b[i+1:]
	}
}

func (r *Reader) requestLine(line string) bool {
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return false
	}
	if version != "HTTP/1.1" || target == "" || target[0] != '/' {
		return false
	}
	// A client has few targets and asks for one of them most of the time.
	if target != r.target {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return false
		}
		r.url, r.target = *u, strings.Clone(target)
	}
	r.asked = r.url
	r.Request.Method, r.Request.RequestURI, r.Request.URL = method, target, &r.asked
	return true
}

// fields takes lines that end in CRLF each.
func (r *Reader) fields(text string) bool {
	for i := 0; text != ""; i++ {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		colon := strings.IndexByte(line, ':')
		if i == maxFields || colon < 1 || !all(line[:colon], ofToken) {
			return false
		}
		value := strings.Trim(line[colon+1:], " \t")
		if !all(value, ofValue) {
			return false
		}
		name := textproto.CanonicalMIMEHeaderKey(line[:colon])
		if before := r.header[name]; before != nil {
			r.header[name] = append(before, value)
			continue
		}
		r.values[i] = value
		r.header[name] = r.values[i : i+1 : i+1]
	}
	return true
}

// unusual fields change how a message is read or what becomes of the connection, or net/http changes them.
var unusual = []string{"Transfer-Encoding", "Trailer", "Expect", "Upgrade", "Http2-Settings", "Te", "Pragma", "Proxy-Connection", "Keep-Alive"}

// meaning takes from the header what is about the message itself.
func (r *Reader) meaning() bool {
	for _, name := range unusual {
		if r.header[name] != nil {
			return false
		}
	}
	host := r.header["Host"]
	if len(host) != 1 || host[0] == "" || !all(host[0], ofHost) {
		return false
	}
	delete(r.header, "Host")
	switch connection := r.header["Connection"]; {
	case connection == nil, len(connection) == 1 && strings.EqualFold(connection[0], "keep-alive"):
	case len(connection) == 1 && strings.EqualFold(connection[0], "close"):
		r.Request.Close = true
	default:
		return false
	}
	if length := r.header["Content-Length"]; length != nil {
		const digits = 15 // a petabyte, and far from overflow
		if len(length) != 1 || len(length[0]) > digits || !all(length[0], ofNumber) {
			return false
		}
		n, err := strconv.ParseInt(length[0], 10, 64)
		if err != nil {
			return false
		}
		r.Request.ContentLength = n
	}
	r.Request.Host, r.Request.Header = host[0], r.header
	return true
}

// Classes of bytes: of a token (RFC 9110 §5.6.2), of the value of a field (§5.5), of a host and port, and of a number.
const (
	ofToken = 1 << iota
	ofValue
	ofHost
	ofNumber
)

var classes = func() (c [256]uint8) {
	for i := range c {
		switch b := byte(i); {
		case b >= '0' && b <= '9':
			c[i] = ofToken | ofValue | ofHost | ofNumber
		case b|0x20 >= 'a' && b|0x20 <= 'z':
			c[i] = ofToken | ofValue | ofHost
		case strings.IndexByte("-._", b) >= 0:
			c[i] = ofToken | ofValue | ofHost
		case strings.IndexByte("!#$%&'*+^`|~", b) >= 0:
			c[i] = ofToken | ofValue
		case strings.IndexByte(":[]", b) >= 0:
			c[i] = ofValue | ofHost
		case b >= ' ' && b != 0x7f || b == '\t':
			c[i] = ofValue
		}
	}
	return c
}()

// all says whether every byte of s is of the class.
func all(s string, class uint8) bool {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}
