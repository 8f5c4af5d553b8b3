package watch

import (
	"context"
	"slices"
	"strings"
	"time"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Request says what is to be watched.
type Request struct {
	// Since is the sequence after which changes are wanted; nil: from now.
	Since *int64
	// Kinds of objects, by the names of their resources. None: all.
	Kinds []string
}

// Change is one change that a caller may see.
type Change struct {
	// Sequence is where to go on, once this change is taken. Of changes that one
	// event makes for a caller, all but the last have a smaller one than the event.
	Sequence  int64
	Resource  *resource.Resource
	ID        string
	Op        store.Op
	Revision  int64
	ProjectID string
	// ParentID is the id of the object to which one of a sub-resource belongs.
	ParentID  string
	RequestID string
	// At is in Unix milliseconds.
	At int64
	// Object is nil for what is gone or not to be seen any more.
	Object resource.Object
}

// Watch is one caller's view of the changes. One goroutine at a time.
type Watch struct {
	service *Service
	who     *identity.Context
	kinds   map[string]bool // nil: all
	cursor  int64
	// live: it has caught up with what is kept in memory.
	live   bool
	closed bool
}

// batch bounds how many events are looked at between two answers.
const batch = 256

// Open begins a watch of what the context's caller may see. Faults: Invalid,
// Unavailable beyond the limits, Gone when what follows Since is not known any more.
func (s *Service) Open(ctx context.Context, r Request) (*Watch, error) {
	w := &Watch{service: s, who: identity.From(ctx)}
	for _, name := range r.Kinds {
		if s.kinds[name] == nil {
			return nil, fault.BadRequest("'%s' is no kind of object that can be watched; there are: %s", name, strings.Join(s.Kinds(), ", "))
		}
		if w.kinds == nil {
			w.kinds = map[string]bool{}
		}
		w.kinds[name] = true
	}
	if err := s.enter(w.who.ProjectID); err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			w.Close()
		}
	}()
	s.mu.Lock()
	start, sequence := s.start, s.sequence
	s.mu.Unlock()
	w.cursor = sequence
	if r.Since != nil {
		w.cursor = *r.Since
		if w.cursor < start || w.cursor > sequence {
			var floor, last int64
			if err := s.options.Store.View(ctx, func(tx *store.Tx) (err error) {
				if floor, err = tx.Floor(); err != nil {
					return err
				}
				last, err = tx.LastSequence()
				return err
			}); err != nil {
				return nil, err
			}
			// A number that was never given is of another database, or of one before it was restored.
			if w.cursor < floor || w.cursor > max(last, sequence) {
				return nil, gone(w.cursor)
			}
		}
	}
	ok = true
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	if !w.closed {
		w.closed = true
		w.service.leave(w.who.ProjectID)
	}
}

// Live tells whether the watch has caught up with what happens now.
func (w *Watch) Live() bool { return w.live }

// Sequence is where the watch is.
func (w *Watch) Sequence() int64 { return w.cursor }

// Next returns the next changes, none when none came within the time. Its
// faults end the watch: Unavailable when the caller was too slow or the server
// stops, Gone.
func (w *Watch) Next(ctx context.Context, within time.Duration) ([]Change, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		events, more, err := w.read(ctx)
		if err != nil {
			return nil, err
		}
		var changes []Change
		decided := caller(identity.With(ctx, w.who))
		for _, n := range events {
			c, err := w.changes(decided, n)
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				w.service.options.Logger.ErrorContext(ctx, "watch: a change cannot be shown", "kind", n.Kind, "id", n.ID, "sequence", n.Sequence, "error", err)
				return nil, err
			}
			changes = append(changes, c...)
			w.cursor = n.Sequence
		}
		if len(changes) > 0 {
			return changes, nil
		}
		if len(events) > 0 {
			select {
			case <-timer.C:
				return nil, nil
			default:
				continue
			}
		}
		select {
		case <-more:
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read returns the events after the cursor, from memory or, while catching up, from the store.
func (w *Watch) read(ctx context.Context) ([]*entry, <-chan struct{}, error) {
	s := w.service
	events, more, whole, err := s.after(w.cursor, batch)
	if err != nil {
		return nil, nil, err
	}
	if whole {
		w.live = true
		return events, more, nil
	}
	if w.live {
		return nil, nil, slow()
	}
	var stored []store.Event
	var floor int64
	if err := s.options.Store.View(ctx, func(tx *store.Tx) (err error) {
		if floor, err = tx.Floor(); err != nil {
			return err
		}
		stored, err = tx.Events(w.cursor, batch)
		return err
	}); err != nil {
		return nil, nil, err
	}
	if w.cursor < floor {
		return nil, nil, gone(w.cursor)
	}
	for _, e := range stored {
		events = append(events, &entry{Event: e, resource: s.kinds[e.Kind]})
	}
	return events, more, nil
}

// wants tells whether changes of a kind are wanted.
func (w *Watch) wants(kind string) bool { return w.kinds == nil || w.kinds[kind] }

// changes is what an event means for the caller.
func (w *Watch) changes(ctx context.Context, n *entry) ([]Change, error) {
	r := n.resource
	if r == nil {
		return nil, nil
	}
	dependents := slices.DeleteFunc(slices.Clone(w.service.dependents[n.Kind]), func(d *resource.Resource) bool { return d.Through.Owner || !w.wants(d.Name) })
	if !w.wants(n.Kind) && (len(dependents) == 0 || n.Op != store.Updated) {
		return nil, nil
	}
	all := w.who.SeesAll()
	a := access{project: n.ProjectID, gone: n.Op == store.Deleted}
	if !all && !a.own(w.who) {
		var err error
		if a, err = n.access(); err != nil {
			return nil, err
		}
	}
	sees, err := w.service.sees(ctx, w.who, r, &a, n.Sequence)
	if err != nil {
		return nil, err
	}
	change := Change{Sequence: n.Sequence, Resource: r, ID: n.ID, Op: n.Op, Revision: n.Revision, ProjectID: n.ProjectID, RequestID: n.RequestID, At: n.At}
	var o resource.Object
	if sees {
		if o, err = decode(ctx, r, &n.Event); err != nil {
			return nil, err
		}
		change.ID, change.ParentID = nameOf(r, o, n.ID), parentOf(r, o)
		if sees, err = w.service.visible(ctx, r, o); err != nil {
			return nil, err
		}
		if !sees {
			if sees, err = w.then(ctx, n, &a, o); err != nil {
				return nil, err
			}
		}
	}
	switch n.Op {
	case store.Deleted:
		if !sees {
			return nil, nil
		}
		return []Change{change}, nil
	case store.Created:
		if !sees {
			return nil, nil
		}
		change.Object = o
		return []Change{change}, nil
	}
	saw, before := sees, resource.Object(nil)
	if r.Shared != nil && !w.who.Admin && !a.own(w.who) { // services see by policy, too
		if saw, before, err = w.saw(ctx, n); err != nil {
			return nil, err
		}
	}
	var list []Change
	switch {
	case sees && saw:
		change.Object = o
	case sees:
		change.Op, change.Object = store.Created, o
	case saw:
		change.Op, change.ProjectID = store.Deleted, ""
	default:
		return nil, nil
	}
	if w.wants(n.Kind) {
		list = append(list, change)
	}
	if sees != saw {
		through := o
		if saw {
			through = before
		}
		for _, d := range dependents {
			more, err := w.follow(ctx, n, d, sees, through)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
	}
	for i := range list[:max(len(list)-1, 0)] {
		list[i].Sequence = n.Sequence - 1
	}
	return list, nil
}

// saw tells whether the caller could see the object before the event, and what it was.
func (w *Watch) saw(ctx context.Context, n *entry) (bool, resource.Object, error) {
	before, err := n.before(ctx, w.service)
	if err != nil || before == nil || before.Op == store.Deleted {
		return false, nil, err
	}
	a, err := accessOf(n.resource, before)
	if err != nil {
		return false, nil, err
	}
	saw, err := w.service.sees(ctx, w.who, n.resource, &a, n.Sequence)
	if err != nil || !saw {
		return false, nil, err
	}
	o, err := decode(ctx, n.resource, before)
	if err != nil {
		return false, nil, err
	}
	saw, err = w.service.visible(ctx, n.resource, o)
	return saw, o, err
}

// then asks the policy about an object that is seen through another, which may
// be closed or gone by now, as that was when the event came.
func (w *Watch) then(ctx context.Context, n *entry, a *access, o resource.Object) (bool, error) {
	s := w.service
	if n.resource.Through == nil || s.kinds[n.resource.Through.Kind] == nil {
		return false, nil
	}
	seen := accessTo(n.resource, o, *a)
	r := s.kinds[n.resource.Through.Kind]
	e, err := s.lastBefore(ctx, r.Name, seen.through, n.Sequence)
	if err != nil {
		return false, err
	}
	if e == nil { // it is not known
		return s.orphan(ctx, n.resource, &seen)
	}
	through, err := decode(ctx, r, e)
	if err != nil {
		return false, err
	}
	return s.visible(s.options.Policy.Assume(ctx, r, through), n.resource, o)
}

// thereSince are those of the objects of now that were there when an event came: others were never seen.
func (w *Watch) thereSince(ctx context.Context, n *entry, d *resource.Resource, objects []resource.Object) ([]resource.Object, error) {
	idOf := func(o resource.Object) string {
		if b, ok := o.(resource.Based); ok {
			return b.Base().ID
		}
		return ""
	}
	if len(objects) == 0 {
		return nil, nil
	}
	var ids []string
	for _, o := range objects {
		ids = append(ids, idOf(o))
	}
	var later map[string]bool
	err := w.service.options.Store.View(ctx, func(tx *store.Tx) (err error) {
		later, err = tx.CreatedSince(d.Name, n.Sequence, ids)
		return err
	})
	return slices.DeleteFunc(slices.Clone(objects), func(o resource.Object) bool { return later[idOf(o)] }), err
}

// goneSince calls each with the objects that were seen through that of an event
// when it came, and have been deleted since: nobody who could see them then is
// told of that. They come in pages, each read on its own, so that a watch that
// is far behind holds neither memory nor a connection for what lies between.
func (w *Watch) goneSince(ctx context.Context, n *entry, d *resource.Resource, each func([]resource.Object) error) error {
	for after, more := n.Sequence, true; more; more = after != 0 {
		var events []store.Event
		var next int64
		if err := w.service.options.Store.View(ctx, func(tx *store.Tx) (err error) {
			events, next, err = tx.Ended(d.Name, n.ID, n.Sequence, after, batch)
			return err
		}); err != nil {
			return err
		}
		after = next
		var page []resource.Object
		for i := range events {
			o, err := decode(ctx, d, &events[i])
			if err != nil {
				return err
			}
			if accessTo(d, o, access{}).through == n.ID || parentOf(d, o) == n.ID {
				page = append(page, o)
			}
		}
		if err := each(page); err != nil {
			return err
		}
	}
	return nil
}

// follow is what comes into the caller's view, or leaves it, with the object
// that an event is of: what there is now, or has been until now, of what is
// seen through that object as it was while it was seen.
func (w *Watch) follow(ctx context.Context, n *entry, d *resource.Resource, come bool, through resource.Object) ([]Change, error) {
	// For the caller's project, since what objects say depends on it; all, since
	// what they are seen through may be closed meanwhile.
	asking := identity.With(ctx, &identity.Context{ProjectID: w.who.ProjectID, Admin: true, RequestID: w.who.RequestID})
	service, query := d.Service, &resource.Query{}
	if d.Parent != nil && d.Parent.Name == n.Kind {
		service = d.Within(n.ID)
	} else {
		query.Filters = []resource.FilterBy{{Attribute: d.Attribute(d.Through.Attribute), Values: []any{n.ID}}}
	}
	objects, err := service.List(asking, query)
	if err != nil && !fault.IsKind(err, fault.NotFound) {
		return nil, err
	}
	if !come {
		if objects, err = w.thereSince(ctx, n, d, objects); err != nil {
			return nil, err
		}
	}
	list, err := w.below(ctx, n, d, come, through, objects)
	if err != nil || come {
		return list, err
	}
	listed := map[string]bool{}
	for i := range list {
		listed[list[i].ID] = true
	}
	err = w.goneSince(asking, n, d, func(page []resource.Object) error {
		more, err := w.below(ctx, n, d, false, through, page)
		for _, c := range more {
			if !listed[c.ID] { // it may have gone since the list was read
				list = append(list, c)
			}
		}
		return err
	})
	return list, err
}

// below are the changes of objects that come into the caller's view, or leave it, as follow says.
func (w *Watch) below(ctx context.Context, n *entry, d *resource.Resource, come bool, through resource.Object, objects []resource.Object) (list []Change, err error) {
	if len(objects) == 0 {
		return nil, nil
	}
	policy := w.service.options.Policy
	if objects, err = policy.Seen(policy.Assume(ctx, n.resource, through), d, objects); err != nil {
		return nil, err
	}
	for _, o := range objects {
		b, ok := o.(resource.Based)
		if !ok {
			continue
		}
		c := Change{Sequence: n.Sequence, Resource: d, ID: nameOf(d, o, b.Base().ID), Op: store.Created, Revision: b.Base().Revision, ProjectID: b.Base().ProjectID, ParentID: parentOf(d, o), RequestID: n.RequestID, At: n.At, Object: o}
		if !come {
			a := accessTo(d, o, access{project: c.ProjectID})
			if a.opens(w.who) {
				continue
			}
			c.Op, c.Object, c.ProjectID = store.Deleted, nil, ""
		}
		list = append(list, c)
	}
	return list, nil
}
