package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"edgehold.internal/e2e/stage"
	"edgehold.internal/services/fleet/kube/v1alpha1"
)

// floor is how long the two writes of a switch take for these PoPs, all at once, by a program that does nothing else: it declares
// the colour in the Fleet and sets the selector of the Service, and looks at nothing. No switch of so many PoPs over these API
// servers can be faster. The services must be stopped.
func (b *Rollback) floor(ctx context.Context, s *stage.Stage, pops []stage.Pop, to v1alpha1.Colour) (time.Duration, error) {
	declaration, err := json.Marshal([]map[string]any{
		{"op": "replace", "path": "/spec/active", "value": to},
		{"op": "add", "path": "/spec/change", "value": v1alpha1.ChangeSpec{ID: "floor", Principal: "bench", Reason: "bench: floor", At: metav1.NowMicro()}},
	})
	if err != nil {
		return 0, err
	}
	selector, err := json.Marshal(map[string]any{"spec": map[string]any{"selector": map[string]string{v1alpha1.ColourLabel: string(to)}}})
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range pops {
		g.Go(func() error {
			c := s.Cluster(p)
			if _, err := c.Dynamic.Resource(v1alpha1.GroupVersion.WithResource("fleets")).Namespace(p.Namespace).
				Patch(gctx, stage.FleetName, types.JSONPatchType, declaration, metav1.PatchOptions{FieldManager: "bench"}); err != nil {
				return fmt.Errorf("%s: declare: %w", p.Name, err)
			}
			if _, err := c.Kube.CoreV1().Services(p.Namespace).Patch(gctx, stage.FleetName, types.MergePatchType, selector, metav1.PatchOptions{FieldManager: "bench"}); err != nil {
				return fmt.Errorf("%s: switch: %w", p.Name, err)
			}
			return nil
		})
	}
	err = g.Wait()
	return time.Since(begun), err
}

// floors measures the floor for 21 PoPs and for all of them, by turns, and sets what the rollbacks took beside it. On few cores the
// writes are all work of the API servers, which grows with the PoPs; what a rollback has that does not grow is in its time of 21
// PoPs. So the growth of the floor says how much of the growth of a rollback is theirs.
func (b *Rollback) floors(ctx context.Context, s *stage.Stage, t *Table, at21, at210 []float64) error {
	for _, p := range []*stage.Process{s.Runbooks, s.Fleet, s.Controller} {
		p.Stop(5 * time.Second)
	}
	var few, all []float64
	for i := range b.Runs {
		to := []v1alpha1.Colour{v1alpha1.Green, v1alpha1.Blue}[i%2]
		for _, of := range []struct {
			pops    []stage.Pop
			seconds *[]float64
		}{{s.Pops[:21], &few}, {s.Pops, &all}} {
			took, err := b.floor(ctx, s, of.pops, to)
			if err != nil {
				return err
			}
			b.Say("run %d: the two writes of %d PoPs and nothing else took %.3f s", i+1, len(of.pops), took.Seconds())
			*of.seconds = append(*of.seconds, took.Seconds())
		}
	}
	const peer = "their two writes and nothing else"
	t.Add("command to last PoP switched, 210 PoPs, 3 clusters", "s", "", at210).Against(peer, all)
	if len(at21) == 0 {
		t.Missing(scale[0][0], scale[0][1], scale[0][2], errors.New("the time for 21 PoPs was not measured"))
		return nil
	}
	t.Add("command to last PoP switched, 21 PoPs (beside the floor)", "s", "", at21).Against(peer, few)
	t.figure(scale[0], multiples(at210, Median(at21))...).Against(peer, multiples(all, Median(few)))
	return nil
}

// multiples are the values in units of one.
func multiples(values []float64, one float64) []float64 {
	times := make([]float64, len(values))
	for i, v := range values {
		times[i] = v / one
	}
	return times
}
