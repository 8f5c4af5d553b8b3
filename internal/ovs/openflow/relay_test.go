package openflow

import (
	"context"
	"testing"

	"isospin/internal/ovs/ovstest"
)

// A bundle of which the switch takes not all changes nothing; the next one
// finds a connection that was kept, or makes one when the switch was started again.
func TestRelay(t *testing.T) {
	l := ovstest.NewLab(t)
	s := l.Switch(l.Namespace("h"))
	if _, err := s.VSCtl(t.Context(), "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	b := NewBridge(Options{Name: "br0", RunDir: s.Dir, Mark: 0x1505})
	b.setFollowed(true)
	good := []Flow{{Table: 1, Priority: 1, Match: "ip", Actions: "output:1"}, {Table: 1, Priority: 2, Match: "arp", Actions: "output:1"}}
	there := func(want int) {
		t.Helper()
		if flows, err := b.dump(ctx); err != nil || len(flows) != want {
			t.Fatalf("%d flows, %v; want %d", len(flows), err, want)
		}
	}
	bad := append(good[:2:2], Flow{Table: 1, Priority: 3, Match: "udp", Actions: "group:4711"}, Flow{Table: 1, Priority: 4, Match: "tcp", Actions: "output:2"})
	if err := b.bundle(ctx, bad, nil); err == nil {
		t.Error("a flow of a group that is not there is taken")
	}
	there(0)
	if b.idle != nil {
		t.Error("a connection with a bundle that failed is kept")
	}
	if err := b.bundle(ctx, good[:1], nil); err != nil {
		t.Fatal(err)
	}
	kept := b.idle
	if kept == nil {
		t.Fatal("no connection is kept")
	}
	if err := b.bundle(ctx, good[1:], nil); err != nil || b.idle != kept {
		t.Errorf("with the connection that was kept: %v; it was used: %v", err, b.idle == kept)
	}
	there(2)
	s.KillVSwitchd()
	if err := b.bundle(ctx, good, nil); err == nil {
		t.Error("a bundle without a switch")
	}
	if err := s.StartVSwitchd(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.bundle(ctx, good, nil); err != nil {
		t.Error(err)
	}
	there(2)
	// The same with a connection that the switch has closed meanwhile.
	s.KillVSwitchd()
	if err := s.StartVSwitchd(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.bundle(ctx, good, nil); err != nil {
		t.Error(err)
	}
	there(2)
	// One that has been cancelled leaves nothing behind.
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.bundle(ended, nil, []uint64{good[0].Cookie(0x1505)}); err == nil {
		t.Error("a bundle after its end")
	}
	there(2)
	if b.setFollowed(false); b.idle != nil {
		t.Error("a connection is kept for nobody")
	}
}
