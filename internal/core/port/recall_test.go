package port_test

import (
	"fmt"
	"strings"
	"testing"

	"isospin/internal/ext/exttest"
)

type world struct {
	*exttest.Core
	admin   *exttest.Client
	network string
}

func newWorld(t *testing.T) *world {
	w := &world{Core: exttest.New(t, exttest.Options{})}
	w.admin = w.Admin()
	w.network = w.admin.Create("network", `{"name": "n"}`).ID()
	return w
}

// same looks at all ports, which fails when one in memory is not as it is stored.
func (w *world) same() {
	w.Settled()
	w.admin.List("port")
}

func (w *world) automatic(prefix string) string {
	return w.admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": %q, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}`, w.network, prefix).ID()
}

// Addresses keep their order when one between them goes and others come.
func TestAddressesInOrder(t *testing.T) {
	w := newWorld(t)
	var prefixes, gone []string
	for i := range 4 {
		gone = append(gone, w.automatic(fmt.Sprintf("2001:db8:%d::/64", i)))
	}
	p := w.admin.Create("port", `{"network_id": %q}`, w.network).ID()
	for i := range 12 {
		w.admin.Delete("subnet", gone[0])
		gone = append(gone[1:], w.automatic(fmt.Sprintf("2001:db8:%d::/64", 4+i)))
		w.same()
	}
	for i := range 4 {
		prefixes = append(prefixes, fmt.Sprintf("2001:db8:%d::", 12+i))
	}
	at := -1
	shown := w.admin.Get("port", p).JSON("fixed_ips")
	for _, prefix := range prefixes {
		next := strings.Index(shown, prefix)
		if next < at {
			t.Errorf("%s is not in its place in %s", prefix, shown)
		}
		at = next
	}
}

// The port of DHCP that is bound to a host in the request that takes an address from it has what that request says.
func TestDHCPPortOnAHost(t *testing.T) {
	w := newWorld(t)
	w.Host("host1", exttest.HostOptions{})
	var subnets []string
	for i := range 2 {
		subnets = append(subnets, w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.%d.0/24"}`, w.network, i).ID())
	}
	w.admin.Create("port", `{"network_id": %q, "binding:host_id": "host1"}`, w.network)
	p := w.admin.List("port", "device_owner", "network:dhcp")[0].ID()
	w.admin.Update("port", p, `{"fixed_ips": [{"subnet_id": %q}], "binding:host_id": "host1"}`, subnets[0])
	w.same()
}

// The first port of a network that is bound brings its DHCP port, if nobody had answered DHCP before.
func TestDHCPPortOfTheFirstHost(t *testing.T) {
	w := newWorld(t)
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.network)
	p := w.admin.Create("port", `{"network_id": %q}`, w.network).ID()
	w.Host("host1", exttest.HostOptions{})
	w.admin.Update("port", p, `{"binding:host_id": "host1"}`)
	if n := len(w.admin.List("port", "device_owner", "network:dhcp")); n != 1 {
		t.Errorf("%d DHCP ports", n)
	}
	w.same()
}
