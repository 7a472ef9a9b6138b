package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

var localImage = regexp.MustCompile(`^local/([a-z0-9][a-z0-9._-]*)(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$`)

// executable of an image. The error tells an operator what this node can run.
func (h *Host) executable(image string) (string, error) {
	m := localImage.FindStringSubmatch(image)
	if m == nil {
		return "", fmt.Errorf("image %q: this node runs local executables only; name the image local/<name>, for the file <name> in %s", image, h.cfg.Images)
	}
	path := filepath.Join(h.cfg.Images, m[1])
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("image %q: %w; build it, or correct the name", image, err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return "", fmt.Errorf("image %q: %s is not an executable file", image, path)
	}
	return path, nil
}

// program that a command names: a path as it is, a bare name in the images and then on PATH.
func (h *Host) program(name string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return name, nil
	}
	if path := filepath.Join(h.cfg.Images, name); localImage.MatchString("local/" + name) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return exec.LookPath(name)
}
