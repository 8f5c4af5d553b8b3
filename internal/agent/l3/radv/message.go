// Package radv sends IPv6 router advertisements (RFC 4861) from a device in a
// network namespace, periodically and when hosts solicit them.
//
// It must not know what a router or a subnet of the API is.
package radv

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"time"
)

const (
	typeSolicitation  = 133
	typeAdvertisement = 134

	optionSource = 1  // RFC 4861 section 4.6.1
	optionPrefix = 3  // RFC 4861 section 4.6.2
	optionMTU    = 5  // RFC 4861 section 4.6.4
	optionDNS    = 25 // RFC 8106 section 5.1
)

// Advertisement is the content of a router advertisement. Times are sent in
// whole seconds.
type Advertisement struct {
	HopLimit uint8         // of the hosts; 0: unspecified
	Managed  bool          // addresses come from DHCPv6
	Other    bool          // other configuration comes from DHCPv6
	Lifetime time.Duration // as a default router; 0: is none, at most 65535 s
	MAC      net.HardwareAddr
	MTU      uint32 // of the link; 0: not sent
	Prefixes []Prefix
	DNS      []netip.Addr // resolvers, IPv6
	DNSFor   time.Duration
}

// Prefix is one prefix of the link.
type Prefix struct {
	Prefix           netip.Prefix
	OnLink           bool
	Autonomous       bool // hosts make addresses of it (SLAAC)
	Valid, Preferred time.Duration
}

// Marshal returns the ICMPv6 message with a checksum of zero, which the kernel
// fills in on ICMPv6 sockets.
func (a Advertisement) Marshal() []byte {
	b := make([]byte, 0, 128)
	var flags byte
	if a.Managed {
		flags |= 0x80
	}
	if a.Other {
		flags |= 0x40
	}
	b = append(b, typeAdvertisement, 0, 0, 0, a.HopLimit, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(min(seconds(a.Lifetime), math.MaxUint16)))
	b = append(b, make([]byte, 8)...) // reachable and retransmission time: unspecified
	if len(a.MAC) == 6 {
		b = append(append(b, optionSource, 1), a.MAC...)
	}
	if a.MTU != 0 {
		b = binary.BigEndian.AppendUint32(append(b, optionMTU, 1, 0, 0), a.MTU)
	}
	for _, p := range a.Prefixes {
		flags = 0
		if p.OnLink {
			flags |= 0x80
		}
		if p.Autonomous {
			flags |= 0x40
		}
		b = append(b, optionPrefix, 4, byte(p.Prefix.Bits()), flags)
		b = binary.BigEndian.AppendUint32(b, seconds(p.Valid))
		b = binary.BigEndian.AppendUint32(b, seconds(p.Preferred))
		b = append(b, 0, 0, 0, 0)
		address := p.Prefix.Masked().Addr().As16()
		b = append(b, address[:]...)
	}
	if dns := a.DNS[:min(len(a.DNS), 127)]; len(dns) > 0 { // the length field is one byte
		b = append(b, optionDNS, byte(1+2*len(dns)), 0, 0)
		b = binary.BigEndian.AppendUint32(b, seconds(a.DNSFor))
		for _, d := range dns {
			address := d.As16()
			b = append(b, address[:]...)
		}
	}
	return b
}

func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 0), math.MaxUint32))
}

// checkSolicitation tells whether an ICMPv6 message is a valid router
// solicitation, by the rules of RFC 4861 section 6.1.1. The kernel has
// verified the checksum.
func checkSolicitation(b []byte, hopLimit int, from netip.Addr) error {
	switch {
	case hopLimit != 255:
		return errors.New("was forwarded")
	case len(b) < 8:
		return errors.New("is too short")
	case b[0] != typeSolicitation || b[1] != 0:
		return errors.New("is another message")
	}
	for o := b[8:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return errors.New("has an option of the wrong length")
		}
		if o[0] == optionSource && from.IsUnspecified() {
			return errors.New("names the link-layer address of no source")
		}
		o = o[int(o[1])*8:]
	}
	return nil
}
