package none

func Bare() {}

type Type[T any] struct{}

func (*Type[T]) Method() {}

const Constant = 1
