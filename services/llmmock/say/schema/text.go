package schema

import (
	"fmt"
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"time"
	"unicode"

	"edgehold.internal/services/llmmock"
)

// words are what strings are made of that nothing is known about.
var words = []string{"amber", "anchor", "autumn", "basin", "beacon", "bridge", "canyon", "cedar", "cobalt", "copper", "coral", "delta",
	"ember", "field", "forest", "garden", "granite", "harbor", "island", "lantern", "maple", "marble", "meadow", "mirror", "ocean",
	"orchard", "pebble", "prairie", "quartz", "river", "silver", "spring", "summit", "timber", "valley", "willow", "window", "winter"}

// values go with names of properties: the first key that is a part of the name counts.
var values = []struct {
	key string
	of  []string
}{
	{"city", cities},
	{"location", cities},
	{"destination", cities},
	{"origin", cities},
	{"country", []string{"Brazil", "Canada", "France", "Japan", "Kenya", "Norway"}},
	{"language", []string{"en", "de", "fr", "ja", "pt"}},
	{"locale", []string{"en-GB", "de-DE", "fr-FR", "ja-JP"}},
	{"currency", []string{"EUR", "USD", "JPY", "GBP"}},
	{"timezone", []string{"Europe/Paris", "America/New_York", "Asia/Tokyo", "UTC"}},
	{"unit", []string{"celsius", "metres", "kilograms", "seconds"}},
	{"color", colours},
	{"colour", colours},
	{"email", []string{"reader@example.com", "support@example.org"}},
	{"phone", []string{"+1-202-555-0143", "+44 20 7946 0958"}},
	{"url", urls},
	{"uri", urls},
	{"link", urls},
	{"path", []string{"/var/data/report.txt", "/srv/app/config.yaml", "notes/summary.md"}},
	{"file", []string{"report.txt", "config.yaml", "summary.md"}},
	{"date", []string{"2025-03-14", "2025-06-21", "2025-11-02"}},
	{"time", []string{"09:30", "14:00", "18:45"}},
	{"query", []string{"latest release notes", "weather tomorrow", "opening hours", "error rate last hour"}},
	{"question", []string{"What changed since the last release?", "Which of the two is faster?"}},
	{"expression", []string{"2 + 2", "17 * 23", "(3 + 4) / 2"}},
	{"code", []string{"print('hello')", "return a + b"}},
	{"status", []string{"active", "pending", "done"}},
	{"title", []string{"A short summary", "Notes on the release", "What was found"}},
	{"summary", sentences},
	{"description", sentences},
	{"reason", sentences},
	{"explanation", sentences},
	{"message", sentences},
	{"content", sentences},
	{"answer", sentences},
	{"text", sentences},
}

var (
	cities    = []string{"Paris", "Tokyo", "Nairobi", "Lisbon", "Toronto", "Sydney", "Oslo", "Lima"}
	colours   = []string{"red", "green", "blue", "yellow", "black"}
	urls      = []string{"https://example.com/", "https://example.org/docs", "https://example.net/a/b"}
	sentences = []string{"All checks passed and nothing else is needed.", "The values agree with what was expected.",
		"Two of the three sources say the same.", "The change is small and can be undone."}
)

// named is a value that goes with a property's name, and empty for a name that says nothing.
func (m *maker) named(name string) string {
	name = strings.ToLower(name)
	if name == "id" || strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "id") && strings.ContainsAny(name, "_-") {
		return llmmock.ID(m.r, 12)
	}
	for _, v := range values {
		if strings.Contains(name, v.key) {
			return v.of[m.r.IntN(len(v.of))]
		}
	}
	return ""
}

// formatted is a string in one of the formats of JSON Schema (2020-12 §7.3), and empty for another.
func (m *maker) formatted(format string) string {
	day := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func() time.Time { return day.Add(time.Duration(m.r.Int64N(365*24*3600)) * time.Second) }
	word := func() string { return words[m.r.IntN(len(words))] }
	switch format {
	case "date-time":
		return at().Format(time.RFC3339)
	case "date":
		return at().Format(time.DateOnly)
	case "time":
		return at().Format("15:04:05Z07:00")
	case "duration":
		return fmt.Sprintf("PT%dM", 1+m.r.IntN(59))
	case "email", "idn-email":
		return word() + "@example.com"
	case "hostname", "idn-hostname":
		return word() + ".example.com"
	case "ipv4":
		return fmt.Sprintf("192.0.2.%d", 1+m.r.IntN(254)) // RFC 5737 §3
	case "ipv6":
		return fmt.Sprintf("2001:db8::%x", 1+m.r.IntN(0xfffe)) // RFC 3849 §4
	case "uuid":
		return UUID(m.r)
	case "uri", "iri", "uri-reference", "iri-reference":
		return "https://example.com/" + word()
	case "uri-template":
		return "https://example.com/{" + word() + "}"
	case "json-pointer":
		return "/" + word()
	case "relative-json-pointer":
		return "1/" + word()
	case "regex":
		return "^" + word() + "$"
	case "byte":
		return "ZWRnZQ=="
	}
	return ""
}

// UUID is a random one (RFC 9562 §5.4).
func UUID(r *rand.Rand) string {
	x := []byte(llmmock.ID(r, 32))
	x[12] = '4'
	x[16] = "89ab"[x[16]&3]
	return string(x[:8]) + "-" + string(x[8:12]) + "-" + string(x[12:16]) + "-" + string(x[16:20]) + "-" + string(x[20:])
}

// pattern is a string that matches re, at most a few repetitions long. One whose parts are repeated in each other without an end is
// given up after some thousand steps.
func pattern(r *rand.Rand, re *syntax.Regexp) string {
	w := patternWriter{r: r, left: 10_000}
	w.write(re)
	return w.b.String()
}

type patternWriter struct {
	b    strings.Builder
	r    *rand.Rand
	left int // steps
}

func (w *patternWriter) times(of *syntax.Regexp, low, high int) {
	for range low + w.r.IntN(high-low+1) {
		w.write(of)
	}
}

func (w *patternWriter) write(re *syntax.Regexp) {
	if w.left--; w.left < 0 || w.b.Len() > longest {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		w.b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		w.b.WriteRune(drawRune(w.r, re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		w.b.WriteByte('a' + byte(w.r.IntN(26)))
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range re.Sub {
			w.write(sub)
		}
	case syntax.OpAlternate:
		w.write(re.Sub[w.r.IntN(len(re.Sub))])
	case syntax.OpStar:
		w.times(re.Sub[0], 0, 3)
	case syntax.OpPlus:
		w.times(re.Sub[0], 1, 4)
	case syntax.OpQuest:
		w.times(re.Sub[0], 0, 1)
	case syntax.OpRepeat:
		high := re.Max
		if high < 0 {
			high = re.Min + 3
		}
		w.times(re.Sub[0], re.Min, high)
	}
}

// drawRune draws from the ranges of a class, of its printable ASCII characters where it has any.
func drawRune(r *rand.Rand, ranges []rune) rune {
	var plain []rune
	for i := 0; i+1 < len(ranges); i += 2 {
		for c := max(ranges[i], '!'); c <= min(ranges[i+1], '~'); c++ {
			plain = append(plain, c)
		}
	}
	letters := plain[:0:0]
	for _, c := range plain {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			letters = append(letters, c)
		}
	}
	switch {
	case len(letters) > 0:
		return letters[r.IntN(len(letters))]
	case len(plain) > 0:
		return plain[r.IntN(len(plain))]
	case len(ranges) > 0:
		return ranges[2*r.IntN(len(ranges)/2)]
	}
	return 'x'
}
