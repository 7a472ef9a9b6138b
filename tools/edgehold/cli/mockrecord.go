package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"edgehold.internal/services/llmmock/record"
	"edgehold.internal/services/llmmock/record/drift"
	"edgehold.internal/services/llmmock/record/proxy"
	mock "edgehold.internal/services/llmmock/run"
)

// pointClients is where the vendors' clients are told the address.
func pointClients(base string) string {
	return fmt.Sprintf(`
  OpenAI      OPENAI_BASE_URL=%[1]s/v1
  Azure       AZURE_OPENAI_ENDPOINT=%[1]s
  Anthropic   ANTHROPIC_BASE_URL=%[1]s
  Gemini      GOOGLE_GEMINI_BASE_URL=%[1]s
  Bedrock     AWS_ENDPOINT_URL_BEDROCK_RUNTIME=%[1]s
`, base)
}

func mockRecordCommand(a *app) *cobra.Command {
	var to []string
	c := proxy.Config{Listen: mock.DefaultAPI, Bodies: true}
	cmd := &cobra.Command{
		Use:   "record FILE --to [VENDOR=]URL",
		Short: "Stand between clients and a real provider, and record what they say to each other",
		Long: `Stand between clients and a real provider until it is interrupted, and record what they say to each other: bodies, in the pieces and at the
times they come. A scenario plays it with play: FILE. Keys go through to the provider and are never written, and what looks like a secret in
bodies is not either. It forwards to the hosts of --to and to nothing else, and listens on loopback only. What is in FILE already stays.`,
		Example: `  edgehold mock record session.jsonl --to https://HOST
  edgehold mock record session.jsonl --to openai=https://HOST --to anthropic=https://HOST
  edgehold mock record session.jsonl --to https://HOST --redact 'customer-(\d+)'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.File, c.To = args[0], nil
			for _, s := range to {
				t, err := proxy.ParseTarget(s)
				if err != nil {
					return err
				}
				c.To = append(c.To, t)
			}
			// What ends is told in the order in which it ends, and a terminal that is slow holds nobody up.
			notes, told := make(chan proxy.Note, 1024), make(chan recordSummary, 1)
			c.Observe = func(n proxy.Note) { notes <- n }
			go func() { told <- a.tellRecorded(notes) }()
			err := proxy.Run(cmd.Context(), c, func(s proxy.Started) { a.tellRecording(c.File, s) })
			close(notes)
			sum := <-told
			if err == nil && a.output != "json" {
				fmt.Fprintf(a.out, "%s recorded into %s", plural(sum.recorded, "exchange"), c.File)
				if sum.not > 0 {
					fmt.Fprintf(a.out, ", and %d not", sum.not)
				}
				fmt.Fprintln(a.out, ".")
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&to, "to", nil, "`[VENDOR=]URL` of the provider, without /v1; again for each vendor: openai, azure, anthropic, gemini, bedrock")
	fs.StringVar(&c.Listen, "listen", c.Listen, "`HOST:PORT` for clients, on loopback")
	fs.StringArrayVar(&c.Patterns, "redact", nil, "`REGEXP` of what is a secret too; where it has a group, that is the secret. Again for more")
	fs.BoolVar(&c.Bodies, "redact-bodies", true, "look for secrets in bodies; credentials in headers and queries are never written")
	fs.Int64Var(&c.MaxFile, "max-file-bytes", 0, "how large FILE may become, in `BYTES`; 0 for 256 MiB. What comes then is forwarded and not recorded")
	return cmd
}

func (a *app) tellRecording(file string, s proxy.Started) {
	base := "http://" + s.Address.String()
	if a.output == "json" {
		_ = json.NewEncoder(a.out).Encode(map[string]any{"ready": true, "api": s.Address.String(), "before": s.Before, "dropped": s.Dropped})
		return
	}
	before := ""
	if s.Before > 0 {
		before = fmt.Sprintf(", behind the %s that it has", plural(s.Before, "exchange"))
	}
	if s.Dropped > 0 {
		before += fmt.Sprintf("; %d bytes of one that was not whole were taken away", s.Dropped)
	}
	fmt.Fprintf(a.out, "Recording into %s%s. Point a client at %s:\n%s\nIts keys go through and are not written. Ctrl-C ends it.\n\n", file, before, base, pointClients(base))
}

// recordSummary is what there is to say at the end.
type recordSummary struct{ recorded, not int }

// noteLine is a Note for programs.
type noteLine struct {
	Vendor     string  `json:"vendor"`
	Method     string  `json:"method"`
	Path       string  `json:"path"`
	Status     int     `json:"status"`
	Pieces     int     `json:"pieces"`
	Bytes      int64   `json:"bytes"`
	Seconds    float64 `json:"seconds"`
	Redacted   int     `json:"redacted"`
	Unrecorded string  `json:"unrecorded,omitempty"`
}

func (a *app) tellRecorded(notes <-chan proxy.Note) (sum recordSummary) {
	table := columns{w: a.out, head: []string{"STATUS", "TOOK", "PIECES", "BYTES", "SECRETS", "REQUEST", "NOT RECORDED"}, widths: []int{6, 7, 6, 8, 7, 30, 12}}
	for n := range notes {
		if n.Unrecorded == "" {
			sum.recorded++
		} else {
			sum.not++
		}
		if a.output == "json" {
			_ = json.NewEncoder(a.out).Encode(noteLine{string(n.Vendor), n.Method, n.Path, n.Status, n.Pieces, n.Bytes, n.Took.Seconds(), n.Redacted, n.Unrecorded})
			continue
		}
		if sum.recorded+sum.not == 1 {
			table.print(table.head)
		}
		status := ""
		if n.Status > 0 {
			status = strconv.Itoa(n.Status)
		}
		table.print([]string{status, n.Took.Round(time.Millisecond).String(), strconv.Itoa(n.Pieces), strconv.FormatInt(n.Bytes, 10), strconv.Itoa(n.Redacted), n.Method + " " + n.Path, n.Unrecorded})
	}
	return sum
}

func mockDriftCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drift FILE",
		Short: "Hold a recording against the vendors' specifications",
		Long: `Hold a recording against the vendors' specifications as this program has them, field by field: what is unknown there, what is missing,
what is of another type or none of the values. Requests and answers of OpenAI, Azure and Anthropic, each event of their streams, and
requests of Gemini and Bedrock. The code is 0 when nothing differs, and 7 when something does.`,
		Example: "  edgehold mock drift session.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := record.Load(args[0])
			if err != nil {
				return err
			}
			r, err := drift.Check(f)
			if err != nil {
				return err
			}
			if a.output == "json" {
				e := json.NewEncoder(a.out)
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				a.printDrift(f, r)
			}
			if err == nil && len(r.Findings) > 0 {
				err = &exit{ExitFound, plural(len(r.Findings), "difference") + " from the specification"}
			}
			return err
		},
	}
}

func (a *app) printDrift(f *record.File, r *drift.Report) {
	if len(r.Findings) > 0 {
		var rows [][]string
		for _, d := range r.Findings {
			rows = append(rows, []string{string(d.Vendor), d.Operation, d.In, d.Field, string(d.What), strconv.Itoa(d.Count), strconv.Itoa(d.Example), d.Says})
		}
		table(a.out, "VENDOR OPERATION IN FIELD WHAT COUNT EXCHANGE SAYS", rows)
		fmt.Fprintln(a.out)
	}
	fmt.Fprintf(a.out, "%s: %s, %s and %s were held against the specification.\n", plural(r.Exchanges, "exchange"), plural(r.Requests, "request"), plural(r.Answers, "answer"), plural(r.Events, "event"))
	for _, u := range r.Unchecked {
		fmt.Fprintf(a.out, "Not held against anything: %d %s.\n", u.Count, u.What)
	}
	if f.Dropped > 0 {
		fmt.Fprintf(a.out, "The file ends in %d bytes of an exchange that is not whole.\n", f.Dropped)
	}
}
