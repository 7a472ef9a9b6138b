// Package run is the whole mock as one call: scenarios, the vendors' APIs on a listener of their own, and beside it what every
// process of the house serves. The command llmmock and `edgehold mock run` are flags in front of it. Start at Run.
package run

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/anthropic"
	"edgehold.internal/services/llmmock/bedrock"
	"edgehold.internal/services/llmmock/gemini"
	"edgehold.internal/services/llmmock/openai"
	"edgehold.internal/services/llmmock/page"
	"edgehold.internal/services/llmmock/provider"
	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/rpc"
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
	// Prices is a file with a price table (YAML); empty for the one that is compiled in.
	Prices string
	// Ended is told the verdict on all clients when the mock has stopped; nil for nobody.
	Ended func(llmmock.Report)
	// AWSCredentials is a file with the access keys that Bedrock's signatures are verified with, in the form of the clients' own; empty
	// for none. Scenarios whose strict.signatures is true need it.
	AWSCredentials string
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
	fs.StringVar(&c.Prices, "prices", c.Prices, "file with a price table, for what tokens would have cost (default: list prices, compiled in)")
	fs.StringVar(&c.AWSCredentials, "aws-credentials", c.AWSCredentials, "file with the access keys of Bedrock's clients (~/.aws/credentials has the form), for scenarios with strict.signatures")
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

	player := new(record.Player)
	read, err := c.load(player)
	if err != nil {
		return err
	}
	set := make([]llmmock.Scenario, len(read))
	for i := range read {
		set[i] = read[i].Scenario
	}
	prices, err := c.prices()
	if err != nil {
		return err
	}
	fallback := c.Default
	if fallback == "" && len(set) == 1 {
		fallback = set[0].Name
	}
	mock, err := llmmock.NewMock(nil, say.New(player.Answer), llmmock.Options{Default: fallback})
	if err != nil {
		return err
	}
	library := llmmock.NewLibrary(mock)
	if err := library.Read(read); err != nil {
		return err
	}
	if named := func(s llmmock.Scenario) bool { return s.Name == c.Default }; c.Default != "" && !slices.ContainsFunc(set, named) {
		return problem.Invalidf("--default", "there is no scenario %q in what was read", c.Default)
	}
	secret, err := c.secrets(set)
	if err != nil {
		return err
	}
	var api *serve.Server
	apis, prepare, err := vendors(secret, func(v llmmock.Vendor) func(method, path string, body []byte) (int, []byte) {
		return func(method, path string, body []byte) (int, []byte) { return api.Line(v, method, path, body) }
	})
	if err != nil {
		return err
	}
	loading.Go(prepare)
	judge, drills, traffic, meter := llmmock.NewJudge(), llmmock.NewDrills(mock), new(llmmock.Traffic), new(llmmock.Meter)
	seen := newMetrics(server.Registry(), traffic)
	told := rpc.New(rpc.Config{Mock: mock, Library: library, Judge: judge, Traffic: traffic, Meter: meter, Drills: drills, Prices: prices,
		Started: time.Now(), Late: seen.buckets})
	told.Mount(server)
	config := serve.Config{APIs: apis, Decider: mock, MaxRequestBytes: c.MaxRequestBytes, Late: seen.late, Logger: log,
		Observe: func(e llmmock.Event) {
			judge.Observe(e)
			traffic.Observe(e)
			meter.Observe(e)
			drills.Observe(e)
		}}
	if authenticate, _ := c.Service.ValidateBeside("--api-listen", c.API); authenticate {
		config.Allow = func(key string) bool {
			_, err := server.Token(ctx, key)
			return err == nil
		}
	}
	config.Home = page.New(func(watching context.Context, send func(*llmmockv1.WatchResponse) error) error {
		watching, leave := context.WithCancel(watching)
		defer leave()
		defer context.AfterFunc(ctx, leave)() // a page that is open does not hold up the end
		return told.Follow(watching, send)
	}, config.Allow)
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
		group.Go(func() error { c.follow(ctx, read, library, player, server); return nil })
	}
	group.Go(func() error {
		select {
		case <-server.Ready():
			return json.NewEncoder(out).Encode(map[string]any{"ready": true, "address": server.Addr().String(), "api": listener.Addr().String()})
		case <-ctx.Done():
			return nil
		}
	})
	err = group.Wait()
	if c.Ended != nil {
		c.Ended(judge.Report(""))
	}
	return err
}

// vendors are the hand-written APIs, and behind them what is left of each vendor's specification. line answers lines of batches;
// prepare decodes what the first requests would wait for. secret belongs to an access key of Bedrock's; nil knows none.
func vendors(secret func(id string) (string, bool), line func(llmmock.Vendor) func(method, path string, body []byte) (int, []byte)) (apis []provider.API, prepare func(), err error) {
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
		if api.Vendor == llmmock.OpenAI { // Azure's models are deployments, of any name
			api.Known = open.Known
		}
		failure, header := openai.Envelope(openai.Config{}, api.Vendor)
		mine, answer := len(api.Routes), line(llmmock.OpenAI)
		if api.Vendor == llmmock.Azure {
			answer = openai.Undated(answer)
		}
		api = complete(api, prefix, spec.Config{Document: open, Store: objects, Failure: failure, Header: header, Run: answer})
		if api.Vendor == llmmock.Azure {
			api.Routes = append(api.Routes, openai.Dated(api.Routes[mine:])...)
		}
		apis = append(apis, api)
	}
	failure, header := anthropic.Envelope(anthropic.Config{})
	messages := anthropic.New(anthropic.Config{Validate: claude.Validator()})
	messages.Known = anthropic.Known
	apis = append(apis, complete(messages, "", spec.Config{Document: claude, Failure: failure, Header: header, Run: line(llmmock.Anthropic)}))
	google := gemini.New(gemini.Config{})
	google.Known = gemini.Known
	amazon := bedrock.New(bedrock.Config{Secret: secret})
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

// secrets reads the access keys; nil when there is no file.
func (c *Config) secrets(set []llmmock.Scenario) (func(id string) (string, bool), error) {
	if c.AWSCredentials == "" {
		for i := range set {
			if set[i].Strict.Signatures {
				return nil, problem.Invalidf("--aws-credentials", "scenario %q verifies signatures (strict.signatures): give the file with the access keys that clients sign with", set[i].Name)
			}
		}
		return nil, nil
	}
	file, err := os.Open(c.AWSCredentials)
	if err != nil {
		return nil, problem.Invalidf("--aws-credentials", "%v", err)
	}
	defer file.Close()
	known, err := bedrock.ReadCredentials(file)
	if err != nil {
		return nil, problem.Invalidf("--aws-credentials", "%s: %v", c.AWSCredentials, err)
	}
	return func(id string) (string, bool) { s, ok := known[id]; return s, ok }, nil
}

// prices is the table that tokens are priced by.
func (c *Config) prices() (llmmock.Prices, error) {
	if c.Prices == "" {
		return scenario.Prices(), nil
	}
	data, err := os.ReadFile(c.Prices)
	if err != nil {
		return nil, problem.Invalidf("--prices", "%v", err)
	}
	return scenario.ReadPrices(c.Prices, data)
}

// load reads all scenarios that are asked for, and the recordings that they play.
func (c *Config) load(player *record.Player) ([]llmmock.Sourced, error) {
	var set []llmmock.Sourced
	for _, name := range c.Ready {
		one, err := scenarios.Named(name)
		if err != nil {
			return nil, err
		}
		set = append(set, llmmock.Sourced{Scenario: one, Origin: llmmock.Ready})
	}
	if len(c.Scenarios) == 0 {
		return set, nil
	}
	read, err := scenario.LoadSourced(c.Scenarios...)
	if err != nil {
		return nil, err
	}
	var recordings []string
	for i := range read {
		recordings = append(recordings, record.Names(&read[i].Scenario)...)
	}
	return append(set, read...), player.Load(recordings)
}

// follow puts changed scenarios in force, or says why not.
func (c *Config) follow(ctx context.Context, last []llmmock.Sourced, library *llmmock.Library, player *record.Player, server *service.Server) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		next, err := c.load(player)
		if err == nil && !reflect.DeepEqual(next, last) {
			if err = library.Read(next); err == nil {
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
