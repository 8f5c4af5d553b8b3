package l2ovs

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames for tests, as byte strings.

func hw(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func ip(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func ether(dst, src string, kind uint16, payload []byte) []byte {
	f := append(append(append([]byte{}, hw(dst)...), hw(src)...), byte(kind>>8), byte(kind))
	return append(f, payload...)
}

func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			w := uint32(p[i]) << 8
			if i+1 < len(p) {
				w |= uint32(p[i+1])
			}
			sum += w
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func arp(op byte, sha, spa, tha, tpa string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, hw(sha)...), ip(spa)...)
	return append(append(b, hw(tha)...), ip(tpa)...)
}

func ipv4(protocol byte, src, dst string, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0}
	b = append(append(b, ip(src)...), ip(dst)...)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// ipv6 fills in the checksum at the given offset of the payload.
func ipv6(protocol byte, src, dst string, sum int, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0, 0, 0, protocol, 255}
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b = append(append(b, ip(src)...), ip(dst)...)
	payload = append([]byte{}, payload...)
	binary.BigEndian.PutUint16(payload[sum:], checksum(b[8:], []byte{0, 0, b[4], b[5], 0, 0, 0, protocol}, payload))
	return append(b, payload...)
}

// udp has no checksum, as IPv4 permits.
func udp(src, dst uint16, payload string) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

// icmp6 is a message with a checksum of zero, to be filled in at offset 2.
func icmp6(kind byte, body ...[]byte) []byte {
	b := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
	for _, p := range body {
		b = append(b, p...)
	}
	return b
}

// llOption is a source (1) or target (2) link-layer address.
func llOption(kind byte, mac string) []byte { return append([]byte{kind, 1}, hw(mac)...) }
