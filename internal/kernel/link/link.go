// Package link makes and configures network devices: veth pairs into
// namespaces, addresses, MTU, checksum offload.
//
// Every function acts in the network namespace of the calling thread; call it
// inside netns.Do for another one. All are idempotent; deleting the absent
// succeeds.
//
// It must not know what a device is for.
package link

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/dump"
	"isospin/internal/kernel/netns"
)

// MaxName is the longest name that a device can have.
const MaxName = unix.IFNAMSIZ - 1

// ErrNotExist is in the chain of errors about a device that is not there.
var ErrNotExist = errors.New("no such device")

func byName(name string) (netlink.Link, error) {
	// LinkByName falls back to a dump on old kernels.
	l, err := dump.Read(func() (netlink.Link, error) { return netlink.LinkByName(name) })
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, fmt.Errorf("device %s: %w", name, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return l, nil
}

// Exists tells whether there is a device of that name.
func Exists(name string) (bool, error) {
	_, err := byName(name)
	if errors.Is(err, ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Index returns the interface index of a device.
func Index(name string) (int, error) {
	l, err := byName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// Delete removes a device; the other end of a veth pair goes with it.
func Delete(name string) error {
	l, err := byName(name)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", name, err)
	}
	return nil
}

// Veth is a pair of devices: one here, one in another namespace.
type Veth struct {
	Name          string           // required; of the end in this namespace
	PeerName      string           // required
	PeerNamespace string           // required; by name, see package netns
	PeerMAC       net.HardwareAddr // optional; of the peer
	MTU           int              // optional; bytes, of both ends
}

// EnsureVeth makes the pair. When both ends are there and belong together it
// is left alone; when only one is, it is made again, and made is true. A device
// of another kind under one of the names is an error, not replaced.
func EnsureVeth(v Veth) (made bool, err error) {
	for _, n := range []string{v.Name, v.PeerName} {
		if n == "" || len(n) > MaxName {
			return false, fmt.Errorf("device name %q is not valid", n)
		}
	}
	here, err := byName(v.Name)
	if err != nil && !errors.Is(err, ErrNotExist) {
		return false, err
	}
	var there netlink.Link
	if err := netns.Do(v.PeerNamespace, func() (err error) {
		there, err = byName(v.PeerName)
		return err
	}); err != nil && !errors.Is(err, ErrNotExist) {
		return false, err
	}
	for _, l := range []netlink.Link{here, there} {
		if l != nil && l.Type() != "veth" {
			return false, fmt.Errorf("device %s is a %s, not a veth", l.Attrs().Name, l.Type())
		}
	}
	if here != nil && there != nil &&
		here.Attrs().ParentIndex == there.Attrs().Index && there.Attrs().ParentIndex == here.Attrs().Index {
		return false, nil
	}
	if here != nil {
		if err := Delete(v.Name); err != nil {
			return false, err
		}
	}
	if there != nil {
		if err := netns.Do(v.PeerNamespace, func() error { return Delete(v.PeerName) }); err != nil {
			return false, err
		}
	}
	ns, err := netns.Open(v.PeerNamespace)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = v.Name, v.MTU
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: v.PeerName, PeerHardwareAddr: v.PeerMAC,
		PeerNamespace: netlink.NsFd(ns.Fd()), PeerMTU: uint32(v.MTU),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return false, fmt.Errorf("make veth %s with peer %s in namespace %s: %w", v.Name, v.PeerName, v.PeerNamespace, err)
	}
	return true, nil
}

// Config is how a device is to be. Fields that are nil or zero are left alone.
type Config struct {
	MAC net.HardwareAddr
	MTU int
	Up  *bool
}

// Configure makes a device be as c says; only what differs is touched.
func Configure(name string, c Config) error {
	l, err := byName(name)
	if err != nil {
		return err
	}
	a := l.Attrs()
	if c.MAC != nil && !bytes.Equal(a.HardwareAddr, c.MAC) {
		if err := netlink.LinkSetHardwareAddr(l, c.MAC); err != nil {
			return fmt.Errorf("set MAC address %s of %s: %w", c.MAC, name, err)
		}
	}
	if c.MTU > 0 && a.MTU != c.MTU {
		if err := netlink.LinkSetMTU(l, c.MTU); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", c.MTU, name, err)
		}
	}
	if c.Up != nil && (a.Flags&net.FlagUp != 0) != *c.Up {
		set, word := netlink.LinkSetDown, "down"
		if *c.Up {
			set, word = netlink.LinkSetUp, "up"
		}
		if err := set(l); err != nil {
			return fmt.Errorf("set %s %s: %w", name, word, err)
		}
	}
	return nil
}

// Addresses returns the addresses that somebody configured on a device: not
// those that the kernel derives (link-local, from router advertisements).
func Addresses(name string) ([]netip.Prefix, error) {
	l, err := byName(name)
	if err != nil {
		return nil, err
	}
	return addresses(l)
}

func addresses(l netlink.Link) ([]netip.Prefix, error) {
	list, err := dump.Read(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if a.IPNet == nil || a.LinkIndex != l.Attrs().Index || a.Flags&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		bits, _ := a.Mask.Size()
		if ip.Is6() && ip.IsLinkLocalUnicast() {
			continue
		}
		out = append(out, netip.PrefixFrom(ip, bits))
	}
	return out, nil
}

// SetAddresses makes the configured addresses of a device exactly those
// wanted, except that link-local IPv6 ones stay the kernel's. New ones are
// added before old ones go. IPv6 addresses are usable at once (no duplicate
// address detection): whoever gives them out has made sure that they are unique.
func SetAddresses(name string, want []netip.Prefix) error {
	l, err := byName(name)
	if err != nil {
		return err
	}
	// Twice, since an IPv4 address takes its secondaries along when it goes
	// and promote_secondaries is off.
	for range 2 {
		have, err := addresses(l)
		if err != nil {
			return err
		}
		for _, p := range want {
			if slices.Contains(have, p) {
				continue
			}
			if err := netlink.AddrAdd(l, address(p)); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("add address %s to %s: %w", p, name, err)
			}
		}
		pruned := false
		for _, p := range have {
			if slices.Contains(want, p) {
				continue
			}
			pruned = true
			if err := netlink.AddrDel(l, address(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("remove address %s from %s: %w", p, name, err)
			}
		}
		if !pruned {
			return nil
		}
	}
	return nil
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// SetTransmitChecksum turns the transmit checksum offload of a device on or
// off. It must be off on veths that face a userspace switch: that one reads
// frames from a packet socket and drops those whose checksum the kernel has
// left for a NIC to fill in.
func SetTransmitChecksum(name string, on bool) error {
	const getTXCSUM, setTXCSUM = 0x16, 0x17 // linux/ethtool.h
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("checksum offload of %s: %w", name, err)
	}
	defer unix.Close(s)
	value := struct{ cmd, data uint32 }{cmd: getTXCSUM}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq's union
	}
	if len(name) > MaxName {
		return fmt.Errorf("checksum offload of %s: %w", name, unix.ENODEV)
	}
	copy(req.name[:], name)
	req.data = unsafe.Pointer(&value)
	ioctl := func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return fmt.Errorf("checksum offload of %s: %w", name, errno)
		}
		return nil
	}
	if err := ioctl(); err != nil {
		return err
	}
	if (value.data != 0) == on {
		return nil
	}
	value.cmd, value.data = setTXCSUM, 0
	if on {
		value.data = 1
	}
	return ioctl()
}

// Names returns the names of all devices.
func Names() ([]string, error) {
	links, err := dump.Read(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Attrs().Name
	}
	return names, nil
}
