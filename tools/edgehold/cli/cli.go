// Package cli is the edgehold command: what a person types at night. Commands are `noun verb`, print a table for people
// or JSON for programs, and end with a code that says what to do next. Start at Command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"edgehold.internal/libs/client"
	"edgehold.internal/libs/problem"
	"edgehold.internal/proto/edgehold/fleet/v1/fleetv1connect"
	"edgehold.internal/proto/edgehold/runbook/v1/runbookv1connect"
)

// Exit codes. They are part of the interface: runbooks and cron jobs branch on them.
const (
	ExitDone        = 0 // what was asked for is so
	ExitFailed      = 1 // it was begun and failed, or the command was interrupted, or it is broken
	ExitUsage       = 2 // wrong flag or value, unknown name; nothing was changed
	ExitRefused     = 3 // right, but not now or not by you: preflight, freeze, role, another operation; nothing was changed
	ExitUnreachable = 4 // a service or cluster does not answer; --direct may
	ExitPartial     = 5 // partial or aborted: some PoPs may not serve the target
	ExitWaiting     = 6 // the operation stopped and asks a person: see edgehold operation approve and abort
	ExitFound       = 7 // what was looked at has what it should not have: mock report, mock run --fail-on, mock drift
)

const exitHelp = `Exit codes:
  0  done
  1  failed after it was begun, interrupted, or a defect
  2  wrong flag, value or name; nothing was changed
  3  refused: preflight, freeze, role, another operation; nothing was changed
  4  a service or cluster does not answer
  5  partial or aborted: some PoPs may not serve the target
  6  the operation waits for a person: operation approve or operation abort
  7  something was found that should not be there: mock report, mock drift`

// exit is an error with its own code. Lines of its text that begin with two spaces are commands to copy.
type exit struct {
	code int
	text string
}

func (e *exit) Error() string { return e.text }

// Config is the file that says where the services are, YAML or JSON. Flags go over it.
type Config struct {
	// Fleet and Runbooks are the base URLs of the two services.
	Fleet    string `json:"fleet,omitempty"`
	Runbooks string `json:"runbooks,omitempty"`
	// Mock is the base URL of a running mock, for its operators. Default: where edgehold mock run has it.
	Mock string `json:"mock,omitempty"`
	// TokenFile holds the bearer token; CAFile, CertFile and KeyFile are PEM files for TLS.
	TokenFile string `json:"tokenFile,omitempty"`
	CAFile    string `json:"caFile,omitempty"`
	CertFile  string `json:"certFile,omitempty"`
	KeyFile   string `json:"keyFile,omitempty"`
	// Kubeconfig and Registry are for --direct, which needs no service.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Registry   string `json:"registry,omitempty"`
	// AuditLog is the file that --direct appends its audit lines to. Default: edgehold/audit.log in the user's state directory.
	AuditLog string `json:"auditLog,omitempty"`
}

// moreOutput is the annotation of a command with the format that it has beside table and json.
const moreOutput = "edgehold_output"

// app is what every command shares.
type app struct {
	out, diag  io.Writer
	configPath string
	// settings reads the config file, once and only when a command needs it: what runs on this machine alone must work
	// without.
	settings func() (Config, error)
	output   string
	now      func() time.Time
}

// Command is the root command. Its subcommands print to its own output streams.
func Command(version string) *cobra.Command {
	cobra.EnableCommandSorting = false
	a := &app{now: time.Now}
	a.settings = sync.OnceValues(func() (Config, error) { return load(a.configPath) })
	root := noun("edgehold", "Fast, safe and reversible operations on an edge of many PoPs")
	root.Version, root.SilenceUsage, root.SilenceErrors = version, true, true
	root.Long = root.Short + ".\n\n" + exitHelp
	root.Example = `  edgehold fleet list                          what every PoP serves
  edgehold rollback --dry-run                  what a rollback would do
  edgehold rollback --reason 'v2 answers 500'  send every PoP back
  edgehold operation watch                     see how it goes
  source <(edgehold completion bash)           complete commands, flags and names`
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "`FILE` that says where the services are (default: env EDGEHOLD_CONFIG, else ~/.config/edgehold/config.yaml)")
	flags.StringVarP(&a.output, "output", "o", "table", "`FORMAT`, table or json")
	a.completeFlag(root, "output", oneOf("table", "json"))
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		a.out, a.diag = cmd.OutOrStdout(), cmd.ErrOrStderr()
		if more := cmd.Annotations[moreOutput]; a.output != "table" && a.output != "json" && (more == "" || a.output != more) {
			return problem.Invalidf("--output", "%q is not a format; use table%s or json", a.output, strings.TrimSuffix(", "+more, ", "))
		}
		return nil
	}
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(help)
	root.AddCommand(rollbackCommand(a), cutoverCommand(a), operationCommand(a), fleetCommand(a), popCommand(a), mockCommand(a))
	return root
}

// Main runs the command line and returns the exit code. What went wrong goes to the error stream: a sentence, and commands
// that help where there are any.
func Main(ctx context.Context, root *cobra.Command) int {
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitDone
	}
	w := root.ErrOrStderr()
	width := screenOf(w).width
	for i, line := range strings.Split(inFlags(cmd, err), "\n") {
		switch {
		case i == 0:
			for _, l := range wrap("edgehold: "+line, width, "  ") {
				fmt.Fprintln(w, l)
			}
		default:
			fmt.Fprintln(w, line)
		}
	}
	return code(err)
}

// code maps an error to the exit code.
func code(err error) int {
	var e *exit
	if errors.As(err, &e) {
		return e.code
	}
	var p *problem.Error
	if !errors.As(err, &p) {
		if errors.Is(err, context.Canceled) {
			return ExitFailed
		}
		// What cobra finds wrong with the words of a command has no type of its own.
		return ExitUsage
	}
	switch p.Kind {
	case problem.Invalid, problem.NotFound:
		return ExitUsage
	case problem.FailedPrecondition, problem.AlreadyExists, problem.Aborted, problem.PermissionDenied, problem.Unauthenticated, problem.ResourceExhausted:
		return ExitRefused
	case problem.Unavailable:
		return ExitUnreachable
	default:
		return ExitFailed
	}
}

// configFile is the path of the config file, and whether it was asked for and so must exist.
func configFile(flag string) (path string, asked bool) {
	if flag != "" {
		return flag, true
	}
	if env := os.Getenv("EDGEHOLD_CONFIG"); env != "" {
		return env, true
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", false // without a home there is no default file, and flags can say everything
	}
	return filepath.Join(dir, "edgehold", "config.yaml"), false
}

func load(flag string) (Config, error) {
	var c Config
	path, asked := configFile(flag)
	body, err := os.ReadFile(path)
	if err != nil {
		if path != "" && (asked || !errors.Is(err, os.ErrNotExist)) {
			return c, problem.Invalidf("--config", "%v; it is named by --config or by the variable EDGEHOLD_CONFIG", err)
		}
		return c, nil
	}
	if err := yaml.UnmarshalStrict(body, &c); err != nil {
		// The decoder speaks of its own steps and types.
		text := strings.NewReplacer("error unmarshaling JSON: ", "", "while decoding JSON: ", "", "error converting YAML to JSON: ", "", "json: ", "", "\n", " ",
			" into Go value of type cli.Config", "", " into Go struct field Config.", " as ", " of type string", "").Replace(err.Error())
		return c, problem.Invalidf("--config", "%s: %s; allowed are fleet, runbooks, mock, tokenFile, caFile, certFile, keyFile, kubeconfig, registry, auditLog, each a text", path, text)
	}
	return c, nil
}

// errNoAddress is the cause when a command needs a service that nobody has said the address of.
var errNoAddress = errors.New("no address")

// client opens one of the two services; the field is its name in the config file.
func (a *app) client(field string, address func(Config) string) (*client.Client, error) {
	config, err := a.settings()
	if err != nil {
		return nil, err
	}
	path, _ := configFile(a.configPath)
	if address(config) == "" {
		return nil, &problem.Error{Kind: problem.Invalid, Field: field, Cause: errNoAddress,
			Sentence: fmt.Sprintf("the address of this service is not known; write %q into %s", field+": http://HOST:PORT", orUnknown(path))}
	}
	c, err := client.New(client.Config{Address: address(config), TokenFile: config.TokenFile, CAFile: config.CAFile, CertFile: config.CertFile,
		KeyFile: config.KeyFile, Timeout: 2 * time.Minute})
	if err != nil {
		return nil, problem.Invalidf(path, "%s: %s", field, strings.TrimPrefix(err.Error(), "address: "))
	}
	return c, nil
}

// named says in the errors of a service that does not answer which one it is.
func named(service string) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			res, err := next(ctx, r)
			var p *problem.Error
			if errors.As(err, &p) && p.Kind == problem.Unavailable && p.Field == "" {
				c := *p
				c.Field = service
				return nil, &c
			}
			return res, err
		}
	}))
}

func (a *app) fleets() (unary, stream fleetv1connect.FleetServiceClient, err error) {
	c, err := a.client("fleet", func(c Config) string { return c.Fleet })
	if err != nil {
		return nil, nil, err
	}
	options := append([]connect.ClientOption{named("fleet service")}, c.Options()...)
	return fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), options...), fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), c.Options()...), nil
}

func (a *app) runbooks() (unary, stream runbookv1connect.RunbookServiceClient, err error) {
	c, err := a.client("runbooks", func(c Config) string { return c.Runbooks })
	if err != nil {
		return nil, nil, err
	}
	options := append([]connect.ClientOption{named("runbook service")}, c.Options()...)
	return runbookv1connect.NewRunbookServiceClient(c.Unary(), c.URL(), options...), runbookv1connect.NewRunbookServiceClient(c.Stream(), c.URL(), c.Options()...), nil
}
