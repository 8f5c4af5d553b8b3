// Package neighbour tells the neighbours on a link which addresses a device of
// ours has, so that they and the switches between stop using what they learnt
// before: gratuitous ARP (RFC 5227 section 2.3, RFC 826) and unsolicited
// neighbour advertisements (RFC 4861 section 7.2.6).
//
// It must not know why an address has moved.
package neighbour

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// Announce sends one round of announcements of the addresses from a device in
// the network namespace of the calling thread, which must be up. Some stacks
// take only ARP requests, some only answers: both are sent.
func Announce(device string, addresses []netip.Addr) error {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("announce on %s: %w", device, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return fmt.Errorf("announce on %s: not an Ethernet device", device)
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // receives nothing
	if err != nil {
		return fmt.Errorf("announce on %s: %w", device, err)
	}
	defer unix.Close(s)
	var failed []error
	for _, a := range addresses {
		for _, frame := range frames(ifi.HardwareAddr, a) {
			if err := unix.Sendto(s, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				failed = append(failed, fmt.Errorf("announce %s on %s: %w", a, device, err))
			}
		}
	}
	return errors.Join(failed...)
}

func frames(mac net.HardwareAddr, a netip.Addr) [][]byte {
	if a = a.Unmap(); a.Is4() {
		return [][]byte{arp(mac, a, 1), arp(mac, a, 2)}
	}
	return [][]byte{neighbourAdvertisement(mac, a)}
}

func ethernet(to, from net.HardwareAddr, etherType uint16) []byte {
	f := make([]byte, 0, 86)
	f = append(append(f, to...), from...)
	return binary.BigEndian.AppendUint16(f, etherType)
}

// arp is an Ethernet frame with an ARP packet whose sender and target are the
// same address. op 1 is a request, 2 an answer.
func arp(mac net.HardwareAddr, a netip.Addr, op uint16) []byte {
	f := ethernet(broadcast, mac, unix.ETH_P_ARP)
	f = append(f, 0, 1, 0x08, 0, 6, 4)
	f = binary.BigEndian.AppendUint16(f, op)
	f = append(append(f, mac...), a.AsSlice()...)
	target := broadcast
	if op == 1 {
		target = make(net.HardwareAddr, 6)
	}
	return append(append(f, target...), a.AsSlice()...)
}

// neighbourAdvertisement is an Ethernet frame to all nodes with the router and
// override flags.
func neighbourAdvertisement(mac net.HardwareAddr, a netip.Addr) []byte {
	group := netip.MustParseAddr("ff02::1")
	body := []byte{136, 0, 0, 0, 0xa0, 0, 0, 0}
	body = append(body, a.AsSlice()...)
	body = append(append(body, 2, 1), mac...) // target link-layer address

	f := ethernet(allNodes, mac, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(body)))
	f = append(f, unix.IPPROTO_ICMPV6, 255)
	f = append(append(f, a.AsSlice()...), group.AsSlice()...)

	var pseudo []byte
	pseudo = append(append(pseudo, a.AsSlice()...), group.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
	return append(f, body...)
}

// checksum is that of RFC 1071 over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
