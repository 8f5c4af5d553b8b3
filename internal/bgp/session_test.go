package bgp

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

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
	for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if p.mu.TryLock() {
			free := p.established == nil
			p.mu.Unlock()
			if free {
				t.Error("the neighbor is free before its routes are gone")
				break
			}
		}
	}
	speaker.mu.Unlock()
	<-ended
	if len(speaker.Routes(100)) != 0 || p.established != nil {
		t.Error("the routes are still there")
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

// TestHurry: who takes messages slowly does not hold a session that ends.
func TestHurry(t *testing.T) {
	_, p := one(t, io.Discard)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	s := &session{peer: p, conn: ours, hold: 90 * time.Second}
	keepalive := message(typeKeepalive, nil)
	began := make(chan struct{})
	go func() {
		b := make([]byte, len(keepalive))
		io.ReadFull(theirs, b)
		close(began)
		for { // each message in less time than last words may take
			time.Sleep(lastWords / 2)
			if _, err := io.ReadFull(theirs, b); err != nil {
				return
			}
		}
	}()
	ended := make(chan error, 1)
	go func() {
		for {
			if err := s.write(keepalive); err != nil {
				ended <- err
				return
			}
		}
	}()
	<-began
	s.notify(&notification{code: errCease, subcode: 2})
	select {
	case <-ended:
	case <-time.After(10 * lastWords):
		t.Error("the writer goes on")
	}
	ours.Close()
}

// learnt is an UPDATE that is the test's.
func learnt() *update {
	u := sample
	u.reach = slices.Clone(sample.reach)
	return &u
}
