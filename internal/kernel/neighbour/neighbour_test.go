package neighbour_test

import (
	"net/netip"
	"strings"
	"testing"

	"isospin/internal/kernel/neighbour"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// A neighbour that believes something else learns the truth from the kernel's
// own parser of ARP and neighbour discovery.
func TestAnnounceCorrectsNeighbours(t *testing.T) {
	netnstest.New(t, "r")
	netnstest.New(t, "n")
	for _, line := range []string{
		"ip -n r link add d0 address fa:16:3e:00:00:01 type veth peer name e0 netns n",
		"ip -n r link set d0 up", "ip -n n link set e0 up",
		"ip -n n addr add 10.0.0.9/24 dev e0", "ip -n n addr add 2001:db8::9/64 dev e0 nodad",
		"ip -n r addr add 2001:db8::1/64 dev d0 nodad",
		"ip -n n neigh add 10.0.0.1 lladdr 02:00:00:00:00:99 nud stale dev e0",
		"ip -n n neigh add 2001:db8::1 lladdr 02:00:00:00:00:99 nud stale dev e0",
	} {
		netnstest.Run(t, "", line)
	}
	err := netns.Do("r", func() error {
		return neighbour.Announce("d0", []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")})
	})
	if err != nil {
		t.Fatal(err)
	}
	// Veth delivers within the sender's send call or in the softirq right after it.
	out := netnstest.Run(t, "n", "ip neigh show")
	for _, a := range []string{"10.0.0.1", "2001:db8::1"} {
		if !strings.Contains(out, a+" dev e0 lladdr fa:16:3e:00:00:01") {
			t.Errorf("%s is not corrected:\n%s", a, out)
		}
	}
	if err := netns.Do("r", func() error { return neighbour.Announce("absent", nil) }); err == nil {
		t.Error("announced on an absent device")
	}
}
