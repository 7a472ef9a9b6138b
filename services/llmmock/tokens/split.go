package tokens

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// The two functions here do what the regular expressions of the encodings say, with the same order of alternatives and the same
// backtracking, by hand. The expressions, as tiktoken publishes them:
//
//	o200k   [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	        [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	        \p{N}{1,3}     ␣?[^\s\p{L}\p{N}]+[\r\n/]*     \s*[\r\n]+     \s+(?!\S)     \s+
//	cl100k  (?i:'s|'t|'re|'ve|'m|'ll|'d)     [^\r\n\p{L}\p{N}]?\p{L}+
//	        \p{N}{1,3}     ␣?[^\s\p{L}\p{N}]+[\r\n]*      \s*[\r\n]+     \s+(?!\S)     \s+

// class of a character: the sets of the expressions that it is in.
type class uint8

const (
	upper   class = 1 << iota // Lu Lt Lm Lo M
	lower                     // Ll Lm Lo M
	letter                    // L
	number                    // N
	space                     // White_Space
	newline                   // \r \n
)

// tabled is up to which character classes are in a table; beyond are hardly any but unassigned ones and selectors.
const tabled = 0x32000

var classes = sync.OnceValue(func() *[tabled]class {
	t := new([tabled]class)
	for r := range rune(tabled) {
		t[r] = slowClass(r)
	}
	return t
})

var ascii = func() (t [utf8.RuneSelf]class) {
	for r := range rune(utf8.RuneSelf) {
		t[r] = slowClass(r)
	}
	return t
}()

func slowClass(r rune) (c class) {
	switch {
	case unicode.IsLower(r):
		c = lower | letter
	case unicode.In(r, unicode.Lu, unicode.Lt):
		c = upper | letter
	case unicode.IsLetter(r):
		c = upper | lower | letter
	case unicode.IsMark(r):
		c = upper | lower
	case unicode.IsNumber(r):
		c = number
	case unicode.IsSpace(r):
		c = space
		if r == '\r' || r == '\n' {
			c |= newline
		}
	}
	return c
}

// at is the class and the size of the character that begins at text[i], which must exist. Bytes that are no UTF-8 are in no set.
func at(text string, i int) (class, int) {
	if c := text[i]; c < utf8.RuneSelf {
		return ascii[c], 1
	}
	r, size := utf8.DecodeRuneInString(text[i:])
	if r >= tabled {
		return slowClass(r), size
	}
	return classes()[r], size
}

// run is where the longest run of characters of one of the classes, beginning at i, ends.
func run(text string, i int, of class) int {
	for i < len(text) {
		c, size := at(text, i)
		if c&of == 0 {
			break
		}
		i += size
	}
	return i
}

// contraction is where 's, 't, 're, 've, 'm, 'll or 'd, in any case, ends that begins at i; i when there is none.
func contraction(text string, i int) int {
	if i+1 >= len(text) || text[i] != '\'' {
		return i
	}
	switch text[i+1] | 0x20 {
	case 's', 't', 'm', 'd':
		return i + 2
	case 'r', 'v':
		if i+2 < len(text) && text[i+2]|0x20 == 'e' {
			return i + 3
		}
	case 'l':
		if i+2 < len(text) && text[i+2]|0x20 == 'l' {
			return i + 3
		}
	}
	return i
}

func splitO200k(text string) int {
	first, size := at(text, 0)
	if first == lower|letter { // the most frequent one: no prefix, no capitals
		return contraction(text, run(text, 0, lower))
	}
	// What may come before a word is neither a letter, a number nor a newline; it may be a mark, which is also a part of words.
	after := -1
	if first&(letter|number|newline) == 0 && size < len(text) {
		after = size
	}
	for _, word := range [2]func(string, int) int{capitalised, capitals} {
		if after >= 0 {
			if end := word(text, after); end > 0 {
				return contraction(text, end)
			}
		}
		if end := word(text, 0); end > 0 {
			return contraction(text, end)
		}
	}
	return other(text, first, size, true)
}

// capitalised is where the first alternative's word ends: capitals, and then at least one that is none.
func capitalised(text string, i int) int {
	if i >= len(text) {
		return 0
	}
	end, both := i, 0 // both is the end of the last character that is in both sets, in case the capitals have to give one back
	for end < len(text) {
		c, size := at(text, end)
		if c&upper == 0 {
			if c&lower != 0 {
				return run(text, end, lower)
			}
			break
		}
		end += size
		if c&lower != 0 {
			both = end
		}
	}
	return both
}

// capitals is where the second alternative's word ends: at least one capital, and then what is none.
func capitals(text string, i int) int {
	end := run(text, i, upper)
	if end == i {
		return 0
	}
	return run(text, end, lower)
}

func splitCL100k(text string) int {
	if end := contraction(text, 0); end > 0 {
		return end
	}
	first, size := at(text, 0)
	if first&letter != 0 {
		return run(text, size, letter)
	}
	if first&(number|newline) == 0 {
		if end := run(text, size, letter); end > size {
			return end
		}
	}
	return other(text, first, size, false)
}

// other is the alternatives that both have: numbers, what is in no set, and white space.
func other(text string, first class, size int, slash bool) int {
	if first&number != 0 {
		end := size
		for range 2 {
			if end < len(text) {
				if c, n := at(text, end); c&number != 0 {
					end += n
				}
			}
		}
		return end
	}
	from := 0
	if text[0] == ' ' {
		from = 1
	}
	end := from
	for end < len(text) {
		c, n := at(text, end)
		if c&(space|letter|number) != 0 {
			break
		}
		end += n
	}
	if end > from {
		for end < len(text) && (text[end] == '\r' || text[end] == '\n' || slash && text[end] == '/') {
			end++
		}
		return end
	}
	// White space: up to its last newline; without one up to the last character, which goes with the word behind it.
	lines, last, end := 0, 0, 0
	for end < len(text) {
		c, n := at(text, end)
		if c&space == 0 {
			break
		}
		last = end
		end += n
		if c&newline != 0 {
			lines = end
		}
	}
	switch {
	case lines > 0:
		return lines
	case end == len(text) || last == 0:
		return end
	}
	return last
}
