package llmmock

import "time"

// Recording is an answer as a provider once gave it. It is sent as it is: the same bytes in the same pieces at the same times. Package
// record has them in files. Times are counted from the request's arrival, and none is before the one it follows. It may be shared and must
// not be changed.
type Recording struct {
	Status int
	// Header without what is of the connection alone.
	Header map[string][]string
	// HeaderAt is when it came.
	HeaderAt time.Duration
	// Pieces of the body.
	Pieces []RecordedPiece
	// End is NoFault when the answer was complete, CutMidEvent when it broke off, ResetMidStream when the connection was reset.
	End FaultKind
	// EndAt is when that was.
	EndAt time.Duration
}

// RecordedPiece is what came of a body at one time; never empty.
type RecordedPiece struct {
	At   time.Duration
	Data []byte
}

// Body is all of it.
func (r *Recording) Body() []byte {
	var body []byte
	for _, p := range r.Pieces {
		body = append(body, p.Data...)
	}
	return body
}

// NotRecorded is the Code of the Failure that an Answerer gives for a rule with Play when the recording has no answer to the request.
// The next rule that matches is asked then.
const NotRecorded = "no_recording"

// at is when piece i came, and for the number after the last one the end.
func (r *Recording) at(i int) time.Duration {
	if i < len(r.Pieces) {
		return r.Pieces[i].At
	}
	return r.EndAt
}

// play schedules a recorded answer. What slows a provider slows it too. It ends as it did then, unless a fault ends it in another way; the
// end is due like one more piece.
func (x *Exchange) play(factor float64) {
	r := x.Answer.Recorded
	s := &x.Schedule
	s.Header, s.First = scale(r.HeaderAt, factor), scale(r.at(0), factor)
	last := s.First
	for i := range r.Pieces {
		due := scale(r.at(i+1), factor)
		s.Gaps = append(s.Gaps, due-last)
		last = due
	}
	if x.Fault.Kind == NoFault && r.End != NoFault {
		x.Fault = Fault{Kind: r.End, AtToken: len(r.Pieces)}
	}
}
