package provider

import "strings"

// Lines joins the texts of a turn's parts by newlines. A single one, which is the usual, is not copied.
type Lines struct {
	first  string
	n      int
	joined strings.Builder
}

// Add appends a text.
func (l *Lines) Add(text string) {
	switch l.n++; l.n {
	case 1:
		l.first = text
	case 2:
		l.joined.WriteString(l.first)
		fallthrough
	default:
		l.joined.WriteByte('\n')
		l.joined.WriteString(text)
	}
}

// Text is what was added.
func (l *Lines) Text() string {
	if l.n < 2 {
		return l.first
	}
	return l.joined.String()
}
