package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/sysctl"
)

// Addresses of the lab. They are inside its namespaces only.
var (
	underlayAddress = netip.MustParsePrefix("172.31.0.1/24")
	// OutsideAddress is that of the outside network's only machine, and the
	// gateway that an external network wants.
	OutsideAddress = netip.MustParsePrefix("203.0.113.1/24")
)

// underlayMTU leaves room for 1500 bytes inside of any tunnel.
const underlayMTU = 1600

// bridge makes a Linux bridge in the namespace of the thread.
func bridge(name string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	return facing(name, mtu)
}

// enslave makes a device a port of a bridge.
func enslave(device, bridge string) error {
	port, err := netlink.LinkByName(device)
	if err == nil {
		var master netlink.Link
		if master, err = netlink.LinkByName(bridge); err == nil {
			err = netlink.LinkSetMaster(port, master)
		}
	}
	if err != nil {
		return fmt.Errorf("make %s a port of bridge %s: %w", device, bridge, err)
	}
	return nil
}

// facing configures a device that frames go through to a userspace switch, and
// brings it up.
func facing(device string, mtu int) error {
	if err := link.SetTransmitChecksum(device, false); err != nil {
		return err
	}
	up := true
	return link.Configure(device, link.Config{MTU: mtu, Up: &up})
}

// veth makes a pair between two namespaces, both ends facing a switch.
func veth(ns, name, peerNS, peerName string, peerMAC net.HardwareAddr, mtu int) error {
	err := netns.Do(ns, func() error {
		if _, err := link.EnsureVeth(link.Veth{
			Name: name, PeerName: peerName, PeerNamespace: peerNS, PeerMAC: peerMAC, MTU: mtu,
		}); err != nil {
			return err
		}
		return facing(name, mtu)
	})
	if err != nil {
		return err
	}
	return netns.Do(peerNS, func() error { return facing(peerName, mtu) })
}

// makeUnderlay makes the namespaces of underlay and outside.
func (l *Lab) makeUnderlay() error {
	for _, n := range []*Node{l.underlay, l.outside} {
		if _, err := netns.Create(n.Namespace); err != nil {
			return err
		}
	}
	err := l.underlay.Do(func() error {
		// Else the machine's packet filters see what is bridged here.
		for _, key := range []string{"iptables", "ip6tables", "arptables"} {
			err := sysctl.Set(sysctl.Setting{Key: "net/bridge/bridge-nf-call-" + key, Value: "0"})
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		if err := bridge("br-ul", underlayMTU); err != nil {
			return err
		}
		if err := bridge("br-ex", 1500); err != nil {
			return err
		}
		return link.SetAddresses("br-ul", []netip.Prefix{underlayAddress})
	})
	if err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	err = veth(l.underlay.Namespace, "outside", l.outside.Namespace, "eth0", nil, 1500)
	if err == nil {
		err = l.underlay.Do(func() error { return enslave("outside", "br-ex") })
	}
	if err == nil {
		err = l.outside.Do(func() error { return link.SetAddresses("eth0", []netip.Prefix{OutsideAddress}) })
	}
	if err != nil {
		return fmt.Errorf("outside network: %w", err)
	}
	return nil
}

// connect makes a host's NICs: u0 to the underlay, ex0 to the outside network.
func (l *Lab) connect(h *Host) error {
	if err := veth(h.Namespace, "u0", l.underlay.Namespace, h.Name, nil, underlayMTU); err != nil {
		return err
	}
	if err := veth(h.Namespace, "ex0", l.underlay.Namespace, h.Name+"-ex", nil, 1500); err != nil {
		return err
	}
	return l.underlay.Do(func() error {
		if err := enslave(h.Name, "br-ul"); err != nil {
			return err
		}
		return enslave(h.Name+"-ex", "br-ex")
	})
}
