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
