// Package good is as it should be, for a test.
package good

// Named has a doc comment.
type Named struct{}

// Method too.
func (Named) Method() {}

// A group has one for all.
const (
	One = 1
	Two = 2
)

type hidden struct{}

func (hidden) Method() {}

var _ = hidden{}
