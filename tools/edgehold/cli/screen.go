package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is the size of the terminal that something is printed on, in columns and rows; the zero screen is a file or a pipe.
type screen struct{ width, height int }

func screenOf(w io.Writer) screen {
	f, is := w.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		return screen{}
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return screen{80, 24}
	}
	return screen{width, height}
}

// redraws tells whether lines on the screen can be replaced. A dumb terminal (TERM=dumb) cannot, and a tiny one has no
// room for them.
func (s screen) redraws() bool {
	kind := os.Getenv("TERM")
	return s.width >= 40 && s.height >= 8 && kind != "" && kind != "dumb"
}

// redrawn is lines on a screen that are replaced by later ones.
type redrawn struct {
	lines int // on the screen
	width int // of the screen when they were drawn
}

// draw replaces the block on the screen.
func (b *redrawn) draw(w io.Writer, size screen, lines []string) {
	up := ""
	// A screen that became narrower has broken the lines of the block: leave it, and begin another below.
	if b.lines > 0 && size.width >= b.width {
		up = fmt.Sprintf("\x1b[%dA\r\x1b[J", b.lines)
	}
	b.lines, b.width = len(lines), size.width
	_, _ = io.WriteString(w, up+strings.Join(lines, "\n")+"\n")
}

// colours tells whether the person wants any: see no-color.org.
func colours() bool { return os.Getenv("NO_COLOR") == "" }

// wrap breaks text between words so that no line is longer than width; further lines begin with the indent. A word that is
// longer has a line of its own, whole: it may be something to copy. Width 0 breaks nothing.
func wrap(text string, width int, indent string) []string {
	var lines []string
	line, used := "", 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
			line, used = word, n
		case width > 0 && used+1+n > width:
			lines = append(lines, line)
			line, used = indent+word, len(indent)+n
		default:
			line, used = line+" "+word, used+1+n
		}
	}
	if line == "" {
		return nil
	}
	return append(lines, line)
}

// clip cuts a line to the width; the last column shows that something was cut.
func clip(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:max(0, width-1)]) + "…"
}

// pad fills text up to the width.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
