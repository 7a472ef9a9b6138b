// Package run is the whole mock as one call: scenarios, the vendors' APIs on a listener of their own, and beside it what every
// process of the house serves. The command llmmock and `edgehold mock run` are flags in front of it. Start at Run.
package run

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/anthropic"
	"edgehold.internal/services/llmmock/bedrock"
	"edgehold.internal/services/llmmock/gemini"
	"edgehold.internal/services/llmmock/openai"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/say"
	"edgehold.internal/services/llmmock/scenario"
	"edgehold.internal/services/llmmock/scenarios"
	"edgehold.internal/services/llmmock/serve"
	"edgehold.internal/services/llmmock/spec"
	"edgehold.internal/services/llmmock/tokens"
)

// Config of the process.
type Config struct {
	// Service is the listener for operators: health, metrics.
	Service service.Config
	// API is host:port of the vendors' APIs. Beyond loopback a client's key has to be a bearer token that Service knows.
	API string
	// Scenarios are YAML files, and folders of them. They are followed: what is changed is put in force, and what is wrong is
	// refused and the last good set stays.
	Scenarios []string
	// Ready are names of scenarios that come with the mock, in force beside those.
	Ready []string
	// Default is the name of the scenario that takes what no other matches; empty for the one named default or, where there is
	// none of that name and just one in all, for that one.
	Default string
	// MaxRequestBytes of a body; 0 for serve's default.
	MaxRequestBytes int64
}

// DefaultAPI is where the vendors' APIs are unless it is said otherwise.
const DefaultAPI = "127.0.0.1:7400"

// Flags adds a flag for each field.
func (c *Config) Flags(fs *pflag.FlagSet) {
	c.Service.Flags(fs)
	if c.API == "" {
		c.API = DefaultAPI
	}
	fs.StringVar(&c.API, "api-listen", c.API, "host:port of the vendors' APIs; beyond loopback clients need a token as their key")
	fs.StringSliceVar(&c.Scenarios, "scenarios", c.Scenarios, "file or folder with scenarios (YAML); they are followed")
	fs.StringSliceVar(&c.Ready, "ready", c.Ready, "scenario that comes with the mock: "+strings.Join(scenarios.Names(), ", "))
	fs.StringVar(&c.Default, "default", c.Default, "scenario that takes what no other matches (default: the one named default, or the only one)")
	fs.Int64Var(&c.MaxRequestBytes, "api-max-request-bytes", c.MaxRequestBytes, "largest body of a request to the APIs, in bytes; 0 for 32 MiB")
}

// Validate names the flag, its value and what is allowed.
func (c *Config) Validate() error {
	if _, err := c.Service.ValidateBeside("--api-listen", c.API); err != nil {
		return err
	}
	if c.MaxRequestBytes < 0 || c.MaxRequestBytes > 1<<30 {
		return problem.Invalidf("--api-max-request-bytes", "%d is not allowed: 0 to %d", c.MaxRequestBytes, 1<<30)
	}
	return c.Service.Validate()
}

// followEvery is how often scenario files are looked at.
const followEvery = time.Second

// Run serves until ctx ends. Once it is ready it prints one line of JSON to out, with the addresses of both listeners. Errors of the
// configuration and of scenarios are problems of kind Invalid.
func Run(ctx context.Context, c Config, out io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	server, err := service.New(c.Service)
	if err != nil {
		return err
	}
	log := server.Logger()
	// What is loaded on first use is loaded while nobody waits for it.
	var loading sync.WaitGroup
	loading.Go(tokens.O200k.Load)
	defer loading.Wait()

	set, err := c.load()
	if err != nil {
		return err
	}
	fallback := c.Default
	if fallback == "" && len(set) == 1 {
		fallback = set[0].Name
	}
	mock, err := llmmock.NewMock(set, say.New(nil), llmmock.Options{Default: fallback})
	if err != nil {
		return err
	}
	if named := func(s llmmock.Scenario) bool { return s.Name == c.Default }; c.Default != "" && !slices.ContainsFunc(set, named) {
		return problem.Invalidf("--default", "there is no scenario %q in what was read", c.Default)
	}
	var api *serve.Server
	apis, prepare, err := vendors(func(v llmmock.Vendor) func(method, path string, body []byte) (int, []byte) {
		return func(method, path string, body []byte) (int, []byte) { return api.Line(v, method, path, body) }
	})
	if err != nil {
		return err
	}
	loading.Go(prepare)
	judge := llmmock.NewJudge()
	seen := newMetrics(server.Registry())
	config := serve.Config{APIs: apis, Decider: mock, MaxRequestBytes: c.MaxRequestBytes, Late: seen.late, Logger: log,
		Observe: func(e llmmock.Event) { judge.Observe(e); seen.observe(e) }}
	if authenticate, _ := c.Service.ValidateBeside("--api-listen", c.API); authenticate {
		config.Allow = func(key string) bool {
			_, err := server.Token(ctx, key)
			return err == nil
		}
	}
	if api, err = serve.New(config); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.API)
	if err != nil {
		return problem.Invalidf("--api-listen", "%q: %v", c.API, err)
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return api.Serve(ctx, listener, 10*time.Second) })
	if len(c.Scenarios) > 0 {
		group.Go(func() error { c.follow(ctx, set, mock, server); return nil })
	}
	group.Go(func() error {
		select {
		case <-server.Ready():
			return json.NewEncoder(out).Encode(map[string]any{"ready": true, "address": server.Addr().String(), "api": listener.Addr().String()})
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// vendors are the hand-written APIs, and behind them what is left of each vendor's specification. line answers lines of batches;
// prepare decodes what the first requests would wait for.
func vendors(line func(llmmock.Vendor) func(method, path string, body []byte) (int, []byte)) (apis []provider.API, prepare func(), err error) {
	open, err := spec.Load(llmmock.OpenAI)
	if err != nil {
		return nil, nil, err
	}
	claude, err := spec.Load(llmmock.Anthropic)
	if err != nil {
		return nil, nil, err
	}
	objects := spec.NewStore(0, 0) // Azure's are OpenAI's
	for _, api := range openai.New(openai.Config{Validate: open.Validator()}) {
		prefix := ""
		if api.Vendor == llmmock.Azure {
			prefix = "/openai"
		}
		failure, header := openai.Envelope(openai.Config{}, api.Vendor)
		apis = append(apis, complete(api, prefix, spec.Config{Document: open, Store: objects, Failure: failure, Header: header, Run: line(llmmock.OpenAI)}))
	}
	failure, header := anthropic.Envelope(anthropic.Config{})
	messages := anthropic.New(anthropic.Config{Validate: claude.Validator()})
	messages.Known = anthropic.Known
	apis = append(apis, complete(messages, "", spec.Config{Document: claude, Failure: failure, Header: header, Run: line(llmmock.Anthropic)}))
	google := gemini.New(gemini.Config{})
	google.Known = gemini.Known
	amazon := bedrock.New(bedrock.Config{})
	amazon.Known = bedrock.Known
	prepare = func() {
		open.Prepare("POST /v1/chat/completions", "POST /v1/responses", "POST /v1/embeddings")
		claude.Prepare("POST /v1/messages")
	}
	return append(apis, google, amazon), prepare, nil
}

// complete adds to an API what its vendor's specification has beside it.
func complete(api provider.API, prefix string, c spec.Config) provider.API {
	var have []string
	for _, r := range api.Routes {
		have = append(have, strings.Replace(r.Pattern, " "+prefix, " ", 1))
	}
	api.Routes = append(api.Routes, spec.New(c).API(prefix, have).Routes...)
	return api
}

// load reads all scenarios that are asked for.
func (c *Config) load() ([]llmmock.Scenario, error) {
	var set []llmmock.Scenario
	for _, name := range c.Ready {
		one, err := scenarios.Named(name)
		if err != nil {
			return nil, err
		}
		set = append(set, one)
	}
	if len(c.Scenarios) == 0 {
		return set, nil
	}
	read, err := scenario.Load(c.Scenarios...)
	return append(set, read...), err
}

// follow puts changed scenarios in force, or says why not.
func (c *Config) follow(ctx context.Context, last []llmmock.Scenario, mock *llmmock.Mock, server *service.Server) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		next, err := c.load()
		if err == nil && !reflect.DeepEqual(next, last) {
			if err = mock.Replace(next); err == nil {
				last = next
				server.Logger().Info("the scenarios were read again", "scenarios", len(next))
			}
		}
		text := ""
		if err != nil {
			text = "the new scenarios are refused and the last good ones stay in force; mend them: " + err.Error()
		}
		server.SetWarning("scenarios", text)
	}
}
