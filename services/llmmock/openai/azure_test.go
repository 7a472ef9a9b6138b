package openai_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/openai"
	"edgehold.internal/services/llmmock/provider"
)

// Azure's older paths lead to what its v1 paths have, with the parameters of the path and the deployment as the model.
func TestDated(t *testing.T) {
	type seen struct{ path, escaped, id, model, body string }
	var got *seen
	record := func(q *llmmock.Request, r *http.Request, body []byte) (provider.Format, *llmmock.Failure) {
		got = &seen{r.URL.Path, r.URL.EscapedPath(), r.PathValue("id"), q.Model, string(body)}
		return nil, nil
	}
	routes := openai.Dated([]provider.Route{
		{Pattern: "GET /openai/v1/files/{id}", Decode: record},
		{Pattern: "POST /openai/v1/batches", Decode: record},
		{Pattern: "POST /openai/v1/images/generations", Decode: record},
		{Pattern: "GET /openai/elsewhere", Decode: record},
	})
	if len(routes) != 3 {
		t.Fatalf("%d routes, want 3: what is no v1 path has none", len(routes))
	}
	mux := http.NewServeMux()
	var refused *llmmock.Failure
	for _, route := range routes {
		mux.HandleFunc(route.Pattern, func(_ http.ResponseWriter, r *http.Request) {
			body := make([]byte, max(r.ContentLength, 0))
			_, _ = r.Body.Read(body)
			_, refused = route.Decode(&llmmock.Request{}, r, body)
		})
	}
	const version = "?api-version=2024-10-21"
	for _, tc := range []struct {
		method, url string
		want        *seen
	}{
		{http.MethodGet, "/openai/files/file-1" + version, &seen{"/openai/v1/files/file-1", "/openai/v1/files/file-1", "file-1", "", ""}},
		{http.MethodGet, "/openai/files/a%2Fb" + version, &seen{"/openai/v1/files/a/b", "/openai/v1/files/a%2Fb", "a/b", "", ""}},
		{http.MethodPost, "/openai/batches" + version, &seen{"/openai/v1/batches", "/openai/v1/batches", "", "", ""}},
		{http.MethodPost, "/openai/deployments/my%2Fimages/images/generations" + version, &seen{"/openai/v1/images/generations", "/openai/v1/images/generations", "", "my/images", ""}},
		{http.MethodGet, "/openai/files/file-1", nil},
		{http.MethodPost, "/openai/images/generations" + version, nil},
	} {
		got, refused = nil, nil
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(tc.method, tc.url, http.NoBody))
		switch {
		case tc.want == nil && got != nil, tc.want != nil && (got == nil || *got != *tc.want):
			t.Errorf("%s: %+v, want %+v", tc.url, got, tc.want)
		case tc.url == "/openai/files/file-1" && (refused == nil || refused.Status != 404):
			t.Errorf("without a version: %+v", refused)
		}
	}
}
