package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	fleetv1 "edgehold.internal/proto/edgehold/fleet/v1"
)

// table prints rows under a head, aligned. Empty cells are a dash, so that columns can be cut by programs.
func table(w io.Writer, head string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ReplaceAll(head, " ", "\t"))
	for _, row := range rows {
		for i := range row {
			if row[i] == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush()
}

// printJSON prints a message as indented JSON with the names of the proto, one document a call.
func printJSON(w io.Writer, m proto.Message) error {
	body, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	// protojson varies its white space on purpose; a second pass makes the output the same each time.
	var raw json.RawMessage = body
	body, err = json.MarshalIndent(raw, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(body))
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
