package platform

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"edgehold.internal/libs/problem"
)

// Command is `platform up|status|down`, and `platform run`, which is the supervisor and not for people.
func Command() *cobra.Command {
	var cfg Config
	var output string
	root := &cobra.Command{
		Use:   "platform",
		Short: "Kubernetes clusters and Temporal on this machine: up, status, down",
		Long: `Run the embedded platform: Kubernetes clusters and Temporal on this machine, without root and without containers.

State, logs and the kubeconfig are kept in .edgehold of the checkout. A second "up" finds everything as the last "down"
left it. Nothing outlives "down".`,
		Args: cobra.NoArgs,
	}
	root.PersistentFlags().StringVar(&cfg.Dir, "dir", "", "directory of the platform (default: .edgehold beside the go.work above the working directory, or here)")
	root.PersistentFlags().StringVarP(&output, "output", "o", "table", "table or json")
	engineFlags := func(cmd *cobra.Command) {
		cmd.Flags().IntVar(&cfg.Clusters, "clusters", 3, fmt.Sprintf("number of clusters, 1 to %d", MaxClusters))
		cmd.Flags().BoolVar(&cfg.NoTemporal, "no-temporal", false, "without Temporal")
		cmd.Flags().BoolVar(&cfg.Fresh, "fresh", false, "remove all state of earlier starts first: objects, workflows, logs, addresses")
		cmd.Flags().DurationVar(&cfg.Timeout, "timeout", 2*time.Minute, "how long the engines may take to be ready, 1s to 1h")
		cmd.Flags().StringVar(&cfg.Bin, "bin", "", "directory of the engines and of the images local/NAME (default: env EDGEHOLD_BIN, or bin in --dir)")
	}
	checked := func(run func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return problem.Invalidf("--output", "%q is not a format; use table or json", output)
			}
			if err := cfg.validateDir(); err != nil {
				return err
			}
			return run(cmd)
		}
	}
	up := &cobra.Command{
		Use: "up", Short: "Start the platform, or wait for the one that starts", Args: cobra.NoArgs,
		RunE: checked(func(cmd *cobra.Command) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			began := time.Now()
			progress := newProgress(cmd.ErrOrStderr())
			cfg.Progress = progress.step
			s, err := Up(ctx, cfg)
			progress.end()
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), s)
			}
			s.print(cmd.OutOrStdout(), time.Since(began))
			return nil
		}),
	}
	engineFlags(up)
	status := &cobra.Command{
		Use: "status", Short: "Ask every engine how it is", Args: cobra.NoArgs,
		RunE: checked(func(cmd *cobra.Command) error {
			r, err := Status(cmd.Context(), cfg.Dir)
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.print(cmd.OutOrStdout())
			}
			switch {
			case err != nil:
				return err
			case !r.Up && r.Phase == Stopped:
				return problem.Unavailablef("the platform in %s is stopped; start it with `edgehold platform up`", cfg.Dir)
			case !r.Up:
				return problem.Unavailablef("the supervisor of the platform in %s was killed, and its engines with it; start it again with `edgehold platform up`", cfg.Dir)
			case !r.Healthy:
				return problem.Unavailablef("the platform in %s is not healthy", cfg.Dir)
			}
			return nil
		}),
	}
	down := &cobra.Command{
		Use: "down", Short: "Stop the platform and everything that it started", Args: cobra.NoArgs,
		RunE: checked(func(cmd *cobra.Command) error {
			began := time.Now()
			n, err := Down(cmd.Context(), cfg.Dir)
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), map[string]any{"dir": cfg.Dir, "ended": n})
			}
			if n == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "nothing of the platform in %s runs\n", cfg.Dir)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "stopped the platform in %s: %d processes in %s\n", cfg.Dir, n, time.Since(began).Round(100*time.Millisecond))
			}
			return nil
		}),
	}
	run := &cobra.Command{
		Use: "run", Short: "Be the supervisor", Hidden: true, Args: cobra.NoArgs,
		RunE: checked(func(cmd *cobra.Command) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return Supervise(ctx, cfg, progressPipe())
		}),
	}
	engineFlags(run)
	root.AddCommand(up, status, down, run)
	return root
}

// progressPipe is the descriptor that spawn hands over, or nothing when a person runs the command.
func progressPipe() io.WriteCloser {
	if f := os.NewFile(3, "progress"); f != nil {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			syscall.CloseOnExec(3)
			return f
		}
	}
	return discard{io.Discard}
}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (s State) print(w io.Writer, took time.Duration) {
	fmt.Fprintf(w, "platform ready in %s\n", took.Round(100*time.Millisecond))
	for _, c := range s.Clusters {
		fmt.Fprintf(w, "  %-12s %s  block %s\n", c.Name, c.API, c.Block)
	}
	if s.Temporal != nil {
		fmt.Fprintf(w, "  %-12s %s  ui %s\n", Temporal, s.Temporal.Address, s.Temporal.UI)
	}
	fmt.Fprintf(w, "  %-12s %s\n", "kubeconfig", s.Kubeconfig)
}

func (r Report) print(w io.Writer) error {
	phase := string(r.Phase)
	if !r.Up && r.Phase != Stopped {
		phase = "dead"
	}
	fmt.Fprintf(w, "platform %s  %s  supervisor %d  up %s\n\n", phase, r.Dir, r.Supervisor.PID, short(r.Supervisor.Age()))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENGINE\tHEALTH\tADDRESS\tPID\tUPTIME\tMIB\tRESTARTS")
	problems := ""
	for i, e := range r.Engines {
		h := r.Health[i]
		health, restarts := "ok", fmt.Sprint(e.Restarts)
		if !h.OK {
			health = "bad"
			problems += fmt.Sprintf("%s: %s\n", e.Name, h.Problem)
		}
		if e.LastExit != "" {
			restarts += " (" + e.LastExit + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%d\t%s\n", e.Name, health, dash(h.Address), e.Process.PID, short(h.Uptime), h.RSS>>20, restarts)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprint(w, problems)
	if r.Temporal != nil {
		fmt.Fprintf(w, "\nui          %s", dash(r.Temporal.UI))
	}
	_, err := fmt.Fprintf(w, "\nkubeconfig  %s\n", r.Kubeconfig)
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func short(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// progressPrinter shows the steps of a start: one line that is redrawn on a terminal, a line each elsewhere.
type progressPrinter struct {
	w        io.Writer
	terminal bool
	began    time.Time
	drawn    bool
}

func newProgress(w io.Writer) *progressPrinter {
	p := &progressPrinter{w: w, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	}
	return p
}

func (p *progressPrinter) step(s Progress) {
	if s.Engine == "" {
		return
	}
	line := fmt.Sprintf("%5.1fs  %d/%d  %s ready in %s", time.Since(p.began).Seconds(), s.Ready, s.Total, s.Engine, s.After.Round(100*time.Millisecond))
	if !p.terminal {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprint(p.w, "\r\x1b[K"+line)
	p.drawn = true
}

func (p *progressPrinter) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
