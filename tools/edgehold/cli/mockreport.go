package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"edgehold.internal/libs/problem"
	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/proto/edgehold/llmmock/v1/llmmockv1connect"
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/junit"
	"edgehold.internal/services/llmmock/rpc"
)

// defaultMock is where edgehold mock run listens for operators, unless it is told otherwise.
const defaultMock = "http://127.0.0.1:7401"

// running says which mock a command speaks to.
type running struct{ address string }

func (r *running) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.address, "address", "", "`URL` of the running mock, for operators (default: mock of the config file, else "+defaultMock+")")
}

// client opens the mock.
func (r *running) client(a *app) (unary, stream llmmockv1connect.MockServiceClient, err error) {
	address := r.address
	if address != "" && !strings.Contains(address, "://") {
		address = "http://" + address
	}
	c, err := a.client("mock", func(c Config) string { return cmp.Or(address, c.Mock, defaultMock) })
	var p *problem.Error
	if r.address != "" && errors.As(err, &p) && p.Kind == problem.Invalid && strings.Contains(p.Sentence, address) {
		return nil, nil, problem.Invalidf("--address", "%q is not allowed: http://HOST:PORT or https://HOST:PORT", r.address)
	}
	if err != nil {
		return nil, nil, err
	}
	options := append([]connect.ClientOption{named("mock")}, c.Options()...)
	return llmmockv1connect.NewMockServiceClient(c.Unary(), c.URL(), options...), llmmockv1connect.NewMockServiceClient(c.Stream(), c.URL(), c.Options()...), nil
}

// act is what every change of a mock carries.
type act struct {
	running
	reason, key string
}

func (c *act) flags(cmd *cobra.Command) {
	c.flag(cmd)
	cmd.Flags().StringVar(&c.reason, "reason", "", "why, a `TEXT` for the audit log (default: the command)")
	cmd.Flags().StringVar(&c.key, "idempotency-key", "", "a repeated call with the same `KEY` is the same call (default: a new one)")
}

// client opens the mock, and fills in what was left out.
func (c *act) client(cmd *cobra.Command, a *app) (llmmockv1connect.MockServiceClient, error) {
	c.reason, c.key = cmp.Or(strings.TrimSpace(c.reason), cmd.CommandPath()), cmp.Or(c.key, uuid.NewString())
	unary, _, err := c.running.client(a)
	return unary, err
}

// scoped says for which scenarios something holds.
type scoped struct {
	scenario string
	all      bool
}

func (s *scoped) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.scenario, "scenario", "", "for this `SCENARIO` alone")
	cmd.Flags().BoolVar(&s.all, "all", false, "for all scenarios")
}

func (s *scoped) scope() (*llmmockv1.Scope, error) {
	if s.all == (s.scenario != "") {
		return nil, problem.Invalidf("--scenario", "name a scenario, or say --all, and not both")
	}
	return &llmmockv1.Scope{Scenario: s.scenario, All: s.all}, nil
}

// verdict is what a report is judged by.
type verdict struct{ failOn []string }

const failOnUsage = "end with code 7 when a client did one of these: `FINDINGS`, separated by commas, any or none: "

func (v *verdict) flag(a *app, cmd *cobra.Command, fallback string) {
	names := make([]string, 0, len(llmmock.Findings()))
	for _, n := range llmmock.Findings() {
		names = append(names, string(n))
	}
	cmd.Flags().StringSliceVar(&v.failOn, "fail-on", []string{fallback}, failOnUsage+strings.Join(names, ", "))
	a.completeFlag(cmd, "fail-on", oneOf(append(names, "any", "none")...))
}

// findings are those that fail.
func (v *verdict) findings() ([]llmmock.FindingName, error) {
	all := llmmock.Findings()
	var failing []llmmock.FindingName
	for _, name := range v.failOn {
		switch {
		case name == "any" && len(v.failOn) == 1:
			return all, nil
		case name == "none" && len(v.failOn) == 1:
			return nil, nil
		case !slices.Contains(all, llmmock.FindingName(name)):
			return nil, problem.Invalidf("--fail-on", "%q is no finding; use any, none, or some of %s", name, strings.Trim(fmt.Sprint(all), "[]"))
		}
		failing = append(failing, llmmock.FindingName(name))
	}
	return failing, nil
}

// judge is the error that a command ends with. Where nobody asked anything there is nothing to judge, and that is not good.
func judge(r *llmmock.Report, failing []llmmock.FindingName, who string) error {
	if len(failing) == 0 {
		return nil
	}
	if len(r.Clients) == 0 {
		return problem.NotFoundf("", "no client%s has asked the mock anything, so there is nothing to judge; point one at it, or say --fail-on none", who)
	}
	clients, findings := 0, 0
	for i := range r.Clients {
		before := findings
		for _, f := range r.Clients[i].Findings {
			if slices.Contains(failing, f.Name) {
				findings++
			}
		}
		if findings > before {
			clients++
		}
	}
	if findings == 0 {
		return nil
	}
	return &exit{ExitFound, fmt.Sprintf("%s on %s of %d", plural(findings, "finding"), plural(clients, "client"), len(r.Clients))}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func mockReportCommand(a *app) *cobra.Command {
	var from running
	var by verdict
	var run, client string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "The verdict on each client: what it did wrong, and where that was seen",
		Long: `The verdict on each client: what it did wrong, and where that was seen. Clients are told apart by the headers X-Edgehold-Client and
X-Edgehold-Run, else by their key and user agent. The code is 0 when nothing was found, 7 when something was that --fail-on
names, and 2 when nobody has asked anything. With --output junit it is JUnit XML, with a test for each client and finding.`,
		Example: `  edgehold mock report
  edgehold mock report --run ci-7 --output junit > verdict.xml
  edgehold mock report --fail-on retry_storm,double_submission`,
		Args:        none,
		Annotations: map[string]string{moreOutput: "junit"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			failing, err := by.findings()
			if err != nil {
				return err
			}
			service, _, err := from.client(a)
			if err != nil {
				return err
			}
			got, err := service.GetReport(cmd.Context(), &llmmockv1.GetReportRequest{Run: run, Client: client})
			if err != nil {
				return err
			}
			report := rpc.FromReport(got)
			switch a.output {
			case "json":
				err = printJSON(a.out, got)
			case "junit":
				err = junit.Write(a.out, &report, failing)
			default:
				printReport(a.out, &report)
			}
			if err != nil {
				return err
			}
			who := ""
			if run != "" {
				who += " of run " + run
			}
			if client != "" {
				who += " named " + client
			}
			return judge(&report, failing, who)
		},
	}
	from.flag(cmd)
	fs := cmd.Flags()
	fs.StringVar(&run, "run", "", "only the clients of this `RUN` (default: all)")
	fs.StringVar(&client, "client", "", "only clients whose name fits this `PATTERN`, * for any characters")
	by.flag(a, cmd, "any")
	return cmd
}

// printReport is the report for people: a row for each client, and below it a sentence for each thing that it did wrong.
func printReport(w io.Writer, r *llmmock.Report) {
	if len(r.Clients) == 0 {
		fmt.Fprintln(w, "No client has asked anything.")
		return
	}
	rows := make([][]string, len(r.Clients))
	for i := range r.Clients {
		c := &r.Clients[i]
		var names []string
		for _, f := range c.Findings {
			names = append(names, fmt.Sprintf("%s ×%d", f.Name, f.Count))
		}
		rows[i] = []string{c.Client, c.Run, fmt.Sprint(c.Requests), fmt.Sprint(c.Retries), fmt.Sprintf("%.2f", c.Amplification), fmt.Sprint(c.Served),
			fmt.Sprint(c.Failed), fmt.Sprint(c.Truncated), fmt.Sprint(c.Left), cmp.Or(strings.Join(names, ", "), "nothing wrong")}
	}
	table(w, "CLIENT RUN REQUESTS RETRIES AMPLIFIED SERVED FAILED TRUNCATED LEFT VERDICT", rows)
	for i := range r.Clients {
		c := &r.Clients[i]
		if c.Good() {
			continue
		}
		fmt.Fprintln(w)
		indented(w, "", ofRun(c.Client, c.Run))
		for _, f := range c.Findings {
			indented(w, "  ", string(f.Name)+": "+f.Sentence)
			for _, e := range f.Evidence[:min(3, len(f.Evidence))] { // the others are in JSON
				indented(w, "    ", e.At.Local().Format("15:04:05.000")+" "+e.Text)
			}
		}
	}
	if r.Forgotten > 0 {
		fmt.Fprintf(w, "\n%s were forgotten, for there were too many to tell apart.\n", plural(int(r.Forgotten), "client"))
	}
}

// indented prints a sentence, broken where the screen ends.
func indented(w io.Writer, indent, text string) {
	fmt.Fprintln(w, indent+strings.Join(wrap(text, screenOf(w).width-len(indent), "  "), "\n"+indent))
}

func ofRun(client, run string) string {
	if run == "" {
		return client
	}
	return client + " in run " + run
}

// reportFile is written when a mock that was run here has ended.
type reportFile struct {
	flag, path, what string
	write            func(io.Writer, *llmmock.Report, []llmmock.FindingName) error
	file             *os.File
}

func reportFiles() []*reportFile {
	return []*reportFile{
		{flag: "junit", what: "JUnit XML", write: junit.Write},
		{flag: "report", what: "JSON", write: func(w io.Writer, r *llmmock.Report, _ []llmmock.FindingName) error {
			return printJSON(w, rpc.ToReport(r))
		}},
	}
}

// open says before anything runs whether the file can be written, and empties it.
func (f *reportFile) open() (err error) {
	if f.path == "" {
		return nil
	}
	if f.file, err = os.Create(f.path); err != nil {
		return problem.Invalidf("--"+f.flag, "%v", err)
	}
	return nil
}

func (f *reportFile) finish(r *llmmock.Report, failing []llmmock.FindingName) error {
	if f.file == nil {
		return nil
	}
	if err := errors.Join(f.write(f.file, r, failing), f.file.Close()); err != nil {
		return problem.New(problem.Internal, "--"+f.flag, "%w", err)
	}
	return nil
}
