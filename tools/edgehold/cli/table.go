package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

// table prints rows under a head, aligned. Empty cells are a dash, so that columns can be cut by programs. On a terminal
// that is too narrow the last column, which is the one with sentences, goes below its row.
func table(w io.Writer, head string, rows [][]string) {
	names := strings.Fields(head)
	last := len(names) - 1
	widths := make([]int, len(names))
	for _, row := range append([][]string{names}, rows...) {
		for i := range row {
			row[i] = orDash(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	total := 2 * last
	for _, width := range widths {
		total += width
	}
	width := screenOf(w).width
	below := width > 0 && total > width
	for i, row := range append([][]string{names}, rows...) {
		line := ""
		for c, cell := range row[:last] {
			line += pad(cell, widths[c]+2)
		}
		if !below {
			fmt.Fprintln(w, line+row[last])
			continue
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
		if i > 0 && row[last] != "-" {
			fmt.Fprintln(w, "    "+strings.Join(wrap(row[last], width-4, ""), "\n    "))
		}
	}
}

// columns prints rows that come one by one, aligned as far as is known by then.
type columns struct {
	w      io.Writer
	head   []string
	widths []int
}

func (c *columns) print(row []string) {
	if c.widths == nil {
		c.widths = make([]int, len(row))
		for i, cell := range row {
			c.widths[i] = max(utf8.RuneCountInString(c.head[i]), utf8.RuneCountInString(cell))
		}
		c.print(c.head)
	}
	line := ""
	for i, cell := range row {
		c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cell))
		line += pad(orDash(cell), c.widths[i]+2)
	}
	fmt.Fprintln(c.w, strings.TrimRight(line, " -"))
}

func orDash(cell string) string {
	if cell == "" {
		return "-"
	}
	return cell
}

var marshal = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

// printJSON prints a message as indented JSON with the names of the proto, one document a call.
func printJSON(w io.Writer, m proto.Message) error {
	body, err := marshal.Marshal(m)
	if err != nil {
		return err
	}
	// protojson varies its white space on purpose; a second pass makes the output the same each time.
	var text bytes.Buffer
	if err := json.Indent(&text, body, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, text.String())
	return err
}

// printJSONLine is printJSON for a stream of messages: a line each.
func printJSONLine(w io.Writer, m proto.Message) error {
	body, err := marshal.Marshal(m)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := json.Compact(&text, body); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, text.String())
	return err
}

// colourName is blue, green or empty.
func colourName(c fleetv1.Colour) string {
	switch c {
	case fleetv1.Colour_COLOUR_BLUE:
		return "blue"
	case fleetv1.Colour_COLOUR_GREEN:
		return "green"
	}
	return ""
}

// name is the last words of an enum value in lower case: PHASE_STEADY is steady.
func name(value, prefix string) string {
	text := strings.ToLower(strings.TrimPrefix(value, prefix))
	if text == "unspecified" {
		return ""
	}
	return text
}

// ago is a short age: 4s, 3m, 2h, 5d.
func (a *app) ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	d := a.now().Sub(t.AsTime())
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func count(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprint(*n)
}
