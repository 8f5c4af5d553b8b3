package watch

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// entry is an event with what was found out about it, once for all watches.
type entry struct {
	store.Event
	resource *resource.Resource // nil: not of a kind that is shown

	mu     sync.Mutex
	now    *access
	looked bool
	former *store.Event // once looked: nil, if it is not known
}

// access is who may see an object.
type access struct {
	project string
	// targets are further projects, "*": all.
	targets []string
	// through is the id of the object on whose account it is seen.
	through string
	// gone: it is not there any more.
	gone bool
	// since is the sequence of the event from which on it is so; 0: it is as it was before all that is kept.
	since int64
}

// now is after all events.
const now = math.MaxInt64

// accessOf reads from an event who may see its object.
func accessOf(r *resource.Resource, e *store.Event) (access, error) {
	a := access{project: e.ProjectID, gone: e.Op == store.Deleted, since: e.Sequence}
	if r.Shared == nil && r.Through == nil {
		return a, nil
	}
	o, err := decode(identity.System(context.Background()), r, e)
	if err != nil {
		return a, err
	}
	return accessTo(r, o, a), nil
}

func accessTo(r *resource.Resource, o resource.Object, a access) access {
	if r.Shared != nil {
		a.targets = r.Shared(o)
	}
	if r.Through != nil {
		if v, ok := r.Service.(resource.Valuer); ok {
			id, _ := v.Value(o, r.Through.Attribute)
			a.through, _ = id.(string)
		}
	}
	return a
}

func (n *entry) access() (access, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.now == nil {
		a, err := accessOf(n.resource, &n.Event)
		if err != nil {
			return a, err
		}
		n.now = &a
	}
	return *n.now, nil
}

// before is the event of the same object before this one; nil when it is not known.
func (n *entry) before(ctx context.Context, s *Service) (*store.Event, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.looked {
		return n.former, nil
	}
	former, err := s.lastBefore(ctx, n.Kind, n.ID, n.Sequence)
	if err == nil {
		n.former, n.looked = former, true
	}
	return former, err
}

// lastBefore is the last event of an object before a sequence; nil when it is not known.
func (s *Service) lastBefore(ctx context.Context, kind, id string, before int64) (*store.Event, error) {
	var e store.Event
	err := s.options.Store.View(ctx, func(tx *store.Tx) (err error) {
		e, err = tx.EventBefore(kind, id, before)
		return err
	})
	if errors.Is(err, store.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// own tells whether an object is of the caller's project.
func (a *access) own(who *identity.Context) bool {
	return who.ProjectID != "" && a.project == who.ProjectID
}

// opens tells whether the object itself lets the caller see it.
func (a *access) opens(who *identity.Context) bool {
	return a.own(who) || slices.Contains(a.targets, "*") || who.ProjectID != "" && slices.Contains(a.targets, who.ProjectID)
}

// sees tells whether lists could show an object to the caller when an event
// came: what it is seen through counts as it was then.
func (s *Service) sees(ctx context.Context, who *identity.Context, r *resource.Resource, a *access, at int64) (bool, error) {
	if who.SeesAll() || a.opens(who) {
		return true, nil
	}
	if r.Through == nil || a.through == "" {
		return false, nil
	}
	p, err := s.parents.get(ctx, s, r.Through.Kind, a.through, at)
	if err != nil || p == nil {
		return false, err
	}
	if r.Through.Owner {
		return p.own(who), nil
	}
	return p.opens(who), nil
}

// orphan tells of an object that is gone whether that on whose account it was
// seen is gone, too: then policy has nothing to decide by.
func (s *Service) orphan(ctx context.Context, r *resource.Resource, a *access) (bool, error) {
	if !a.gone || r.Through == nil || a.through == "" || s.kinds[r.Through.Kind] == nil {
		return false, nil
	}
	p, err := s.parents.load(ctx, s, s.kinds[r.Through.Kind], a.through)
	return p == nil || p.gone, err
}

// parents remembers who may see objects on whose account others are seen.
type parents struct {
	mu     sync.Mutex
	states map[parentKey]*access
	// upto is the sequence up to which they follow the events.
	upto int64
	// changes counts, so that what was read meanwhile is not kept.
	changes int64
}

type parentKey struct{ kind, id string }

// maxParents bounds how many are remembered.
const maxParents = 1 << 16

// changed follows an event.
func (p *parents) changed(n *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes++
	key := parentKey{n.Kind, n.ID}
	if have := p.states[key]; have == nil || have.since >= n.Sequence { // it may have been read from the store
		return
	}
	if a, err := n.access(); err == nil {
		p.states[key] = &a
		return
	}
	delete(p.states, key)
}

// observed notes that all events up to a sequence were followed.
func (p *parents) observed(sequence int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upto = sequence
}

// forget drops all that is remembered; what follows a sequence is going to be followed.
func (p *parents) forget(sequence int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes++
	p.upto = sequence
	clear(p.states)
}

// get returns who could see an object when an event came (now: who may); of one
// that was gone, who could see it last. What is not known of then is taken to be
// as it is. nil: nothing is known of it.
func (p *parents) get(ctx context.Context, s *Service, kind, id string, at int64) (*access, error) {
	key := parentKey{kind, id}
	p.mu.Lock()
	a, changes, upto := p.states[key], p.changes, p.upto
	p.mu.Unlock()
	r := s.kinds[kind]
	if r == nil {
		return nil, nil
	}
	if a == nil || at != now && at > upto {
		var err error
		if a, err = p.load(ctx, s, r, id); err != nil || a == nil {
			return nil, err
		}
		p.keep(key, a, changes)
	}
	if a.since <= at {
		return a, nil
	}
	e, err := s.lastBefore(ctx, kind, id, at)
	if err != nil || e == nil {
		return a, err
	}
	former, err := accessOf(r, e)
	return &former, err
}

// keep remembers what was read, unless something has changed since.
func (p *parents) keep(key parentKey, a *access, changes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changes != changes {
		return
	}
	if len(p.states) >= maxParents {
		clear(p.states)
	}
	p.states[key] = a
}

// load finds out who may see an object now.
func (p *parents) load(ctx context.Context, s *Service, r *resource.Resource, id string) (*access, error) {
	e, err := s.lastBefore(ctx, r.Name, id, now)
	if err != nil {
		return nil, err
	}
	if e != nil {
		a, err := accessOf(r, e)
		return &a, err
	}
	o, err := r.Service.Get(identity.System(ctx), id)
	if fault.IsKind(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := access{}
	if b, ok := o.(resource.Based); ok {
		a.project = b.Base().ProjectID
	}
	a = accessTo(r, o, a)
	return &a, nil
}

// visible asks the policy.
func (s *Service) visible(ctx context.Context, r *resource.Resource, o resource.Object) (bool, error) {
	seen, err := s.options.Policy.Seen(ctx, r, []resource.Object{o})
	return len(seen) > 0, err
}
