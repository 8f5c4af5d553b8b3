package bfd

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMachine(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := newMachine(300*time.Millisecond, 3, 1), newMachine(100*time.Millisecond, 5, 2)
	// to gives what one end says to the other, and the answer back.
	to := func(from, at *machine) {
		if at.receive(from.packet(false), now) {
			from.receive(at.packet(true), now)
		}
	}
	states := func(want ...State) {
		t.Helper()
		if have := []State{a.state, b.state}; !cmp.Equal(have, want) {
			t.Fatalf("states are %v, not %v", have, want)
		}
	}
	if a.pause() != slow {
		t.Errorf("%s between packets of a session that is down", a.pause())
	}
	to(a, b)
	states(Down, Init)
	to(b, a)
	states(Up, Init)
	if !a.poll {
		t.Error("new times are not confirmed")
	}
	to(a, b)
	states(Up, Up)
	if a.poll {
		t.Error("the neighbour has confirmed")
	}
	to(b, a)
	if a.pause() != 300*time.Millisecond || b.pause() != 300*time.Millisecond {
		t.Errorf("times are %s, %s: not those of the slower one", a.pause(), b.pause())
	}

	// Silence: five of b's times as a hears it, three of a's as b does.
	if d := a.expires.Sub(now); d != 1500*time.Millisecond {
		t.Errorf("a waits %s", d)
	}
	if d := b.expires.Sub(now); d != 900*time.Millisecond {
		t.Errorf("b waits %s", d)
	}
	a.expire(now.Add(1499 * time.Millisecond))
	states(Up, Up)
	now = now.Add(1500 * time.Millisecond)
	a.expire(now)
	states(Down, Up)
	if p := a.packet(false); p.diagnostic != diagnosticExpired || p.yours != 0 {
		t.Errorf("packet after silence: %+v", p)
	}
	to(a, b)
	states(Down, Down)
	if b.diagnostic != diagnosticNeighbor {
		t.Errorf("diagnostic %d", b.diagnostic)
	}
	to(b, a)
	to(a, b)
	to(b, a)
	states(Up, Up)

	// One end is switched off.
	b.enter(AdminDown, diagnosticAdmin)
	to(b, a)
	states(Down, AdminDown)
	to(a, b)
	states(Down, AdminDown)

	// What is not for us, and a neighbour that wants no packets.
	c := newMachine(300*time.Millisecond, 3, 7)
	c.receive(packet{state: Init, multiplier: 3, mine: 9, yours: 8}, now)
	if c.state != Down || c.remote != 0 {
		t.Errorf("a packet of another session: %+v", c)
	}
	c.receive(packet{state: Down, multiplier: 3, mine: 9}, now)
	if c.pause() != 0 {
		t.Errorf("%s between packets that the neighbour does not want", c.pause())
	}
}

func TestPacket(t *testing.T) {
	p := packet{
		diagnostic: 3, state: Up, poll: true, multiplier: 3, mine: 0x01020304, yours: 0x05060708,
		desiredMinTx: 300 * time.Millisecond, requiredMinRx: time.Second,
	}
	b := p.marshal()
	// RFC 5880 section 4.1.
	want := []byte{1<<5 | 3, 3<<6 | 0x20, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 4, 0x93, 0xe0, 0, 0xf, 0x42, 0x40, 0, 0, 0, 0}
	if diff := cmp.Diff(want, b); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"short":            func(b []byte) []byte { return b[:23] },
		"length":           func(b []byte) []byte { b[3] = 25; return b },
		"version":          func(b []byte) []byte { b[0] = 2 << 5; return b },
		"authentication":   func(b []byte) []byte { b[1] |= flagAuthentication; return b },
		"multipoint":       func(b []byte) []byte { b[1] |= flagMultipoint; return b },
		"no multiplier":    func(b []byte) []byte { b[2] = 0; return b },
		"no discriminator": func(b []byte) []byte { copy(b[4:8], "\x00\x00\x00\x00"); return b },
		"up with nobody":   func(b []byte) []byte { copy(b[8:12], "\x00\x00\x00\x00"); return b },
	} {
		if _, err := parse(change(p.marshal())); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packet{state: Down, multiplier: 3, mine: 1}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		again, err := parse(p.marshal())
		if err != nil || again != p {
			t.Errorf("%+v is read as %+v, %v", p, again, err)
		}
		newMachine(time.Second, 3, 1).receive(p, time.Now())
	})
}
