package runtime

import (
	"errors"
	"maps"
	"sync"

	"isospin/api/feed"
)

// desired joins the stream, which tells what the host must look like, and the
// features, each of which takes it at its own pace.
//
// From an attach until the server says synced, features keep the State from
// before: what the host holds is never judged by half a state, and an agent
// that has no state yet gives its features none.
type desired struct {
	mu      sync.Mutex
	objects *objects
	valid   bool // objects, or frozen while syncing, is a whole state
	syncing bool
	full    bool    // this sync began from nothing
	delayed Changes // while syncing
	// The state from before the sync; nil unless syncing.
	frozen         *State
	frozenVersions map[objectKey]uint64

	// before is called with each change before features can see it.
	before func(*Changes)
	// record puts messages down before features can see what they change; nil: nowhere.
	record      func(...*feed.ServerMessage)
	unrecorded  []*feed.ServerMessage // of this sync
	subscribers []*subscriber
	dirty       chan struct{} // cap 1; the state differs from what was saved
}

// subscriber is one feature's view of desired.
type subscriber struct {
	wake    chan struct{} // cap 1
	pending Changes       // since the last take
}

func newDesired(before func(*Changes)) *desired {
	return &desired{objects: newObjects(), before: before, dirty: make(chan struct{}, 1)}
}

// subscribe must be called before the first change.
func (d *desired) subscribe() *subscriber {
	s := &subscriber{wake: make(chan struct{}, 1), pending: Changes{All: true}}
	d.subscribers = append(d.subscribers, s)
	return s
}

// load begins with what was on disk.
func (d *desired) load(list []*feed.ServerMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, msg := range list {
		_, err := d.objects.apply(msg)
		errs = append(errs, err)
	}
	d.valid = true
	d.publish(&Changes{All: true})
	return errors.Join(errs...)
}

// beginSync is called when a stream opens and returns what is held.
func (d *desired) beginSync() []*feed.Held {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.valid && !d.syncing {
		d.frozen, d.frozenVersions = d.objects.state(), maps.Clone(d.objects.versions)
	}
	if !d.syncing {
		d.full = len(d.objects.versions) == 0
	}
	d.syncing = true
	return d.objects.held()
}

// apply takes a message of the stream. The stream must be opened again if the
// error is errNotHeld.
func (d *desired) apply(msg *feed.ServerMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	changes, err := d.objects.apply(msg)
	d.before(&changes)
	if d.syncing {
		d.unrecorded = append(d.unrecorded, msg)
		d.delayed.merge(&changes)
		if !msg.Synced || errors.Is(err, errNotHeld) {
			return err
		}
		if d.full {
			d.delayed = Changes{All: true}
		}
		news := d.delayed
		d.delayed, d.syncing, d.frozen, d.frozenVersions = Changes{}, false, nil, nil
		d.valid = true
		d.put(d.unrecorded...)
		d.unrecorded = nil
		d.publish(&news)
		return err
	}
	d.put(msg)
	d.publish(&changes)
	return err
}

func (d *desired) put(messages ...*feed.ServerMessage) {
	if d.record != nil {
		d.record(messages...)
	}
}

func (d *desired) publish(changes *Changes) {
	if changes.Empty() {
		return
	}
	for _, s := range d.subscribers {
		s.pending.merge(changes)
		signal(s.wake)
	}
	signal(d.dirty)
}

// take returns the State of now and what changed since the last take; nil as
// long as there is no whole state.
func (d *desired) take(s *subscriber) (*State, Changes) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state := d.stateLocked()
	if state == nil {
		return nil, Changes{}
	}
	changes := s.pending
	s.pending = Changes{}
	return state, changes
}

// again makes the next take return All: an Apply failed, and what it has done
// of its changes is not known.
func (d *desired) again(s *subscriber) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.pending = Changes{All: true}
}

// state returns the State of now, nil if there is none.
func (d *desired) state() *State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stateLocked()
}

// snapshot returns the State of now with the versions of its objects, which
// the caller may keep; nil if there is none. at is called at that very moment.
func (d *desired) snapshot(at func()) (*State, map[objectKey]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at()
	state := d.stateLocked()
	switch {
	case state == nil:
		return nil, nil
	case d.syncing:
		return state, d.frozenVersions
	}
	return state, maps.Clone(d.objects.versions)
}

func (d *desired) stateLocked() *State {
	switch {
	case !d.valid:
		return nil
	case d.syncing:
		return d.frozen
	}
	return d.objects.state()
}

// signal wakes the receiver of a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
