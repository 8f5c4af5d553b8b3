package lab

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// thread is an operating system thread with namespaces of its own. Child
// processes that are started on it inherit them.
type thread struct {
	id    int
	calls chan func()
	ended chan struct{}
}

// newThread starts a thread and runs enter on it first.
func newThread(enter func() error) (*thread, error) {
	t := &thread{calls: make(chan func()), ended: make(chan struct{})}
	entered := make(chan error, 1)
	go t.run(enter, entered)
	if err := <-entered; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *thread) run(enter func() error, entered chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		// The first thread must stay as it is: /proc/self speaks of it, and
		// the runtime never ends it.
		another := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(another)
			t.run(enter, entered)
		}()
		<-another
		runtime.UnlockOSThread()
		return
	}
	defer close(t.ended)
	t.id = unix.Gettid()
	err := enter()
	entered <- err
	if err != nil {
		return
	}
	for fn := range t.calls {
		fn()
	}
}

// do runs fn on the thread. It must not be called after end.
func (t *thread) do(fn func() error) error {
	err := errors.New("function ended its goroutine")
	done := make(chan struct{})
	t.calls <- func() {
		defer close(done)
		err = fn()
	}
	<-done
	return err
}

// end ends the thread, and with it namespaces that nobody else holds.
func (t *thread) end() {
	close(t.calls)
	<-t.ended
}
