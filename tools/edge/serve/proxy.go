package serve

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// newProxy passes requests on to Upstream. Its answers keep their own status and body; the edge's headers are added.
func (s *Server) newProxy() http.Handler {
	target, err := url.Parse(s.cfg.Upstream)
	if err != nil {
		panic("serve: Validate let an upstream pass that cannot be parsed: " + err.Error())
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		FlushInterval: -1, // streams pass line by line
		Transport: &http.Transport{
			MaxIdleConnsPerHost:   64,
			MaxConnsPerHost:       1024,
			IdleConnTimeout:       5 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			DisableCompression:    true,
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode >= 500 {
				s.errors.Add(1)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the client went away, not the upstream
			}
			s.errors.Add(1)
			s.log.Warn("the upstream did not answer", "upstream", s.cfg.Upstream, "error", err)
			http.Error(w, "the upstream did not answer", http.StatusBadGateway)
		},
	}
}
