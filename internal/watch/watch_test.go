package watch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
	"isospin/internal/watch"
)

// thing is an object of the only kind of these tests.
type thing struct{ resource.Standard }

// things serves no call: watches only decode and encode.
type things struct{ resource.Service }

func (things) Decode(_ context.Context, data []byte) (resource.Object, error) {
	o := new(thing)
	return o, json.Unmarshal(data, o)
}

func (things) Get(context.Context, string) (resource.Object, error) {
	return nil, fault.New(fault.NotFound, "ThingNotFound", "There is no such thing.")
}

// gate is a policy that shows all, while it can decide.
type gate struct{ away error }

func (g *gate) Seen(_ context.Context, _ *resource.Resource, objects []resource.Object) ([]resource.Object, error) {
	if g.away != nil {
		return nil, g.away
	}
	return objects, nil
}

func (g *gate) Shown(_ context.Context, _ *resource.Resource, _ resource.Object, fields map[string]bool) (map[string]bool, error) {
	return fields, g.away
}

func (g *gate) Assume(ctx context.Context, _ *resource.Resource, _ resource.Object) context.Context {
	return ctx
}

func newService(t *testing.T, change func(*watch.Options)) (*watch.Service, *gate, *store.Store) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Connection: storetest.New(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	registry := resource.NewRegistry()
	registry.Add(&resource.Resource{Name: "thing", Collection: "things", Path: "things", Service: things{}})
	registry.Add(&resource.Resource{Name: "silent", Collection: "silents", Path: "silents", Service: things{}, Untold: true})
	g := &gate{}
	o := watch.Options{Store: s, Registry: registry, Policy: g, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	return watch.New(o), g, s
}

func event(sequence int64, project string) store.Event {
	id := fmt.Sprint("t", sequence)
	return store.Event{Sequence: sequence, Kind: "thing", ID: id, Op: store.Created, ProjectID: project, Data: json.RawMessage(`{"id":"` + id + `","tenant_id":"` + project + `"}`)}
}

func as(t *testing.T, project string) context.Context {
	return identity.With(t.Context(), &identity.Context{ProjectID: project})
}

func open(t *testing.T, s *watch.Service, project string, since int64) *watch.Watch {
	t.Helper()
	w, err := s.Open(as(t, project), watch.Request{Since: &since})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func told(changes []watch.Change) string {
	text := ""
	for _, c := range changes {
		text += fmt.Sprintf("%s %s %d ", c.Op, c.ID, c.Sequence)
	}
	return text
}

// A change about which policy cannot decide is not passed over: the watch says
// so, stays where it is, and tells of it when it is decided.
func TestUndecidedIsNotPassedOver(t *testing.T) {
	s, gate, _ := newService(t, nil)
	s.Observe([]store.Event{event(1, "p"), event(2, "other"), event(3, "p")})
	w := open(t, s, "p", 0)
	gate.away = store.ErrUnavailable
	if changes, err := w.Next(t.Context(), time.Millisecond); !errors.Is(err, store.ErrUnavailable) || len(changes) > 0 || w.Sequence() != 0 {
		t.Fatalf("told %s, at %d: %v", told(changes), w.Sequence(), err)
	}
	gate.away = nil
	changes, err := w.Next(t.Context(), time.Minute)
	if err != nil || told(changes) != "create t1 1 create t3 3 " || w.Sequence() != 3 {
		t.Errorf("told %s, at %d: %v", told(changes), w.Sequence(), err)
	}
}

// A watch that others' changes pass by moves on, so that it can be resumed there.
func TestOthersChangesMoveOn(t *testing.T) {
	s, _, _ := newService(t, nil)
	w := open(t, s, "p", 0)
	s.Observe([]store.Event{event(7, "other")})
	if changes, err := w.Next(t.Context(), time.Millisecond); err != nil || len(changes) > 0 || w.Sequence() != 7 {
		t.Errorf("told %s, at %d: %v", told(changes), w.Sequence(), err)
	}
}

// Who falls behind what is in memory ends; others do not wait for it.
func TestSlowEnds(t *testing.T) {
	s, _, _ := newService(t, func(o *watch.Options) { o.Buffer = 2 })
	slow, fast := open(t, s, "p", 0), open(t, s, "p", 0)
	for _, w := range []*watch.Watch{slow, fast} {
		if _, err := w.Next(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	for i := int64(1); i <= 3; i++ {
		s.Observe([]store.Event{event(i, "p")})
		if changes, err := fast.Next(t.Context(), time.Minute); err != nil || len(changes) != 1 {
			t.Fatalf("the fast one is told %s: %v", told(changes), err)
		}
	}
	if _, err := slow.Next(t.Context(), time.Minute); !fault.Is(err, "WatchTooSlow") {
		t.Errorf("the slow one ends with %v", err)
	}
}

func TestLimitsAndKinds(t *testing.T) {
	s, _, _ := newService(t, func(o *watch.Options) { o.Limit, o.ProjectLimit = 3, 2 })
	begin := func(project string, kinds ...string) error {
		w, err := s.Open(as(t, project), watch.Request{Kinds: kinds})
		if err == nil {
			t.Cleanup(w.Close)
		}
		return err
	}
	if err := begin("p", "silent"); !fault.IsKind(err, fault.Invalid) {
		t.Errorf("a kind that is not told: %v", err)
	}
	first := open(t, s, "p", 0)
	for _, step := range []struct {
		project string
		want    fault.Kind
	}{{"p", 0}, {"p", fault.TooMany}, {"q", 0}, {"r", fault.Unavailable}} {
		if err := begin(step.project, "thing"); (err != nil) != (step.want != 0) || err != nil && !fault.IsKind(err, step.want) {
			t.Errorf("a watch of %s: %v", step.project, err)
		}
	}
	first.Close()
	first.Close() // twice is once
	if err := begin("p"); err != nil || s.Watches() != 3 {
		t.Errorf("after one has ended: %v, %d watches", err, s.Watches())
	}
	s.End()
	if err := begin("q"); !fault.IsKind(err, fault.Unavailable) {
		t.Errorf("at the end: %v", err)
	}
}
