package reconcile

import "time"

// Backoff spaces out attempts at keys that fail, each key for itself: the wait
// doubles from First up to Longest. Not safe for concurrent use; the zero
// value with First and Longest set is ready.
type Backoff[K comparable] struct {
	First   time.Duration // required; above 0
	Longest time.Duration // required

	keys map[K]failing
}

type failing struct {
	wait time.Duration
	next time.Time
}

// Failed records a failed attempt at k and returns when the next one is due.
func (b *Backoff[K]) Failed(k K, now time.Time) time.Time {
	if b.keys == nil {
		b.keys = map[K]failing{}
	}
	f, ok := b.keys[k]
	if ok {
		f.wait = min(2*f.wait, b.Longest)
	} else {
		f.wait = min(b.First, b.Longest)
	}
	f.next = now.Add(f.wait)
	b.keys[k] = f
	return f.next
}

// Forget records that k is well, or gone, or so changed that an attempt is due now.
func (b *Backoff[K]) Forget(k K) { delete(b.keys, k) }

// Ready tells whether an attempt at k is due.
func (b *Backoff[K]) Ready(k K, now time.Time) bool { return !now.Before(b.keys[k].next) }

// Next returns when the first of the failing keys is due; ok is false when
// none fails.
func (b *Backoff[K]) Next() (t time.Time, ok bool) {
	for _, f := range b.keys {
		if !ok || f.next.Before(t) {
			t, ok = f.next, true
		}
	}
	return t, ok
}
