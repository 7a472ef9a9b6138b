package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/llmmock"
	mock "edgehold.internal/services/llmmock/run"
	"edgehold.internal/services/llmmock/scenario"
	"edgehold.internal/services/llmmock/scenarios"
)

func mockCommand(a *app) *cobra.Command {
	cmd := noun("mock", "A stand-in for model providers: run it, change it, see what its clients do wrong")
	cmd.AddCommand(mockRunCommand(a), mockScenarioCommand(a), mockRecordCommand(a), mockDriftCommand(a), mockPhaseCommand(a), mockDrillCommand(a), mockReportCommand(a), mockSavingsCommand(a), mockWatchCommand(a))
	return cmd
}

func mockRunCommand(a *app) *cobra.Command {
	var by verdict
	files := reportFiles()
	c := &mock.Config{API: mock.DefaultAPI, Service: service.Config{Name: "llmmock", Version: "edgehold", LogLevel: "warn", LogFormat: "text"}}
	cmd := &cobra.Command{
		Use:   "run [FILE|FOLDER|NAME ...]",
		Short: "Run it here until it is interrupted, with scenarios of your own or ready ones by their name",
		Example: `  edgehold mock run                   sensible answers at once
  edgehold mock run slow-model        as a ready scenario says
  edgehold mock run drill.yaml        as a file says; it is followed
  edgehold mock run ci/ --junit verdict.xml --fail-on any       in CI, until it is stopped`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Scenarios, c.Ready = nil, nil
			for _, arg := range args {
				if _, err := os.Stat(arg); err == nil {
					c.Scenarios = append(c.Scenarios, arg)
				} else if _, err := scenarios.Text(arg); err == nil {
					c.Ready = append(c.Ready, arg)
				} else {
					return problem.NotFoundf("scenario", "%q is neither a file or folder nor the name of a ready scenario: %s", arg, strings.Join(scenarios.Names(), ", "))
				}
			}
			failing, err := by.findings()
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := f.open(); err != nil {
					return err
				}
			}
			if c.Service.Listen == "" {
				c.Service.Listen = portAfter(c.API)
			}
			var report llmmock.Report
			c.Ended = func(r llmmock.Report) { report = r }
			ready := a.out
			if a.output != "json" {
				ready = &announcement{out: a.out}
			}
			err = mock.Run(cmd.Context(), *c, ready)
			if err != nil {
				// The flag of the process is not the one of this command.
				if text, ok := strings.CutPrefix(err.Error(), "--listen "+c.Service.Listen+": "); ok {
					return problem.Invalidf("--operators", "%q: %s; use another port", c.Service.Listen, text)
				}
				return err
			}
			if a.output != "json" && !report.Good() {
				fmt.Fprintln(a.out)
				printReport(a.out, &report)
			}
			for _, f := range files {
				err = errors.Join(err, f.finish(&report, failing))
			}
			if err != nil {
				return err
			}
			return judge(&report, failing, "")
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.API, "listen", c.API, "`HOST:PORT` of the vendors' APIs; beyond loopback it needs --tokens-file")
	fs.StringVar(&c.Service.Listen, "operators", "", "`HOST:PORT` for operators: API, health, metrics (default: on 127.0.0.1, the port after that of --listen)")
	fs.StringVar(&c.Service.TokensFile, "tokens-file", "", "`FILE` with the tokens that clients may use as their keys")
	fs.StringVar(&c.Default, "default", "", "`NAME` of the scenario that takes what no other matches")
	fs.StringVar(&c.AWSCredentials, "aws-credentials", "", "`FILE` with the access keys of Bedrock's clients, as in ~/.aws/credentials, for scenarios with strict.signatures")
	fs.StringVar(&c.Prices, "prices", "", "`FILE` with a price table, for what tokens would have cost (default: list prices, compiled in)")
	for _, f := range files {
		fs.StringVar(&f.path, f.flag, "", "at the end write the verdict on clients to this `FILE`, as "+f.what)
	}
	by.flag(a, cmd, "none")
	group(fs, "At the end", "junit", "report", "fail-on")
	return cmd
}

// portAfter is where operators are answered: on loopback, beside the API. Where the API has any port, they have one too.
func portAfter(api string) string {
	_, port, err := net.SplitHostPort(api)
	if n, failed := strconv.ParseUint(port, 10, 16); err == nil && failed == nil && n > 0 && n < 1<<16-1 {
		return net.JoinHostPort("127.0.0.1", strconv.FormatUint(n+1, 10))
	}
	return "127.0.0.1:0"
}

// announcement makes of the line for programs what a person wants to know.
type announcement struct{ out io.Writer }

// Write implements io.Writer.
func (a *announcement) Write(p []byte) (int, error) {
	var ready struct{ Address, API string }
	if err := json.Unmarshal(bytes.TrimSpace(p), &ready); err != nil {
		return a.out.Write(p)
	}
	base, where := "http://"+ready.API, ""
	if "http://"+ready.Address != defaultMock {
		where = " --address " + ready.Address
	}
	fmt.Fprintf(a.out, `The mock answers on %[1]s. Point a client at it:
%[4]s
Any key will do. A browser shows at %[1]s/ what goes on.
For operators: edgehold mock report|watch|phase|drill%[3]s, and http://%[2]s/metrics. Ctrl-C ends it.
`, base, ready.Address, where, pointClients(base))
	return len(p), nil
}

func mockScenarioCommand(a *app) *cobra.Command {
	cmd := noun("scenario", "Scenarios: those that come with the mock, those of a running one, files")
	cmd.AddCommand(mockScenarioListCommand(a), mockScenarioPutCommand(a), mockScenarioDeleteCommand(a), mockScenarioRestartCommand(a), &cobra.Command{
		Use: "show NAME", Short: "Print a ready scenario, to begin with", Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return scenarios.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := scenarios.Text(args[0])
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		},
	}, &cobra.Command{
		Use: "check FILE|FOLDER ...", Short: "Say what is wrong with scenarios: file, line, field and what is allowed", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			found, err := scenario.Load(args...)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%d scenarios, nothing wrong.\n", len(found))
			return nil
		},
	}, &cobra.Command{
		Use: "schema", Short: "Print the JSON schema of scenarios, for editors", Args: none,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(scenario.Schema())
			return err
		},
	})
	return cmd
}
