package openflow

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"
)

// A switch that greets and hangs up, as one does that speaks no common version,
// is not called all the time.
func TestFollowOfAnUnwillingSwitch(t *testing.T) {
	b := NewBridge(Options{Name: "br0", RunDir: t.TempDir()})
	l, err := net.Listen("unix", b.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Follow(ctx, func() {})
	}()
	var began time.Time
	for range 6 {
		l.(*net.UnixListener).SetDeadline(time.Now().Add(30 * time.Second))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if began.IsZero() {
			began = time.Now()
		}
		c.Write([]byte{1, ofHello, 0, ofHeader, 0, 0, 0, 1})
		c.Close()
	}
	// Pauses of 50, 100, 200, 400 and 800 ms.
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("six connections within %s", took)
	}
	cancel()
	<-ended
}

// FuzzMessage: whatever a switch sends is read or refused.
func FuzzMessage(f *testing.F) {
	f.Add([]byte{ofVersion, ofHello, 0, ofHeader, 0, 0, 0, 1})
	f.Add([]byte{ofVersion, ofHello, 0, 7, 0, 0, 0, 1})
	in := make([]byte, 48)
	copy(in, []byte{ofVersion, ofPacketIn, 0, 48})
	in[24+3] = 12 // the match
	f.Add(in)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(m) < ofHeader || !bytes.Equal(m, b[:len(m)]) {
			t.Errorf("% x is read as % x", b, m)
		}
		xid(m)
		if p, err := parsePacketIn(m); err == nil && len(p.Packet) > len(m) {
			t.Errorf("a packet of %d bytes in a message of %d", len(p.Packet), len(m))
		}
	})
}
