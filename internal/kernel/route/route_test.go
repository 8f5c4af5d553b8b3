package route_test

import (
	"net/netip"
	"strings"
	"testing"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/route"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func to(destination string, hops ...route.NextHop) route.Route {
	return route.Route{Destination: netip.MustParsePrefix(destination), NextHops: hops}
}

func via(gateway, device string) route.NextHop {
	return route.NextHop{Gateway: netip.MustParseAddr(gateway), Device: device}
}

func TestSet(t *testing.T) {
	netnstest.New(t, "r")
	for _, line := range []string{
		"ip link add d0 type veth peer name d1", "ip link set d0 up", "ip link set d1 up",
		"ip addr add 10.0.0.1/24 dev d0", "ip addr add 2001:db8::1/64 dev d0 nodad",
		"ip route add 172.16.0.0/24 via 10.0.0.77 proto static",
	} {
		netnstest.Run(t, "r", line)
	}
	set := func(routes ...route.Route) (err error) {
		netns.Do("r", func() error { err = route.Set(route.Main, routes); return nil })
		return err
	}
	show := func() string {
		return netnstest.Run(t, "r", "ip route show proto 73") + netnstest.Run(t, "r", "ip -6 route show proto 73")
	}
	want := []route.Route{
		to("0.0.0.0/0", via("10.0.0.254", "d0")),
		to("192.0.2.0/24", via("10.0.0.5", "")),
		to("198.51.100.0/24", via("10.0.0.5", "d0"), via("10.0.0.6", "d0")),
		to("203.0.113.0/24", route.NextHop{Gateway: netip.MustParseAddr("203.0.113.1"), Device: "d0", OnLink: true}),
		to("::/0", via("2001:db8::fe", "d0")),
		to("2001:db8:9::/48", via("2001:db8::2", ""), via("2001:db8::3", "")),
	}
	count := func() int { return strings.Count(show(), "\n") }
	if err := set(want...); err != nil {
		t.Fatal(err)
	}
	first := show()
	golden := `default via 10.0.0.254 dev d0 
192.0.2.0/24 via 10.0.0.5 dev d0 
198.51.100.0/24 
	nexthop via 10.0.0.5 dev d0 weight 1 
	nexthop via 10.0.0.6 dev d0 weight 1 
203.0.113.0/24 via 203.0.113.1 dev d0 onlink 
2001:db8:9::/48 metric 1024 pref medium
	nexthop via 2001:db8::2 dev d0 weight 1 
	nexthop via 2001:db8::3 dev d0 weight 1 
default via 2001:db8::fe dev d0 metric 1024 pref medium
`
	if first != golden {
		t.Errorf("got\n%swant\n%s", first, golden)
	}
	if err := set(want...); err != nil || show() != first {
		t.Errorf("second time: %v\n%s", err, show())
	}
	if err := set(to("2001:db8:9::/48", via("2001:db8::4", "")), to("192.0.2.0/24", via("10.0.0.5", ""), via("10.0.0.6", ""))); err != nil ||
		show() != "192.0.2.0/24 \n\tnexthop via 10.0.0.5 dev d0 weight 1 \n\tnexthop via 10.0.0.6 dev d0 weight 1 \n2001:db8:9::/48 via 2001:db8::4 dev d0 metric 1024 pref medium\n" {
		t.Errorf("%v\n%s", err, show())
	}
	if err := set(want...); err != nil || show() != first {
		t.Errorf("back: %v\n%s", err, show())
	}
	// One that cannot be does not keep others from being set, nor old ones from going.
	err := set(to("192.0.2.0/24", via("10.0.0.9", "")), to("198.18.0.0/15", via("9.9.9.9", "")), to("2001:db8:9::/48", via("10.0.0.9", "")))
	if err == nil || !strings.Contains(err.Error(), "198.18.0.0/15 via 9.9.9.9") || !strings.Contains(err.Error(), "another family") {
		t.Errorf("error: %v", err)
	}
	if count() != 1 || !strings.Contains(show(), "192.0.2.0/24 via 10.0.0.9") {
		t.Errorf("left:\n%s", show())
	}
	if err := set(); err != nil || count() != 0 {
		t.Errorf("%v\n%s", err, show())
	}
	if out := netnstest.Run(t, "r", "ip route"); !strings.Contains(out, "172.16.0.0/24") {
		t.Errorf("somebody else's route is gone: %s", out)
	}
}
