package neighbour

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/dump"
)

// Tunnel is a neighbour behind a tunnel device: its MAC address, the tunnel
// endpoint that frames for it are sent to, and the addresses by which routes
// name it.
type Tunnel struct {
	MAC       [6]byte
	Endpoint  netip.Addr
	Addresses []netip.Addr
}

// SetTunnels makes the permanent neighbours and the forwarding entries of a
// tunnel device be these, in the network namespace of the calling thread. The
// device is the caller's: other entries on it are removed.
func SetTunnels(device string, want []Tunnel) error {
	l, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("neighbours of %s: %w", device, err)
	}
	type entry struct {
		family int
		mac    [6]byte
		ip     netip.Addr
	}
	wanted := map[entry]bool{}
	for _, t := range want {
		wanted[entry{unix.AF_BRIDGE, t.MAC, t.Endpoint}] = true
		for _, a := range t.Addresses {
			family := unix.AF_INET
			if a.Is6() {
				family = unix.AF_INET6
			}
			wanted[entry{family, t.MAC, a}] = true
		}
	}
	there := map[entry]bool{}
	var failed []error
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		have, err := dump.Read(func() ([]netlink.Neigh, error) { return netlink.NeighList(l.Index, family) })
		if err != nil {
			return fmt.Errorf("neighbours of %s: %w", device, err)
		}
		for _, n := range have {
			a, ok := netip.AddrFromSlice(n.IP)
			if !ok || n.LinkIndex != l.Index || len(n.HardwareAddr) != 6 || n.State&netlink.NUD_PERMANENT == 0 {
				continue
			}
			e := entry{family, [6]byte(n.HardwareAddr), a.Unmap()}
			if there[e] = true; wanted[e] {
				continue
			}
			if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				failed = append(failed, fmt.Errorf("delete neighbour %s of %s: %w", a, device, err))
			}
		}
	}
	for e := range wanted {
		if there[e] {
			continue
		}
		n := &netlink.Neigh{LinkIndex: l.Index, Family: e.family, State: netlink.NUD_PERMANENT, IP: e.ip.AsSlice(), HardwareAddr: e.mac[:]}
		if e.family == unix.AF_BRIDGE {
			n.Flags = netlink.NTF_SELF
		}
		if err := netlink.NeighSet(n); err != nil {
			failed = append(failed, fmt.Errorf("neighbour %s of %s: %w", e.ip, device, err))
		}
	}
	return errors.Join(failed...)
}
