package l3

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/ovs/ovstest"
	"isospin/internal/ovs/vswitch"
)

// The router's ports on a real Open vSwitch in userspace, where checksums that
// are left to a NIC would be the end of TCP. Networks are VLANs of br-int.
func TestOnOpenVSwitch(t *testing.T) {
	netnstest.Require(t)
	netnstest.Run(t, "", fmt.Sprintf("ip netns attach host %d", os.Getpid()))
	t.Cleanup(func() { netns.Delete("host") })
	sw := ovstest.NewLab(t).Switch("host")
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := vswitch.Dial(ctx, vswitch.Options{Connection: sw.Connection(), DatapathType: "netdev"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.EnsureBridge(ctx, vswitch.Bridge{Name: "br-int"}); err != nil {
		t.Fatal(err)
	}
	vlans := map[string]int{"a1": 1, "b1": 2, "ext": 3, "tap" + idA[:11]: 1, "tap" + idB[:11]: 2, "tap" + idG[:11]: 3}
	tag := func(port string) {
		if err := client.EnsurePort(ctx, "br-int", vswitch.Port{Name: port, Tag: vlans[strings.TrimPrefix(port, "v-")]}); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t}
	for name, address := range map[string]string{"a1": "10.0.1.5/24", "b1": "10.0.2.5/24", "ext": "203.0.113.1/24"} {
		netnstest.New(t, name)
		t.Cleanup(func() { netnstest.Try("", "ip link del v-"+name) })
		for _, line := range []string{
			"ip link add v-" + name + " type veth peer name eth0 netns " + name,
			"ip link set v-" + name + " up",
			"ip -n " + name + " addr add " + address + " dev eth0",
			"ip -n " + name + " link set eth0 up",
			"ip netns exec " + name + " ethtool -K eth0 tx off",
		} {
			netnstest.Run(t, "", line)
		}
		tag("v-" + name)
	}
	netnstest.Run(t, "a1", "ip route add default via 10.0.1.1")
	netnstest.Run(t, "b1", "ip route add default via 10.0.2.1")
	w.serve("a1", ":80")
	w.serve("b1", ":80")
	w.serve("ext", ":80")

	dir := t.TempDir()
	start := func() *Feature {
		f := New(Options{StateDir: dir, Connect: func() (Plugger, error) {
			return plug.New(plug.Options{Switch: client, Owner: Owner}), nil
		}})
		if err := f.Start(ctx, func() {}); err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := start()
	apply := func(routers ...*feed.Router) {
		t.Helper()
		state := &runtime.State{Routers: map[string]*feed.Router{}}
		for _, r := range routers {
			state.Routers[r.Id] = r
		}
		results, err := f.Apply(ctx, state, runtime.Changes{All: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range results {
			if a.State != feed.State_STATE_ACTIVE {
				t.Fatal(a)
			}
		}
	}
	r := small()
	r.Routes = nil
	apply(r)
	for port := range vlans {
		if strings.HasPrefix(port, "tap") {
			tag(port)
		}
	}
	for _, i := range client.Interfaces() {
		if i.Name == "tap"+idA[:11] {
			if i.ExternalIDs["iface-id"] != idA || i.ExternalIDs["attached-mac"] != mac1 || i.ExternalIDs["iface-status"] != "active" || i.OFPort <= 0 {
				t.Errorf("interface: %+v", i)
			}
		}
	}
	ofports := func() (out string) {
		for _, i := range client.Interfaces() {
			out += fmt.Sprintln(i.Name, i.OFPort)
		}
		return out
	}
	check := func() {
		t.Helper()
		w.reach("a1", "10.0.2.5:80", "10.0.1.5")
		w.reach("b1", "203.0.113.1:80", "198.51.100.7")
		w.reach("ext", "203.0.113.22:80", "203.0.113.1")
		w.reach("b1", "203.0.113.22:80", "198.51.100.7")
	}
	netnstest.Run(t, "ext", "ip route add 198.51.100.0/24 dev eth0")
	check()

	// A restart finds everything in place.
	before := ofports()
	f.Stop()
	f = start()
	apply(r)
	if after := ofports(); after != before {
		t.Errorf("ports were plugged again:\n%s%s", before, after)
	}
	// A device that somebody deleted is made anew, and so is its port.
	netnstest.Run(t, "", "ip link del tap"+idA[:11])
	apply(r)
	tag("tap" + idA[:11])
	check()

	apply()
	f.Stop()
	for _, i := range client.Interfaces() {
		if i.ExternalIDs[plug.KeyOwner] != "" {
			t.Errorf("port is left: %s", i.Name)
		}
	}
	if ok, _ := netns.Exists(NamespacePrefix + r.Id); ok {
		t.Error("namespace is left")
	}
}
