// Package temporal is a whole Temporal in one process: the four services of go.temporal.io/server on one SQLite
// database on disk, and the web UI. It is for one machine and listens on loopback only; past that, the workflows are
// pointed at a real cluster. It loses nothing that it acknowledged when it is killed. Start at Run; what makes a
// burst of child workflows fast is in tuning.go.
package temporal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	schema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// SearchAttributes are the custom search attributes that the namespace always has. All are keywords.
var SearchAttributes = []string{"EdgeholdFleet", "EdgeholdPop", "EdgeholdState", "EdgeholdOperation", "EdgeholdKey"}

// Retention is how long a closed workflow stays readable.
const Retention = 7 * 24 * time.Hour

const (
	// clusterName is stored in the database and never shown.
	clusterName = "active"
	// startLimit bounds the start; a warm one takes about a second, so only a broken one gets here.
	startLimit = time.Minute
)

// Ready is what the process prints, as one JSON line, when everything answers.
type Ready struct {
	// Ready is always true.
	Ready bool `json:"ready"`
	// Address of the frontend, host:port, for clients and workers.
	Address string `json:"address"`
	// UI is the URL of the web UI.
	UI string `json:"ui"`
	// Namespace that exists and has the search attributes.
	Namespace string `json:"namespace"`
}

// Run starts the engine, calls ready once when the frontend serves the namespace and the UI answers, and runs until
// ctx ends; then it stops in order and returns nil. Any other return is an error that says what to do about it.
func Run(ctx context.Context, cfg Config, ready func(Ready)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	held, err := lock(cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()

	st, err := prepare(ctx, cfg)
	if ctx.Err() != nil {
		return nil // asked to stop before anything was started
	}
	if err != nil {
		return err
	}
	logger := log.NewZapLogger(log.BuildZapLogger(log.Config{Level: cfg.LogLevel}))
	server, err := newServer(serverConfig(cfg, st), st, logger)
	if err != nil {
		return fmt.Errorf("cannot assemble the server: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("cannot start the server: %w", err)
	}
	checkpointing, stopCheckpoints := context.WithCancel(context.Background())
	checkpointDone := make(chan error, 1)
	go func() { checkpointDone <- checkpoint(checkpointing, cfg.Dir, logger) }()
	ui := newUI(cfg, st)
	uiDone := make(chan error, 1)
	go func() { uiDone <- ui.Start() }() // it exits the process when it cannot listen; the port was free a moment ago

	err = func() error {
		starting, cancel := context.WithTimeout(ctx, startLimit)
		defer cancel()
		if err := ensureNamespace(starting, loopback(st.Ports["frontend"]), cfg.Namespace); err != nil {
			return err
		}
		url := "http://" + loopback(st.Ports["ui"])
		if err := awaitHTTP(starting, url+"/healthz"); err != nil {
			return err
		}
		ready(Ready{Ready: true, Address: loopback(st.Ports["frontend"]), UI: url, Namespace: cfg.Namespace})
		<-ctx.Done()
		return nil
	}()
	if ctx.Err() != nil {
		err = nil // Asked to stop while starting is not a failure.
	}
	ui.Stop()
	err = errors.Join(err, <-uiDone, server.Stop())
	stopCheckpoints()
	return errors.Join(err, <-checkpointDone)
}

// prepare makes the database and the ports ready and says what is there.
func prepare(ctx context.Context, cfg Config) (*state, error) {
	path := filepath.Join(cfg.Dir, "state.json")
	st, err := readState(path)
	if err != nil {
		return nil, fmt.Errorf("dir: %s cannot be read (%w); delete %s to start with an empty history", path, err, cfg.Dir)
	}
	if st != nil && (st.Schema != schema.Version || st.VisibilitySchema != schema.VisibilityVersion) {
		return nil, fmt.Errorf("dir: %s holds a database of schema %s/%s and this server needs %s/%s; delete it to start with an empty history",
			cfg.Dir, st.Schema, st.VisibilitySchema, schema.Version, schema.VisibilityVersion)
	}
	if st == nil {
		st = &state{Schema: schema.Version, VisibilitySchema: schema.VisibilityVersion, Shards: historyShards}
		for _, name := range []string{mainDatabase, visibilityDatabase} {
			for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
				if err := os.Remove(filepath.Join(cfg.Dir, name) + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
					return nil, fmt.Errorf("dir: %w", err)
				}
			}
			if err := schema.SetupSchema(database(cfg.Dir, name)); err != nil {
				return nil, fmt.Errorf("dir: cannot set up %s in %s: %w", name, cfg.Dir, err)
			}
		}
	}
	asked := map[string]int{}
	if cfg.Port != 0 {
		asked["frontend"] = cfg.Port
	}
	if cfg.UIPort != 0 {
		asked["ui"] = cfg.UIPort
	}
	if st.Ports, err = choosePorts(ctx, cfg.Dir, asked, st.Ports); err != nil {
		return nil, err
	}
	// The system's caches read namespaces when they start, so the first namespace is best there before the server.
	attributes := map[string]enums.IndexedValueType{}
	for _, name := range SearchAttributes {
		attributes[name] = enums.INDEXED_VALUE_TYPE_KEYWORD
	}
	ns, err := schema.NewNamespaceConfig(clusterName, cfg.Namespace, false, attributes)
	if err != nil {
		return nil, fmt.Errorf("namespace: %w", err)
	}
	ns.Detail.Config.Retention = durationpb.New(Retention)
	if err := schema.CreateNamespaces(database(cfg.Dir, mainDatabase), ns); err != nil {
		return nil, fmt.Errorf("namespace: cannot create %s in %s: %w", cfg.Namespace, cfg.Dir, err)
	}
	if err := st.write(path); err != nil {
		return nil, fmt.Errorf("dir: cannot write %s: %w", path, err)
	}
	return st, nil
}

func serverConfig(cfg Config, st *state) *config.Config {
	service := func(name string) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: st.Ports[name], BindOnIP: "127.0.0.1"}}
	}
	var c config.Config
	c.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: "127.0.0.1"}
	c.Persistence = config.Persistence{
		DefaultStore: mainDatabase, VisibilityStore: visibilityDatabase, NumHistoryShards: st.Shards,
		DataStores: map[string]config.DataStore{
			mainDatabase:       {SQL: database(cfg.Dir, mainDatabase)},
			visibilityDatabase: {SQL: database(cfg.Dir, visibilityDatabase)},
		},
	}
	frontend := loopback(st.Ports["frontend"])
	c.ClusterMetadata = &cluster.Config{
		FailoverVersionIncrement: 10, MasterClusterName: clusterName, CurrentClusterName: clusterName,
		ClusterInformation: map[string]cluster.ClusterInformation{
			clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
		},
	}
	c.DCRedirectionPolicy.Policy = "noop"
	c.Services = map[string]config.Service{"frontend": service("frontend"), "history": service("history"),
		"matching": service("matching"), "worker": service("worker")}
	c.Archival.History.State, c.Archival.Visibility.State = config.ArchivalDisabled, config.ArchivalDisabled
	c.NamespaceDefaults.Archival.History.State = config.ArchivalDisabled
	c.NamespaceDefaults.Archival.Visibility.State = config.ArchivalDisabled
	c.PublicClient.HostPort = frontend
	return &c
}

func newServer(c *config.Config, st *state, logger log.Logger) (temporal.Server, error) {
	hosts := func(name string) static.Hosts { return static.SingleLocalHost(loopback(st.Ports[name])) }
	claims, err := authorization.GetClaimMapperFromConfig(&c.Global.Authorization, logger)
	if err != nil {
		return nil, err
	}
	authorizer, err := authorization.GetAuthorizerFromConfig(&c.Global.Authorization)
	if err != nil {
		return nil, err
	}
	return temporal.NewServer(
		temporal.WithConfig(c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(map[primitives.ServiceName]static.Hosts{
			primitives.FrontendService: hosts("frontend"), primitives.HistoryService: hosts("history"),
			primitives.MatchingService: hosts("matching"), primitives.WorkerService: hosts("worker"),
		}),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claims }),
		temporal.WithDynamicConfigClient(tuning()),
	)
}

func newUI(cfg Config, st *state) *uiserver.Server {
	return uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host: "127.0.0.1", Port: st.Ports["ui"], TemporalGRPCAddress: loopback(st.Ports["frontend"]),
		DefaultNamespace: cfg.Namespace, EnableUI: true, HideLogs: true,
		// Plain HTTP on loopback, and nothing leaves this machine.
		CORS: uiconfig.CORS{CookieInsecure: true}, DisableNewsFetch: true,
	}))
}

// database is the SQLite configuration of one file.
func database(dir, name string) *config.SQL {
	attributes := map[string]string{"mode": "rwc"}
	for k, v := range pragmas {
		attributes[k] = v
	}
	return &config.SQL{PluginName: sqlite.PluginName, DatabaseName: filepath.Join(dir, name), ConnectAttributes: attributes}
}

// ensureNamespace waits until the frontend serves the namespace and adds the search attributes that it lacks, which a
// namespace of an earlier version may.
func ensureNamespace(ctx context.Context, address, namespace string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	workflows, operator := workflowservice.NewWorkflowServiceClient(conn), operatorservice.NewOperatorServiceClient(conn)
	if err := again(ctx, func() error {
		_, err := workflows.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace}, grpc.WaitForReady(true))
		return err
	}); err != nil {
		return fmt.Errorf("the frontend on %s does not serve namespace %s: %w", address, namespace, err)
	}
	if err := again(ctx, func() error {
		have, err := operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
		if err != nil {
			return err
		}
		missing := map[string]enums.IndexedValueType{}
		for _, name := range SearchAttributes {
			if _, ok := have.GetCustomAttributes()[name]; !ok {
				missing[name] = enums.INDEXED_VALUE_TYPE_KEYWORD
			}
		}
		if len(missing) == 0 {
			return nil
		}
		_, err = operator.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
		return err
	}); err != nil {
		return fmt.Errorf("cannot give namespace %s its search attributes: %w", namespace, err)
	}
	return nil
}

// again calls f until it succeeds, fails for good or ctx ends. The server reports readiness before its shards and
// caches are there and has no event for that.
func again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if code := status.Code(err); code != codes.Unavailable && code != codes.NotFound {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// awaitHTTP waits for a 200. The UI server tells nobody when it listens.
func awaitHTTP(ctx context.Context, url string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("it answers %s", resp.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the web UI does not answer on %s: %w", url, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
