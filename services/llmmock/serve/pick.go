package serve

import (
	"net/http"
	"strings"

	"edgehold.internal/services/llmmock"
)

// Pick says whose request this is, and what of its path is in front of the vendor's own.
func Pick(r *http.Request) (v llmmock.Vendor, prefix string) { return pick(r) }

// pick says whose request this is, and what of the path is in front of the vendor's own. A path may say it outright, as
// /anthropic/v1/messages does; else the paths that only one vendor has and the headers that only its clients send tell. What
// nothing tells is OpenAI's, whose format most others speak too.
func pick(r *http.Request) (v llmmock.Vendor, prefix string) {
	path := r.URL.Path
	for _, v := range []llmmock.Vendor{llmmock.Anthropic, llmmock.Gemini, llmmock.Bedrock} {
		if rest, ok := strings.CutPrefix(path, "/"+string(v)); ok && strings.HasPrefix(rest, "/") {
			return v, "/" + string(v)
		}
	}
	switch {
	case strings.HasPrefix(path, "/openai/deployments/"), strings.HasPrefix(path, "/openai/responses"), strings.HasPrefix(path, "/openai/") && (has(r, "Api-Key") || strings.Contains(r.URL.RawQuery, "api-version=")):
		return llmmock.Azure, ""
	case strings.HasPrefix(path, "/openai/v1/"):
		return llmmock.OpenAI, "/openai"
	case strings.HasPrefix(path, "/v1/messages"), path == "/v1/complete":
		return llmmock.Anthropic, ""
	case strings.HasPrefix(path, "/v1beta"), strings.HasPrefix(path, "/v1alpha"), strings.HasPrefix(path, "/v1/projects/") && strings.Contains(path, "/locations/"), strings.HasPrefix(path, "/v1/publishers/"), has(r, "X-Goog-Api-Key"), has(r, "X-Goog-Api-Client"), strings.HasPrefix(path, "/v1/models/") && ofGemini(path):
		return llmmock.Gemini, ""
	case strings.HasPrefix(path, "/model/"):
		return llmmock.Bedrock, ""
	case has(r, "Anthropic-Version"), has(r, "X-Api-Key"):
		return llmmock.Anthropic, ""
	}
	return llmmock.OpenAI, ""
}

// ofGemini tells the methods that Gemini puts behind a model from the names of models that have a colon themselves.
func ofGemini(path string) bool {
	switch path[strings.LastIndexByte(path, ':')+1:] {
	case "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents", "predict":
		return true
	}
	return false
}

// has spares the canonicalization of Header.Get: name is canonical.
func has(r *http.Request, name string) bool { return len(r.Header[name]) > 0 }
