package dhcp

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"isospin/internal/agent/plug"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/sysctl"
	"isospin/internal/ovs/ovstest"
	"isospin/internal/ovs/vswitch"
)

// The whole way of an agent: the DHCP port plugged into Open vSwitch, a client
// on another port of the bridge, and all of it gone when the network leaves.
func TestOnOpenVSwitch(t *testing.T) {
	netnstest.Require(t)
	lab := ovstest.NewLab(t)
	netnstest.Run(t, "", fmt.Sprintf("ip netns attach host %d", os.Getpid()))
	t.Cleanup(func() { netnstest.Try("", "ip netns del host") })
	s := lab.Switch("host")
	client, err := vswitch.Dial(t.Context(), vswitch.Options{Connection: s.Connection(), DatapathType: "netdev"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.EnsureBridge(t.Context(), vswitch.Bridge{Name: "br-int", DatapathType: "netdev"}); err != nil {
		t.Fatal(err)
	}
	plugger := plug.New(plug.Options{Switch: client, Owner: Owner})
	a := startAgentWith(t, plugger, Options{})
	vm := lab.Guest(s, "br-int", "vm", "a", testMAC(0x10).String())
	// Without duplicate address detection the client need not wait for its own address.
	netnstest.Run(t, vm.Netns, "ip link set eth0 down")
	if err := netns.Do(vm.Netns, func() error { return sysctl.SetDevice6("eth0", sysctl.Device6{Enabled: true}) }); err != nil {
		t.Fatal(err)
	}
	netnstest.Run(t, vm.Netns, "ip link set eth0 up")
	want := testState(testNetwork(), testPort("a", 0x10, "s4=10.0.0.10", "s6=2001:db8:1::10"))
	if got := states(a.apply(t, want, everything)); got != "a:ACTIVE@7" {
		t.Fatal(got)
	}
	if lease := udhcpc(t, vm.Netns); !strings.Contains(lease, "ip=10.0.0.10") {
		t.Error(lease)
	}
	if lease := dhclient6(t, vm.Netns); !strings.Contains(lease, "new_ip6_address=2001:db8:1::10") {
		t.Error(lease)
	}
	netnstest.Run(t, vm.Netns, "ip addr add 10.0.0.10/24 dev eth0")
	if answer := lookup(t, vm.Netns, "tcp", "10.0.0.2:53", "host-10-0-0-2.cloud.example."); len(answer.Answer) != 1 {
		t.Errorf("%v", answer)
	}
	a.apply(t, testState(nil), everything)
	if ok, _ := netns.Exists(NamespacePrefix + networkID); ok || len(plugger.Devices()) > 0 {
		t.Error("the network left, its port did not")
	}
}
