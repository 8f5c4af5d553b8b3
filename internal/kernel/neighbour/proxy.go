package neighbour

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/dump"
)

// SetProxies makes the IPv6 addresses that the kernel answers neighbour
// solicitations for on a device be these, in the network namespace of the
// calling thread. The device is the caller's: other entries on it are removed.
// They work with net.ipv6.conf.<device>.proxy_ndp.
func SetProxies(device string, addresses []netip.Addr) error {
	l, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("neighbour proxies of %s: %w", device, err)
	}
	have, err := dump.Read(func() ([]netlink.Neigh, error) { return netlink.NeighProxyList(l.Index, unix.AF_INET6) })
	if err != nil {
		return fmt.Errorf("neighbour proxies of %s: %w", device, err)
	}
	var failed []error
	there := map[netip.Addr]bool{}
	for _, n := range have {
		a, ok := netip.AddrFromSlice(n.IP)
		if !ok || n.LinkIndex != l.Index {
			continue
		}
		there[a] = true
		if slices.Contains(addresses, a) {
			continue
		}
		if err := netlink.NeighDel(proxy(l.Index, a)); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = append(failed, fmt.Errorf("neighbour proxy %s of %s: %w", a, device, err))
		}
	}
	for _, a := range addresses {
		if there[a] || !a.Is6() {
			continue
		}
		if err := netlink.NeighAdd(proxy(l.Index, a)); err != nil && !errors.Is(err, unix.EEXIST) {
			failed = append(failed, fmt.Errorf("neighbour proxy %s of %s: %w", a, device, err))
		}
	}
	return errors.Join(failed...)
}

func proxy(index int, a netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET6, Flags: netlink.NTF_PROXY, State: netlink.NUD_PERMANENT, IP: a.AsSlice()}
}
