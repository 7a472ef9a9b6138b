package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
)

func mockPhaseCommand(a *app) *cobra.Command {
	cmd := noun("phase", "What the provider goes through: list the phases of a running mock, start one, end one")
	cmd.AddCommand(mockPhaseListCommand(a), mockPhaseStartCommand(a), mockPhaseEndCommand(a))
	return cmd
}

// terms are the flags that say what a phase is.
type terms struct {
	kind                                    string
	lasts, every, retryAfter                time.Duration
	share, slow                             float64
	status                                  int32
	message, code                           string
	vendors, models, keys, clients, regions []string
}

var phaseKinds = map[string]llmmockv1.PhaseKind{
	"outage":   llmmockv1.PhaseKind_PHASE_KIND_OUTAGE,
	"brownout": llmmockv1.PhaseKind_PHASE_KIND_BROWNOUT,
	"quota":    llmmockv1.PhaseKind_PHASE_KIND_QUOTA,
	"dark":     llmmockv1.PhaseKind_PHASE_KIND_DARK,
}

func (t *terms) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.kind, "kind", "", "`KIND`: outage (errors), brownout (slow), quota (429), dark (resets) (default: as a timeline declares the phase of that name)")
	f.DurationVar(&t.lasts, "for", 0, "how long it lasts, a `TIME` (default: until it is ended)")
	f.DurationVar(&t.every, "every", 0, "begin it again at this distance, a `TIME`")
	f.Float64Var(&t.share, "share", 0, "hit this `SHARE` of the requests, 0 to 1 (default: all; of a brownout none)")
	f.Float64Var(&t.slow, "slow", 0, "multiply latency by this `FACTOR`, in a brownout")
	group(f, "What happens", "kind", "for", "every", "share", "slow")
	f.StringSliceVar(&t.vendors, "vendor", nil, "`VENDORS`: openai, azure, anthropic, gemini, bedrock (default: all)")
	f.StringSliceVar(&t.models, "model", nil, "`MODELS`, * for any characters")
	f.StringSliceVar(&t.regions, "region", nil, "`REGIONS` of the provider, * for any characters")
	f.StringSliceVar(&t.keys, "key", nil, "`KEYS`, by how they begin, such as sk-team*")
	f.StringSliceVar(&t.clients, "client", nil, "`CLIENTS`, * for any characters")
	group(f, "To whom", "scenario", "all", "vendor", "model", "region", "key", "client")
	f.Int32Var(&t.status, "status", 0, "fail with this HTTP `STATUS`, 400 to 599 (default: 503, Anthropic's 529, a quota's 429)")
	f.StringVar(&t.message, "message", "", "with this `TEXT` (default: the vendor's)")
	f.StringVar(&t.code, "code", "", "with this `CODE` of the vendor's, such as insufficient_quota")
	f.DurationVar(&t.retryAfter, "retry-after", 0, "and tell clients to wait this `TIME`")
	group(f, "How requests fail", "status", "message", "code", "retry-after")
	a.completeFlag(cmd, "kind", oneOf(slices.Sorted(maps.Keys(phaseKinds))...))
	a.completeFlag(cmd, "vendor", oneOf("openai", "azure", "anthropic", "gemini", "bedrock"))
}

func (t *terms) phase(name string) (*llmmockv1.Phase, error) {
	p := &llmmockv1.Phase{Name: name, Kind: phaseKinds[t.kind], Regions: t.regions, Share: t.share, Slow: t.slow}
	if t.kind != "" && p.GetKind() == 0 {
		return nil, problem.Invalidf("--kind", "%q is not known; use outage, brownout, quota or dark", t.kind)
	}
	if t.lasts != 0 {
		p.For = durationpb.New(t.lasts)
	}
	if t.every != 0 {
		p.Every = durationpb.New(t.every)
	}
	if len(t.vendors)+len(t.models)+len(t.keys)+len(t.clients) > 0 {
		p.Match = &llmmockv1.Match{Vendors: t.vendors, Models: t.models, Keys: t.keys, Clients: t.clients}
	}
	if t.status != 0 || t.message != "" || t.code != "" || t.retryAfter != 0 {
		p.Failure = &llmmockv1.Failure{Status: t.status, Message: t.message, Code: t.code}
		if t.retryAfter != 0 {
			p.Failure.RetryAfter = durationpb.New(t.retryAfter)
		}
	}
	return p, nil
}

// termsOf is what a phase is, in a few words.
func termsOf(p *llmmockv1.Phase) string {
	var words []string
	say := func(set bool, format string, args ...any) {
		if set {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	list := func(what string, values []string) { say(len(values) > 0, "%s %s", what, strings.Join(values, " ")) }
	say(p.GetFor() != nil, "for %s", p.GetFor().AsDuration())
	say(p.GetEvery() != nil, "every %s", p.GetEvery().AsDuration())
	say(p.GetShare() != 0, "%g %% of requests", 100*p.GetShare())
	say(p.GetSlow() != 0, "%g× slower", p.GetSlow())
	m, f := p.GetMatch(), p.GetFailure()
	list("vendor", m.GetVendors())
	list("model", m.GetModels())
	list("key", m.GetKeys())
	list("client", m.GetClients())
	list("path", m.GetPaths())
	list("region", p.GetRegions())
	list("containing", m.GetContains())
	say(f.GetStatus() != 0, "status %d", f.GetStatus())
	say(f.GetRetryAfter() != nil, "retry after %s", f.GetRetryAfter().AsDuration())
	return strings.Join(words, ", ")
}

// phaseRow is a phase in the table of phases.
func (a *app) phaseRow(p *llmmockv1.PhaseStatus) []string {
	when := "over"
	switch {
	case p.GetActive() && p.GetEndsAt() != nil:
		when = "on, " + span(p.GetEndsAt().AsTime().Sub(a.now())) + " more"
	case p.GetActive():
		when = "on, until it is ended"
	case p.GetNextAt() != nil:
		when = "in " + span(p.GetNextAt().AsTime().Sub(a.now()))
	}
	return []string{p.GetPhase().GetName(), cmp.Or(p.GetScenario(), "(all)"), name(p.GetPhase().GetKind().String(), "PHASE_KIND_"), when, termsOf(p.GetPhase())}
}

const phaseHead = "PHASE SCENARIO KIND WHEN TERMS"

// span is a length of time for people: whole seconds, and parts of them below ten.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func mockPhaseListCommand(a *app) *cobra.Command {
	var from running
	cmd := &cobra.Command{
		Use: "list", Short: "The phases: those that were started, then each scenario's timeline", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, _, err := from.client(a)
			if err != nil {
				return err
			}
			list, err := service.ListPhases(cmd.Context(), &llmmockv1.ListPhasesRequest{})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, list)
			}
			if len(list.GetPhases()) == 0 {
				fmt.Fprintln(a.diag, "There are no phases; edgehold mock phase start begins one.")
				return nil
			}
			var rows [][]string
			for _, p := range list.GetPhases() {
				rows = append(rows, a.phaseRow(p))
			}
			table(a.out, phaseHead, rows)
			return nil
		},
	}
	from.flag(cmd)
	return cmd
}

func mockPhaseStartCommand(a *app) *cobra.Command {
	var by act
	var of scoped
	var t terms
	cmd := &cobra.Command{
		Use:   "start NAME --scenario SCENARIO|--all [--kind KIND …]",
		Short: "Begin a phase now: one of a timeline by its name, or one of your own",
		Example: `  edgehold mock phase start down --all --kind outage --vendor anthropic --for 2m
  edgehold mock phase start slow --all --kind brownout --slow 5 --share 0.1 --status 503
  edgehold mock phase start region-lost --scenario regional-outage`,
		Args: one("NAME", "it is what the phase is ended by"),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope, err := of.scope()
			if err != nil {
				return err
			}
			phase, err := t.phase(args[0])
			if err != nil {
				return err
			}
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			got, err := service.StartPhase(cmd.Context(), &llmmockv1.StartPhaseRequest{Scope: scope, Phase: phase, Reason: by.reason, IdempotencyKey: by.key})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, got.GetPhase())
			}
			table(a.out, phaseHead, [][]string{a.phaseRow(got.GetPhase())})
			return nil
		},
	}
	of.flags(cmd)
	t.flags(a, cmd)
	by.flags(cmd)
	return cmd
}

func mockPhaseEndCommand(a *app) *cobra.Command {
	var by act
	var of scoped
	cmd := &cobra.Command{
		Use:   "end NAME --scenario SCENARIO|--all",
		Short: "End a phase now: one that was started, or the present window of one in a timeline",
		Args:  one("NAME", "edgehold mock phase list shows the phases"),
		RunE: func(cmd *cobra.Command, args []string) error {
			scope, err := of.scope()
			if err != nil {
				return err
			}
			service, err := by.client(cmd, a)
			if err != nil {
				return err
			}
			got, err := service.EndPhase(cmd.Context(), &llmmockv1.EndPhaseRequest{Scope: scope, Name: args[0], Reason: by.reason, IdempotencyKey: by.key})
			if err != nil {
				return err
			}
			return a.done(got, "%s has ended.", args[0])
		},
	}
	of.flags(cmd)
	by.flags(cmd)
	return cmd
}
