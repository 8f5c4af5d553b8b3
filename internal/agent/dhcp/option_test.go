package dhcp

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestEncodingOfExtraOptions(t *testing.T) {
	for _, c := range []struct {
		name, value string
		version     int
		code        uint16
		want        string // hexadecimal; "!text" is an error that has the text
	}{
		{"bootfile-name", "pxelinux.0", 4, 67, "7078656c696e75782e30"},
		{"67", "pxelinux.0", 4, 67, "7078656c696e75782e30"},
		{"tftp-server", "10.0.0.9", 4, 66, "31302e302e302e39"},
		{"server-ip-address", "10.0.0.9", 4, 255, "0a000009"},
		{"server-ip-address", "10.0.0.9,10.0.0.8", 4, 255, "!not an IPv4 address"},
		{"router", "10.0.0.254", 4, 3, "0a0000fe"},
		{"mtu", "1400", 4, 26, "0578"},
		{"26", "0x578", 4, 26, "0578"},
		{"mtu", "70000", 4, 26, "!not a number of 16 bits"},
		{"dns-server", "8.8.8.8, 8.8.4.4", 4, 6, "0808080808080404"},
		{"dns-server", "2001:db8::1", 4, 6, "!not an IPv4 address"},
		{"ntp-server", "10.0.0.7", 4, 42, "0a000007"},
		{"150", "10.0.0.9", 4, 150, "0a000009"},
		{"time-offset", "-3600", 4, 2, "fffff1f0"},
		{"lease-time", "12h", 4, 51, "0000a8c0"},
		{"lease-time", "infinite", 4, 51, "ffffffff"},
		{"domain-search", "a.example,b", 4, 119, "0161076578616d706c6500016200"},
		{"domain-search", "a..b", 4, 119, "!not a domain name"},
		{"classless-static-route", "10.1.0.0/16,10.0.0.2,0.0.0.0/0,10.0.0.1", 4, 121, "100a010a000002000a000001"},
		{"classless-static-route", "10.1.0.5,10.0.0.2,default,0.0.0.0", 4, 121, "200a0100050a0000020000000000"},
		{"classless-static-route", "10.1.0.0/16", 4, 121, "!no next hop"},
		{"vendor-encap", "01:04:ff", 4, 43, "0104ff"},
		{"200", "10.0.0.1,10.0.0.2", 4, 200, "0a0000010a000002"},
		{"200", "300", 4, 200, "012c"},
		{"200", "\"300\"", 4, 200, "333030"},
		{"200", "http://10.0.0.1/x", 4, 200, hex.EncodeToString([]byte("http://10.0.0.1/x"))},
		{"tag:ipxe,67", "http://10.0.0.1/x", 4, 67, hex.EncodeToString([]byte("http://10.0.0.1/x"))},
		{"tag:!ipxe,bootfile-name", "a", 4, 67, "61"},
		{"tag:bios,bootfile-name", "a", 4, 67, "!no client has the tag"},
		{"tag:ipxe", "a", 4, 67, "!no option after the tag"},
		{"53", "5", 4, 53, "!only the server"},
		{"server-identifier", "10.0.0.1", 4, 54, "!only the server"},
		{"0", "1", 4, 0, "!the number"},
		{"255", "1", 4, 0, "!the number"},
		{"no-such-option", "1", 4, 0, "!not known"},
		{"bootfile-name", "x\ndhcp-script=/bin/sh", 4, 67, "!control character"},
		{"bootfile-name\ndhcp-script=/bin/sh", "x", 4, 67, "!not known"},

		{"dns-server", "2001:db8::1,[2001:db8::2]", 6, 23, "20010db800000000000000000000000120010db8000000000000000000000002"},
		{"23", "10.0.0.1", 6, 23, "!not an IPv6 address"},
		{"domain-search", "example", 6, 24, "076578616d706c6500"},
		{"bootfile-url", "tftp://[2001:db8::1]/x", 6, 59, hex.EncodeToString([]byte("tftp://[2001:db8::1]/x"))},
		{"59", "a", 6, 59, "61"},
		{"bootfile-param", "a,bc", 6, 60, "00016100026263"},
		{"ntp-server", "2001:db8::1,ff05::101,t.example", 6, 56,
			"0001001020010db8000000000000000000000001" + "00020010ff050000000000000000000000000101" + "0003000b" + "0174076578616d706c6500"},
		{"information-refresh-time", "1h", 6, 32, "00000e10"},
		{"client-id", "1", 6, 1, "!only the server"},
	} {
		o, err := parseExtraOption(c.name, c.value, c.version)
		if text, wantError := strings.CutPrefix(c.want, "!"); wantError {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%q=%q: error %v, want one with %q", c.name, c.value, err, text)
			}
			continue
		}
		if err != nil || o.code != c.code || hex.EncodeToString(o.value) != c.want {
			t.Errorf("%q=%q: %d=%x, %v; want %d=%s", c.name, c.value, o.code, o.value, err, c.code, c.want)
		}
	}
	if o, err := parseExtraOption("router", "", 4); err != nil || !o.absent {
		t.Errorf("an empty router is %+v, %v", o, err)
	}
}

func FuzzExtraOption(f *testing.F) {
	f.Add("bootfile-name", "pxelinux.0", 4)
	f.Add("tag:!ipxe,121", "10.0.0.0/8,10.0.0.1", 4)
	f.Add("56", "ff02::1,a", 6)
	f.Fuzz(func(t *testing.T, name, value string, version int) {
		o, err := parseExtraOption(name, value, version)
		if err == nil && len(o.value) > 4*len(value)+16 {
			t.Fatalf("%d bytes of a value of %d", len(o.value), len(value))
		}
	})
}
