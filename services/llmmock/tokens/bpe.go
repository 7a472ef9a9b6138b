package tokens

import "container/heap"

// short is up to how many bytes looking through all pairs for the lowest is faster than a heap of them. A longer piece takes
// n log n, so that a megabyte of one letter does not take a quadrillion steps.
const short = 96

// scratch is room for the merging of short pieces, which its owner has on its stack.
type scratch struct{ ends, ranks [short]uint32 }

// encode merges the bytes of one piece into tokens: of all neighbours that are a token together those of the lowest rank, and of
// equals the leftmost, as long as there are any. It returns where each token ends, in s or not.
func (v *vocabulary) encode(piece string, s *scratch) []uint32 {
	n := len(piece)
	if n > short {
		return v.long(piece)
	}
	ends, ranks := s.ends[:n], s.ranks[:n]
	for i := range n {
		ends[i], ranks[i] = uint32(i+1), none // of this part together with the next
		if i+1 < n {
			ranks[i] = v.pairs[int(piece[i])<<8|int(piece[i+1])]
		}
	}
	for {
		low, at := none, -1
		for i, r := range ranks {
			if r < low {
				low, at = r, i
			}
		}
		if at < 0 {
			return ends
		}
		// The part at takes in the one after it.
		copy(ends[at:], ends[at+1:])
		copy(ranks[at+1:], ranks[at+2:])
		ends, ranks = ends[:len(ends)-1], ranks[:len(ranks)-1]
		for _, i := range [2]int{at - 1, at} {
			if i < 0 {
				continue
			}
			ranks[i] = none
			if i+1 < len(ends) {
				from := uint32(0)
				if i > 0 {
					from = ends[i-1]
				}
				ranks[i] = v.rank(piece[from:ends[i+1]])
			}
		}
	}
}

// long is encode with a heap of the pairs.
func (v *vocabulary) long(piece string) []uint32 {
	n := len(piece)
	// Parts are known by where they begin; next and prev link them, and next is their end.
	next, prev := make([]uint32, n+1), make([]uint32, n+1)
	queue := make(pairs, 0, n)
	for i := range n {
		next[i], prev[i+1] = uint32(i+1), uint32(i)
		if i+1 < n {
			if r := v.pairs[int(piece[i])<<8|int(piece[i+1])]; r != none {
				queue = append(queue, pair{r, uint32(i), uint32(i + 2)})
			}
		}
	}
	next[n] = uint32(n)
	heap.Init(&queue)
	offer := func(at uint32) {
		end := next[at]
		if int(end) >= n {
			return
		}
		end = next[end]
		if r := v.rank(piece[at:end]); r != none {
			heap.Push(&queue, pair{r, at, end})
		}
	}
	dead := make([]bool, n+1)
	for len(queue) > 0 {
		p := heap.Pop(&queue).(pair)
		// A pair is out of date when one of its parts was merged meanwhile: with one that is gone, or to another end.
		if dead[p.at] || int(next[p.at]) >= n || next[next[p.at]] != p.end {
			continue
		}
		gone := next[p.at]
		dead[gone] = true
		next[p.at] = p.end
		prev[p.end] = p.at
		if p.at > 0 {
			offer(prev[p.at])
		}
		offer(p.at)
	}
	ends := make([]uint32, 0, n/4+1)
	for at := uint32(0); int(at) < n; at = next[at] {
		ends = append(ends, next[at])
	}
	return ends
}

type pair struct{ rank, at, end uint32 }

type pairs []pair

func (q pairs) Len() int { return len(q) }
func (q pairs) Less(i, j int) bool {
	return q[i].rank < q[j].rank || q[i].rank == q[j].rank && q[i].at < q[j].at
}
func (q pairs) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pairs) Push(x any)   { *q = append(*q, x.(pair)) }
func (q *pairs) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
