// Package watch shows committed changes to clients: a stream of all that a
// caller may see, from any point that is still kept, and the history of one
// object. What lists show of other projects' objects decides what is seen of
// their changes (resource.Resource: Shared, Through), and then the policy.
//
// It must not know HTTP, nor any particular resource.
package watch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"sync"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Policy decides which of the objects that a caller may list are shown, and
// what of them. With an error it could not be found out, and may be later: a
// change must not be passed over because the database was away for a moment.
type Policy interface {
	// Seen returns those of the objects that the caller may see, in their order.
	Seen(ctx context.Context, r *resource.Resource, objects []resource.Object) ([]resource.Object, error)
	// Shown returns the members of an object that are shown: those of fields (nil: all) that the caller may see.
	Shown(ctx context.Context, r *resource.Resource, o resource.Object, fields map[string]bool) (map[string]bool, error)
	// Assume returns a context in which an object is as given, for decisions about those that refer to it.
	Assume(ctx context.Context, r *resource.Resource, o resource.Object) context.Context
}

// Options of New.
type Options struct {
	Store    *store.Store       // required
	Registry *resource.Registry // required, complete
	Policy   Policy             // required
	Logger   *slog.Logger       // required
	// Sequence is that of the event before the first that Observe is going to get.
	Sequence int64 // required
	// Buffer is how many events are kept in memory, for all watches together;
	// a watch that falls further behind ends. 0: 16384.
	Buffer int // optional
	// Limit of watches at a time, in all and of one project. 0: 1000, 100.
	Limit, ProjectLimit int // optional
}

// maxBytes bounds the data of the events in memory.
const maxBytes = 64 << 20

// idle is how many events are kept while nobody watches.
const idle = 256

// Service knows the latest changes and serves those who watch.
type Service struct {
	options    Options
	kinds      map[string]*resource.Resource
	dependents map[string][]*resource.Resource // by the kind that they are seen through

	mu sync.Mutex
	// ring holds all events after start up to sequence.
	ring            []*entry
	bytes           int
	start, sequence int64
	// more is closed when there are more events, or the service has ended.
	more      chan struct{}
	ended     bool
	open      int
	byProject map[string]int

	parents parents
}

// decoder reads the objects of its events.
type decoder interface {
	// Decode makes an object, as one that List returns to the caller, from an event's data.
	Decode(ctx context.Context, data []byte) (resource.Object, error)
}

// New returns the service. Give it the events after Sequence by Observe.
func New(o Options) *Service {
	set := func(have *int, def int) {
		if *have <= 0 {
			*have = def
		}
	}
	set(&o.Buffer, 16384)
	set(&o.Limit, 1000)
	set(&o.ProjectLimit, 100)
	s := &Service{
		options: o, kinds: map[string]*resource.Resource{}, dependents: map[string][]*resource.Resource{},
		start: o.Sequence, sequence: o.Sequence, more: make(chan struct{}), byProject: map[string]int{},
		parents: parents{states: map[parentKey]*access{}, upto: o.Sequence},
	}
	for _, r := range o.Registry.Resources() {
		if !Watchable(r) {
			continue
		}
		s.kinds[r.Name] = r
		if t := r.Through; t != nil {
			s.dependents[t.Kind] = append(s.dependents[t.Kind], r)
		}
	}
	return s
}

// Watchable tells whether changes of the resource's objects are kept as such.
func Watchable(r *resource.Resource) bool {
	_, ok := r.Service.(decoder)
	// A resource may be another's objects at a second place.
	if k, named := r.Service.(interface{ Kind() string }); named && k.Kind() != r.Name {
		return false
	}
	return ok && r.Serves(resource.Show) && !r.Untold
}

// Kinds are the names of the resources that can be watched, sorted.
func (s *Service) Kinds() []string {
	var names []string
	for name := range s.kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Shared are the kinds of objects that may be opened to other projects and
// closed again: of each, the last event before a change must be kept.
func (s *Service) Shared() []string {
	return slices.DeleteFunc(s.Kinds(), func(name string) bool { return s.kinds[name].Shared == nil })
}

// Observe takes events that were committed, in their order. It does not block.
func (s *Service) Observe(events []store.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		n := &entry{Event: e, resource: s.kinds[e.Kind]}
		s.ring = append(s.ring, n)
		s.bytes += len(e.Data)
		s.sequence = e.Sequence
		if len(s.dependents[e.Kind]) > 0 {
			s.parents.changed(n)
		}
	}
	s.parents.observed(s.sequence)
	s.trim()
	if len(events) > 0 {
		s.wake()
	}
}

// Skip notes that changes were missed: those that Observe gets from now on
// follow that sequence number. Watches end, and are told that they can go on if
// the database still knows what follows for them.
func (s *Service) Skip(sequence int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring, s.bytes, s.start = nil, 0, sequence
	if sequence < s.sequence {
		// The database has lost changes: what watches have seen last is no place to go on from.
		s.start = s.sequence + 1
	}
	s.sequence = sequence
	s.parents.forget(sequence)
	s.wake()
}

// trim drops the oldest events beyond what is kept. While nobody watches, that
// is little: who comes back reads what was missed from the store.
func (s *Service) trim() {
	most := s.options.Buffer
	if s.open == 0 {
		most = min(most, idle)
	}
	n := max(len(s.ring)-most, 0)
	for _, e := range s.ring[:n] {
		s.bytes -= len(e.Data)
	}
	for ; s.bytes > maxBytes && n < len(s.ring)-1; n++ {
		s.bytes -= len(s.ring[n].Data)
	}
	if n == 0 {
		return
	}
	s.start = s.ring[n-1].Sequence
	if n > idle {
		// A cut would leave the rest of a large array in place.
		s.ring = slices.Clone(s.ring[n:])
		return
	}
	clear(s.ring[:n])
	s.ring = s.ring[n:]
}

func (s *Service) wake() {
	close(s.more)
	s.more = make(chan struct{})
}

// Watches is how many there are now.
func (s *Service) Watches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// Sequence is that of the last event: what is read now is the state after it, or newer.
func (s *Service) Sequence() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sequence
}

// End ends all watches and begins no more: the server is about to stop.
func (s *Service) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		s.wake()
	}
}

// after returns up to limit events after a number, a channel that tells of more,
// and whether the events in memory reach back that far.
func (s *Service) after(sequence int64, limit int) (events []*entry, more <-chan struct{}, whole bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, nil, false, Ending()
	}
	if sequence < s.start {
		return nil, s.more, false, nil
	}
	i := sort.Search(len(s.ring), func(i int) bool { return s.ring[i].Sequence > sequence })
	return slices.Clone(s.ring[i:min(i+limit, len(s.ring))]), s.more, true, nil
}

// enter counts a watch.
func (s *Service) enter(project string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return Ending()
	case s.open >= s.options.Limit:
		return fault.New(fault.Unavailable, "TooManyWatches", "All %d watches that the server has are in use.", s.options.Limit)
	case s.byProject[project] >= s.options.ProjectLimit:
		// Not Unavailable: a proxy must not take the server for broken because of one project.
		return fault.New(fault.TooMany, "TooManyWatches", "All %d watches that a project may have are in use.", s.options.ProjectLimit)
	}
	s.open++
	s.byProject[project]++
	return nil
}

func (s *Service) leave(project string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.trim()
	if s.byProject[project]--; s.byProject[project] == 0 {
		delete(s.byProject, project)
	}
}

// Ending is the fault with which watches end when the server does.
func Ending() error {
	return fault.New(fault.Unavailable, "ServiceUnavailable", "The server is about to stop; go on from the last sequence.")
}

func gone(sequence int64) error {
	return fault.New(fault.Gone, "WatchSequenceGone", "What followed sequence %d is not known, or not any more: list anew, and watch from the sequence of that answer (X-Isospin-Sequence).", sequence)
}

func slow() error {
	return fault.New(fault.Unavailable, "WatchTooSlow", "The client reads more slowly than changes come; go on from the last sequence.")
}

// caller is the context in which one batch is decided: what is found out for
// policies is not older than that.
func caller(ctx context.Context) context.Context {
	return identity.With(ctx, identity.From(ctx))
}

// Fields are the members of a change's object, or of one of the past, that are
// shown: those of fields (nil: all) that the context's caller may see.
func (s *Service) Fields(ctx context.Context, r *resource.Resource, o resource.Object, fields map[string]bool) (map[string]bool, error) {
	shown, err := s.options.Policy.Shown(ctx, r, o, fields)
	if err != nil || len(r.Aside) == 0 {
		return shown, err
	}
	told := make(map[string]bool, len(shown))
	if shown == nil {
		for _, a := range r.Attributes() {
			if a.Flags.Has(resource.Visible) {
				told[a.Name] = true
			}
		}
		told["project_id"] = told["tenant_id"]
	}
	maps.Copy(told, shown)
	for _, name := range r.Aside {
		delete(told, name)
	}
	return told, nil
}

// nameOf is what names an object in paths.
func nameOf(r *resource.Resource, o resource.Object, id string) string {
	if v, ok := r.Service.(resource.Valuer); ok && r.Key != nil {
		if name, _ := v.Value(o, r.Key.Attribute); name != nil {
			return fmt.Sprint(name)
		}
	}
	return id
}

// parentOf is the id of the object below which another is found; empty: it is no sub-resource's.
func parentOf(r *resource.Resource, o resource.Object) string {
	v, ok := r.Service.(resource.Valuer)
	if r.Parent == nil || !ok {
		return ""
	}
	of, _ := v.Value(o, r.Parent.Name+"_id")
	id, _ := of.(string)
	return id
}

// decode reads an object as the caller would get it from a list.
func decode(ctx context.Context, r *resource.Resource, e *store.Event) (resource.Object, error) {
	d, ok := r.Service.(decoder)
	if !ok {
		return nil, fmt.Errorf("events of %s cannot be read", r.Name)
	}
	o, err := d.Decode(ctx, e.Data)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", e.Sequence, err)
	}
	if b, ok := o.(resource.Based); ok && b.Base().ProjectID == "" {
		b.Base().ProjectID = e.ProjectID // some objects show it in another form
	}
	return o, nil
}
