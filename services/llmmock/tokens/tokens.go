// Package tokens counts and cuts text the way models do: with the byte-pair encodings o200k_base and cl100k_base of OpenAI, whose
// ranks are compiled in, so that nothing is fetched at run time. For vendors who do not publish their encoding the same is used,
// and the count is an estimate. Start at For and Encoding.Count; Prompt counts a whole request.
//
// The ranks are those that tiktoken-go's loader carries, and the tests hold every count against tiktoken-go. Its own encoder is not
// used because it goes through a backtracking regular expression: some 40 µs for a question of twenty words, where a whole answer
// may cost ten.
package tokens

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/pkoukk/tiktoken-go-loader/assets"
)

// Encoding is one vocabulary and its way of cutting text into pieces. Its methods may be called at the same time by many. The first
// call loads it, which takes about 50 ms, and those that come meanwhile wait for that; Load does it ahead.
type Encoding struct {
	name  string
	split func(text string) int // the length of the first piece of a text that is not empty
	load  sync.Once
	vocab vocabulary
	memo  memo
}

// The encodings. O200k is what models since GPT-4o use, CL100k those before and the embeddings.
var (
	O200k  = &Encoding{name: "o200k_base", split: splitO200k}
	CL100k = &Encoding{name: "cl100k_base", split: splitCL100k}
)

// For is the encoding of a model by its name, and O200k for a model of which nothing is known.
func For(model string) *Encoding {
	if strings.HasPrefix(model, "text-embedding-") || strings.HasPrefix(model, "gpt-3.5") {
		return CL100k
	}
	if rest, ok := strings.CutPrefix(model, "gpt-4"); ok && (rest == "" || rest[0] == '-') {
		return CL100k
	}
	return O200k
}

// Name of the encoding, as in tiktoken.
func (e *Encoding) Name() string { return e.name }

// Load reads the vocabulary now instead of at the first use.
func (e *Encoding) Load() {
	e.load.Do(func() {
		data, err := assets.Assets.ReadFile(e.name + ".tiktoken")
		if err == nil {
			err = e.vocab.read(data)
		}
		if err != nil {
			panic(fmt.Sprintf("the vocabulary %s that is compiled in cannot be read: %v", e.name, err))
		}
	})
}

// remembered is from how many bytes on the count of a text is looked up before it is made: conversations repeat their long parts,
// and short texts are counted faster than looked up.
const remembered = 256

// Count is how many tokens text has. What looks like a special token counts as the text that it is.
func (e *Encoding) Count(text string) int {
	e.Load()
	if len(text) < remembered {
		return e.count(text)
	}
	h := xxhash.Sum64String(text)
	if n, ok := e.memo.get(h); ok {
		return n
	}
	n := e.count(text)
	e.memo.put(h, n)
	return n
}

func (e *Encoding) count(text string) int {
	n := 0
	var s scratch
	for len(text) > 0 {
		size := e.split(text)
		if piece := text[:size]; e.vocab.rank(piece) != none {
			n++
		} else {
			n += len(e.vocab.encode(piece, &s))
		}
		text = text[size:]
	}
	return n
}

// each calls yield with the length of every token until it returns false.
func (e *Encoding) each(text string, yield func(size int) bool) {
	e.Load()
	var s scratch
	for len(text) > 0 {
		size := e.split(text)
		piece := text[:size]
		if e.vocab.rank(piece) != none {
			if !yield(size) {
				return
			}
		} else {
			from := 0
			for _, to := range e.vocab.encode(piece, &s) {
				if !yield(int(to) - from) {
					return
				}
				from = int(to)
			}
		}
		text = text[size:]
	}
}

// Split cuts text into the pieces in which a model streams it: a token each, but that one which ends inside of a character waits
// for those that complete it. So no piece breaks a character, and there are at most as many as count, which is Count's. Joined they
// are text, and they share its memory.
func (e *Encoding) Split(text string) (pieces []string, count int) {
	pieces = make([]string, 0, len(text)/4+1)
	from, at := 0, 0
	e.each(text, func(size int) bool {
		count++
		at += size
		if whole(text[from:at]) {
			pieces = append(pieces, text[from:at])
			from = at
		}
		return true
	})
	if from < len(text) {
		pieces = append(pieces, text[from:])
	}
	return pieces, count
}

// Cut is the longest beginning of text that has at most n tokens and breaks no character, and how many tokens it was made of.
func (e *Encoding) Cut(text string, n int) (string, int) {
	at, count, good, goodCount := 0, 0, 0, 0
	e.each(text, func(size int) bool {
		if count == n {
			return false
		}
		at += size
		count++
		if whole(text[good:at]) {
			good, goodCount = at, count
		}
		return true
	})
	if at == len(text) {
		return text, count
	}
	return text[:good], goodCount
}

// Tokens are the ids of text's tokens.
func (e *Encoding) Tokens(text string) []int {
	var ids []int
	at := 0
	e.each(text, func(size int) bool {
		ids = append(ids, int(e.vocab.rank(text[at:at+size])))
		at += size
		return true
	})
	return ids
}

// whole says whether s does not end inside of a character.
func whole(s string) bool {
	for i := 1; i <= utf8.UTFMax && i <= len(s); i++ {
		if c := s[len(s)-i]; utf8.RuneStart(c) {
			return c < utf8.RuneSelf || utf8.FullRuneInString(s[len(s)-i:])
		}
	}
	return true // no UTF-8 at all
}

// none is no token: it is after all that are.
const none uint32 = math.MaxUint32

// vocabulary finds the rank of a token, which is its id. It is an open-addressed table over one block of bytes: a third of the
// memory and of the loading time of a map of strings.
type vocabulary struct {
	text  []byte
	from  []uint32 // of rank r is text[from[r]:from[r+1]]
	table []uint64 // the upper half of the hash over rank+1, by the low bits of the hash: what is no token touches nothing else
	bytes [256]uint32
	pairs []uint32 // the rank of each two bytes, for the first step of a merge
}

// read takes lines of a token in base64 and its rank, ranks ascending from 0.
func (v *vocabulary) read(data []byte) error {
	lines := bytes.Count(data, []byte{'\n'}) + 1
	size := 1
	for size < 2*lines {
		size *= 2
	}
	v.text = make([]byte, 0, len(data)/2)
	v.from = append(make([]uint32, 0, lines+1), 0)
	v.table = make([]uint64, size)
	for line := range bytes.Lines(data) {
		token, rank, ok := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		if !ok {
			if len(token) == 0 {
				continue
			}
			return fmt.Errorf("the line %q is no token and rank", line)
		}
		// A rank that is left out belongs to a special token, which text never has.
		n, err := strconv.Atoi(string(rank))
		if err != nil || n < len(v.from)-1 || n > 1<<20 {
			return fmt.Errorf("the rank %q is no number that follows %d", rank, len(v.from)-2)
		}
		for len(v.from)-1 < n {
			v.from = append(v.from, uint32(len(v.text)))
		}
		if v.text, err = base64.StdEncoding.AppendDecode(v.text, token); err != nil {
			return err
		}
		text := v.text[v.from[n]:]
		v.from = append(v.from, uint32(len(v.text)))
		h := hash(text)
		at := h & uint64(size-1)
		for v.table[at] != 0 {
			at = (at + 1) & uint64(size-1)
		}
		v.table[at] = h>>32<<32 | uint64(n+1)
	}
	v.pairs = make([]uint32, 1<<16)
	var pair [2]byte
	for i := range v.pairs {
		pair[0], pair[1] = byte(i>>8), byte(i)
		v.pairs[i] = find(v, pair[:])
	}
	for i := range v.bytes {
		pair[0] = byte(i)
		if v.bytes[i] = find(v, pair[:1]); v.bytes[i] == none {
			return fmt.Errorf("the byte %#x is no token", i)
		}
	}
	return nil
}

// rank of s, or none.
func (v *vocabulary) rank(s string) uint32 {
	if len(s) == 1 {
		return v.bytes[s[0]]
	}
	return find(v, s)
}

func find[T string | []byte](v *vocabulary, s T) uint32 {
	mask := uint64(len(v.table) - 1)
	h := hash(s)
	for at := h & mask; ; at = (at + 1) & mask {
		slot := v.table[at]
		if slot == 0 {
			return none
		}
		if r := uint32(slot); slot>>32 == h>>32 && string(v.text[v.from[r-1]:v.from[r]]) == string(s) {
			return r - 1
		}
	}
}

// hash is FNV-1a with a last mix, which for the few bytes of a token is faster than what is made for long texts.
func hash[T string | []byte](s T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h ^ h>>29
}
