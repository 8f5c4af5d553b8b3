package runtime

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isospin/api/feed"
)

// call is one Apply that a fake feature saw.
type call struct {
	at      time.Duration // since the feature was made
	want    *State
	changes Changes
}

// fake is a feature that remembers what it was told.
type fake struct {
	start func() error
	apply func(n int, want *State, changes Changes) ([]*feed.Applied, error)

	mu       sync.Mutex
	born     time.Time
	calls    []call
	function *feed.Function
	wake     func()
	stopped  bool
	called   chan struct{}
}

func newFake() *fake {
	return &fake{born: time.Now(), called: make(chan struct{}, 1000), function: &feed.Function{AgentType: "Fake agent", Configurations: "{}"}}
}

func (f *fake) Function() *feed.Function {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.function
}

func (f *fake) describe(function *feed.Function) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.function = function
}

func (f *fake) Start(_ context.Context, wake func()) error {
	f.mu.Lock()
	f.wake = wake
	f.mu.Unlock()
	if f.start != nil {
		return f.start()
	}
	return nil
}

func (f *fake) Apply(_ context.Context, want *State, changes Changes) ([]*feed.Applied, error) {
	f.mu.Lock()
	f.calls = append(f.calls, call{time.Since(f.born), want, changes})
	n := len(f.calls)
	f.mu.Unlock()
	defer func() {
		select {
		case f.called <- struct{}{}:
		default: // nobody waits
		}
	}()
	if f.apply != nil {
		return f.apply(n, want, changes)
	}
	return nil, nil
}

func (f *fake) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
}

func (f *fake) seen() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]call(nil), f.calls...)
}

// running is a runner in a bubble of synctest.
type running struct {
	*runner
	desired *desired
	reports *reports
	end     func()
}

func run(t *testing.T, f *fake) running {
	t.Helper()
	reports := newReports()
	d := newDesired(reports.forget)
	m, err := newMetrics(nil, d)
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{name: "fake", feature: f, logger: slog.New(slog.DiscardHandler), desired: d, changed: d.subscribe(), reports: reports,
		metrics: m.feature("fake"), resync: 300 * time.Second, local: make(chan struct{}, 1), describe: make(chan struct{}, 1),
		described: func() {}, attempted: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	reports.attach()
	return running{r, d, reports, func() { cancel(); <-done }}
}

func port(id string, revision int64) *feed.Object {
	return &feed.Object{Version: uint64(revision), Body: &feed.Object_Port{Port: &feed.Port{Id: id, Revision: revision}}}
}

func applied(id string, revision int64, state feed.State) *feed.Applied {
	return &feed.Applied{Kind: feed.Kind_KIND_PORT, Id: id, Revision: revision, AgentType: "Fake agent", State: state}
}

func (r running) sync(t *testing.T, objects ...*feed.Object) {
	t.Helper()
	r.desired.beginSync()
	r.send(t, &feed.ServerMessage{Upserts: objects, Synced: true})
}

func (r running) send(t *testing.T, msg *feed.ServerMessage) {
	t.Helper()
	if err := r.desired.apply(msg); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func names(set map[string]struct{}) int { return len(set) }

func TestFeatureSeesNothingBeforeAWholeState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		r := run(t, f)
		r.desired.beginSync()
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p1", 1)}})
		f.wake()
		synctest.Wait()
		if calls := f.seen(); len(calls) != 0 {
			t.Fatalf("Apply was called with half a state: %+v", calls)
		}
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p2", 1)}, Synced: true})
		calls := f.seen()
		if len(calls) != 1 || !calls[0].changes.All || len(calls[0].want.Ports) != 2 {
			t.Fatalf("calls %+v, want one with All and two ports", calls)
		}
		r.end()
		if !f.stopped {
			t.Error("feature was not stopped")
		}
	})
}

func TestChangesThatComeDuringApplyAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		gate := make(chan struct{})
		f.apply = func(n int, _ *State, _ Changes) ([]*feed.Applied, error) {
			if n == 2 {
				<-gate
			}
			return nil, nil
		}
		r := run(t, f)
		r.sync(t)
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p1", 1)}}) // Apply hangs in this one
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p2", 1)}})
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p3", 1)}, Deletes: []*feed.ObjectKey{{Kind: feed.Kind_KIND_PORT, Id: "p1"}}})
		close(gate)
		synctest.Wait()
		calls := f.seen()
		if len(calls) != 3 {
			t.Fatalf("%d calls, want 3", len(calls))
		}
		if c := calls[2]; c.changes.All || names(c.changes.Ports) != 3 || len(c.want.Ports) != 2 {
			t.Fatalf("third call %+v, want changes of p1, p2, p3 and the ports p2, p3", c)
		}
		r.end()
	})
}

func TestErrorBacksOffAndComparesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.apply = func(n int, _ *State, _ Changes) ([]*feed.Applied, error) {
			switch {
			case n == 2:
				panic("a feature's mistake")
			case n > 1 && n < 12:
				return nil, errors.New("OVSDB is gone")
			}
			return nil, nil
		}
		r := run(t, f)
		r.sync(t)
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p1", 1)}})
		// News do not cut a wait short, nor are they lost.
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("p2", 1)}})
		if n := len(f.seen()); n != 2 {
			t.Fatalf("%d calls, want 2", n)
		}
		time.Sleep(100 * time.Second)
		synctest.Wait()
		calls := f.seen()
		if len(calls) != 12 {
			t.Fatalf("%d calls, want 12", len(calls))
		}
		for i := 2; i < 12; i++ {
			gap, longest := calls[i].at-calls[i-1].at, min(retryMax, retryMin<<(i-2))
			if gap < longest/2 || gap > longest {
				t.Errorf("wait %d was %v, want %v to %v", i-1, gap, longest/2, longest)
			}
			if !calls[i].changes.All || len(calls[i].want.Ports) != 2 {
				t.Errorf("call %d: %+v, want All and both ports", i, calls[i])
			}
		}
		r.end()
	})
}

func TestWakeEndsALongWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		broken := true
		f.apply = func(int, *State, Changes) ([]*feed.Applied, error) {
			if broken {
				return nil, errors.New("OVSDB is gone")
			}
			return nil, nil
		}
		r := run(t, f)
		r.sync(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		calls := len(f.seen())
		broken = false
		f.wake()
		time.Sleep(retryMin)
		synctest.Wait()
		if got := f.seen(); len(got) != calls+1 || !got[calls].changes.All {
			t.Fatalf("%d more calls within %v of wake, want one with All", len(got)-calls, retryMin)
		}
		f.wake()
		synctest.Wait()
		if got := f.seen(); len(got) != calls+2 || !got[calls+1].changes.Empty() {
			t.Fatalf("%d calls, want one more, with no changes", len(got))
		}
		r.end()
	})
}

func TestFailedObjectIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.apply = func(n int, want *State, changes Changes) ([]*feed.Applied, error) {
			state := feed.State_STATE_ERROR
			if n >= 5 {
				state = feed.State_STATE_ACTIVE
			}
			if _, named := changes.Ports["bad"]; !named && !changes.All {
				return nil, nil
			}
			return []*feed.Applied{applied("bad", 1, state), applied("good", 1, feed.State_STATE_ACTIVE)}, nil
		}
		r := run(t, f)
		r.sync(t, port("bad", 1), port("good", 1))
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{port("other", 1)}}) // says nothing of bad
		time.Sleep(200 * time.Second)
		synctest.Wait()
		calls := f.seen()
		if len(calls) != 5 {
			t.Fatalf("%d calls, want 5: all, other, and bad three times until it is good", len(calls))
		}
		for _, c := range calls[2:] {
			if _, named := c.changes.Ports["bad"]; !named || c.changes.All || len(c.changes.Ports) != 1 {
				t.Errorf("changes %+v, want only port bad", c.changes)
			}
		}
		if at := calls[2].at; at < objectRetryMin/2 || at > objectRetryMin {
			t.Errorf("first retry after %v", at)
		}
		r.end()
	})
}

func TestStartIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		starts := 0
		f.start = func() error {
			starts++
			if starts == 2 {
				panic("not even an error")
			}
			if starts < 4 {
				return errors.New("no OVSDB yet")
			}
			return nil
		}
		r := run(t, f)
		synctest.Wait()
		select {
		case <-r.attempted:
		default:
			t.Error("a feature that does not start holds up the agent")
		}
		if r.function.Load() != nil {
			t.Error("described before it started")
		}
		r.sync(t)
		time.Sleep(time.Second)
		synctest.Wait()
		if starts != 4 || len(f.seen()) != 1 || r.function.Load() == nil {
			t.Fatalf("%d starts, %d calls, function %v", starts, len(f.seen()), r.function.Load())
		}
		r.end()
	})
}

func TestFullComparisonEveryResyncInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		r := run(t, f)
		r.sync(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		calls := f.seen()
		if n := len(calls); n < 1+3600/330 || n > 1+3600/270 {
			t.Fatalf("%d calls in an hour", n)
		}
		for i, c := range calls {
			if !c.changes.All {
				t.Errorf("call %d is not a full one", i)
			}
		}
		r.end()
	})
}

func TestOnlyNewsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		result := applied("p", 1, feed.State_STATE_DOWN)
		f.apply = func(int, *State, Changes) ([]*feed.Applied, error) { return []*feed.Applied{result}, nil }
		r := run(t, f)
		expect := func(why string, states ...feed.State) {
			t.Helper()
			synctest.Wait()
			got := r.reports.take()
			if len(got) != len(states) {
				t.Fatalf("%s: reported %v, want %v", why, got, states)
			}
			for i, a := range got {
				if a.State != states[i] {
					t.Fatalf("%s: reported %v, want %v", why, got, states)
				}
			}
		}
		r.sync(t, port("p", 1))
		expect("first", feed.State_STATE_DOWN)
		f.wake()
		expect("same again")
		result = applied("p", 1, feed.State_STATE_ACTIVE)
		f.wake()
		expect("plugged", feed.State_STATE_ACTIVE)
		if all := r.reports.attach(); len(all) != 1 || all[0].State != feed.State_STATE_ACTIVE {
			t.Fatalf("a new stream begins with %v", all)
		}
		again := port("p", 1)
		again.Version = 99
		r.send(t, &feed.ServerMessage{Upserts: []*feed.Object{again}})
		expect("sent again by the server", feed.State_STATE_ACTIVE)

		r.send(t, &feed.ServerMessage{Deletes: []*feed.ObjectKey{{Kind: feed.Kind_KIND_PORT, Id: "p"}}})
		expect("told after the deletion", feed.State_STATE_ACTIVE)
		r.reports.prune(r.desired.state())
		if all := r.reports.attach(); len(all) != 0 {
			t.Fatalf("%v is still told after its deletion", all)
		}
		r.end()
	})
}
