package cluster

import (
	"fmt"
	"testing"

	"edgehold.internal/services/fleet"
)

// BenchmarkCutOver is one global cutover of 21 PoPs in one control plane, whose controller is the least there can be.
func BenchmarkCutOver(b *testing.B) {
	r := newReal(b)
	var pops []string
	for i := range 21 {
		pops = append(pops, fmt.Sprintf("p%d", i))
	}
	r.addPops(b, pops...)
	r.control(b)
	run := func(b *testing.B, do func(centre *fleet.Centre, i int)) {
		for _, follow := range []bool{true, false} {
			b.Run(fmt.Sprintf("follow=%t", follow), func(b *testing.B) {
				centre, _ := r.centre(b, follow, pops...)
				for i := 0; b.Loop(); i++ {
					do(centre, i)
				}
			})
		}
	}
	b.Run("plan", func(b *testing.B) {
		run(b, func(centre *fleet.Centre, _ int) {
			_, plans, err := centre.Plan(b.Context(), fleet.PlanRequest{Fleet: "edge", Scope: everywhere, To: fleet.Blue})
			if err != nil || plans[0].Err != nil {
				b.Fatal(err, plans[0].Err)
			}
		})
	})
	n := 0
	to := fleet.Green
	b.Run("cutover", func(b *testing.B) {
		run(b, func(centre *fleet.Centre, _ int) {
			n++
			to = to.Other()
			results, err := centre.CutOver(b.Context(), "edge", everywhere, fleet.Change{ID: fmt.Sprint(n), To: to, Reason: "bench"}, nil)
			if err != nil {
				b.Fatal(err)
			}
			for _, x := range results {
				if x.Err != nil {
					b.Fatal(x.Err)
				}
			}
		})
	})
}
