package cli

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
	runbookv1 "edgehold.internal/proto/edgehold/runbook/v1"
	"edgehold.internal/services/fleet"
)

// completionLimit is how long a shell is kept waiting for the names of things.
const completionLimit = 2 * time.Second

// completeFlag registers what a flag may be; it fails only for a flag that is not there.
func (a *app) completeFlag(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("cli: " + err.Error())
	}
}

func oneOf(values ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePops offers one PoP.
func (a *app) completePops(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.popNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
}

// completePopList offers the next PoP of a list with commas, none of them twice.
func (a *app) completePopList(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	taken := strings.Split(before, ",")
	var names []string
	for _, n := range a.popNames(cmd.Context()) {
		pop, _, _ := strings.Cut(n, "\t")
		switch {
		case before == "":
			names = append(names, n)
		case !slices.Contains(taken, pop):
			// Without a description: the script for bash finds no match for a comma in those that have one.
			names = append(names, before+pop)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// popNames are those of the registry file when there is one here, which answers at once and always, else those that the
// service knows.
func (a *app) popNames(ctx context.Context) []string {
	config, err := a.settings()
	if err != nil {
		return nil
	}
	var names []string
	if body, err := os.ReadFile(config.Registry); err == nil {
		if registry, err := fleet.ParseRegistry(body, nil); err == nil {
			for _, p := range registry.Pops {
				names = append(names, cobra.CompletionWithDesc(p.Name, p.Region))
			}
			return names
		}
	}
	service, _, err := a.fleets()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionLimit)
	defer cancel()
	list, err := service.ListPops(ctx, &fleetv1.ListPopsRequest{})
	if err != nil {
		return nil
	}
	for _, p := range list.GetPops() {
		names = append(names, cobra.CompletionWithDesc(p.GetName(), p.GetRegion()))
	}
	return names
}

func (a *app) completeFleets(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	service, _, err := a.fleets()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
	defer cancel()
	list, err := service.ListFleets(ctx, &fleetv1.ListFleetsRequest{Scope: &fleetv1.Scope{All: true}})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, f := range list.GetFleets() {
		if f.GetName() != "" && !slices.Contains(names, f.GetName()) {
			names = append(names, f.GetName())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeFleet offers the FLEET of a command that takes one.
func (a *app) completeFleet(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeFleets(cmd, args, typed)
}

// completeOperations offers the newest operations, or only those that a person can still decide on.
func (a *app) completeOperations(open bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		service, _, err := a.runbooks()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		list, err := service.ListOperations(ctx, &runbookv1.ListOperationsRequest{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []string
		for _, o := range list.GetOperations() {
			if !open || !ended(o.GetState()) {
				ids = append(ids, cobra.CompletionWithDesc(o.GetId(), headline(o)))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}
