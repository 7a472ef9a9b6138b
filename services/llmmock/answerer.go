package llmmock

// Answerer says what the model says. Package say has the one that is used.
type Answerer interface {
	// Answer is the first choice's answer to q, which asks for Generate, Embed or Count. It is a function of its arguments:
	// the same scenario, rule, request and moment give an equal answer, in every process. rule is the one of s.Answers that
	// matches, and nil when none does. A failure is given when there can be no answer, for example because the rule's template
	// does not work; then the answer is nil.
	//
	// For a further choice Answer is called again with m.Choice(i). Usage.Input is that of the request and counts once,
	// Usage.Output is of the one choice. Calls have an ID without the prefix that a vendor puts before it. What the answer
	// refers to, its slices too, may be shared with other answers and must not be changed.
	//
	// For Embed only Embeddings and Usage are set, for Count only Usage.
	Answer(s *Scenario, rule *AnswerRule, q *Request, m Moment) (*Answer, *Failure)
}

// Choice is the moment of the i-th choice of a request that wants several. Choice(0) is m.
func (m Moment) Choice(i int) Moment {
	if i > 0 {
		m.Seed = mix(m.Seed + uint64(i))
	}
	return m
}
