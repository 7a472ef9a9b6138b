package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"edgehold.internal/libs/problem"
	"edgehold.internal/libs/service"
	mock "edgehold.internal/services/llmmock/run"
	"edgehold.internal/services/llmmock/scenario"
	"edgehold.internal/services/llmmock/scenarios"
)

func mockCommand(a *app) *cobra.Command {
	cmd := noun("mock", "A stand-in for model providers: run it, look at its scenarios")
	cmd.AddCommand(mockRunCommand(a), mockScenarioCommand(a))
	return cmd
}

func mockRunCommand(a *app) *cobra.Command {
	c := &mock.Config{API: mock.DefaultAPI, Service: service.Config{Name: "llmmock", Version: "edgehold", LogLevel: "warn", LogFormat: "text"}}
	cmd := &cobra.Command{
		Use:   "run [FILE|FOLDER|NAME ...]",
		Short: "Run it here until it is interrupted, with scenarios of your own or ready ones by their name",
		Example: `  edgehold mock run                   sensible answers at once
  edgehold mock run slow-model        as a ready scenario says
  edgehold mock run drill.yaml        as a file says; it is followed`,
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
			ready := a.out
			if a.output != "json" {
				ready = &announcement{out: a.out}
			}
			return mock.Run(cmd.Context(), *c, ready)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.API, "listen", c.API, "`HOST:PORT` of the vendors' APIs; beyond loopback it needs --tokens-file")
	fs.StringVar(&c.Service.TokensFile, "tokens-file", "", "`FILE` with the tokens that clients may use as their keys")
	fs.StringVar(&c.Default, "default", "", "`NAME` of the scenario that takes what no other matches")
	return cmd
}

// announcement makes of the line for programs what a person wants to know.
type announcement struct{ out io.Writer }

// Write implements io.Writer.
func (a *announcement) Write(p []byte) (int, error) {
	var ready struct{ Address, API string }
	if err := json.Unmarshal(bytes.TrimSpace(p), &ready); err != nil {
		return a.out.Write(p)
	}
	base := "http://" + ready.API
	fmt.Fprintf(a.out, `The mock answers on %[1]s. Point a client at it:

  OpenAI      OPENAI_BASE_URL=%[1]s/v1
  Azure       AZURE_OPENAI_ENDPOINT=%[1]s
  Anthropic   ANTHROPIC_BASE_URL=%[1]s
  Gemini      GOOGLE_GEMINI_BASE_URL=%[1]s
  Bedrock     AWS_ENDPOINT_URL_BEDROCK_RUNTIME=%[1]s

Any key will do. Health and metrics: http://%[2]s/metrics. Ctrl-C ends it.
`, base, ready.Address)
	return len(p), nil
}

func mockScenarioCommand(a *app) *cobra.Command {
	cmd := noun("scenario", "Scenarios: list the ready ones, show one, check files")
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the ready scenarios", Args: none,
		RunE: func(*cobra.Command, []string) error {
			type row struct {
				Name        string `json:"name"`
				Description string `json:"description"`
			}
			var rows [][]string
			var all []row
			for _, name := range scenarios.Names() {
				s, err := scenarios.Named(name)
				if err != nil {
					return err
				}
				all = append(all, row{s.Name, s.Description})
				rows = append(rows, []string{s.Name, s.Description})
			}
			if a.output == "json" {
				e := json.NewEncoder(a.out)
				e.SetIndent("", "  ")
				return e.Encode(all)
			}
			table(a.out, "NAME WHAT", rows)
			return nil
		},
	}, &cobra.Command{
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
