package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// kind is how the value of a DHCP option is written as text and as bytes.
type kind int

const (
	guess     kind = iota // by the look of the value
	addresses             // comma separated addresses of the option's family
	text
	number8
	number16
	number32
	seconds       // 32 bit; also "90m", "12h", "infinite"
	domains       // RFC 1035 names, uncompressed
	routes        // RFC 3442: destination, next hop, ...
	textList      // RFC 5970 section 3.2: each string after its 16 bit length
	timeServers6  // RFC 5908: addresses and names in suboptions
	nextServer    // not an option: the header field siaddr
	notForTenants // set by the server alone
)

type optionType struct {
	code uint16
	kind kind
}

// nextServerCode stands for siaddr, which has no option code: 255 is the end mark.
const nextServerCode = 255

// names4 has the option names that Neutron takes in extra_dhcp_opts, with the
// types of RFC 2132 and of the RFC that IANA's registry gives for the code.
var names4 = map[string]optionType{
	"netmask": {1, addresses}, "time-offset": {2, number32}, "router": {3, addresses}, "dns-server": {6, addresses},
	"log-server": {7, addresses}, "lpr-server": {9, addresses}, "hostname": {12, text}, "boot-file-size": {13, number16},
	"domain-name": {15, text}, "swap-server": {16, addresses}, "root-path": {17, text}, "extension-path": {18, text},
	"ip-forward-enable": {19, number8}, "non-local-source-routing": {20, number8}, "policy-filter": {21, addresses},
	"max-datagram-reassembly": {22, number16}, "default-ttl": {23, number8}, "mtu": {26, number16},
	"all-subnets-local": {27, number8}, "broadcast": {28, addresses}, "router-discovery": {31, number8},
	"router-solicitation": {32, addresses}, "static-route": {33, addresses}, "trailer-encapsulation": {34, number8},
	"arp-timeout": {35, number32}, "ethernet-encap": {36, number8}, "tcp-ttl": {37, number8}, "tcp-keepalive": {38, number32},
	"nis-domain": {40, text}, "nis-server": {41, addresses}, "ntp-server": {42, addresses}, "vendor-encap": {43, guess},
	"netbios-ns": {44, addresses}, "netbios-dd": {45, addresses}, "netbios-nodetype": {46, number8}, "netbios-scope": {47, text},
	"x-windows-fs": {48, addresses}, "x-windows-dm": {49, addresses}, "requested-address": {50, notForTenants},
	"lease-time": {51, seconds}, "option-overload": {52, notForTenants}, "message-type": {53, notForTenants},
	"server-identifier": {54, notForTenants}, "parameter-request": {55, notForTenants}, "message": {56, notForTenants},
	"max-message-size": {57, notForTenants}, "T1": {58, seconds}, "T2": {59, seconds}, "vendor-class": {60, text},
	"client-id": {61, notForTenants}, "nis+-domain": {64, text}, "nis+-server": {65, addresses}, "tftp-server": {66, text},
	"bootfile-name": {67, text}, "mobile-ip-home": {68, addresses}, "smtp-server": {69, addresses}, "pop3-server": {70, addresses},
	"nntp-server": {71, addresses}, "irc-server": {74, addresses}, "user-class": {77, guess}, "rapid-commit": {80, notForTenants},
	"FQDN": {81, notForTenants}, "agent-id": {82, notForTenants}, "client-arch": {93, number16}, "client-interface-id": {94, guess},
	"client-machine-id": {97, guess}, "posix-timezone": {100, text}, "tzdb-timezone": {101, text}, "ipv6-only": {108, number32},
	"subnet-select": {118, notForTenants}, "domain-search": {119, domains}, "sip-server": {120, guess},
	"classless-static-route": {121, routes}, "vendor-id-encap": {125, guess}, "tftp-server-address": {150, addresses},
	"classless-static-route-ms": {249, routes}, "wpad": {252, text},
	"server-ip-address": {nextServerCode, nextServer},
}

// names6 is the same of DHCPv6 (RFC 8415 and IANA's registry).
var names6 = map[string]optionType{
	"client-id": {1, notForTenants}, "server-id": {2, notForTenants}, "ia-na": {3, notForTenants}, "ia-ta": {4, notForTenants},
	"iaaddr": {5, notForTenants}, "oro": {6, notForTenants}, "preference": {7, notForTenants}, "elapsed-time": {8, notForTenants},
	"relay-msg": {9, notForTenants}, "auth": {11, notForTenants}, "unicast": {12, notForTenants}, "status": {13, notForTenants},
	"rapid-commit": {14, notForTenants}, "user-class": {15, notForTenants}, "vendor-class": {16, notForTenants},
	"vendor-opts": {17, guess}, "interface-id": {18, notForTenants}, "reconfigure-message": {19, notForTenants},
	"reconfigure-accept": {20, notForTenants}, "sip-server-domain": {21, domains}, "sip-server": {22, addresses},
	"dns-server": {23, addresses}, "domain-search": {24, domains}, "ia-pd": {25, notForTenants}, "ia-prefix": {26, notForTenants},
	"nis-server": {27, addresses}, "nis+-server": {28, addresses}, "nis-domain": {29, domains}, "nis+-domain": {30, domains},
	"sntp-server": {31, addresses}, "information-refresh-time": {32, seconds}, "FQDN": {39, notForTenants},
	"posix-timezone": {41, text}, "tzdb-timezone": {42, text}, "ntp-server": {56, timeServers6}, "bootfile-url": {59, text},
	"bootfile-param": {60, textList},
}

func byCode(names map[string]optionType) map[uint16]optionType {
	out := make(map[uint16]optionType, len(names))
	for _, o := range names {
		if o.kind != nextServer {
			out[o.code] = o
		}
	}
	return out
}

var (
	codes4 = byCode(names4)
	codes6 = byCode(names6)
)

// extraOption is one of a port's extra_dhcp_opts, ready to be sent.
type extraOption struct {
	code  uint16
	value []byte
	// absent: an empty value, the option is not to be sent at all.
	absent bool
	// when says for which clients it is meant.
	when condition
}

// condition is what a "tag:" prefix asks of a client.
type condition int

const (
	always condition = iota
	ifIPXE           // the client is iPXE (bare metal boots in two stages)
	ifNotIPXE
)

func (c condition) holds(ipxe bool) bool {
	return c == always || (c == ifIPXE) == ipxe
}

// parseExtraOption reads an extra_dhcp_opts entry: a name or number as Neutron
// takes it, optionally after "tag:<tag>," or "tag:!<tag>,". The only tag that a
// client can have is that of iPXE ("ipxe", "ipxe6").
func parseExtraOption(name, value string, ipVersion int) (extraOption, error) {
	option, send, err := parseName(name, ipVersion)
	if err != nil {
		return extraOption{}, err
	}
	out := extraOption{code: option.code, when: send}
	if strings.TrimSpace(value) == "" {
		out.absent = true
		return out, nil
	}
	out.value, err = encode(option, value, ipVersion)
	return out, err
}

func parseName(name string, ipVersion int) (optionType, condition, error) {
	send := always
	for strings.HasPrefix(name, "tag:") {
		tag, rest, ok := strings.Cut(name[len("tag:"):], ",")
		if !ok {
			return optionType{}, send, errors.New("no option after the tag")
		}
		tag, negated := strings.CutPrefix(strings.TrimSpace(tag), "!")
		switch {
		case tag == "ipxe" || tag == "ipxe6":
			if negated {
				send = ifNotIPXE
			} else {
				send = ifIPXE
			}
		case !negated:
			return optionType{}, send, fmt.Errorf("no client has the tag %q", tag)
		}
		name = strings.TrimSpace(rest)
	}
	names, codes, limit := names4, codes4, uint64(254)
	if ipVersion == 6 {
		names, codes, limit = names6, codes6, math.MaxUint16
		name = strings.TrimPrefix(name, "option6:")
	}
	name = strings.TrimPrefix(name, "option:")
	option, known := names[name]
	if !known {
		n, err := strconv.ParseUint(name, 10, 16)
		if err != nil {
			return optionType{}, send, errors.New("the name is not known")
		}
		if n == 0 || n > limit {
			return optionType{}, send, fmt.Errorf("the number is not in 1-%d", limit)
		}
		if option, known = codes[uint16(n)]; !known {
			option = optionType{uint16(n), guess}
		}
	}
	if option.kind == notForTenants {
		return optionType{}, send, errors.New("only the server sets this option")
	}
	return option, send, nil
}

func encode(o optionType, value string, ipVersion int) ([]byte, error) {
	value = strings.TrimSpace(value)
	for _, r := range value {
		if r < ' ' || r == 0x7f {
			return nil, errors.New("the value has a control character")
		}
	}
	switch o.kind {
	case addresses:
		return encodeAddresses(value, ipVersion)
	case text:
		return []byte(unquote(value)), nil
	case number8:
		return encodeNumber(value, 1)
	case number16:
		return encodeNumber(value, 2)
	case number32:
		return encodeNumber(value, 4)
	case seconds:
		return encodeSeconds(value)
	case domains:
		return encodeDomains(strings.Split(value, ","))
	case routes:
		return encodeRouteList(value)
	case textList:
		var out []byte
		for _, s := range strings.Split(value, ",") {
			s = unquote(strings.TrimSpace(s))
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
		}
		return out, nil
	case timeServers6:
		return encodeTimeServers(value)
	case nextServer:
		a, err := netip.ParseAddr(value)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 address", value)
		}
		return a.AsSlice(), nil
	default:
		return encodeGuess(value, ipVersion)
	}
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

func encodeAddresses(value string, ipVersion int) ([]byte, error) {
	var out []byte
	for _, s := range strings.Split(value, ",") {
		s = strings.TrimSpace(s)
		if ipVersion == 6 && strings.HasPrefix(s, "[") {
			s = strings.TrimSuffix(s[1:], "]")
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4() != (ipVersion == 4) {
			return nil, fmt.Errorf("%q is not an IPv%d address", s, ipVersion)
		}
		out = append(out, a.AsSlice()...)
	}
	return out, nil
}

// encodeNumber takes decimal and 0x numbers; negative ones become their two's
// complement (time-offset).
func encodeNumber(value string, size int) ([]byte, error) {
	n, err := strconv.ParseInt(value, 0, 64)
	bits := 8 * size
	if err != nil || n >= 1<<bits || n < -1<<(bits-1) {
		return nil, fmt.Errorf("%q is not a number of %d bits", value, bits)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(n))[8-size:], nil
}

func encodeSeconds(value string) ([]byte, error) {
	if value == "infinite" {
		return []byte{0xff, 0xff, 0xff, 0xff}, nil
	}
	factor := uint64(1)
	digits := value
	if n := len(value); n > 1 {
		if f := map[byte]uint64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[value[n-1]]; f != 0 {
			factor, digits = f, value[:n-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n*factor > math.MaxUint32 {
		return nil, fmt.Errorf("%q is not a time in seconds", value)
	}
	return binary.BigEndian.AppendUint32(nil, uint32(n*factor)), nil
}

func encodeDomains(names []string) ([]byte, error) {
	var out []byte
	for _, name := range names {
		name = strings.TrimSpace(name)
		var wire [256]byte
		if name == "" || name == "." {
			return nil, errors.New("a domain name is empty")
		}
		n, err := dns.PackDomainName(dns.Fqdn(name), wire[:], 0, nil, false)
		if err != nil {
			return nil, fmt.Errorf("%q is not a domain name", name)
		}
		out = append(out, wire[:n]...)
	}
	return out, nil
}

// route4 is one of the routes that a client is to have. A next hop of 0.0.0.0
// means that the destination is on the link.
type route4 struct {
	destination netip.Prefix
	nextHop     netip.Addr
}

// encodeRoutes writes routes as RFC 3442 wants them: prefix length, the octets
// of the destination that it covers, next hop.
func encodeRoutes(list []route4) []byte {
	var out []byte
	for _, r := range list {
		bits := r.destination.Bits()
		octets := r.destination.Masked().Addr().As4()
		hop := r.nextHop.As4()
		out = append(out, byte(bits))
		out = append(out, octets[:(bits+7)/8]...)
		out = append(out, hop[:]...)
	}
	return out
}

func encodeRouteList(value string) ([]byte, error) {
	parts := strings.Split(value, ",")
	if len(parts)%2 != 0 {
		return nil, errors.New("a destination has no next hop")
	}
	var list []route4
	for i := 0; i < len(parts); i += 2 {
		destination, hop := strings.TrimSpace(parts[i]), strings.TrimSpace(parts[i+1])
		r, err := parseRoute(destination, hop)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return encodeRoutes(list), nil
}

// parseRoute takes a CIDR, an address or "default" as the destination.
func parseRoute(destination, hop string) (route4, error) {
	nextHop, err := netip.ParseAddr(hop)
	if err != nil || !nextHop.Is4() {
		return route4{}, fmt.Errorf("%q is not an IPv4 address", hop)
	}
	if destination == "default" {
		destination = "0.0.0.0/0"
	}
	if a, err := netip.ParseAddr(destination); err == nil && a.Is4() {
		return route4{netip.PrefixFrom(a, 32), nextHop}, nil
	}
	p, err := netip.ParsePrefix(destination)
	if err != nil || !p.Addr().Is4() {
		return route4{}, fmt.Errorf("%q is not an IPv4 network", destination)
	}
	return route4{p.Masked(), nextHop}, nil
}

func encodeTimeServers(value string) ([]byte, error) {
	var out []byte
	for _, s := range strings.Split(value, ",") {
		s = strings.TrimSpace(s)
		code, data := uint16(1), []byte(nil)
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			if !a.Is6() || a.Zone() != "" {
				return nil, fmt.Errorf("%q is not an IPv6 address", s)
			}
			if data = a.AsSlice(); a.IsMulticast() {
				code = 2
			}
		} else if data, err = encodeDomains([]string{s}); err != nil {
			return nil, err
		} else {
			code = 3
		}
		out = binary.BigEndian.AppendUint16(out, code)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(data))), data...)
	}
	return out, nil
}

// encodeGuess is for numbers that have no known type: addresses, bytes in
// hexadecimal ("01:ff:23"), a decimal number in as few of 1, 2 or 4 bytes as
// hold it, else text.
func encodeGuess(value string, ipVersion int) ([]byte, error) {
	if quoted := unquote(value); quoted != value {
		return []byte(quoted), nil
	}
	if b, err := encodeAddresses(value, ipVersion); err == nil {
		return b, nil
	}
	if strings.Contains(value, ":") {
		parts := strings.Split(value, ":")
		var out []byte
		for _, p := range parts {
			b, err := hex.DecodeString(p)
			if err != nil || len(b) != 1 {
				return []byte(value), nil
			}
			out = append(out, b...)
		}
		return out, nil
	}
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		switch {
		case n <= math.MaxUint8:
			return encodeNumber(value, 1)
		case n <= math.MaxUint16:
			return encodeNumber(value, 2)
		default:
			return encodeNumber(value, 4)
		}
	}
	return []byte(value), nil
}
