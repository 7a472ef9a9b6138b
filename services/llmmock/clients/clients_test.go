package clients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehold.internal/libs/pkgdoc"
	"edgehold.internal/libs/service"
	"edgehold.internal/services/llmmock/run"
	"edgehold.internal/services/llmmock/scenarios"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHouseRules(t *testing.T) {
	pkgdoc.Check(t, ".")
	pkgdoc.Exported(t, ".")
}

// cache is where the packages are installed, by the hash of what is to be installed.
const cache = "../../../.edgehold/clients"

// TestClients runs every program against a mock of its own, so that what one does is not counted for another. What a program has to
// check is in the table of README.md: a check that is missing there or in the program fails.
func TestClients(t *testing.T) {
	t.Parallel()
	modules := install(t)
	node := engine(t, modules)
	for _, p := range programs(t) {
		t.Run(strings.TrimSuffix(p.file, ".js"), func(t *testing.T) {
			t.Parallel()
			got := start(t).run(t, p, node, modules)
			for _, name := range p.checks {
				t.Run(name, func(t *testing.T) {
					switch result, ok := got[name]; {
					case !ok:
						t.Errorf("%s did not check it", p.file)
					case !result.OK:
						t.Error(result.Error)
					default:
						t.Logf("%d ms", result.MS)
					}
				})
				delete(got, name)
			}
			for name := range got {
				t.Errorf("README.md does not say that %s checks %q", p.file, name)
			}
		})
	}
}

// program is a row of the table in README.md.
type program struct {
	file string
	// vendors are rows of the man page's table, whose variables it gets.
	vendors []string
	checks  []string
}

// programs are those of the table, which has to have each of them.
func programs(t *testing.T) (all []program) {
	t.Helper()
	for line := range strings.Lines(read(t, "README.md")) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if file, ok := strings.CutPrefix(cells[0], "`"); ok && len(cells) == 4 {
			all = append(all, program{strings.TrimSuffix(file, "`"), strings.Split(cells[2], ", "), strings.Split(cells[3], "; ")})
		}
	}
	files, err := filepath.Glob("*.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f != "checks.js" && !slices.ContainsFunc(all, func(p program) bool { return p.file == f }) {
			t.Errorf("README.md has no row for %s", f)
		}
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// mock is a running one.
type mock struct {
	Address, API string
}

func start(t *testing.T) mock {
	t.Helper()
	in, out := io.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := run.Run(ctx, run.Config{Service: service.Config{Name: "llmmock", Log: t.Output()}, API: "127.0.0.1:0", Ready: scenarios.Names(), Scenarios: []string{"scenarios.yaml"}}, out)
		ended <- errors.Join(err, out.CloseWithError(io.EOF))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var m mock
	if err := json.NewDecoder(in).Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

// result of a check, as the programs print it.
type result struct {
	Check string
	OK    bool
	MS    int
	Error string
}

// run runs a program to its end and returns what it checked.
func (m mock) run(t *testing.T, p program, node, modules string) map[string]result {
	t.Helper()
	dir, file := t.TempDir(), p.file
	for _, f := range []string{file, "checks.js", "package.json"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(read(t, f)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, file)
	cmd.Dir = dir
	// Nothing of the machine's: no proxy, no credentials, no profile.
	cmd.Env = append(m.environment(t, p.vendors), "HOME="+dir, "PATH="+os.Getenv("PATH"), "MOCK_METRICS=http://"+m.Address+"/metrics")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	results := map[string]result{}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var r result
		if e := json.Unmarshal(lines.Bytes(), &r); e != nil || r.Check == "" {
			t.Logf("%s: %s", file, lines.Text())
			continue
		}
		if _, twice := results[r.Check]; twice {
			t.Errorf("%s checks %q twice", file, r.Check)
		}
		results[r.Check] = r
	}
	if err != nil {
		t.Errorf("%s: %v", file, err)
	}
	if err != nil || said.Len() > 0 {
		t.Logf("%s said:\n%s", file, said.Bytes())
	}
	return results
}

// variable is an assignment in the table "Point your SDK here".
var variable = regexp.MustCompile(`\b([A-Z][A-Z_]+)=([^\s` + "`" + `]+)`)

// environment is what the man page promises to be enough for these vendors, with the address of this mock. A later one goes before.
func (m mock) environment(t *testing.T, vendors []string) (env []string) {
	t.Helper()
	_, section, _ := strings.Cut(read(t, "../README.md"), "## Point your SDK here\n")
	for _, vendor := range vendors {
		_, row, ok := strings.Cut(section, "| "+vendor+" | ")
		row, _, _ = strings.Cut(row, "\n")
		found := variable.FindAllStringSubmatch(row, -1)
		if !ok || len(found) == 0 {
			t.Fatalf("the man page does not say, under \"Point your SDK here\", which variables point %s here", vendor)
		}
		for _, f := range found {
			env = append(env, f[1]+"="+strings.ReplaceAll(f[2], run.DefaultAPI, m.API))
		}
	}
	return env
}

// install puts the packages of the lock file into the cache, once for each of its versions, and returns their folder.
func install(t *testing.T) string {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed; run: tools/setup-peers")
	}
	hash := sha256.New()
	for _, f := range []string{"package.json", "package-lock.json"} {
		io.WriteString(hash, read(t, f))
	}
	parent, err := filepath.Abs(cache)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, hex.EncodeToString(hash.Sum(nil))[:16])
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(parent, "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	for _, f := range []string{"package.json", "package-lock.json"} {
		if err := os.WriteFile(filepath.Join(work, f), []byte(read(t, f)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	t.Logf("npm ci took %s", time.Since(began).Round(time.Second))
	if err := os.Chmod(work, 0o755); err != nil {
		t.Fatal(err)
	}
	// Whoever was first has the same.
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return modules
}

// engine is the Node.js of the lock file, because the SDKs need a newer one than distributions have; elsewhere than on Linux it is the
// machine's own.
func engine(t *testing.T, modules string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(modules, "node-linux-*", "bin", "node"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 1 {
		return found[0]
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs Node.js 22 or newer: the npm packages bring it for Linux on amd64 and arm64, elsewhere install it")
	}
	return node
}
