package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Forms of values that several options share.
var (
	// Address is an IPv4 or IPv6 address without a prefix length.
	Address = &Form{"an IP address", func(text string) error {
		if _, err := netip.ParseAddr(text); err != nil {
			return errors.New("it does not parse")
		}
		return nil
	}}

	// Prefix is a CIDR.
	Prefix = &Form{"a CIDR", func(text string) error {
		if _, err := netip.ParsePrefix(text); err != nil {
			return errors.New("it is not of the form address/length")
		}
		return nil
	}}

	// MAC is an Ethernet address of six octets with colons.
	MAC = &Form{"a MAC address", func(text string) error {
		if m, err := net.ParseMAC(text); err != nil || len(m) != 6 || !strings.Contains(text, ":") {
			return errors.New("it is not of the form fa:16:3e:00:00:00")
		}
		return nil
	}}

	// HostAddress is an IP address or a host name.
	HostAddress = &Form{"an IP address or a host name", func(text string) error {
		if _, err := netip.ParseAddr(text); err == nil {
			return nil
		}
		name := strings.TrimSuffix(text, ".")
		if name == "" || len(name) > 253 {
			return errors.New("it has no name, or more than 253 characters")
		}
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
				strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
				return errors.New("each label has 1 to 63 letters, digits and hyphens")
			}
		}
		return nil
	}}

	// Endpoint is where the feed listens or is found.
	Endpoint = &Form{"unix:/path, http://address:port or https://host:port", func(text string) error {
		u, err := url.Parse(text)
		switch {
		case err != nil:
			return errors.New("it does not parse")
		case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/") && u.Path != "/":
			return nil
		case (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.Port() != "" &&
			(u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.User == nil:
			return nil
		}
		return errors.New("it is none of them")
	}}

	// Mapping is "name:device", as in bridge_mappings.
	Mapping = &Form{"name:device", func(text string) error {
		name, device, ok := strings.Cut(text, ":")
		if !ok || strings.TrimSpace(name) == "" || strings.TrimSpace(device) == "" || strings.Contains(device, ":") {
			return errors.New("it is not two names with a colon between them")
		}
		return nil
	}}
)

// Range is "low:high" with both from min to max.
func numberRange(min, max int) func(string) error {
	return func(text string) error {
		a, b, ok := strings.Cut(text, ":")
		low, err1 := strconv.Atoi(strings.TrimSpace(a))
		high, err2 := strconv.Atoi(strings.TrimSpace(b))
		if !ok || err1 != nil || err2 != nil {
			return errors.New("it is not two numbers with a colon between them")
		}
		if low < min || high > max || low > high {
			return errors.New("the numbers must rise and be from " + strconv.Itoa(min) + " to " + strconv.Itoa(max))
		}
		return nil
	}
}

// Ranges of segmentation identifiers.
var (
	vniRange = &Form{"low:high", numberRange(1, 1<<24-1)}
	greRange = &Form{"low:high", numberRange(1, 1<<32-1)}

	vlanRange = &Form{"physical_network or physical_network:low:high", func(text string) error {
		name, span, ok := strings.Cut(text, ":")
		if strings.TrimSpace(name) == "" {
			return errors.New("the physical network has no name")
		}
		if !ok {
			return nil
		}
		return numberRange(1, 4094)(span)
	}}
)

// numberText is a decimal number from min to max.
func numberText(min, max int) func(string) error {
	return func(text string) error {
		if n, err := strconv.Atoi(text); err != nil || n < min || n > max {
			return errors.New("it is not a number from " + strconv.Itoa(min) + " to " + strconv.Itoa(max))
		}
		return nil
	}
}

func ethertype(text string) error {
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		if n, err := strconv.ParseUint(digits, 16, 16); err == nil && n >= 0x600 {
			return nil
		}
	}
	return errors.New("it is not a number from 0x600 to 0xffff")
}

// rates is a name and so many numbers, each of which may be missing; or the name alone.
func rates(n int) func(string) error {
	return func(text string) error {
		parts := strings.Split(text, ":")
		if len(parts) == 1 {
			return nil
		}
		if len(parts) != n+1 {
			return errors.New("another number of rates is expected")
		}
		for _, part := range parts[1:] {
			if _, err := strconv.ParseUint(part, 10, 63); part != "" && err != nil {
				return errors.New("a rate is no number")
			}
		}
		return nil
	}
}
