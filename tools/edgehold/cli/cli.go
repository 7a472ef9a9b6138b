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
	"time"

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
	ExitFailed      = 1 // it was begun and failed, or the command itself is broken
	ExitUsage       = 2 // wrong flag or value, unknown name; nothing was changed
	ExitRefused     = 3 // right, but not now or not by you: preflight, freeze, role, another operation; nothing was changed
	ExitUnreachable = 4 // a service or cluster does not answer; --direct may
	ExitPartial     = 5 // some PoPs do not serve the target
	ExitWaiting     = 6 // the operation stopped and asks a person: see edgehold operation approve and abort
)

const exitHelp = `Exit codes:
  0  done
  1  failed after it was begun, or a defect
  2  wrong flag, value or name; nothing was changed
  3  refused: preflight, freeze, role or another operation; nothing was changed
  4  a service or cluster does not answer
  5  partial: some PoPs do not serve the target
  6  the operation waits for a person (operation approve, operation abort)`

// exit is an error with its own code; its text was already printed when it is empty.
type exit struct {
	code int
	text string
}

func (e *exit) Error() string { return e.text }

// Config is the file that says where the services are. Flags go over it.
type Config struct {
	// Fleet and Runbooks are the base URLs of the two services.
	Fleet    string `json:"fleet,omitempty"`
	Runbooks string `json:"runbooks,omitempty"`
	// TokenFile holds the bearer token; CAFile, CertFile and KeyFile are PEM files for TLS.
	TokenFile string `json:"tokenFile,omitempty"`
	CAFile    string `json:"caFile,omitempty"`
	CertFile  string `json:"certFile,omitempty"`
	KeyFile   string `json:"keyFile,omitempty"`
	// Kubeconfig and Registry are for --direct, which needs no service.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Registry   string `json:"registry,omitempty"`
	// AuditLog is the file that --direct appends its audit lines to.
	AuditLog string `json:"auditLog,omitempty"`
}

// app is what every command shares.
type app struct {
	out, diag  io.Writer
	configPath string
	config     Config
	output     string
	now        func() time.Time
}

// Command is the root command. Its subcommands print to its own output streams.
func Command(version string) *cobra.Command {
	a := &app{now: time.Now}
	root := &cobra.Command{
		Use:           "edgehold",
		Short:         "Fast, safe and reversible operations on an edge of many PoPs",
		Long:          "Fast, safe and reversible operations on an edge of many PoPs.\n\n" + exitHelp,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", os.Getenv("EDGEHOLD_CONFIG"), "file that says where the services are (default ~/.config/edgehold/config.yaml; env EDGEHOLD_CONFIG)")
	flags.StringVarP(&a.output, "output", "o", "table", "table or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		a.out, a.diag = cmd.OutOrStdout(), cmd.ErrOrStderr()
		if a.output != "table" && a.output != "json" {
			return problem.Invalidf("--output", "%q is not a format; use table or json", a.output)
		}
		return a.load()
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return problem.Invalidf("", "%s; see --help", err.Error())
	})
	root.AddCommand(popCommand(a), fleetCommand(a), rollbackCommand(a), cutoverCommand(a), operationCommand(a))
	return root
}

// Main runs the command line and returns the exit code. What went wrong is one line on diag, and a hint where there is one.
func Main(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	var e *exit
	if errors.As(err, &e) {
		if e.text != "" {
			fmt.Fprintln(root.ErrOrStderr(), "edgehold: "+e.text)
		}
		return e.code
	}
	fmt.Fprintln(root.ErrOrStderr(), "edgehold: "+err.Error())
	return code(err)
}

// code maps an error to the exit code.
func code(err error) int {
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

// load reads the config file. Only a file that was asked for must exist.
func (a *app) load() error {
	path, asked := a.configPath, a.configPath != ""
	if !asked {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil //nolint:nilerr // without a home there is no default file, and flags can say everything
		}
		path = filepath.Join(dir, "edgehold", "config.yaml")
	}
	body, err := os.ReadFile(path)
	if err != nil {
		if asked || !errors.Is(err, os.ErrNotExist) {
			return problem.Invalidf("--config", "cannot read %s: %v", path, err)
		}
		return nil
	}
	if err := yaml.UnmarshalStrict(body, &a.config); err != nil {
		return problem.Invalidf("--config", "%s: %v; allowed are fleet, runbooks, tokenFile, caFile, certFile, keyFile, kubeconfig, registry, auditLog", path, err)
	}
	return nil
}

func (a *app) client(name, address string) (*client.Client, error) {
	if address == "" {
		return nil, problem.Invalidf(name, "the address of the %s service is not known; set %q in the file of --config, or use --direct where there is one", name, name)
	}
	return client.New(client.Config{Address: address, TokenFile: a.config.TokenFile, CAFile: a.config.CAFile, CertFile: a.config.CertFile,
		KeyFile: a.config.KeyFile, Timeout: 2 * time.Minute})
}

func (a *app) fleets() (unary, stream fleetv1connect.FleetServiceClient, err error) {
	c, err := a.client("fleet", a.config.Fleet)
	if err != nil {
		return nil, nil, err
	}
	return fleetv1connect.NewFleetServiceClient(c.Unary(), c.URL(), c.Options()...), fleetv1connect.NewFleetServiceClient(c.Stream(), c.URL(), c.Options()...), nil
}

func (a *app) runbooks() (unary, stream runbookv1connect.RunbookServiceClient, err error) {
	c, err := a.client("runbooks", a.config.Runbooks)
	if err != nil {
		return nil, nil, err
	}
	return runbookv1connect.NewRunbookServiceClient(c.Unary(), c.URL(), c.Options()...), runbookv1connect.NewRunbookServiceClient(c.Stream(), c.URL(), c.Options()...), nil
}
