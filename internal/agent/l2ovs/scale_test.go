package l2ovs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/ovstest"
)

// 200 ports of one group that admits itself come up from nothing, and one more
// costs little. The time limits are far above what an idle machine takes.
func TestScale(t *testing.T) {
	const ports = 200
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	want, _ := crowd(ports + 1)
	want.Networks["tenant"].Segment = &feed.Segment{NetworkType: "local"}
	want.Networks["tenant"].DhcpPort = nil
	want.Forwarding = nil
	last := fmt.Sprintf("port-%05d", ports)
	plug := func(ids ...string) {
		t.Helper()
		var args []string
		for _, id := range ids { // patch ports without a peer: nothing but a port number
			name := "p" + strings.TrimPrefix(id, "port-")
			args = append(args, "--", "add-port", "br-int", name, "--", "set", "interface", name, "type=patch", "options:peer=none"+name, "external_ids:iface-id="+id)
		}
		if _, err := h.s.VSCtl(t.Context(), args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for i := range ports {
		ids = append(ids, fmt.Sprintf("port-%05d", i))
	}
	plug(ids...)
	h.state = clone(want)
	delete(h.state.Ports, last)
	ovstest.Eventually(t, 10*time.Second, func() error {
		n := 0
		for _, i := range h.f.attached() {
			if i.OFPort > 0 {
				n++
			}
		}
		if n != ports {
			return fmt.Errorf("%d ports seen", n)
		}
		return nil
	})
	start := time.Now()
	h.all()
	whole := time.Since(start)
	h.expect("port-00000", feed.State_STATE_ACTIVE)

	plug(last)
	ovstest.Eventually(t, 10*time.Second, func() error {
		if h.f.attached()[last].OFPort <= 0 {
			return fmt.Errorf("not seen")
		}
		return nil
	})
	h.state = clone(want)
	start = time.Now()
	h.apply(runtime.Changes{Ports: map[string]struct{}{last: {}}})
	one := time.Since(start)
	h.expect(last, feed.State_STATE_ACTIVE)

	start = time.Now()
	h.apply(runtime.Changes{})
	nothing := time.Since(start)

	h.stop()
	h.start()
	start = time.Now()
	h.all()
	again := time.Since(start)
	t.Logf("%d flows; from nothing %v, one port %v, nothing %v, restart %v", h.f.planner.integration.Len(), whole, one, nothing, again)
	if whole > 2*time.Second || one > 500*time.Millisecond {
		t.Errorf("from nothing %v, one port %v", whole, one)
	}
}
