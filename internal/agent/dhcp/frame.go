package dhcp

import (
	"encoding/binary"
	"net/netip"
)

const (
	serverPort4, clientPort4 = 67, 68
	serverPort6, clientPort6 = 547, 546

	header4, header6, headerUDP = 20, 40, 8
)

// datagram is a UDP datagram in an IP packet without extension headers, options
// or fragmentation, which DHCP has no use for.
type datagram struct {
	source, destination netip.AddrPort
	payload             []byte
}

// parseDatagram reads an IP packet. The UDP checksum is not looked at: between
// a guest and us it may still be left to a device that never comes (offload).
func parseDatagram(b []byte) (d datagram, ok bool) {
	if len(b) == 0 {
		return d, false
	}
	var source, destination netip.Addr
	var rest []byte
	switch b[0] >> 4 {
	case 4:
		size := int(b[0]&0xf) * 4
		if len(b) < header4 || size < header4 {
			return d, false
		}
		total := int(binary.BigEndian.Uint16(b[2:]))
		if total < size || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || b[9] != 17 {
			return d, false
		}
		source, destination = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		rest = b[size:total]
	case 6:
		if len(b) < header6 || b[6] != 17 {
			return d, false
		}
		total := header6 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return d, false
		}
		source, destination = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		rest = b[header6:total]
	default:
		return d, false
	}
	if len(rest) < headerUDP {
		return d, false
	}
	length := int(binary.BigEndian.Uint16(rest[4:]))
	if length < headerUDP || length > len(rest) {
		return d, false
	}
	d.source = netip.AddrPortFrom(source, binary.BigEndian.Uint16(rest))
	d.destination = netip.AddrPortFrom(destination, binary.BigEndian.Uint16(rest[2:]))
	d.payload = rest[headerUDP:length]
	return d, true
}

// bytes is the packet with all checksums filled in. Both addresses are of the
// same family.
func (d datagram) bytes() []byte {
	source, destination := d.source.Addr().AsSlice(), d.destination.Addr().AsSlice()
	udp := make([]byte, headerUDP, headerUDP+len(d.payload))
	binary.BigEndian.PutUint16(udp, d.source.Port())
	binary.BigEndian.PutUint16(udp[2:], d.destination.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(headerUDP+len(d.payload)))
	udp = append(udp, d.payload...)

	sum := addUp(addUp(addUp(0, source), destination), udp) + 17 + uint32(len(udp))
	if check := fold(sum); check != 0 {
		binary.BigEndian.PutUint16(udp[6:], check)
	} else {
		binary.BigEndian.PutUint16(udp[6:], 0xffff) // 0 would mean: none
	}

	if len(source) == 4 {
		ip := make([]byte, header4, header4+len(udp))
		ip[0], ip[1] = 0x45, 0xc0 // low delay, as others send it: class selector 6
		binary.BigEndian.PutUint16(ip[2:], uint16(header4+len(udp)))
		ip[8], ip[9] = 64, 17
		copy(ip[12:], source)
		copy(ip[16:], destination)
		binary.BigEndian.PutUint16(ip[10:], fold(addUp(0, ip)))
		return append(ip, udp...)
	}
	ip := make([]byte, header6, header6+len(udp))
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
	ip[6], ip[7] = 17, 64
	copy(ip[8:], source)
	copy(ip[24:], destination)
	return append(ip, udp...)
}

func addUp(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
