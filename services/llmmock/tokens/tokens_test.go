package tokens

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/pkoukk/tiktoken-go"
	loader "github.com/pkoukk/tiktoken-go-loader"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"edgehold.internal/services/llmmock"
)

func TestMain(m *testing.M) {
	tiktoken.SetBpeLoader(loader.NewOfflineLoader())
	goleak.VerifyTestMain(m)
}

var both = []*Encoding{O200k, CL100k}

// oracle is tiktoken-go's own encoder.
func oracle(t testing.TB, e *Encoding) *tiktoken.Tiktoken {
	t.Helper()
	oracles.Lock()
	defer oracles.Unlock()
	if oracles.of[e] == nil {
		o, err := tiktoken.GetEncoding(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		oracles.of[e] = o
	}
	return oracles.of[e]
}

var oracles = struct {
	sync.Mutex
	of map[*Encoding]*tiktoken.Tiktoken
}{of: make(map[*Encoding]*tiktoken.Tiktoken)}

// texts have what the expressions of the encodings tell apart.
var texts = []string{
	"", " ", "  ", "\n", "hello", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "don't DON'T we'll WE'LL I'd you're 've",
	"iPhone XMLHttpRequest camelCase snake_case SCREAMING", "1 12 123 1234 12345 1,234.56 ½ ²", "a\nb\r\nc\n\n\nd", "trailing   ", "   leading",
	"tab\tand\t\ttabs", " \n \n x", "if (x != y) { return a[i]/b; } // done\n\n\tnext();", "https://example.com/a/b?c=d&e=f#g",
	"Привет, мир! Как дела?", "こんにちは世界", "你好，世界！今天天气怎么样？", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "한국어 텍스트", "Ελληνικά ΚΕΦΑΛΑΊΑ",
	"👍🏽 👩‍👩‍👧‍👦 🇫🇷", "é e\u0301 \u0301x \u0301", "ǅ ǅungla ªº ʰʷ", "naïve café Straße", "\u00a0nbsp\u3000wide\u2028line", "<|endoftext|>", "'s 'S '", "'",
	strings.Repeat("a", 500), strings.Repeat("ab", 300), strings.Repeat(" ", 300), strings.Repeat("=", 257), strings.Repeat("日本", 200), "\x00\x01",
	"A" + strings.Repeat("b", 120) + "C", "中A文bЯ1", "!\u0301a", "A\u0301B", "AbCdEf", "ABCdef", "/\n/\n", "a/\n", "...\n\n/x",
}

func TestTokensAreTiktokens(t *testing.T) {
	for _, e := range both {
		o := oracle(t, e)
		for _, text := range texts {
			same(t, e, o, text)
		}
	}
}

func same(t interface {
	Helper()
	Fatalf(string, ...any)
}, e *Encoding, o *tiktoken.Tiktoken, text string) {
	t.Helper()
	want := o.EncodeOrdinary(text)
	got := e.Tokens(text)
	if len(want) != len(got) {
		t.Fatalf("%s %q: got %v, want %v", e.Name(), text, got, want)
	}
	for i := range want {
		if want[i] != got[i] {
			t.Fatalf("%s %q: got %v, want %v", e.Name(), text, got, want)
		}
	}
	if n := e.Count(text); n != len(want) {
		t.Fatalf("%s %q: counted %d, want %d", e.Name(), text, n, len(want))
	}
	if n := e.Count(text); n != len(want) { // the remembered one
		t.Fatalf("%s %q: counted %d the second time, want %d", e.Name(), text, n, len(want))
	}
}

// Letters of all cases, marks, numbers, spaces and others in any order: where the expressions backtrack.
func TestTokensOfAnyText(t *testing.T) {
	alphabet := []rune("aAbsSdDtTrRevVlLmM'' \t\n\r/.,!_-0123½éÉßǅªʰ日本\u0301\u00a0\u3000Яя🙂\U000e0100")
	for _, e := range both {
		o := oracle(t, e)
		rapid.Check(t, func(t *rapid.T) {
			same(t, e, o, rapid.StringOfN(rapid.SampledFrom(alphabet), 0, 40, -1).Draw(t, "text"))
		})
		rapid.Check(t, func(t *rapid.T) { same(t, e, o, rapid.String().Draw(t, "text")) })
	}
}

// A long piece goes through the heap, a short one does not, and both must say the same.
func TestLongPieces(t *testing.T) {
	O200k.Load()
	r := rand.New(rand.NewPCG(1, 2))
	var room scratch
	for range 300 {
		piece := make([]byte, 1+r.IntN(short))
		for i := range piece {
			piece[i] = "aabcdeé"[r.IntN(8)]
		}
		a := append([]uint32(nil), O200k.vocab.encode(string(piece), &room)...)
		b := O200k.vocab.long(string(piece))
		if len(a) != len(b) {
			t.Fatalf("%q: %v and %v", piece, a, b)
		}
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("%q: %v and %v", piece, a, b)
			}
		}
	}
}

func checkPieces(t interface {
	Helper()
	Fatalf(string, ...any)
}, e *Encoding, text string) {
	t.Helper()
	pieces, count := e.Split(text)
	if count != e.Count(text) {
		t.Fatalf("%q: split into %d tokens and counted %d", text, count, e.Count(text))
	}
	if strings.Join(pieces, "") != text {
		t.Fatalf("%q: the pieces %q are not the text", text, pieces)
	}
	if len(pieces) > e.Count(text) {
		t.Fatalf("%q: %d pieces of %d tokens", text, len(pieces), e.Count(text))
	}
	if utf8.ValidString(text) {
		for _, p := range pieces {
			if p == "" || !utf8.ValidString(p) {
				t.Fatalf("%q: the piece %q is empty or breaks a character", text, p)
			}
		}
	}
	total := e.Count(text)
	for n := range min(total+2, 12) {
		head, made := e.Cut(text, n)
		if !strings.HasPrefix(text, head) || made > n || (n >= total) != (head == text && made == total) && head != text {
			t.Fatalf("%q cut to %d of %d tokens: %q of %d", text, n, total, head, made)
		}
		if utf8.ValidString(text) && !utf8.ValidString(head) {
			t.Fatalf("%q cut to %d tokens breaks a character: %q", text, n, head)
		}
	}
}

func TestSplitAndCut(t *testing.T) {
	for _, e := range both {
		for _, text := range texts {
			checkPieces(t, e, text)
		}
		rapid.Check(t, func(t *rapid.T) { checkPieces(t, e, rapid.String().Draw(t, "text")) })
	}
	if got, _ := O200k.Split("Hello, world!"); strings.Join(got, "|") != "Hello|,| world|!" {
		t.Errorf("got %q", got)
	}
	if got, n := O200k.Cut("Hello, world!", 2); got != "Hello," || n != 2 {
		t.Errorf("got %q of %d", got, n)
	}
}

func FuzzTokens(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		for _, e := range both {
			checkPieces(t, e, text)
			if utf8.ValidString(text) {
				same(t, e, oracle(t, e), text)
			}
		}
	})
}

func TestFor(t *testing.T) {
	for model, want := range map[string]*Encoding{
		"gpt-4o": O200k, "gpt-4o-mini-2024-07-18": O200k, "gpt-4.1": O200k, "gpt-5": O200k, "o3": O200k, "claude-sonnet-4-6": O200k, "": O200k,
		"gpt-4": CL100k, "gpt-4-turbo": CL100k, "gpt-3.5-turbo-0125": CL100k, "text-embedding-3-small": CL100k,
	} {
		if got := For(model); got != want {
			t.Errorf("%s: got %s, want %s", model, got.Name(), want.Name())
		}
	}
}

// The figures are those of OpenAI's cookbook, whose example has them from the API itself.
func TestPromptAsDocumented(t *testing.T) {
	turns := []llmmock.Turn{
		{Role: llmmock.System, Text: "You are a helpful assistant that can answer to questions about the weather."},
		{Role: llmmock.User, Text: "What's the weather like in San Francisco?"},
	}
	tool := llmmock.Tool{Name: "get_current_weather", Description: "Get the current weather in a given location", Schema: []byte(`{
		"type":"object","properties":{
			"location":{"type":"string","description":"The city and state, e.g. San Francisco, CA"},
			"unit":{"type":"string","description":"The unit of temperature to return","enum":["celsius","fahrenheit"]}},
		"required":["location"]}`)}
	for model, want := range map[string]int{"gpt-3.5-turbo": 105, "gpt-4": 105, "gpt-4o": 101, "gpt-4o-mini": 101} {
		q := &llmmock.Request{Operation: llmmock.Generate, Model: model, Turns: turns, Tools: []llmmock.Tool{tool}}
		for range 2 {
			if got := Prompt(q); got != want {
				t.Errorf("%s: %d tokens, want %d", model, got, want)
			}
		}
	}
}

func TestPrompt(t *testing.T) {
	base := &llmmock.Request{Operation: llmmock.Generate, Model: "gpt-4o", Turns: []llmmock.Turn{{Role: llmmock.User, Text: "Hello"}}}
	if got := Prompt(base); got != 3+3+1+1 {
		t.Errorf("got %d", got)
	}
	for name, change := range map[string]func(*llmmock.Request){
		"media": func(q *llmmock.Request) { q.Turns[0].Media = 1 },
		"calls": func(q *llmmock.Request) {
			q.Turns = append(q.Turns, llmmock.Turn{Role: llmmock.Assistant, Calls: []llmmock.Call{{Name: "f", Arguments: "{}"}}})
		},
		"results": func(q *llmmock.Request) { q.Turns[0].Results = []llmmock.Result{{Text: "42"}} },
		"schema":  func(q *llmmock.Request) { q.Schema = []byte(`{"type":"object"}`) },
		"broken schema of a tool": func(q *llmmock.Request) {
			q.Tools = []llmmock.Tool{{Name: "f", Schema: []byte(`{"type":`)}}
		},
	} {
		q := *base
		q.Turns = append([]llmmock.Turn(nil), base.Turns...)
		change(&q)
		if Prompt(&q) <= Prompt(base) {
			t.Errorf("%s count nothing", name)
		}
	}
	embed := &llmmock.Request{Operation: llmmock.Embed, Model: "text-embedding-3-small", Inputs: []string{"Hello", "Hello, world!"}}
	if got := Prompt(embed); got != 5 {
		t.Errorf("embedding: got %d, want 5", got)
	}
	embed.InputTokens = 9
	if got := Prompt(embed); got != 9 {
		t.Errorf("embedding of token ids: got %d, want 9", got)
	}
}

func TestBrokenVocabulary(t *testing.T) {
	for _, data := range []string{"", "IQ==\n", "IQ== x\n", "IQ== 1\nIg== 0\n", "!! 0\n", "IQ== 9999999\n"} {
		if new(vocabulary).read([]byte(data)) == nil {
			t.Errorf("%q was read", data)
		}
	}
}

const question = "Could you explain in two or three sentences why the sky is blue and what that has to do with light?"

func BenchmarkCount(b *testing.B) {
	long := strings.Repeat(question+"\n", 200)
	O200k.Load()
	b.Run("20 tokens", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			O200k.Count(question)
		}
	})
	b.Run("20 kB", func(b *testing.B) {
		b.SetBytes(int64(len(long)))
		for b.Loop() {
			O200k.count(long)
		}
	})
	b.Run("20 kB again", func(b *testing.B) {
		b.SetBytes(int64(len(long)))
		for b.Loop() {
			O200k.Count(long)
		}
	})
	b.Run("1 MB of one letter", func(b *testing.B) {
		text := strings.Repeat("a", 1<<20)
		for b.Loop() {
			O200k.count(text)
		}
	})
	b.Run("tiktoken-go", func(b *testing.B) {
		o := oracle(b, O200k)
		for b.Loop() {
			o.EncodeOrdinary(question)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		O200k.Split(question)
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		e := &Encoding{name: "o200k_base", split: splitO200k}
		e.Load()
	}
}
