package l2ovs

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// mac is an Ethernet address of a station.
type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

func parseMAC(s string) (mac, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != 6 {
		return mac{}, fmt.Errorf("MAC address %q is not valid", s)
	}
	m := mac(b)
	if m[0]&1 != 0 || m == (mac{}) {
		return mac{}, fmt.Errorf("MAC address %q is not one of a station", s)
	}
	return m, nil
}

// linkLocal is the IPv6 link-local address that stations derive from their MAC
// (RFC 4291, appendix A).
func (m mac) linkLocal() netip.Prefix {
	a := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.PrefixFrom(a, 128)
}

// parsePrefix takes an address or a CIDR; bits of the host are cleared.
func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return netip.Prefix{}, fmt.Errorf("address %q is not valid", s)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("address %q is not valid", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// prefixMatch is ",field=prefix" for a match, empty for the whole family.
func prefixMatch(field string, p netip.Prefix) string {
	switch p.Bits() {
	case 0:
		return ""
	case p.Addr().BitLen():
		return "," + field + "=" + p.Addr().String()
	}
	return "," + field + "=" + p.String()
}

// portMask is a value and mask of a transport port.
type portMask struct{ value, mask uint16 }

func (m portMask) String() string {
	if m.mask == 0xffff {
		return fmt.Sprint(m.value)
	}
	return fmt.Sprintf("%#x/%#x", m.value, m.mask)
}

// portMasks covers lowest to highest with as few masks as there can be.
func portMasks(lowest, highest uint16) []portMask {
	var out []portMask
	for at, last := uint32(lowest), uint32(highest); at <= last; {
		size := uint32(1)
		for at&(2*size-1) == 0 && at+2*size-1 <= last && size < 1<<16 {
			size *= 2
		}
		out = append(out, portMask{uint16(at), uint16(0x10000 - size)})
		at += size
	}
	return out
}
