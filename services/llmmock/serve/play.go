package serve

import (
	"cmp"
	"iter"
	"net/http"
	"strconv"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/provider"
)

// recorded is the recorded answer of an exchange; nil for none.
func recorded(x *llmmock.Exchange) *llmmock.Recording {
	if x.Answer == nil {
		return nil
	}
	return x.Answer.Recorded
}

// played is a Format whose stream is a recording's. Its end is one more piece, without data.
type played struct {
	provider.Format
	rec *llmmock.Recording
}

// Stream implements provider.Format.
func (p played) Stream(*llmmock.Exchange) iter.Seq[llmmock.Chunk] {
	return func(yield func(llmmock.Chunk) bool) {
		for i, piece := range p.rec.Pieces {
			if !yield(llmmock.Chunk{Data: piece.Data, Token: i}) {
				return
			}
		}
		yield(llmmock.Chunk{Token: len(p.rec.Pieces)})
	}
}

// play sends an answer as it was recorded: its status, its header and its pieces, each when it is due.
func (a *answer) play(rec *llmmock.Recording) {
	x, h, f := a.x, a.w.Header(), &a.x.Fault
	if !a.sleep(a.due(x.Schedule.Header)) {
		a.ends(llmmock.Left)
		return
	}
	// Without a value none is made up.
	h["Content-Type"], h["Date"] = nil, nil
	for name, values := range rec.Header {
		h[name] = values
	}
	switch {
	case f.Kind == rec.End && (f.Kind == llmmock.NoFault || f.AtToken == len(rec.Pieces)): // no fault but the recording's own end
	case f.Kind == llmmock.WrongType:
		h["Content-Type"] = []string{cmp.Or(f.Value, "text/html")}
	case f.Kind == llmmock.WrongLength:
		h["Content-Length"] = []string{cmp.Or(f.Value, strconv.Itoa(len(rec.Body())+64))}
		f.AtToken = len(rec.Pieces)
	case !x.Stream && inPieces(f.Kind) && len(rec.Pieces) > 0: // then it may have only one, and be hit all the same
		if !a.sleep(a.due(x.Schedule.Whole(len(rec.Pieces)))) {
			a.ends(llmmock.Left)
			return
		}
		a.begins(rec.Status)
		a.spoil(rec.Body())
		return
	case f.Kind == llmmock.Malformed, f.Kind == llmmock.Duplicate, f.Kind == llmmock.FailMidStream:
		delete(h, "Content-Length") // which is another now
	}
	a.format = played{a.format, rec}
	a.begins(rec.Status)
	if a.c != nil && h["Content-Length"] == nil && rec.Status != http.StatusNoContent && rec.Status != http.StatusNotModified {
		a.c.stream = a
		a.w, a.r = nil, nil
		return
	}
	to := &framed{a, http.NewResponseController(a.w)}
	a.w.WriteHeader(rec.Status)
	if headFirst(rec) && to.control.Flush() != nil {
		a.ends(llmmock.Left)
		return
	}
	switch a.pieces(to) {
	case complete:
		return
	case cut:
		if h["Content-Length"] == nil { // which is an end to HTTP
			return
		}
	case resetted:
		if f.Kind != llmmock.WrongLength { // which is a lie and no reset
			a.reset()
		}
	}
	panic(http.ErrAbortHandler)
}

// headFirst says that the header came before the first piece, and not with it.
func headFirst(rec *llmmock.Recording) bool {
	return len(rec.Pieces) == 0 || rec.Pieces[0].At > rec.HeaderAt
}

// inPieces says that a fault is of the pieces of a body.
func inPieces(k llmmock.FaultKind) bool {
	switch k {
	case llmmock.Cut, llmmock.CutMidEvent, llmmock.ResetMidStream, llmmock.SlowBody, llmmock.Stall, llmmock.Malformed:
		return true
	}
	return false
}
