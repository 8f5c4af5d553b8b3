package link_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

// TestVXLAN: the device is made once, and anew when it is to be another one.
func TestVXLAN(t *testing.T) {
	inside := netnstest.New(t, "inside")
	netnstest.Run(t, "", "ip link add ul type bridge")
	t.Cleanup(func() { netnstest.Try("", "ip link del ul") })
	netnstest.Run(t, "", "ip addr add 172.31.0.11/24 dev ul")
	if mtu, err := link.MTUOf(netip.MustParseAddr("172.31.0.11")); err != nil || mtu != 1500 {
		t.Errorf("MTU is %d, %v", mtu, err)
	}
	if _, err := link.MTUOf(netip.MustParseAddr("172.31.0.12")); err == nil {
		t.Error("an address that is nobody's has a device")
	}
	v := link.VXLAN{Name: "v", Namespace: inside, VNI: 100, Local: netip.MustParseAddr("172.31.0.11"), Port: 4789, MAC: net.HardwareAddr{2, 0, 172, 31, 0, 11}, MTU: 1450}
	index := func() (i int) {
		t.Helper()
		if err := link.EnsureVXLAN(v); err != nil {
			t.Fatal(err)
		}
		if err := netns.Do(inside, func() (err error) { i, err = link.Index("v"); return err }); err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := index()
	if again := index(); again != first {
		t.Error("the device was made anew")
	}
	v.MTU = 1400
	if again := index(); again != first {
		t.Error("the device was made anew for its MTU")
	}
	v.VNI = 101
	if again := index(); again == first {
		t.Error("the device is the one of another VNI")
	}
	out := netnstest.Run(t, inside, "ip -d link show v")
	for _, want := range []string{"mtu 1400", "UP", "vxlan id 101 local 172.31.0.11", "dstport 4789 nolearning", "02:00:ac:1f:00:0b"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in %s", want, out)
		}
	}
}
