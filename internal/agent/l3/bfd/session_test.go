package bfd

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/ovs/ovstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// link joins two namespaces by their devices eth0.
func link(t *testing.T) {
	t.Helper()
	netnstest.New(t, "one")
	netnstest.New(t, "two")
	netnstest.Run(t, "", "ip link add eth0 netns one type veth peer name eth0 netns two")
	for ns, n := range map[string]int{"one": 1, "two": 2} {
		netnstest.Run(t, ns, "ip link set eth0 addrgenmode none") // an address of the kernel's own may become the source
		netnstest.Run(t, ns, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth0", n))
		netnstest.Run(t, ns, fmt.Sprintf("ip addr add fe80::%d/64 dev eth0 nodad", n))
		netnstest.Run(t, ns, "ip link set eth0 up")
	}
}

// end is a session and its changes.
type end struct {
	*Session
	changes chan struct{}
}

func begin(t *testing.T, ns, peer string) *end {
	t.Helper()
	e := &end{changes: make(chan struct{}, 64)}
	var err error
	e.Session, err = Start(context.Background(), Options{
		Namespace: ns, Device: "eth0", Peer: netip.MustParseAddr(peer), Interval: 50 * time.Millisecond,
		Changed: func() { e.changes <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *end) becomes(t *testing.T, up bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for e.Up() != up {
		select {
		case <-e.changes:
		case <-deadline:
			t.Fatalf("session with %s: up is not %t", e.options.Peer, up)
		}
	}
}

func TestSessions(t *testing.T) {
	for family, address := range map[string]string{"IPv4": "192.0.2.", "IPv6": "fe80::"} {
		t.Run(family, func(t *testing.T) {
			link(t)
			one := begin(t, "one", address+"2")
			defer one.Stop()
			two := begin(t, "two", address+"1")
			one.becomes(t, true)
			two.becomes(t, true)

			netnstest.Run(t, "two", "ip link set eth0 down")
			one.becomes(t, false)
			two.becomes(t, false)
			netnstest.Run(t, "two", "ip link set eth0 up")
			if family == "IPv6" { // it went with the link
				netnstest.Try("two", "ip addr replace fe80::2/64 dev eth0 nodad")
			}
			one.becomes(t, true)
			two.becomes(t, true)

			two.Stop()
			one.becomes(t, false)
			two = begin(t, "two", address+"1")
			defer two.Stop()
			one.becomes(t, true)
		})
	}
}

// Packets from beyond the link are no sign of the neighbour.
func TestOtherHopLimits(t *testing.T) {
	link(t)
	one := begin(t, "one", "192.0.2.2")
	defer one.Stop()
	two := begin(t, "two", "192.0.2.1")
	defer two.Stop()
	one.becomes(t, true)
	netnstest.Run(t, "two", "nft add table ip t")
	netnstest.Run(t, "two", "nft add chain ip t c { type filter hook postrouting priority 0 ; }")
	netnstest.Run(t, "two", "nft add rule ip t c udp dport 3784 ip ttl set 254")
	one.becomes(t, false)
	netnstest.Run(t, "two", "nft delete table ip t")
	one.becomes(t, true)
}

// The neighbour is Open vSwitch, whose BFD is another implementation.
func TestWithOpenVSwitch(t *testing.T) {
	netnstest.Require(t)
	netnstest.Run(t, "", fmt.Sprintf("ip netns attach host %d", os.Getpid()))
	t.Cleanup(func() { netns.Delete("host") })
	sw := ovstest.NewLab(t).Switch("host")
	netnstest.New(t, "one")
	netnstest.Run(t, "", "ip link add eth0 netns one type veth peer name v-one")
	t.Cleanup(func() { netnstest.Try("", "ip link del v-one") })
	netnstest.Run(t, "", "ip link set v-one up")
	for _, line := range []string{
		"ip link set eth0 address fa:16:3e:00:00:01", "ip addr add 192.0.2.1/24 dev eth0", "ip link set eth0 up",
		"ip neigh add 192.0.2.2 lladdr fa:16:3e:00:00:02 dev eth0", "ethtool -K eth0 tx off",
	} {
		netnstest.Run(t, "one", line)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	vsctl := func(args ...string) string {
		t.Helper()
		out, err := sw.VSCtl(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "--", "add-port", "br0", "v-one", "--", "set", "interface", "v-one",
		"bfd:enable=true", "bfd:min_tx=100", "bfd:min_rx=100", "bfd:bfd_src_ip=192.0.2.2", "bfd:bfd_dst_ip=192.0.2.1",
		`bfd:bfd_local_src_mac="fa:16:3e:00:00:02"`, `bfd:bfd_local_dst_mac="fa:16:3e:00:00:01"`, `bfd:bfd_remote_dst_mac="fa:16:3e:00:00:02"`)
	one := begin(t, "one", "192.0.2.2")
	one.becomes(t, true)
	vsctl("--timeout=30", "wait-until", "interface", "v-one", "bfd_status:state=up", "bfd_status:remote_state=up", "bfd_status:forwarding=true")
	vsctl("set", "interface", "v-one", "bfd:enable=false")
	one.becomes(t, false)
	vsctl("set", "interface", "v-one", "bfd:enable=true")
	one.becomes(t, true)
	one.Stop()
	vsctl("--timeout=30", "wait-until", "interface", "v-one", `bfd_status:diagnostic="Neighbor Signaled Session Down"`)
}
