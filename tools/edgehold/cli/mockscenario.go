package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock/scenario"
	"edgehold.internal/services/llmmock/scenarios"
)

func mockScenarioListCommand(a *app) *cobra.Command {
	var from running
	var live bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the scenarios that come with the mock, or those in force in a running one", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if live || from.address != "" {
				return a.listRunning(cmd, &from)
			}
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
	}
	cmd.Flags().BoolVar(&live, "running", false, "those in force in a running mock, in the order in which they are looked at")
	from.flag(cmd)
	return cmd
}

func (a *app) listRunning(cmd *cobra.Command, from *running) error {
	service, _, err := from.client(a)
	if err != nil {
		return err
	}
	list, err := service.ListScenarios(cmd.Context(), &llmmockv1.ListScenariosRequest{})
	if err != nil {
		return err
	}
	if a.output == "json" {
		return printJSON(a.out, list)
	}
	var rows [][]string
	for _, s := range list.GetScenarios() {
		source := s.GetSource()
		if source == "" {
			source = strings.ReplaceAll(name(s.GetOrigin().String(), "ORIGIN_"), "_", " ")
		} else if s.GetOrigin() == llmmockv1.Origin_ORIGIN_API {
			source += " (api)"
		}
		rows = append(rows, []string{s.GetName(), fmt.Sprint(s.GetTraffic().GetRequests()), fmt.Sprint(s.GetTraffic().GetOpen()), a.ago(s.GetStartedAt()), source, s.GetDescription()})
	}
	table(a.out, "NAME REQUESTS OPEN AGE FROM WHAT", rows)
	return nil
}

func mockScenarioPutCommand(a *app) *cobra.Command {
	var by act
	var dry bool
	cmd := &cobra.Command{
		Use:   "put FILE ...",
		Short: "Put scenarios in force in a running mock, in front of those from its files; - reads standard input",
		Long: `Put scenarios in force in a running mock, in front of those from its files; - reads standard input. One that was put before is
replaced. They live as long as the mock: what is to stay belongs in a file that it is started with.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			for i, file := range args {
				text, err := readScenario(cmd.InOrStdin(), file)
				if err != nil {
					return err
				}
				key, source := by.key, file
				if i > 0 {
					key = fmt.Sprint(key, "/", i)
				}
				if file == "-" {
					source = "stdin"
				}
				got, err := service.PutScenario(cmd.Context(), &llmmockv1.PutScenarioRequest{Yaml: string(text), Source: source, DryRun: dry, Reason: by.reason, IdempotencyKey: key})
				if err != nil {
					return err
				}
				if a.output == "json" {
					if err := printJSON(a.out, got); err != nil {
						return err
					}
					continue
				}
				verb := map[bool]string{false: "is", true: "would be"}[dry]
				for _, r := range got.GetResults() {
					what := verb + " in force"
					switch {
					case r.GetUnchanged():
						what = "goes on as it is"
					case r.GetReplaced():
						what = verb + " in force, in the place of the one before"
					}
					fmt.Fprintf(a.out, "%s %s.\n", r.GetName(), what)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what is wrong, or would be done, and change nothing")
	by.flags(cmd)
	return cmd
}

// readScenario reads no more than a mock takes, and a byte for it to say so.
func readScenario(in io.Reader, file string) ([]byte, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, problem.Invalidf("FILE", "%v", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, scenario.MaxFile+1))
	switch {
	case err != nil:
		return nil, problem.Invalidf("FILE", "%s: %v", file, err)
	case len(text) > scenario.MaxFile:
		return nil, problem.Invalidf("FILE", "%s is larger than %d bytes, the most that is allowed", file, scenario.MaxFile)
	}
	return text, nil
}

func mockScenarioDeleteCommand(a *app) *cobra.Command {
	var by act
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Take a scenario out of force that was put into a running mock",
		Args:  one("NAME", "edgehold mock scenario list --running shows them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			got, err := service.DeleteScenario(cmd.Context(), &llmmockv1.DeleteScenarioRequest{Name: args[0], Reason: by.reason, IdempotencyKey: by.key})
			if err != nil {
				return err
			}
			return a.done(got, "%s is not in force any longer.", args[0])
		},
	}
	by.flags(cmd)
	return cmd
}

func mockScenarioRestartCommand(a *app) *cobra.Command {
	var by act
	var of scoped
	cmd := &cobra.Command{
		Use:   "restart --scenario SCENARIO|--all",
		Short: "Begin scenarios of a running mock anew: counters, rate limits, timelines",
		Args:  none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			scope, err := of.scope()
			if err != nil {
				return err
			}
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			got, err := service.RestartScenario(cmd.Context(), &llmmockv1.RestartScenarioRequest{Scope: scope, Reason: by.reason, IdempotencyKey: by.key})
			if err != nil {
				return err
			}
			return a.done(got, "Begun anew.")
		},
	}
	of.flags(cmd)
	by.flags(cmd)
	return cmd
}
