// Package probe asks again and again whether something works and reports when the answer changes, with the kubelet's rules for
// delays, periods and thresholds. Start reading at [Schedule.Watch]; the checks are in check.go.
package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Check returns nil when the probed thing works, and otherwise what an operator should read. It must heed its context.
type Check func(context.Context) error

// Schedule says when to check and how many answers make a verdict.
type Schedule struct {
	InitialDelay, Period, Timeout time.Duration
	FailureThreshold              int // failures in a row that turn the verdict to "no"
	SuccessThreshold              int // successes in a row that turn it to "yes"
	// Eager checks more often than Period until the first success, so that what starts fast is seen fast: after 20 ms, then
	// twice as long each time. Failures are still counted once in a Period only.
	Eager bool
}

// firstRetry of an eager schedule.
const firstRetry = 20 * time.Millisecond

// Of reads the schedule of a probe, with the API's defaults for what is not set. It is eager unless the probe has an initial delay.
func Of(p *corev1.Probe) Schedule {
	return Schedule{
		InitialDelay:     time.Duration(p.InitialDelaySeconds) * time.Second,
		Period:           time.Duration(orDefault(p.PeriodSeconds, 10)) * time.Second,
		Timeout:          time.Duration(orDefault(p.TimeoutSeconds, 1)) * time.Second,
		FailureThreshold: int(orDefault(p.FailureThreshold, 3)),
		SuccessThreshold: int(orDefault(p.SuccessThreshold, 1)),
		Eager:            p.InitialDelaySeconds == 0,
	}
}

func orDefault(v, d int32) int32 {
	if v <= 0 {
		return d
	}
	return v
}

// Watch checks until ctx ends or report returns false. verdict is what holds at the start; report is called with each new verdict,
// and with the last failure of a "no". Failures that do not change the verdict are passed to failed, which may be nil.
func (s Schedule) Watch(ctx context.Context, verdict bool, check Check, report func(ok bool, why error) bool, failed func(error)) {
	if !sleep(ctx, s.InitialDelay) {
		return
	}
	var successes, failures int
	var counted time.Time // when a failure was counted last
	retry := firstRetry
	eager := s.Eager
	told := false // whether a verdict was reported: the one of the start is not
	for {
		began := time.Now()
		checkCtx, cancel := context.WithTimeout(ctx, s.Timeout)
		err := check(checkCtx)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			eager = false
			failures = 0
			if successes++; successes >= s.SuccessThreshold && (!verdict || !told) {
				verdict, told = true, true
				if !report(true, nil) {
					return
				}
			}
		} else {
			successes = 0
			if counted.IsZero() || began.Sub(counted) >= s.Period {
				counted = began
				failures++
				if failed != nil {
					failed(err)
				}
			}
			if failures >= s.FailureThreshold && (verdict || !told) {
				verdict, told = false, true
				if !report(false, err) {
					return
				}
			}
		}
		pause := s.Period - time.Since(began)
		if eager && retry < pause {
			// Not past the moment when the next failure counts.
			pause = min(retry, max(time.Until(counted.Add(s.Period)), time.Millisecond))
			retry *= 2
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
