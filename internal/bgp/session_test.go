package bgp

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is for everything that a test waits for.
const patience = 30 * time.Second

// next is what comes next.
func next[T any](t *testing.T, from <-chan T) (it T) {
	t.Helper()
	select {
	case it = <-from:
	case <-time.After(patience):
		t.Fatal("nothing comes")
	}
	return it
}

// one is a speaker with one neighbor, that does not run.
func one(t *testing.T, log io.Writer) (*Speaker, *peer) {
	t.Helper()
	neighbor := netip.MustParseAddr("192.0.2.2")
	own := netip.MustParseAddr("192.0.2.1")
	s, err := New(Options{AS: 65000, ID: own, Endpoint: own, Neighbors: []Neighbor{{Address: neighbor, AS: 65000}}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s, s.peers[neighbor]
}

// TestEnd: a neighbor gets no other session before the routes of the last one
// are gone, which would take those of the next along.
func TestEnd(t *testing.T) {
	speaker, p := one(t, io.Discard)
	s := &session{peer: p}
	p.established = s
	if err := p.learn(learnt()); err != nil {
		t.Fatal(err)
	}
	if len(speaker.Routes(100)) != 1 {
		t.Fatal("there is no route")
	}
	speaker.mu.Lock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.end(t.Context(), s, io.EOF)
	}()
	waiting(t, "bgp.(*peer).end", ended) // for the speaker's mutex
	if p.mu.TryLock() {
		t.Error("the neighbor is free before its routes are gone")
		p.mu.Unlock()
	}
	speaker.mu.Unlock()
	<-ended
	if len(speaker.Routes(100)) != 0 || p.established != nil {
		t.Error("the routes are still there")
	}
}

// waiting waits until a goroutine waits for a mutex in that function.
func waiting(t *testing.T, function string, ended <-chan struct{}) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	late := time.After(patience)
	for {
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(g, "[sync.Mutex.Lock") && strings.Contains(g, function+"(") {
				return
			}
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended without waiting", function)
		case <-late:
			t.Fatalf("%s does not wait", function)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestMalformed: of routes that are malformed the operator hears once a session.
func TestMalformed(t *testing.T) {
	var log bytes.Buffer
	_, p := one(t, &log)
	for range 2 {
		s := &session{peer: p}
		p.established = s
		for range 10 {
			u := learnt()
			u.unacceptable = io.ErrUnexpectedEOF
			if err := p.learn(u); err != nil {
				t.Fatal(err)
			}
		}
		p.end(t.Context(), s, io.EOF)
	}
	if n := strings.Count(log.String(), "withdrawn"); n != 2 {
		t.Errorf("%d lines in two sessions:\n%s", n, log.String())
	}
}

// slow is a connection whose neighbor takes a message when it is told to.
type slow struct {
	net.Conn
	take  chan struct{}
	taken chan sent
	set   chan time.Time // deadlines

	mu       sync.Mutex
	deadline time.Time
}

// sent is a message that was taken, and the deadline that it had then.
type sent struct {
	kind     byte
	deadline time.Time
}

func (c *slow) SetWriteDeadline(at time.Time) error {
	c.mu.Lock()
	c.deadline = at
	c.mu.Unlock()
	c.set <- at
	return nil
}

func (c *slow) Write(b []byte) (int, error) {
	if _, ok := <-c.take; !ok {
		return 0, os.ErrDeadlineExceeded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken <- sent{b[18], c.deadline}
	return len(b), nil
}

// TestHurry: who takes messages slowly does not hold a session that ends: what
// is under way then, and all that is written later, has the same deadline.
func TestHurry(t *testing.T) {
	_, p := one(t, io.Discard)
	const messages = 5
	c := &slow{take: make(chan struct{}), taken: make(chan sent, messages), set: make(chan time.Time, 100)}
	s := &session{peer: p, conn: c, hold: 90 * time.Second}
	var both sync.WaitGroup
	both.Go(func() {
		for s.write(message(typeKeepalive, nil)) == nil {
		}
	})
	c.take <- struct{}{}
	if m := next(t, c.taken); time.Until(m.deadline) < lastWords {
		t.Errorf("the deadline is %s before the session ends", m.deadline)
	}
	before := time.Now()
	both.Go(func() { s.notify(&notification{code: errCease, subcode: 2}) })
	ends := next(t, c.set)
	for ends.After(time.Now().Add(lastWords)) { // one of the writer's
		ends = next(t, c.set)
	}
	if ends.Before(before.Add(lastWords)) {
		t.Errorf("it ends after %s", ends.Sub(before))
	}
	for range messages {
		c.take <- struct{}{}
		if m := next(t, c.taken); m.kind == typeKeepalive && !m.deadline.Equal(ends) {
			t.Errorf("the deadline is %s, not %s", m.deadline, ends)
		}
	}
	close(c.take)
	both.Wait()
}

// learnt is an UPDATE that is the test's.
func learnt() *update {
	u := sample
	u.reach = slices.Clone(sample.reach)
	return &u
}
