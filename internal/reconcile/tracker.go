// Package reconcile compares what is desired with what is believed to be
// there, and says what to update and what to delete; it also orders phases of
// work and spaces out what keeps failing.
//
// It must not know the kernel, Open vSwitch or SQL: its users do the work and
// tell it what came of it.
package reconcile

// Tracker holds two maps, the desired one and the believed actual one, and
// what differs between them. A change of either costs one comparison; reading
// the difference costs its size. Not safe for concurrent use.
type Tracker[K comparable, V any] struct {
	equal   func(a, b V) bool
	desired map[K]V
	actual  map[K]V
	updates map[K]struct{} // desired, and absent or different in actual
	deletes map[K]struct{} // in actual only
}

// NewTracker returns an empty tracker. equal tells whether an actual value
// needs no update to be the desired one.
func NewTracker[K comparable, V any](equal func(actual, desired V) bool) *Tracker[K, V] {
	return &Tracker[K, V]{
		equal: equal, desired: map[K]V{}, actual: map[K]V{},
		updates: map[K]struct{}{}, deletes: map[K]struct{}{},
	}
}

func (t *Tracker[K, V]) compare(k K) {
	want, wanted := t.desired[k]
	have, there := t.actual[k]
	delete(t.updates, k)
	delete(t.deletes, k)
	switch {
	case wanted && !(there && t.equal(have, want)):
		t.updates[k] = struct{}{}
	case !wanted && there:
		t.deletes[k] = struct{}{}
	}
}

// Want makes v the desired value of k.
func (t *Tracker[K, V]) Want(k K, v V) {
	t.desired[k] = v
	t.compare(k)
}

// Unwant makes k be desired no more.
func (t *Tracker[K, V]) Unwant(k K) {
	delete(t.desired, k)
	t.compare(k)
}

// WantAll replaces the whole desired map, which it copies.
func (t *Tracker[K, V]) WantAll(all map[K]V) {
	for k := range t.desired {
		if _, ok := all[k]; !ok {
			t.Unwant(k)
		}
	}
	for k, v := range all {
		t.Want(k, v)
	}
}

// Is records that k is now v in the world.
func (t *Tracker[K, V]) Is(k K, v V) {
	t.actual[k] = v
	t.compare(k)
}

// IsGone records that k is no more in the world.
func (t *Tracker[K, V]) IsGone(k K) {
	delete(t.actual, k)
	t.compare(k)
}

// Resync replaces the whole believed actual map by one that was just read,
// which it copies.
func (t *Tracker[K, V]) Resync(all map[K]V) {
	for k := range t.actual {
		if _, ok := all[k]; !ok {
			t.IsGone(k)
		}
	}
	for k, v := range all {
		t.Is(k, v)
	}
}

// Desired returns the desired value of k.
func (t *Tracker[K, V]) Desired(k K) (V, bool) { v, ok := t.desired[k]; return v, ok }

// Actual returns the value that k is believed to have.
func (t *Tracker[K, V]) Actual(k K) (V, bool) { v, ok := t.actual[k]; return v, ok }

// Delta is the difference between two states: after the updates and deletes
// have been carried out there is none.
type Delta[K comparable, V any] struct {
	Updates map[K]V
	Deletes []K
}

// Delta returns what is to be done now. It stays so until Is and IsGone say
// that it was done.
func (t *Tracker[K, V]) Delta() Delta[K, V] {
	d := Delta[K, V]{Updates: make(map[K]V, len(t.updates)), Deletes: make([]K, 0, len(t.deletes))}
	for k := range t.updates {
		d.Updates[k] = t.desired[k]
	}
	for k := range t.deletes {
		d.Deletes = append(d.Deletes, k)
	}
	return d
}

// InSync tells whether the Delta is empty.
func (t *Tracker[K, V]) InSync() bool { return len(t.updates)+len(t.deletes) == 0 }
