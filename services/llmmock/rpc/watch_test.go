package rpc

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	llmmockv1 "edgehold.internal/proto/edgehold/llmmock/v1"
	"edgehold.internal/services/llmmock"
)

// Snapshots come at once and then every second, with rates since the one before.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mock, err := llmmock.NewMock(nil, nil, llmmock.Options{})
		if err != nil {
			t.Fatal(err)
		}
		late := []Bucket{{Most: time.Millisecond}, {Most: time.Second}, {}}
		h := New(Config{Mock: mock, Library: llmmock.NewLibrary(mock), Judge: llmmock.NewJudge(), Traffic: new(llmmock.Traffic), Meter: new(llmmock.Meter),
			Drills: llmmock.NewDrills(mock), Started: time.Now(), Late: func() []Bucket { return slices.Clone(late) }})
		x := &llmmock.Exchange{Request: &llmmock.Request{Vendor: llmmock.OpenAI}, Moment: llmmock.Moment{Scenario: "default"},
			Answer: &llmmock.Answer{Usage: llmmock.Usage{Input: 30, Output: 10}}}
		seen := 0
		enough := errors.New("enough")
		err = h.watch(t.Context(), func(s *llmmockv1.WatchResponse) error {
			if at := time.Since(h.Started); at != time.Duration(seen)*time.Second || s.GetAt().AsTime().Sub(s.GetStartedAt().AsTime()) != at {
				t.Errorf("snapshot %d came after %s", seen, at)
			}
			seen++
			switch seen {
			case 1:
				if s.RequestsPerSecond != nil || s.TokensPerSecond != nil || s.GetLateness() != nil {
					t.Errorf("rates of nothing: %v", s)
				}
				for range 5 {
					h.Traffic.Observe(llmmock.Event{Kind: llmmock.Arrived, Exchange: x})
				}
				for range 3 {
					h.Traffic.Observe(llmmock.Event{Kind: llmmock.Ended, Exchange: x, Status: 200, End: llmmock.Complete})
				}
				late[0].Count, late[1].Count, late[2].Count = 90, 100, 100
			case 2:
				if s.GetRequestsPerSecond() != 3 || s.GetTokensPerSecond() != 120 || s.GetTraffic().GetOpen() != 2 || s.GetTraffic().GetRequests() != 3 || s.GetScenarios()[0].GetTraffic().GetRequests() != 3 {
					t.Errorf("%v", s)
				}
				if l := s.GetLateness(); l.GetPieces() != 100 || l.GetP90().AsDuration() != time.Millisecond || l.GetP99().AsDuration() <= time.Millisecond {
					t.Errorf("lateness %v", l)
				}
			case 3:
				if s.GetRequestsPerSecond() != 0 || s.RequestsPerSecond == nil || s.GetLateness() != nil {
					t.Errorf("%v", s)
				}
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || seen != 3 {
			t.Errorf("%d snapshots, then %v", seen, err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		seen = 0
		if err := h.watch(ctx, func(*llmmockv1.WatchResponse) error { seen++; return nil }); !errors.Is(err, context.DeadlineExceeded) || seen != 3 {
			t.Errorf("%d snapshots in 2.5 s, then %v", seen, err)
		}
	})
}

// A quantile is never outside of the bucket that the value is in.
func TestQuantile(t *testing.T) {
	bounds := []time.Duration{50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, time.Second}
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Second)), 1, 200).Draw(t, "late")
		slices.Sort(values)
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		buckets := make([]Bucket, 0, len(bounds)+1)
		for _, b := range bounds {
			n := 0
			for _, v := range values {
				if v <= int64(b) {
					n++
				}
			}
			buckets = append(buckets, Bucket{Most: b, Count: uint64(n)})
		}
		buckets = append(buckets, Bucket{Count: uint64(len(values))})
		at := int(math.Ceil(q*float64(len(values)))) - 1
		i, _ := slices.BinarySearch(bounds, time.Duration(values[max(at, 0)]))
		low := time.Duration(0)
		if i > 0 {
			low = bounds[i-1]
		}
		if got := quantile(buckets, q); got < low || got > bounds[i] {
			t.Errorf("quantile %g of %v is %s, and the value %s lies in %s … %s", q, values, got, time.Duration(values[at]), low, bounds[i])
		}
	})
}
