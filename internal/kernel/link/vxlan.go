package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"isospin/internal/kernel/netns"
)

// VXLAN is a tunnel device in another namespace than that of its packets.
type VXLAN struct {
	Name      string           // required
	Namespace string           // required; by name, where the device is
	VNI       uint32           // required
	Local     netip.Addr       // required; source of its packets, in the namespace of the calling thread
	Port      int              // required; UDP
	MAC       net.HardwareAddr // required
	MTU       int              // required
}

// EnsureVXLAN makes the device, and sets it up. Its packets come and go in the
// namespace of the calling thread. It learns nothing: see neighbour.SetTunnels.
func EnsureVXLAN(v VXLAN) error {
	if v.Name == "" || len(v.Name) > MaxName {
		return fmt.Errorf("device name %q is not valid", v.Name)
	}
	there := false
	err := netns.Do(v.Namespace, func() error {
		l, err := byName(v.Name)
		if errors.Is(err, ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		have, ok := l.(*netlink.Vxlan)
		if !ok {
			return fmt.Errorf("device %s is a %s, not a vxlan", v.Name, l.Type())
		}
		local, _ := netip.AddrFromSlice(have.SrcAddr)
		if there = have.VxlanId == int(v.VNI) && have.Port == v.Port && local.Unmap() == v.Local && !have.Learning; there {
			return nil
		}
		return Delete(v.Name)
	})
	if err != nil {
		return err
	}
	if !there {
		ns, err := netns.Open(v.Namespace)
		if err != nil {
			return err
		}
		defer ns.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Namespace, attrs.HardwareAddr, attrs.MTU = v.Name, netlink.NsFd(ns.Fd()), v.MAC, v.MTU
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(v.VNI), SrcAddr: v.Local.AsSlice(), Port: v.Port}); err != nil {
			return fmt.Errorf("make vxlan %s with VNI %d and UDP port %d in namespace %s: %w", v.Name, v.VNI, v.Port, v.Namespace, err)
		}
	}
	up := true
	return netns.Do(v.Namespace, func() error { return Configure(v.Name, Config{MAC: v.MAC, MTU: v.MTU, Up: &up}) })
}

// MTUOf returns the MTU of the device that has an address.
func MTUOf(a netip.Addr) (int, error) {
	list, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list devices: %w", err)
	}
	for _, i := range list {
		addresses, err := i.Addrs()
		if err != nil {
			continue // gone meanwhile
		}
		for _, have := range addresses {
			if p, err := netip.ParsePrefix(have.String()); err == nil && p.Addr() == a {
				return i.MTU, nil
			}
		}
	}
	return 0, fmt.Errorf("no device has the address %s: %w", a, ErrNotExist)
}
