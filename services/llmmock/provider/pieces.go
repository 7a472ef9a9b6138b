package provider

import (
	"iter"
	"unicode/utf8"
)

// Pieces cuts the arguments of a tool call into what is streamed of them at a time, about a token each: every piece counts as one
// in the numbers of chunks. Joined they are arguments, and none ends inside a character.
func Pieces(arguments string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := arguments; s != ""; {
			n := Piece(s)
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
	}
}

// Piece is the length in bytes of the first piece of arguments, for who streams several answers at a time and cannot range; 0 when
// they are empty.
func Piece(arguments string) int {
	const size = 4
	n := min(size, len(arguments))
	for n < len(arguments) && !utf8.RuneStart(arguments[n]) {
		n++
	}
	return n
}
