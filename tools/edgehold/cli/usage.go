package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"edgehold.internal/libs/problem"
)

// titleOf is the annotation of a flag with the title that it stands under in the help.
const titleOf = "edgehold_title"

// group puts flags under a title in the help.
func group(f *pflag.FlagSet, title string, names ...string) {
	for _, n := range names {
		_ = f.SetAnnotation(n, titleOf, []string{title}) // fails only for a flag that is not there, which a test of the help shows
	}
}

// help prints how a command is used, no wider than the terminal.
func help(cmd *cobra.Command) error {
	w := cmd.OutOrStderr()
	width := min(100, screenOf(w).width)
	if width == 0 {
		width = 100
	}
	fmt.Fprint(w, "Usage:\n")
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s COMMAND\n", cmd.CommandPath())
	} else {
		fmt.Fprintf(w, "  %s\n", cmd.UseLine())
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprint(w, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %s  %s\n", pad(c.Name(), cmd.Commands()[0].NamePadding()), strings.Join(wrap(c.Short, width-c.NamePadding()-4, ""), "\n"+strings.Repeat(" ", c.NamePadding()+4)))
			}
		}
	}
	var titles []string
	sets := map[string]*pflag.FlagSet{}
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		title := "Flags"
		if t := f.Annotations[titleOf]; len(t) > 0 {
			title = t[0]
		}
		if sets[title] == nil {
			sets[title] = pflag.NewFlagSet(title, pflag.ContinueOnError)
			sets[title].SortFlags = false
			titles = append(titles, title)
		}
		sets[title].AddFlag(f)
	})
	for _, title := range titles {
		printFlags(w, title, sets[title], width)
	}
	if cmd.HasAvailableInheritedFlags() {
		printFlags(w, "Everywhere", cmd.InheritedFlags(), width)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n%s COMMAND --help says more.\n", cmd.CommandPath())
	}
	return nil
}

func printFlags(w io.Writer, title string, f *pflag.FlagSet, width int) {
	if f.HasAvailableFlags() {
		fmt.Fprintf(w, "\n%s:\n%s", title, f.FlagUsagesWrapped(width))
	}
}

// noun is a command that only holds others. Without one of them it prints its help.
func noun(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, SuggestionsMinimumDistance: 2, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			verbs := cmd.SuggestionsFor(args[0])
			if len(verbs) == 0 {
				for _, c := range cmd.Commands() {
					if c.IsAvailableCommand() {
						verbs = append(verbs, c.Name())
					}
				}
			}
			return problem.Invalidf("", "%q is not a command of %s; use %s", args[0], cmd.CommandPath(), strings.Join(verbs, ", "))
		}}
}

// none, one and atMostOne say what stands beside the flags.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return problem.Invalidf("", "%s takes flags only, and %q is none; quote texts with spaces", cmd.CommandPath(), args[0])
	}
	return nil
}

func one(what, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return problem.Invalidf(what, "is missing: %s; %s", cmd.UseLine(), hint)
		}
		return atMostOne(what)(cmd, args)
	}
}

func atMostOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return problem.Invalidf(what, "%q is one too many; there is one %s, and texts with spaces need quotes", args[1], what)
		}
		return nil
	}
}

// flagError says what is wrong with a flag in our words; those of the flag package speak of strconv.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return problem.Invalidf("", "%s; %s --help shows the flags", err.Error(), cmd.CommandPath())
	}
	allowed := map[string]string{"int32": "a whole number", "int": "a whole number", "float64": "a number", "bool": "true or false", "duration": "a length of time such as 30s or 5m"}
	f := invalid.GetFlag()
	return problem.Invalidf("--"+f.Name, "%q is not %s", invalid.GetValue(), cmp.Or(allowed[f.Value.Type()], f.Value.Type()))
}

// renamed are the fields of the APIs whose flags have other names.
var renamed = map[string][]string{"scope": {"pops", "pop"}, "until": {"for"}, "page_size": {"limit"}, "wave_size": {"wave"}, "max_failed_pops": {"max-failed"},
	"vendors": {"vendor"}, "models": {"model"}, "keys": {"key"}, "clients": {"client"}, "regions": {"region"}, "hour_usd": {"hour-usd"}}

// inFlags names the field of an error of a service as the person gave it: global_cutover.max_error_ratio is
// --max-error-ratio.
func inFlags(cmd *cobra.Command, err error) string {
	var p *problem.Error
	if cmd == nil || !errors.As(err, &p) || p.Field == "" || err.Error() != p.Error() {
		return err.Error()
	}
	for _, part := range strings.Split(p.Field, ".") {
		part, _, _ = strings.Cut(part, "[")
		for _, flag := range append(renamed[part], strings.ReplaceAll(part, "_", "-")) {
			f := cmd.Flags().Lookup(flag)
			if f == nil {
				continue
			}
			value := ""
			if v := f.Value.String(); f.Changed && f.Value.Type() != "stringSlice" && f.Value.Type() != "string" && !strings.Contains(p.Sentence, v) {
				value = " " + v
			}
			return "--" + flag + value + ": " + p.Sentence
		}
	}
	return p.Error()
}
