package openai

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// hosted is a tool that the vendor runs itself, in the middle of an answer.
type hosted struct {
	// call is the type of the item that tells of it, and prefix begins that item's id.
	call, prefix string
	// stages are events between the item's beginning and its end, after response.<call>.
	stages []string
	// include asks for what came of it.
	include string
}

var (
	webSearch       = &hosted{"web_search_call", "ws_", []string{"in_progress", "searching", "completed"}, "web_search_call.action.sources"}
	fileSearch      = &hosted{"file_search_call", "fs_", []string{"in_progress", "searching", "completed"}, "file_search_call.results"}
	codeInterpreter = &hosted{"code_interpreter_call", "ci_", []string{"in_progress", "interpreting", "completed"}, "code_interpreter_call.outputs"}
)

// hostedTool is the one of that type; nil for those that clients run, and for those that the mock has nothing to say about.
func hostedTool(kind string) *hosted {
	switch {
	case strings.HasPrefix(kind, "web_search"): // the types have dates
		return webSearch
	case kind == "file_search":
		return fileSearch
	case kind == "code_interpreter":
		return codeInterpreter
	}
	return nil
}

// hosts says whether a hosted tool is told to have run: the chosen one, or the first of those that there are, before whatever is
// said. An answer that calls the client's tools runs none.
func (f *response) hosts(x *llmmock.Exchange) bool {
	return f.hosted != nil && len(x.Answer.Calls) == 0
}

const (
	sourceURL, sourceTitle = "https://example.com/", "Example Domain"
	sourceFile             = "document.txt"
)

// hostedCall appends the call of the hosted tool, which is the i-th item.
func (f *response) hostedCall(dst []byte, x *llmmock.Exchange, i int, status string) []byte {
	if status == "incomplete" {
		status = "completed" // what was cut off is what came after it
	}
	h := f.hosted
	dst = append(dst, `{"id":"`...)
	dst = f.itemID(dst, x, h.prefix, i)
	dst = append(dst, `","type":"`...)
	dst = append(dst, h.call...)
	dst = append(dst, `","status":"`...)
	dst = append(dst, status...)
	dst = append(dst, '"')
	shown := f.results && status == "completed"
	switch h {
	case webSearch:
		dst = append(dst, `,"action":{"type":"search","query":`...)
		dst = provider.AppendString(dst, f.query)
		dst = append(dst, `,"queries":[`...)
		dst = append(provider.AppendString(dst, f.query), ']')
		if shown {
			dst = append(dst, `,"sources":[{"type":"url","url":"`+sourceURL+`"}]`...)
		}
		dst = append(dst, '}')
	case fileSearch:
		dst = append(dst, `,"queries":[`...)
		dst = provider.AppendString(dst, f.query)
		dst = append(dst, `],"results":`...)
		if shown {
			dst = append(dst, `[{"file_id":"`...)
			dst = appendFileID(dst, x)
			dst = append(dst, `","filename":"`+sourceFile+`","score":0.9,"attributes":{},"text":`...)
			dst = append(provider.AppendString(dst, x.Answer.Text), "}]"...)
		} else {
			dst = append(dst, "null"...)
		}
	case codeInterpreter:
		dst = append(dst, `,"container_id":"cntr_`...)
		dst = append(dst, x.ID...)
		dst = append(dst, `","code":`...)
		dst = provider.AppendString(dst, f.code())
		dst = append(dst, `,"outputs":`...)
		if shown {
			dst = append(dst, `[{"type":"logs","logs":`...)
			dst = append(provider.AppendString(dst, f.query+"\n"), "}]"...)
		} else {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, '}')
}

// code is what the interpreter ran.
func (f *response) code() string { return "print(" + strconv.Quote(f.query) + ")" }

func appendFileID(dst []byte, x *llmmock.Exchange) []byte {
	return append(append(dst, "file-"...), x.ID[:min(len(x.ID), 22)]...)
}

// annotation appends where the text is said to be from; nothing for a tool that has no sources.
func (f *response) annotation(dst []byte, x *llmmock.Exchange) []byte {
	if !f.hosts(x) || x.Answer.Text == "" {
		return dst
	}
	switch f.hosted {
	case webSearch:
		dst = append(dst, `{"type":"url_citation","start_index":0,"end_index":`...)
		dst = strconv.AppendInt(dst, int64(utf8.RuneCountInString(x.Answer.Text)), 10)
		dst = append(dst, `,"url":"`+sourceURL+`","title":"`+sourceTitle+`"}`...)
	case fileSearch:
		dst = append(dst, `{"type":"file_citation","index":`...)
		dst = strconv.AppendInt(dst, int64(utf8.RuneCountInString(x.Answer.Text)), 10)
		dst = append(dst, `,"file_id":"`...)
		dst = appendFileID(dst, x)
		dst = append(dst, `","filename":"`+sourceFile+`"}`...)
	}
	return dst
}

// host sends the call of the hosted tool, which is the i-th item.
func (s *responseStream) host(i int) {
	if s.gone {
		return
	}
	h := s.hosted
	s.itemEvent("response.output_item.added", i)
	s.buf = s.hostedCall(s.buf, s.x, i, "in_progress")
	s.end()
	for n, stage := range h.stages {
		if h == codeInterpreter && n == 1 {
			for _, event := range [...]struct{ name, member string }{{"delta", `,"delta":`}, {"done", `,"code":`}} {
				s.begin("response.code_interpreter_call_code." + event.name)
				s.at(h.prefix, i, event.member)
				s.buf = provider.AppendString(s.buf, s.code())
				s.end()
			}
		}
		s.begin("response." + h.call + "." + stage)
		s.at(h.prefix, i, "")
		s.end()
	}
	s.itemEvent("response.output_item.done", i)
	s.buf = s.hostedCall(s.buf, s.x, i, "completed")
	s.end()
}
