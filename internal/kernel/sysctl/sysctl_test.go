package sysctl_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/sysctl"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestSettingsAreOfTheNamespace(t *testing.T) {
	netnstest.New(t, "a")
	before, _ := sysctl.Get("net/ipv4/ip_forward")
	netns.Do("a", func() error {
		if err := sysctl.Set(sysctl.Setting{Key: "net/ipv4/ip_forward", Value: "1"}); err != nil {
			t.Error(err)
		}
		if v, err := sysctl.Get("net/ipv4/ip_forward"); v != "1" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		return nil
	})
	if after, _ := sysctl.Get("net/ipv4/ip_forward"); after != before {
		t.Error("the setting leaked out of its namespace")
	}
	if _, err := sysctl.Get("net/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := sysctl.Get("../self/environ"); err == nil {
		t.Error("a path out of /proc/sys was read")
	}
}

func TestDevice6(t *testing.T) {
	netnstest.New(t, "b")
	netnstest.Run(t, "b", "ip link add d.0 address fa:16:3e:00:00:01 type veth peer name d1")
	set := func(d sysctl.Device6) {
		t.Helper()
		if err := netns.Do("b", func() error { return sysctl.SetDevice6("d.0", d) }); err != nil {
			t.Fatal(err)
		}
	}
	set(sysctl.Device6{})
	netnstest.Run(t, "b", "ip link set d1 up")
	netnstest.Run(t, "b", "ip link set d.0 up")
	if out := netnstest.Run(t, "b", "ip -6 addr show d.0"); strings.Contains(out, "fe80") {
		t.Errorf("IPv6 is on: %s", out)
	}
	set(sysctl.Device6{Enabled: true, AcceptAdvertisements: true})
	// Without detection of duplicates, which takes a second at least, the kernel
	// makes the address usable at once, but not before it returns.
	for deadline := time.Now().Add(900 * time.Millisecond); ; {
		out := netnstest.Run(t, "b", "ip -6 addr show d.0")
		if strings.Contains(out, "fe80::f816:3eff:fe00:1/64") && !strings.Contains(out, "tentative") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("IPv6 is not on: %s", out)
		}
	}
}
