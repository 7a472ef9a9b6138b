package bench

import (
	"bufio"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// aimockPackage is the lock file of the mock that is measured beside ours.
//
//go:embed aimock/package.json aimock/package-lock.json
var aimockPackage embed.FS

const aimockFixture = `{"fixtures": [{"match": {"userMessage": "capital"}, "response": {"content": "The capital is where the government sits, mostly for reasons of history."}}]}`

// aimock runs @copilotkit/aimock with one answer, as ours has.
func (b *LLM) aimock(ctx context.Context) (*peer, error) {
	dir, err := b.installAimock(ctx)
	if err != nil {
		return nil, err
	}
	node, err := b.node()
	if err != nil {
		return nil, err
	}
	fixture := filepath.Join(dir, "fixture.json")
	if err := os.WriteFile(fixture, []byte(aimockFixture), 0o600); err != nil {
		return nil, err
	}
	p := &peer{cmd: exec.CommandContext(ctx, node, filepath.Join(dir, "node_modules", "@copilotkit", "aimock", "dist", "cli.js"), "--port", "0", "--fixtures", fixture)}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := onCore(0, p.cmd.Start); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, address, ok := strings.Cut(lines.Text(), "listening on http://"); ok {
			p.api = address
			return p, nil
		}
	}
	p.stop()
	return nil, errors.New("it ended before it listened")
}

// installAimock installs it once for each version of the lock file.
func (b *LLM) installAimock(ctx context.Context) (dir string, err error) {
	files := []string{"aimock/package.json", "aimock/package-lock.json"}
	hash := sha256.New()
	for _, f := range files {
		text, err := aimockPackage.ReadFile(f)
		if err != nil {
			return "", err
		}
		_, _ = hash.Write(text)
	}
	dir = filepath.Join(b.Cache, "aimock", hex.EncodeToString(hash.Sum(nil))[:16])
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm is not installed; run: tools/setup-peers")
	}
	packages, err := fs.Sub(aimockPackage, "aimock")
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Dir(dir), 0o755), os.CopyFS(dir, packages)); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, os.WriteFile(done, nil, 0o600)
}

// node is the Node.js that the clients' tests installed, or else the machine's own.
func (b *LLM) node() (string, error) {
	found, err := filepath.Glob(filepath.Join(b.Cache, "clients", "*", "node_modules", "node-linux-*", "bin", "node"))
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return found[0], nil
	}
	if node, err := exec.LookPath("node"); err == nil {
		return node, nil
	}
	return "", errors.New("there is no Node.js; run: tools/setup-peers")
}
