package watch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
type gate struct {
	away error
	// assumed is called when an object is assumed to be as it was.
	assumed func()
}

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
	if g.assumed != nil {
		g.assumed()
	}
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

// room is an object that may be shared; a bed is seen through the room that it is in.
type room struct {
	resource.Standard
	Shared bool `json:"shared"`
}

type bed struct {
	resource.Standard
	RoomID string `json:"room_id"`
}

type rooms struct{ things }

func (rooms) Decode(_ context.Context, data []byte) (resource.Object, error) {
	o := new(room)
	return o, json.Unmarshal(data, o)
}

// beds lists those that there are now.
type beds struct {
	things
	now *[]*bed
}

func (beds) Decode(_ context.Context, data []byte) (resource.Object, error) {
	o := new(bed)
	return o, json.Unmarshal(data, o)
}

func (beds) Value(o resource.Object, attribute string) (any, bool) {
	return o.(*bed).RoomID, attribute == "room_id"
}

func (b beds) List(context.Context, *resource.Query) (list []resource.Object, err error) {
	for _, o := range *b.now {
		list = append(list, o)
	}
	return list, nil
}

// house is a service for rooms and beds, of which nothing is in memory: its
// watches read the past.
type house struct {
	*watch.Service
	t     *testing.T
	gate  *gate
	store *store.Store
	last  int64
}

// happened makes a house in which each of the lists was one transaction; now are the beds that there are in the end.
func happened(t *testing.T, now []*bed, transactions ...[]store.Event) *house {
	h := &house{t: t}
	h.Service, h.gate, h.store = newService(t, func(o *watch.Options) {
		o.Registry = resource.NewRegistry()
		o.Registry.Add(&resource.Resource{Name: "room", Collection: "rooms", Path: "rooms", Service: rooms{}, Shared: func(o resource.Object) []string {
			if o.(*room).Shared {
				return []string{"*"}
			}
			return nil
		}})
		o.Registry.Add(&resource.Resource{Name: "bed", Collection: "beds", Path: "beds", Service: beds{now: &now}, Through: &resource.Through{Kind: "room", Attribute: "room_id"}})
		for _, list := range transactions {
			if err := o.Store.Tx(t.Context(), func(tx *store.Tx) error {
				for _, e := range list {
					tx.Emit(e)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Store.View(t.Context(), func(tx *store.Tx) (err error) {
			o.Sequence, err = tx.LastSequence()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		h.last = o.Sequence
	})
	return h
}

func roomEvent(op store.Op, id string, shared bool) []store.Event {
	return []store.Event{{Kind: "room", ID: id, Op: op, ProjectID: "owner", Object: room{resource.Standard{ID: id, ProjectID: "owner"}, shared}}}
}

func newBed(id, in string) *bed {
	return &bed{resource.Standard{ID: id, ProjectID: "owner"}, in}
}

func bedEvent(op store.Op, id, in string) []store.Event {
	return []store.Event{{Kind: "bed", ID: id, Op: op, ProjectID: "owner", Object: newBed(id, in)}}
}

// told is what a watch of another project is told of the past, after so many events.
func (h *house) told(skip int) string {
	h.t.Helper()
	since := int64(0)
	if skip > 0 {
		if err := h.store.View(h.t.Context(), func(tx *store.Tx) error {
			events, err := tx.Events(0, skip)
			since = events[skip-1].Sequence
			return err
		}); err != nil {
			h.t.Fatal(err)
		}
	}
	w := open(h.t, h.Service, "guest", since)
	text := ""
	for w.Sequence() < h.last {
		changes, err := w.Next(h.t.Context(), 10*time.Millisecond) // it may be told of nothing more
		if err != nil {
			h.t.Fatal(err)
		}
		for _, c := range changes {
			text += fmt.Sprintf("%s %s, ", c.Op, c.ID)
		}
	}
	return text
}

// What is seen through another object counts in the past as that was then: it
// never comes before the other, and who was told of it is told of its end.
func TestThePastAsItWas(t *testing.T) {
	for _, step := range []struct {
		name         string
		skip         int
		now          []*bed
		transactions [][]store.Event
		want         string
	}{
		{"opened later", 0, []*bed{newBed("b", "r")}, [][]store.Event{
			roomEvent(store.Created, "r", false), bedEvent(store.Created, "b", "r"), roomEvent(store.Updated, "r", true),
		}, "create r, create b, "},
		{"closed later", 0, []*bed{newBed("b", "r")}, [][]store.Event{
			roomEvent(store.Created, "r", true), bedEvent(store.Created, "b", "r"), roomEvent(store.Updated, "r", false), bedEvent(store.Updated, "b", "r"),
		}, "create r, create b, delete r, delete b, "},
		{"gone, then closed", 2, nil, [][]store.Event{
			roomEvent(store.Created, "r", true), bedEvent(store.Created, "b", "r"), bedEvent(store.Deleted, "b", "r"), roomEvent(store.Updated, "r", false),
		}, "delete b, delete r, "},
		{"closed, then gone", 2, nil, [][]store.Event{
			roomEvent(store.Created, "r", true), bedEvent(store.Created, "b", "r"), roomEvent(store.Updated, "r", false), bedEvent(store.Deleted, "b", "r"),
		}, "delete r, delete b, "},
		{"come after it was closed", 2, []*bed{newBed("b", "r"), newBed("c", "r")}, [][]store.Event{
			roomEvent(store.Created, "r", true), bedEvent(store.Created, "b", "r"), roomEvent(store.Updated, "r", false), bedEvent(store.Created, "c", "r"),
		}, "delete r, delete b, "},
		{"closed and opened", 2, []*bed{newBed("b", "r")}, [][]store.Event{
			roomEvent(store.Created, "r", true), bedEvent(store.Created, "b", "r"), roomEvent(store.Updated, "r", false), bedEvent(store.Updated, "b", "r"), roomEvent(store.Updated, "r", true),
		}, "delete r, delete b, create r, create b, "},
	} {
		t.Run(step.name, func(t *testing.T) {
			if got := happened(t, step.now, step.transactions...).told(step.skip); got != step.want {
				t.Errorf("told: %s\n not: %s", got, step.want)
			}
		})
	}
}

// While watches follow what happens, one that is some events behind is told the same.
func TestThePastInMemory(t *testing.T) {
	list := []*bed{newBed("b", "r")}
	h := happened(t, list, roomEvent(store.Created, "r", false), bedEvent(store.Created, "b", "r"))
	behind, begin := open(t, h.Service, "guest", h.last), h.last
	if err := h.store.Tx(t.Context(), func(tx *store.Tx) error {
		for _, e := range slices.Concat(bedEvent(store.Updated, "b", "r"), roomEvent(store.Updated, "r", true)) {
			tx.Emit(e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var events []store.Event
	if err := h.store.View(t.Context(), func(tx *store.Tx) (err error) {
		events, err = tx.Events(begin, 10)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	h.Observe(events[:1]) // the bed is changed; the database has more
	h.Observe(events[1:])
	changes, err := behind.Next(t.Context(), time.Minute)
	if want := fmt.Sprintf("create r %d create b %d ", events[1].Sequence-1, events[1].Sequence); err != nil || told(changes) != want {
		t.Errorf("told %s, not %s: %v", told(changes), want, err)
	}
}

// One that reads from the store may be ahead of what is followed: what is
// remembered of who sees what does not count there.
func TestTheStoreIsAhead(t *testing.T) {
	h := happened(t, []*bed{newBed("b", "r"), newBed("c", "r")}, roomEvent(store.Created, "r", true), bedEvent(store.Created, "b", "r"))
	if got := h.told(0); got != "create r, create b, " {
		t.Fatalf("told: %s", got)
	}
	if err := h.store.Tx(t.Context(), func(tx *store.Tx) error {
		for _, e := range slices.Concat(roomEvent(store.Updated, "r", false), bedEvent(store.Created, "c", "r")) {
			tx.Emit(e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := h.told(0); got != "create r, create b, delete r, delete b, " {
		t.Errorf("told: %s", got)
	}
}

// A watch that is far behind looks for what has gone since in pieces, and ends with its caller.
func TestFarBehindEndsWithItsCaller(t *testing.T) {
	var much []store.Event
	for i := range 9000 {
		much = append(much, bedEvent(store.Deleted, fmt.Sprint("other", i), "elsewhere")...)
	}
	now := []*bed{newBed("stays", "r")}
	h := happened(t, now, roomEvent(store.Created, "r", true), slices.Concat(bedEvent(store.Created, "stays", "r"), bedEvent(store.Created, "b", "r")),
		roomEvent(store.Updated, "r", false), much, bedEvent(store.Deleted, "b", "r"))
	var events []store.Event
	if err := h.store.View(t.Context(), func(tx *store.Tx) (err error) {
		events, err = tx.Events(0, 3)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	since := events[2].Sequence
	w := open(t, h.Service, "guest", since)
	ctx, cancel := context.WithCancel(t.Context())
	h.gate.assumed = cancel // it has listed what there is, and begins to look
	if changes, err := w.Next(ctx, time.Minute); !errors.Is(err, context.Canceled) || len(changes) > 0 || w.Sequence() != since {
		t.Fatalf("told %s, at %d, not %d: %v", told(changes), w.Sequence(), since, err)
	}
	// And goes on from where it was.
	h.gate.assumed = nil
	if got := h.told(3); got != "delete r, delete stays, delete b, " {
		t.Errorf("told: %s", got)
	}
}
