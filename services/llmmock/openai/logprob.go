package openai

import (
	"math"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// forProbabilities keeps what is drawn for them apart from all else.
const forProbabilities llmmock.Purpose = "logprobs"

// probabilities are made up for the tokens of one choice. That of a token depends on where it stands and not on when it is written:
// a stream has the same as the whole.
type probabilities struct {
	seed uint64
	top  int
}

func (f *chat) probabilities(x *llmmock.Exchange, i int) probabilities {
	return probabilities{seed: x.Choice(i).Random(forProbabilities).Uint64(), top: f.top}
}

// others are tokens that could have come instead: frequent ones of English.
var others = [...]string{" the", " a", " to", " and", " of", " is", " in", " that", " it", " for", ",", ".", " on", " you", " with", " as", " this", " are", " be", " can", " or"}

// of is the probability of the i-th token. Models are sure of most of what they say.
func (p probabilities) of(i int) float64 {
	x := p.seed + uint64(i+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	u := float64((x^x>>31)>>11) / (1 << 53)
	return 1 - 0.95*u*u*u
}

// alternatives yields the top most probable tokens in the i-th place, the one that was said first, and what is left of 1 halved for
// each of the others.
func (p probabilities) alternatives(token string, i int, yield func(n int, token string, probability float64)) {
	probability := p.of(i)
	left, spoken := 1-probability, token
	for n, k := 0, i; n < p.top; n++ {
		if n > 0 {
			left /= 2
			probability = left
			if others[k%len(others)] == spoken {
				k++
			}
			token = others[k%len(others)]
			k++
		}
		yield(n, token, probability)
	}
}

func appendLog(dst []byte, probability float64) []byte {
	const never = -9999 // the vendor's own
	l := max(math.Log(probability), never)
	if l == 0 { // and not -0
		return append(dst, '0')
	}
	return strconv.AppendFloat(dst, l, 'f', 6, 64)
}

func appendToken(dst []byte, token string, probability float64) []byte {
	dst = append(dst, `{"token":`...)
	dst = provider.AppendString(dst, token)
	dst = append(dst, `,"logprob":`...)
	dst = appendLog(dst, probability)
	dst = append(dst, `,"bytes":[`...)
	for i := range len(token) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(token[i]), 10)
	}
	return append(dst, ']')
}

// entry appends the i-th token with its alternatives, in the form of chat completions and of responses.
func (p probabilities) entry(dst []byte, token string, i int) []byte {
	dst = appendToken(dst, token, p.of(i))
	dst = append(dst, `,"top_logprobs":[`...)
	p.alternatives(token, i, func(n int, token string, probability float64) {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendToken(dst, token, probability), '}')
	})
	return append(dst, `]}`...)
}

func (p probabilities) open(dst []byte, refused bool) []byte {
	if refused {
		return append(dst, `{"content":null,"refusal":[`...)
	}
	return append(dst, `{"content":[`...)
}

func (p probabilities) close(dst []byte, refused bool) []byte {
	if refused {
		return append(dst, `]}`...)
	}
	return append(dst, `],"refusal":null}`...)
}
