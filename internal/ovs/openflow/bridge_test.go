package openflow_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"isospin/internal/ovs/openflow"
	"isospin/internal/ovs/ovstest"
)

const mark = 0x1505

func bridge(t *testing.T) (*ovstest.Switch, func() *openflow.Bridge, func() string) {
	l := ovstest.NewLab(t)
	s := l.Switch(l.Namespace("h"))
	if _, err := s.VSCtl(t.Context(), "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure"); err != nil {
		t.Fatal(err)
	}
	open := func() *openflow.Bridge {
		return openflow.NewBridge(openflow.Options{Name: "br0", RunDir: s.Dir, Mark: mark})
	}
	dump := func() string {
		out, err := s.OFCtl(context.Background(), "-O", "OpenFlow14", "--no-stats", "dump-flows", "br0")
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(out) {
			if _, rest, ok := strings.Cut(line, ", "); ok {
				lines = append(lines, strings.TrimSpace(rest))
			}
		}
		return strings.Join(lines, "\n")
	}
	return s, open, dump
}

func apply(t *testing.T, b *openflow.Bridge, s *openflow.Set) openflow.Change {
	t.Helper()
	c, err := b.Apply(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func check(t *testing.T, what string, c openflow.Change, added, deleted, refused int) {
	t.Helper()
	if c.Added != added || c.Deleted != deleted || len(c.Refused) != refused {
		t.Fatalf("%s: added %d, deleted %d, refused %v; want %d, %d, %d", what, c.Added, c.Deleted, c.Refused, added, deleted, refused)
	}
}

// Only the delta is written, equal flows survive a restart untouched, and
// flows of others are never touched.
func TestApply(t *testing.T) {
	s, open, dump := bridge(t)
	if _, err := s.OFCtl(t.Context(), "add-flow", "br0", "cookie=0x77,table=0,priority=7,arp,actions=NORMAL"); err != nil {
		t.Fatal(err)
	}
	set := openflow.NewSet()
	set.Put("one", []openflow.Flow{{Table: 1, Priority: 10, Match: "ip,nw_src=10.0.0.1", Actions: "output:1"}, {Table: 1, Priority: 1}})
	set.Put("two", []openflow.Flow{{Table: 2, Priority: 5, Match: "tcp,tp_dst=80", Actions: "resubmit(,3)"}})
	b := open()
	check(t, "first", apply(t, b, set), 3, 0, 0)
	check(t, "nothing to do", apply(t, b, set), 0, 0, 0)

	set.Put("two", []openflow.Flow{{Table: 2, Priority: 5, Match: "tcp,tp_dst=80", Actions: "resubmit(,4)"}})
	set.Put("one", []openflow.Flow{{Table: 1, Priority: 10, Match: "ip,nw_src=10.0.0.1", Actions: "output:1"}})
	check(t, "change", apply(t, b, set), 1, 1, 0)

	check(t, "restart", apply(t, open(), set), 0, 0, 0)

	other := openflow.NewSet()
	other.Put("three", []openflow.Flow{{Table: 3, Priority: 1, Match: "ipv6", Actions: "drop"}})
	check(t, "restart with another state", apply(t, open(), other), 1, 2, 0)
	want := "reset_counts priority=7,arp actions=NORMAL\ntable=3, priority=1,ipv6 actions=drop"
	if got := dump(); got != want {
		t.Errorf("flows:\n%s\nwant:\n%s", got, want)
	}
}

// The unit that sorts first has a match that two claim; the other one gets it
// back.
func TestClaims(t *testing.T) {
	set := openflow.NewSet()
	text := func() string { return fmt.Sprint(set.Flows()) }
	flow := func(actions string) []openflow.Flow { return []openflow.Flow{{Match: "ip", Actions: actions}} }
	set.Put("b", flow("output:2"))
	set.Put("a", flow("output:1"))
	set.Put("c", flow("output:3"))
	if got := text(); got != "[table=0,priority=0,ip,actions=output:1]" {
		t.Error(got)
	}
	set.Put("a", nil)
	if got := text(); got != "[table=0,priority=0,ip,actions=output:2]" {
		t.Error(got)
	}
	set.Put("b", nil)
	set.Put("c", nil)
	if set.Len() != 0 {
		t.Error(text())
	}
}

// Flows that ovs-ofctl or the switch refuses are found and left out; the
// others are put in place, and what a refused one was to replace goes.
func TestRefused(t *testing.T) {
	_, open, dump := bridge(t)
	set := openflow.NewSet()
	b := open()
	set.Put("x", []openflow.Flow{{Table: 1, Priority: 99, Match: "udp", Actions: "output:9"}})
	apply(t, b, set)
	for i := range 20 {
		set.Put(fmt.Sprint("good", i), []openflow.Flow{{Table: 1, Priority: uint16(i), Match: "ip", Actions: "output:1"}})
	}
	set.Put("x", []openflow.Flow{{Table: 1, Priority: 99, Match: "udp", Actions: "nonsense:1"}})              // ovs-ofctl says no
	set.Put("y", []openflow.Flow{{Table: 1, Priority: 98, Match: "udp", Actions: "group:4711"}})              // the switch says no
	set.Put("z", []openflow.Flow{{Table: 1, Priority: 97, Match: "udp,nw_source=10.0.0.3", Actions: "drop"}}) // ovs-ofctl says no
	c := apply(t, b, set)
	check(t, "with refused ones", c, 20, 1, 3)
	if got := strings.Count(dump(), "output:1"); got != 20 || strings.Contains(dump(), "udp") {
		t.Errorf("flows:\n%s", dump())
	}
	check(t, "again", apply(t, b, set), 0, 0, 3)
	set.Put("y", nil)
	set.Put("z", nil)
	set.Put("x", []openflow.Flow{{Table: 1, Priority: 99, Match: "udp", Actions: "output:9"}})
	check(t, "mended", apply(t, b, set), 1, 0, 0)
	if set.Unit(openflow.Flow{Table: 1, Priority: 99, Match: "udp"}) != "x" {
		t.Error("unit of a flow")
	}
}

// A switch that was started again is told; its flows are then put back.
func TestFollow(t *testing.T) {
	s, open, dump := bridge(t)
	set := openflow.NewSet()
	set.Put("one", []openflow.Flow{{Table: 1, Priority: 10, Match: "ip", Actions: "output:1"}})
	b := open()
	apply(t, b, set)
	ctx, cancel := context.WithCancel(t.Context())
	back := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		b.Follow(ctx, func() { back <- struct{}{} })
		close(ended)
	}()
	ovstest.Eventually(t, 5*time.Second, func() error {
		out, err := ovstest.Run(ctx, "ss", "-xH", "src", b.Socket())
		if err == nil && strings.Count(out, "ESTAB") < 1 {
			err = fmt.Errorf("no connection: %s", out)
		}
		return err
	})
	s.KillVSwitchd()
	b.Forget()
	if _, err := b.Apply(ctx, set); err == nil {
		t.Error("Apply works without a switch")
	}
	if err := s.StartVSwitchd(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-back:
	case <-time.After(5 * time.Second):
		t.Fatal("not told")
	}
	if got := dump(); got != "" {
		t.Fatalf("flows survived: %s", got)
	}
	b.Forget()
	check(t, "after the restart", apply(t, b, set), 1, 0, 0)
	if err := b.FlushZone(ctx, 7); err != nil {
		t.Error(err)
	}
	cancel()
	<-ended
}
