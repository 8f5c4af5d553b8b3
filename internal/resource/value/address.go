package value

import (
	"fmt"
	"math/bits"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The reading of addresses follows netaddr 1.x, which takes what inet_pton(3)
// takes: four decimal octets without leading zeros, or IPv6 without a zone.

func parseAddress(s string) (addr netip.Addr, ok bool) {
	addr, err := netip.ParseAddr(s)
	return addr, err == nil && addr.Zone() == ""
}

// formatAddress is the text of inet_ntop(3), which shows the last four octets
// of addresses in ::/96 in dotted form; netip does not.
func formatAddress(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	if a := addr.As16(); [12]byte(a[:12]) == [12]byte{} && (a[12] != 0 || a[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(a[12:])).String()
	}
	return addr.String()
}

// zeroStripped is IPv4 text with the leading zeros (and whatever else int()
// passes over) of its octets removed; not ok if that is no IPv4 address.
func zeroStripped(s string) (stripped string, ok bool) {
	if len(s) > 64 || strings.Count(s, ".") != 3 {
		return "", false
	}
	octets := strings.Split(s, ".")
	for i := range octets {
		n, ok := parseInt(octets[i])
		if !ok {
			return "", false
		}
		octets[i] = n.String()
	}
	stripped = strings.Join(octets, ".")
	addr, ok := parseAddress(stripped)
	return stripped, ok && addr.Is4()
}

// parseNetwork reads "address[/prefix]" as netaddr does: the prefix is a number
// in any form of int(), a netmask or a hostmask; without one it is the whole
// address. Host bits are kept.
func parseNetwork(s string) (prefix netip.Prefix, ok bool) {
	text, mask, hasMask := strings.Cut(s, "/")
	addr, ok := parseAddress(text)
	if !ok {
		return netip.Prefix{}, false
	}
	length := addr.BitLen()
	if hasMask {
		if n, isInt := parseInt(mask); isInt {
			if !n.IsInt64() || n.Int64() < 0 || n.Int64() > int64(length) {
				return netip.Prefix{}, false
			}
			length = int(n.Int64())
		} else if length, ok = maskLength(mask, length); !ok {
			return netip.Prefix{}, false
		}
	}
	return netip.PrefixFrom(addr, length), true
}

// maskLength is the prefix length that a netmask or a hostmask stands for.
func maskLength(mask string, width int) (length int, ok bool) {
	addr, ok := parseAddress(mask)
	if !ok || addr.BitLen() != width {
		return 0, false
	}
	ones, zeros := 0, 0 // at the start
	raw := addr.AsSlice()
	for _, b := range raw {
		ones += bits.LeadingZeros8(^b)
		if b != 0xff {
			break
		}
	}
	for _, b := range raw {
		zeros += bits.LeadingZeros8(b)
		if b != 0 {
			break
		}
	}
	total := 0
	for _, b := range raw {
		total += bits.OnesCount8(b)
	}
	switch {
	case total == ones:
		return ones, true
	case total == width-zeros:
		return zeros, true
	}
	return 0, false
}

func formatNetwork(prefix netip.Prefix) string {
	return formatAddress(prefix.Addr()) + "/" + strconv.Itoa(prefix.Bits())
}

// network reads a CIDR that a validator is to let by: an address and a prefix
// length in plain decimal. netaddr would take masks and such things as "+64"
// too, which whoever reads the accepted text later could not.
func network(v any) (prefix netip.Prefix, ok bool) {
	s, isString := v.(string)
	if !isString || hasSpace(s) {
		return netip.Prefix{}, false
	}
	prefix, err := netip.ParsePrefix(s)
	return prefix, err == nil
}

var macFormats = func() (formats []*regexp.Regexp) {
	for _, format := range []struct {
		digits, separator string
		groups            int
	}{
		{"{1,2}", ":", 6}, {"{1,2}", "-", 6},
		{"{1,4}", ":", 3}, {"{1,4}", "-", 3}, {"{1,4}", `\.`, 3},
		{"{5,6}", "-", 2}, {"{5,6}", ":", 2},
		{"{12}", "", 1}, {"{11}", "", 1},
	} {
		group := "([0-9A-Fa-f]" + format.digits + ")"
		formats = append(formats, regexp.MustCompile(
			`\A`+group+strings.Repeat(format.separator+group, format.groups-1)+`\z`))
	}
	return formats
}()

// parseMAC reads an EUI-48 in any of netaddr's forms: six groups with colons or
// hyphens, three with colons, hyphens or dots, two with hyphens or colons, or
// 11 or 12 bare digits.
func parseMAC(s string) (mac uint64, ok bool) {
	if len(s) > len("00:00:00:00:00:00") {
		return 0, false
	}
	for _, format := range macFormats {
		groups := format.FindStringSubmatch(s)
		if groups == nil {
			continue
		}
		groups = groups[1:]
		for _, group := range groups {
			n, err := strconv.ParseUint(group, 16, 64)
			if err != nil {
				return 0, false
			}
			mac = mac<<(48/len(groups)) | n
		}
		return mac, true
	}
	return 0, false
}

func formatMAC(mac uint64) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x",
		byte(mac>>40), byte(mac>>32), byte(mac>>24), byte(mac>>16), byte(mac>>8), byte(mac))
}

const allOnesMAC = 1<<48 - 1

// isUUID tells whether s is a UUID in any of the forms that oslo.utils takes.
func isUUID(v any) bool {
	s, ok := v.(string)
	if !ok || len(s) > 256 {
		return false
	}
	s = strings.ReplaceAll(strings.ReplaceAll(s, "urn:", ""), "uuid:", "")
	s = strings.ReplaceAll(strings.Trim(s, "{}"), "-", "")
	if len(s) != 32 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F')
	})
}
