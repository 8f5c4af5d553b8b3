package link_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func prefixes(s string) (out []netip.Prefix) {
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

func TestVethAndConfiguration(t *testing.T) {
	netnstest.New(t, "a")
	v := link.Veth{Name: "tap0", PeerName: "qr-0", PeerNamespace: "a", PeerMAC: net.HardwareAddr{0xfa, 0x16, 0x3e, 1, 2, 3}, MTU: 1450}
	for i, want := range []bool{true, false} {
		if made, err := link.EnsureVeth(v); err != nil || made != want {
			t.Fatalf("ensure %d: made %v, %v", i, made, err)
		}
	}
	if out := netnstest.Run(t, "a", "ip link show qr-0"); !strings.Contains(out, "fa:16:3e:01:02:03") || !strings.Contains(out, "mtu 1450") {
		t.Errorf("peer: %s", out)
	}
	// Only one of the two names is right: the pair is made again.
	netnstest.Run(t, "a", "ip link set qr-0 name other")
	if made, err := link.EnsureVeth(v); err != nil || !made {
		t.Fatalf("after rename: made %v, %v", made, err)
	}
	// A foreign device is not replaced.
	netnstest.Run(t, "", "ip link add br9 type bridge")
	if _, err := link.EnsureVeth(link.Veth{Name: "br9", PeerName: "x", PeerNamespace: "a"}); err == nil {
		t.Error("a bridge was taken for a veth")
	}

	err := netns.Do("a", func() error {
		up := true
		if err := link.Configure("qr-0", link.Config{MAC: net.HardwareAddr{0xfa, 0x16, 0x3e, 9, 9, 9}, MTU: 1400, Up: &up}); err != nil {
			return err
		}
		return link.SetTransmitChecksum("qr-0", false)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := link.SetTransmitChecksum("tap0", false); err != nil {
		t.Fatal(err)
	}
	if out := netnstest.Run(t, "a", "ip link show qr-0"); !strings.Contains(out, "fa:16:3e:09:09:09") || !strings.Contains(out, "mtu 1400") || !strings.Contains(out, ",UP") {
		t.Errorf("peer: %s", out)
	}
	for ns, dev := range map[string]string{"a": "qr-0", "": "tap0"} {
		if out := netnstest.Run(t, ns, "ethtool -k "+dev); !strings.Contains(out, "tx-checksumming: off") {
			t.Errorf("%s: %s", dev, out)
		}
	}
	if err := link.Configure("absent", link.Config{}); !errors.Is(err, link.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	for range 2 {
		if err := link.Delete("tap0"); err != nil {
			t.Fatal(err)
		}
	}
	netns.Do("a", func() error {
		if ok, err := link.Exists("qr-0"); ok || err != nil {
			t.Errorf("peer is left: %v", err)
		}
		return nil
	})
}

func TestSetAddresses(t *testing.T) {
	netnstest.New(t, "b")
	netnstest.Run(t, "b", "ip link add d0 type veth peer name d1")
	netnstest.Run(t, "b", "ip link set d0 up")
	netnstest.Run(t, "b", "ip link set d1 up")
	netns.Do("b", func() error {
		for _, want := range []string{
			"10.0.0.1/24 10.0.0.2/24 203.0.113.7/32 2001:db8::1/64",
			"10.0.0.2/24 203.0.113.7/32 2001:db8::2/64", // the primary goes, its secondary must stay
			"10.0.0.2/16",
			"",
		} {
			for range 2 {
				if err := link.SetAddresses("d0", prefixes(want)); err != nil {
					t.Fatal(err)
				}
			}
			have, err := link.Addresses("d0")
			if err != nil {
				t.Fatal(err)
			}
			got := map[netip.Prefix]bool{}
			for _, p := range have {
				got[p] = true
			}
			for _, p := range prefixes(want) {
				if !got[p] {
					t.Errorf("%s is missing: %v", p, have)
				}
			}
			if len(have) != len(prefixes(want)) {
				t.Errorf("want %s, have %v", want, have)
			}
		}
		return nil
	})
	if out := netnstest.Run(t, "b", "ip -6 addr show d0"); !strings.Contains(out, "fe80::") {
		t.Errorf("link-local address was pruned: %s", out)
	}
}
