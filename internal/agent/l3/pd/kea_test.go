package pd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const kea = `{"Dhcp6": {
	"data-directory": %q, "server-id": {"type": "LL", "htype": 1, "identifier": "020000000001", "persist": false},
	"interfaces-config": {"interfaces": ["up0"]},
	"lease-database": {"type": "memfile", "persist": true, "name": %q},
	"preferred-lifetime": 12, "valid-lifetime": 20, "renew-timer": 3, "rebind-timer": 9,
	"subnet6": [{"id": 1, "subnet": "2001:db8:aa::/64", "interface": "up0", "rapid-commit": true,
		"pd-pools": [{"prefix": "2001:db8:f000::", "prefix-len": 48, "delegated-len": 64}]}],
	"loggers": [{"name": "kea-dhcp6", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`

// With ISC's Kea: prefixes for two subnets, renewed, taken over by the next client, given back.
func TestKea(t *testing.T) {
	netnstest.Require(t)
	program, err := exec.LookPath("kea-dhcp6")
	if err != nil {
		t.Skip("there is no kea-dhcp6 (package kea-dhcp6-server)")
	}
	netnstest.New(t, "up")
	netnstest.New(t, "down")
	for _, line := range []string{
		"ip link add up0 netns up type veth peer name down0 netns down",
		"ip -n up addr add 2001:db8:aa::1/64 dev up0 nodad", "ip -n up link set up0 up", "ip -n down link set down0 up", "ip -n up link set lo up",
	} {
		netnstest.Run(t, "", line)
	}
	var mac net.HardwareAddr
	if err := netns.Do("down", func() error {
		ifi, err := net.InterfaceByName("down0")
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, file := filepath.Join(dir, "kea.conf"), filepath.Join(dir, "leases.csv")
	if err := os.WriteFile(config, fmt.Appendf(nil, kea, dir, file), 0o600); err != nil {
		t.Fatal(err)
	}
	// Kea listens only on link-local addresses that are no longer tentative.
	eventually(t, "link-local address", func() bool {
		out, _ := netnstest.Try("up", "ip -6 addr show dev up0 scope link -tentative")
		return out != ""
	})
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "-c", config)
	c.Stdout, c.Stderr = log, log
	c.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir)
	if err := netns.Do("up", c.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s", b)
		}
		log.Close()
	})

	saved := map[string]Lease{}
	start := func() *Client {
		return Start(context.Background(), Options{Namespace: "down", Device: "down0", MAC: mac, Leases: saved,
			Save: func(l map[string]Lease) error { saved = l; return nil }})
	}
	subnets := []Subnet{{ID: "55555555-0000-4000-8000-000000000001"}, {ID: "55555555-0000-4000-8000-000000000002"}}
	client := start()
	client.Set(subnets)
	prefixes := func() []netip.Prefix {
		var list []netip.Prefix
		for _, s := range subnets {
			if p := client.Prefixes()[s.ID]; p.IsValid() {
				list = append(list, p)
			}
		}
		return list
	}
	eventually(t, "two prefixes", func() bool { return len(prefixes()) == 2 })
	had := prefixes()
	pool := netip.MustParsePrefix("2001:db8:f000::/48")
	if had[0] == had[1] || !pool.Overlaps(had[0]) || !pool.Overlaps(had[1]) {
		t.Errorf("prefixes %v", had)
	}
	lines := func(text string) int {
		b, _ := os.ReadFile(log.Name())
		return strings.Count(string(b), text)
	}
	eventually(t, "renewals", func() bool { return lines("DHCP6_PD_LEASE_RENEW") >= 2 })
	client.Stop(false)
	allocated := lines("DHCP6_PD_LEASE_ALLOC")
	client = start()
	client.Set(subnets)
	renewed := lines("DHCP6_PD_LEASE_RENEW")
	eventually(t, "renewals of the next client", func() bool { return lines("DHCP6_PD_LEASE_RENEW") >= renewed+2 })
	if now := prefixes(); !slices.Equal(now, had) || lines("DHCP6_PD_LEASE_ALLOC") != allocated {
		t.Errorf("the next client has %v, not %v", now, had)
	}
	client.Stop(true)
	eventually(t, "releases", func() bool { return lines("DHCP6_RELEASE_PD ") == 2 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(25 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 25 s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
