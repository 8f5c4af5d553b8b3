package l3

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isospin/internal/agent/l3/bfd"
	"isospin/internal/agent/runtime"
)

func TestDefaultRoutesOfReachableNeighbors(t *testing.T) {
	for _, c := range []struct {
		share     bool
		reachable string
		want      string
	}{
		{false, "", "default via 203.0.113.1 dev qg-99999999-cc"},
		{false, "203.0.113.1 198.18.0.1", "default via 203.0.113.1 dev qg-99999999-cc"},
		{false, "198.18.0.1", "default via 198.18.0.1 dev qg-66666666-cc"},
		{true, "", "default nexthop via 198.18.0.1 dev qg-66666666-cc nexthop via 203.0.113.1 dev qg-99999999-cc"},
		{true, "198.18.0.1", "default via 198.18.0.1 dev qg-66666666-cc"},
		{true, "203.0.113.1 198.18.0.1", "default nexthop via 198.18.0.1 dev qg-66666666-cc nexthop via 203.0.113.1 dev qg-99999999-cc"},
	} {
		r := homed()
		r.EnableDefaultRouteBfd, r.EnableDefaultRouteEcmp = true, c.share
		w, err := planRouter(r, func(string) bool { return true }, func(n neighbor) bool {
			return strings.Contains(c.reachable, n.Address.String())
		})
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, route := range w.Routes {
			have = append(have, route.String())
		}
		if len(have) != 1 || !sameHops(have[0], c.want) {
			t.Errorf("share %t, reachable %q: %q, not %q", c.share, c.reachable, have, c.want)
		}
		if len(w.Watched) != 2 {
			t.Errorf("watched: %v", w.Watched)
		}
	}
}

// sameHops compares routes whatever the order of their next hops.
func sameHops(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, hop := range strings.Split(a, "nexthop ") {
		if !strings.Contains(b, strings.TrimSpace(hop)) {
			return false
		}
	}
	return true
}

// The neighbor of the first gateway says by BFD that it is there, is lost, and comes back.
func TestLostNeighbor(t *testing.T) {
	w := newWorld(t)
	w.secondOutside()
	w.serve("ext", ":80")
	w.serve("ext2", ":80")
	r := homed()
	r.FloatingIps = nil
	w.all(r)
	answer := func(ns, address string) *bfd.Session {
		t.Helper()
		s, err := bfd.Start(context.Background(), bfd.Options{
			Namespace: ns, Device: "eth0", Peer: netip.MustParseAddr(address), Changed: func() {},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := answer("ext", "203.0.113.10"), answer("ext2", "198.18.0.10")
	defer func() { first.Stop(); second.Stop() }()
	r.EnableDefaultRouteBfd = true
	w.apply(changed(r.Id), r)
	// leaves waits until new connections leave by a gateway.
	leaves := func(by string) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			seen := w.sources("a2", "192.0.2.1:80", 1)
			if seen[by] == 1 {
				return
			}
			select {
			case <-w.woken:
				w.apply(runtime.Changes{}, r)
			case <-deadline:
				t.Fatalf("connections leave as %v, not %s", seen, by)
			}
		}
	}
	eventually(t, "sessions", func() bool {
		select {
		case <-w.woken:
			w.apply(runtime.Changes{}, r)
		default:
		}
		return first.Up() && second.Up()
	})
	leaves("203.0.113.10")
	first.Stop()
	leaves("198.18.0.10")
	kept := w.keep("a2", "192.0.2.1:80")
	first = answer("ext", "203.0.113.10")
	leaves("203.0.113.10")
	if err := kept.echo(); err != nil {
		t.Errorf("a flow by the other gateway: %v", err)
	}

	// No neighbor answers: the first is as good as any.
	first.Stop()
	second.Stop()
	eventually(t, "no session", func() bool {
		select {
		case <-w.woken:
			w.apply(runtime.Changes{}, r)
		default:
		}
		return strings.Contains(fmt.Sprint(w.sources("a2", "192.0.2.1:80", 1)), "203.0.113.10")
	})
	first, second = answer("ext", "203.0.113.10"), answer("ext2", "198.18.0.10")

	r.EnableDefaultRouteBfd = false
	w.apply(changed(r.Id), r)
	eventually(t, "end of the sessions", func() bool { return !first.Up() && !second.Up() })
}
