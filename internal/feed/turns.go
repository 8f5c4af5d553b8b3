package feed

import (
	"context"
	"sync"
)

// turns carries out what many streams ask for, several at once: what comes
// while one transaction is under way goes into the next. There is no goroutine
// of its own: one of those who ask does the work for all.
type turns[T any] struct {
	// most is the size of what is done at once; a single item may be larger.
	most int
	size func(T) int
	// do returns an error for each item, or nil.
	do func(ctx context.Context, items []T) []error

	mu      sync.Mutex
	busy    bool
	waiting []*turn[T]
}

type turn[T any] struct {
	item T
	done chan error
	lead chan struct{}
}

// ask returns when the item was dealt with.
func (t *turns[T]) ask(ctx context.Context, item T) error {
	mine := &turn[T]{item: item, done: make(chan error, 1), lead: make(chan struct{}, 1)}
	t.mu.Lock()
	t.waiting = append(t.waiting, mine)
	if t.busy {
		t.mu.Unlock()
		select {
		case err := <-mine.done:
			return err
		case <-mine.lead:
		}
		t.mu.Lock()
	}
	t.busy = true
	n, size := 0, 0
	for n < len(t.waiting) {
		size += t.size(t.waiting[n].item)
		if n > 0 && size > t.most {
			break
		}
		n++
	}
	batch := t.waiting[:n:n]
	t.waiting = t.waiting[n:]
	t.mu.Unlock()

	items := make([]T, n)
	for i, w := range batch {
		items[i] = w.item
	}
	// The end of the stream that happens to do the work is not the end of the others.
	errs := t.do(context.WithoutCancel(ctx), items)
	for i, w := range batch {
		if errs == nil {
			w.done <- nil
		} else {
			w.done <- errs[i]
		}
	}
	t.mu.Lock()
	if len(t.waiting) > 0 {
		t.waiting[0].lead <- struct{}{}
	} else {
		t.busy = false
	}
	t.mu.Unlock()
	return <-mine.done
}

// alone does each item by itself when all of them together failed: one that
// cannot be done keeps no other from it.
func alone[T any](items []T, together func([]T) error) []error {
	err := together(items)
	if err == nil {
		return nil
	}
	if len(items) == 1 {
		return []error{err}
	}
	errs := make([]error, len(items))
	for i := range items {
		errs[i] = together(items[i : i+1])
	}
	return errs
}
