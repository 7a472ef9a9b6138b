package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/spec"
)

// alone serves both vendors by their specifications, without timing and faults.
func alone() (*httptest.Server, error) {
	muxes := map[llmmock.Vendor]*http.ServeMux{}
	for _, v := range []llmmock.Vendor{llmmock.OpenAI, llmmock.Anthropic} {
		d, err := spec.Load(v)
		if err != nil {
			return nil, err
		}
		api := spec.New(spec.Config{Document: d}).API("", nil)
		mux := http.NewServeMux()
		for _, route := range api.Routes {
			mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) { answer(w, r, api, route) })
		}
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			status, body := api.Failure(w.Header(), &llmmock.Failure{Status: http.StatusNotFound, Reason: llmmock.NotFound, Message: "Unknown request URL: " + r.URL.Path}, "0")
			w.WriteHeader(status)
			_, _ = w.Write(body)
		})
		muxes[v] = mux
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := llmmock.OpenAI
		if r.Header.Get("X-Api-Key") != "" || r.Header.Get("Anthropic-Version") != "" {
			v = llmmock.Anthropic
		}
		muxes[v].ServeHTTP(w, r)
	})), nil
}

func answer(w http.ResponseWriter, r *http.Request, api provider.API, route provider.Route) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client left
	}
	q := &llmmock.Request{Vendor: api.Vendor, Method: r.Method, Path: r.URL.Path, Hash: llmmock.HashOf(r.Method, r.URL.Path, body), Size: len(body)}
	format, failure := route.Decode(q, r, body)
	m := llmmock.Moment{Request: q.Hash}
	x := &llmmock.Exchange{Request: q, Moment: m, ID: m.ID(), Created: time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)}
	format.Header(w.Header(), x)
	var status int
	var media string
	switch {
	case failure != nil:
		status, media, body = format.Failure(nil, failure, x)
	case q.Stream:
		w.Header().Set("Content-Type", format.StreamType())
		for c := range format.Stream(x) {
			_, _ = w.Write(c.Data)
		}
		return
	default:
		status, media, body = format.Whole(nil, x)
	}
	if media != "" {
		w.Header().Set("Content-Type", media)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
