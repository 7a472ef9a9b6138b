package say

import (
	"math"
	"math/rand/v2"
	"strings"
	"unicode"

	"github.com/cespare/xxhash/v2"

	"edgehold.internal/services/llmmock"
)

// MaxDimensions is the most that a vector has.
const MaxDimensions = 8192

// Dimensions is how many an embedding of the model has when the request says nothing, as the vendors publish; 1536 for a model of
// which nothing is known.
func Dimensions(model string) int {
	for _, d := range dimensions {
		if strings.Contains(model, d.model) {
			return d.n
		}
	}
	return 1536
}

var dimensions = []struct {
	model string
	n     int
}{
	{"text-embedding-3-large", 3072},
	{"gemini-embedding", 3072},
	{"text-embedding-004", 768},
	{"embedding-001", 768},
	{"titan-embed-text-v2", 1024},
	{"titan-embed-image", 1024},
	{"cohere.embed", 1024},
}

// embed is a vector of length 1 for each input. The same text has the same vector in every scenario and moment, as a real model
// gives it, and texts that share words are near each other: a vector is the sum of one random vector for each word, so that what
// searches among embeddings finds something. A shorter vector is the beginning of the longer one, made a unit again.
func embed(q *llmmock.Request) [][]float32 {
	n := q.Dimensions
	if n <= 0 {
		n = Dimensions(q.Model)
	}
	n = min(n, MaxDimensions)
	model := xxhash.Sum64String(q.Model)
	out := make([][]float32, len(q.Inputs))
	for i, text := range q.Inputs {
		out[i] = vector(text, model, n)
	}
	return out
}

// weighed is how many words of a text its vector is made of at most; the rest only goes into what makes it different.
const weighed = 4096

func vector(text string, model uint64, n int) []float32 {
	v := make([]float32, n)
	left := weighed
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) }) {
		if left--; left < 0 {
			break
		}
		add(v, xxhash.Sum64String(strings.ToLower(word))^model, 1)
	}
	add(v, xxhash.Sum64String(text)+model, 0.25) // texts of the same words differ
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	scale := float32(1 / math.Sqrt(sum))
	for i := range v {
		v[i] *= scale
	}
	return v
}

// add adds a vector of which each component is weight or -weight, as the bits of the seed's numbers say.
func add(v []float32, seed uint64, weight float32) {
	pcg := rand.NewPCG(seed, 0x9e3779b97f4a7c15)
	for from := 0; from < len(v); from += 64 {
		bits := pcg.Uint64()
		for i := from; i < min(from+64, len(v)); i++ {
			if bits&1 == 0 {
				v[i] += weight
			} else {
				v[i] -= weight
			}
			bits >>= 1
		}
	}
}
