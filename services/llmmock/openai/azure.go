package openai

import (
	"net/http"
	"regexp"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// decode is a provider.Route's.
type decode = func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure)

// dated is decode for Azure's older paths, which name a version of the API: its gateway does not find what has none.
func dated(decode decode) decode {
	return func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
		q.Vendor = llmmock.Azure
		if r.URL.Query().Get("api-version") == "" {
			return nil, &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Code: "404", Message: "Resource not found"}
		}
		return decode(q, r, body)
	}
}

// deployed is what Azure asks of a deployment beside what this package has.
var deployed = map[string]bool{"/images/generations": true, "/images/edits": true, "/audio/speech": true, "/audio/transcriptions": true, "/audio/translations": true}

// Dated are the routes of Azure's older paths beside those of its v1 paths, /openai/files beside /openai/v1/files. What is asked of
// a model has the deployment in its path.
func Dated(routes []provider.Route) []provider.Route {
	const v1 = "/openai/v1"
	var older []provider.Route
	for _, route := range routes {
		method, path, _ := strings.Cut(route.Pattern, " ")
		rest, ok := strings.CutPrefix(path, v1)
		if !ok {
			continue
		}
		to := "/openai"
		if deployed[rest] {
			to += "/deployments/{deployment}"
		}
		older = append(older, provider.Route{Pattern: method + " " + to + rest, Decode: dated(func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
			q.Model = r.PathValue("deployment")
			other, u := r.WithContext(r.Context()), *r.URL
			switch {
			case deployed[rest]:
				u.Path, u.RawPath = v1+rest, ""
			case u.RawPath != "":
				u.RawPath = v1 + strings.TrimPrefix(u.RawPath, to)
				fallthrough
			default:
				u.Path = v1 + strings.TrimPrefix(u.Path, to)
			}
			other.URL = &u
			if rest == "/batches" {
				body = endpoint.ReplaceAll(body, []byte("${1}/v1$2"))
			}
			f, failure := route.Decode(q, other, body)
			if route.Pattern == "POST "+v1+"/batches" && f != nil {
				f = created{f}
			}
			return f, failure
		})})
	}
	return older
}

// created answers that something was made, which OpenAI does not tell from other success.
type created struct{ provider.Format }

// Whole implements provider.Format.
func (c created) Whole(dst []byte, x *llmmock.Exchange) (status int, contentType string, body []byte) {
	status, contentType, body = c.Format.Whole(dst, x)
	if status == http.StatusOK {
		status = http.StatusCreated
	}
	return status, contentType, body
}

// endpoint of a batch, which Azure names without the version.
var endpoint = regexp.MustCompile(`("endpoint"\s*:\s*")(/(?:chat/completions|completions|embeddings|responses)")`)

// Undated answers lines of Azure's batches, which name their path without the version too, as OpenAI's.
func Undated(line func(method, path string, body []byte) (int, []byte)) func(method, path string, body []byte) (int, []byte) {
	return func(method, path string, body []byte) (int, []byte) {
		if !strings.HasPrefix(path, "/v1/") {
			path = "/v1" + path
		}
		return line(method, path, body)
	}
}
