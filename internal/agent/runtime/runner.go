package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
)

// How soon what failed is tried again.
const (
	retryMin       = 100 * time.Millisecond
	retryMax       = 10 * time.Second
	objectRetryMin = time.Second
	objectRetryMax = time.Minute
)

// runner is one feature and the goroutine that calls it. Whatever happens in
// the feature stays in it: others of the same host go on.
type runner struct {
	name    string
	feature Feature
	logger  *slog.Logger
	desired *desired
	changed *subscriber
	reports *reports
	metrics *featureMetrics
	resync  time.Duration

	local     chan struct{} // cap 1; the feature woke itself
	describe  chan struct{} // cap 1; ask Function again
	described func()        // Function has a new answer
	function  atomic.Pointer[feed.Function]
	attempted chan struct{} // closed after Start was tried once
	applied   atomic.Bool   // Apply succeeded at least once

	// Objects whose last result was an error. They are tried again, with
	// backoff; the feature itself need not remember them.
	failed       map[objectKey]struct{}
	retry        *time.Timer // after an error of Apply
	retrying     bool
	backoff      backoff
	objectRetry  *time.Timer // after an Apply that left failed objects
	objectArmed  bool
	objectDue    bool
	objectPaused backoff
}

// run returns when ctx has ended and the feature has stopped.
func (r *runner) run(ctx context.Context) {
	r.failed = map[objectKey]struct{}{}
	r.backoff = backoff{min: retryMin, max: retryMax}
	r.objectPaused = backoff{min: objectRetryMin, max: objectRetryMax}
	stop, ok := r.startUntil(ctx)
	if !ok {
		return
	}
	defer stop()

	resync := time.NewTimer(jittered(r.resync))
	defer resync.Stop()
	r.retry, r.objectRetry = stoppedTimer(), stoppedTimer()
	defer r.retry.Stop()
	defer r.objectRetry.Stop()

	all, local := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.describe:
			r.refresh()
			continue
		case <-r.changed.wake:
		case <-r.local:
			local = true
			if r.retrying {
				// What was away may be back: do not sit out a long wait.
				r.backoff.reset()
				r.retry.Reset(retryMin)
			}
		case <-resync.C:
			all = true
			resync.Reset(jittered(r.resync))
		case <-r.retry.C:
			r.retrying = false
		case <-r.objectRetry.C:
			r.objectArmed, r.objectDue = false, true
		}
		if r.retrying {
			continue
		}
		if r.applyOnce(ctx, all, local) {
			all, local = false, false
		}
	}
}

// startUntil starts the feature, again and again if need be.
func (r *runner) startUntil(ctx context.Context) (stop func(), ok bool) {
	wake := func() { signal(r.local) }
	for first := true; ; first = false {
		startCtx, cancel := context.WithCancel(ctx)
		err := r.guard("start", func() error { return r.feature.Start(startCtx, wake) })
		if err == nil {
			r.backoff.reset()
			r.refresh()
			if first {
				close(r.attempted)
			}
			return func() {
				cancel()
				if err := r.guard("stop", func() error { r.feature.Stop(); return nil }); err != nil {
					r.logger.Error("feature did not stop cleanly", "error", err)
				}
			}, true
		}
		cancel()
		if first {
			close(r.attempted)
		}
		wait := r.backoff.next()
		r.metrics.failures.Inc()
		r.logger.Error("feature did not start", "error", err, "retry_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(wait):
		}
	}
}

// applyOnce brings the feature up to date and tells whether that was tried and
// succeeded.
func (r *runner) applyOnce(ctx context.Context, all, local bool) bool {
	want, changes := r.desired.take(r.changed)
	if want == nil {
		return false // the first whole state will wake us
	}
	if all {
		changes = Changes{All: true}
	}
	if r.objectDue && !changes.All {
		for key := range r.failed {
			changes.mark(key.kind, key.id)
		}
	}
	r.objectDue = false
	if changes.Empty() && !local {
		return true
	}

	begin := time.Now()
	var results []*feed.Applied
	err := r.guard("apply", func() (err error) {
		results, err = r.feature.Apply(ctx, want, changes)
		return err
	})
	r.metrics.seconds.Observe(time.Since(begin).Seconds())
	r.reports.record(results)
	if err != nil {
		r.desired.again(r.changed)
		if ctx.Err() != nil {
			return false
		}
		wait := r.backoff.next()
		r.retrying = true
		r.retry.Reset(wait)
		r.metrics.failures.Inc()
		r.logger.Error("applying failed", "error", err, "retry_in", wait.Round(time.Millisecond))
		return false
	}
	r.backoff.reset()
	r.applied.Store(true)
	r.noteFailed(want, changes.All, results)
	return true
}

// noteFailed keeps account of the objects that could not be applied.
func (r *runner) noteFailed(want *State, all bool, results []*feed.Applied) {
	if all {
		clear(r.failed)
	}
	for key := range r.failed {
		if !want.has(key) {
			delete(r.failed, key)
		}
	}
	for _, a := range results {
		key := objectKey{a.Kind, a.Id}
		if a.State != feed.State_STATE_ERROR {
			delete(r.failed, key)
			continue
		}
		if want.has(key) {
			r.failed[key] = struct{}{}
		}
		r.logger.Warn("object not applied", "kind", a.Kind.String(), "id", a.Id, "revision", a.Revision, "error", a.Error)
	}
	r.metrics.failedObjects.Set(float64(len(r.failed)))
	switch {
	case len(r.failed) == 0:
		r.objectRetry.Stop()
		r.objectArmed = false
		r.objectPaused.reset()
	case !r.objectArmed:
		r.objectRetry.Reset(r.objectPaused.next())
		r.objectArmed = true
	}
}

// refresh asks the feature to describe itself.
func (r *runner) refresh() {
	var f *feed.Function
	err := r.guard("describe", func() error { f = r.feature.Function(); return nil })
	if err != nil {
		r.logger.Error("feature cannot be described", "error", err)
		return
	}
	if f == nil || proto.Equal(f, r.function.Load()) {
		return
	}
	r.function.Store(proto.Clone(f).(*feed.Function))
	r.described()
}

var errPanic = errors.New("panic")

// guard turns a panic of the feature into an error.
func (r *runner) guard(what string, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.logger.Error("feature panicked", "in", what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return call()
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
