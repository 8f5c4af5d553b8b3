package l2ovs

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/ovs/ovstest"
)

// What an instance may claim to be, and what not: every case is a frame that
// passes or does not, seen by a port that is not filtered.
func TestSpoofMatrix(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", nil)
	c := newCloud()
	c.networks["net"] = &feed.Network{Id: "net", Segment: &feed.Segment{NetworkType: "local"}}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""), rule("ingress", "IPv6", -1, -1, -1, ""))...)
	pv := c.port(h, "v", "net", []string{"open"}, "10.0.0.1", "fd00::1")
	const virtual = "00:00:5e:00:01:08"
	pv.AllowedAddressPairs = []*feed.AddressPair{{IpAddress: "10.0.9.0/24"}, {IpAddress: "10.0.8.8", MacAddress: virtual}, {IpAddress: "fd09::/64"}}
	ps := c.port(h, "s", "net", nil, "10.0.0.2", "fd00::2")
	ps.PortSecurityEnabled = false
	po := c.port(h, "o", "net", nil, "10.0.0.7")
	po.DeviceOwner = "network:router_interface"
	pany := c.port(h, "any", "net", []string{"open"}, "10.0.0.11")
	pany.AllowedAddressPairs = []*feed.AddressPair{{IpAddress: "0.0.0.0/0"}, {IpAddress: "::/0"}}
	v := l.Guest(h.s, "br-int", "v", "v", pv.MacAddress)
	s := l.Guest(h.s, "br-int", "s", "s", ps.MacAddress)
	o := l.Guest(h.s, "br-int", "o", "o", po.MacAddress)
	x := l.Guest(h.s, "br-int", "x", "any", pany.MacAddress)
	s.Raw() // hears from now on
	c.push(h)
	h.expect("v", feed.State_STATE_ACTIVE)

	const all, all6 = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
	me, sink, other, zero := pv.MacAddress, ps.MacAddress, "fa:16:3e:00:00:99", "00:00:00:00:00:00"
	mine, _ := parseMAC(me)
	ll := mine.linkLocal().Addr().String()
	node := "fe80::1"
	ip4 := func(dst, src string, p []byte) []byte { return ether(dst, src, 0x0800, p) }
	ip6 := func(dst, src string, p []byte) []byte { return ether(dst, src, 0x86dd, p) }
	nd := func(dst, src, from string, message []byte) []byte {
		return ip6(dst, src, ipv6(58, from, "ff02::1", 2, message))
	}
	udp6 := func(dst, src, from string, sport, dport uint16) []byte {
		return ip6(dst, src, ipv6(17, from, "fd00::2", 6, udp(sport, dport, "x")))
	}
	advertise := func(target string, options ...[]byte) []byte {
		m := icmp6(136, append([][]byte{ip(target)}, options...)...)
		m[4] = 0x20
		return m
	}
	for _, test := range []struct {
		name  string
		from  *ovstest.Guest
		frame []byte
		pass  bool
	}{
		{"own address", v, ip4(sink, me, ipv4(17, "10.0.0.1", "10.0.0.2", udp(1, 2, "a"))), true},
		{"address of another", v, ip4(sink, me, ipv4(17, "10.0.0.3", "10.0.0.2", udp(1, 2, "b"))), false},
		{"own address, MAC of another", v, ip4(sink, other, ipv4(17, "10.0.0.1", "10.0.0.2", udp(1, 2, "c"))), false},
		{"address pair", v, ip4(sink, me, ipv4(17, "10.0.9.77", "10.0.0.2", udp(1, 2, "d"))), true},
		{"beside the address pair", v, ip4(sink, me, ipv4(17, "10.0.10.1", "10.0.0.2", udp(1, 2, "e"))), false},
		{"address pair with its MAC", v, ip4(sink, virtual, ipv4(17, "10.0.8.8", "10.0.0.2", udp(1, 2, "f"))), true},
		{"address pair without its MAC", v, ip4(sink, me, ipv4(17, "10.0.8.8", "10.0.0.2", udp(1, 2, "g"))), false},
		{"own address with a pair's MAC", v, ip4(sink, virtual, ipv4(17, "10.0.0.1", "10.0.0.2", udp(1, 2, "h"))), false},
		{"no address", v, ip4(sink, me, ipv4(17, "0.0.0.0", "10.0.0.2", udp(1, 2, "i"))), false},
		{"multicast", v, ip4("01:00:5e:00:00:fb", me, ipv4(17, "10.0.0.1", "224.0.0.251", udp(5353, 5353, "j"))), true},
		{"multicast of another", v, ip4("01:00:5e:00:00:fb", me, ipv4(17, "10.0.0.3", "224.0.0.251", udp(5353, 5353, "k"))), false},

		{"ARP", v, ether(all, me, 0x0806, arp(1, me, "10.0.0.1", zero, "10.0.0.2")), true},
		{"ARP of a pair", v, ether(all, virtual, 0x0806, arp(1, virtual, "10.0.8.8", zero, "10.0.0.2")), true},
		{"ARP for another", v, ether(all, me, 0x0806, arp(2, me, "10.0.0.254", zero, "10.0.0.2")), false},
		{"ARP naming another's MAC", v, ether(all, me, 0x0806, arp(2, other, "10.0.0.1", zero, "10.0.0.2")), false},
		{"ARP in another's frame", v, ether(all, other, 0x0806, arp(2, me, "10.0.0.1", zero, "10.0.0.2")), false},
		{"ARP of another in another's frame", v, ether(all, other, 0x0806, arp(2, other, "10.0.0.3", zero, "10.0.0.2")), false},
		{"RARP", v, ether(all, me, 0x8035, arp(3, me, "10.0.0.1", zero, "10.0.0.2")), false},

		{"DHCP request", v, ip4(all, me, ipv4(17, "0.0.0.0", "255.255.255.255", udp(68, 67, "discover"))), true},
		{"DHCP request with another's MAC", v, ip4(all, other, ipv4(17, "0.0.0.0", "255.255.255.255", udp(68, 67, "discover2"))), false},
		{"DHCP server", v, ip4(sink, me, ipv4(17, "10.0.0.1", "10.0.0.2", udp(67, 68, "offer"))), false},
		{"DHCP server, broadcast", v, ip4(all, me, ipv4(17, "10.0.0.1", "255.255.255.255", udp(67, 68, "offer2"))), false},
		{"DHCPv6 request", v, udp6("33:33:00:01:00:02", me, ll, 546, 547), true},
		{"DHCPv6 server", v, udp6(sink, me, ll, 547, 546), false},

		{"IPv6", v, udp6(sink, me, "fd00::1", 1, 2), true},
		{"IPv6 pair", v, udp6(sink, me, "fd09::1234", 1, 2), true},
		{"IPv6 of another", v, udp6(sink, me, "fd00::3", 1, 2), false},
		{"IPv6 with another's MAC", v, udp6(sink, other, "fd00::1", 1, 2), false},
		{"IPv6 link-local of another", v, udp6(sink, me, node, 1, 2), false},
		{"solicitation", v, nd(all6, me, "fd00::1", icmp6(135, ip("fd00::2"), llOption(1, me))), true},
		{"solicitation, link-local", v, nd(all6, me, ll, icmp6(135, ip("fd00::2"), llOption(1, me))), true},
		{"solicitation from another", v, nd(all6, me, "fd00::3", icmp6(135, ip("fd00::2"), llOption(1, me))), false},
		{"solicitation naming another's MAC", v, nd(all6, me, "fd00::1", icmp6(135, ip("fd00::2"), llOption(1, other))), false},
		{"duplicate address detection", v, nd(all6, me, "::", icmp6(135, ip("fd00::1"))), true},
		{"duplicate address detection of another's", v, nd(all6, me, "::", icmp6(135, ip("fd00::3"))), false},
		{"advertisement", v, nd(all6, me, "fd00::1", advertise("fd00::1", llOption(2, me))), true},
		{"advertisement without option", v, nd(all6, me, "fd00::1", advertise("fd00::1")), true},
		{"advertisement of another's address", v, nd(all6, me, "fd00::1", advertise("fd00::3", llOption(2, me))), false},
		{"advertisement of another's MAC", v, nd(all6, me, "fd00::1", advertise("fd00::1", llOption(2, other))), false},
		{"advertisement from another", v, nd(all6, me, "fd00::3", advertise("fd00::1", llOption(2, me))), false},
		{"advertisement in another's frame", v, nd(all6, other, "fd00::1", advertise("fd00::1", llOption(2, me))), false},
		{"router solicitation", v, nd(all6, me, ll, icmp6(133)), true},
		{"router advertisement", v, nd(all6, me, ll, icmp6(134, make([]byte, 8))), false},
		{"router advertisement from own address", v, nd(all6, me, "fd00::1", icmp6(134, make([]byte, 8))), false},
		{"listener report", v, nd(all6, me, "::", icmp6(143)), true},
		{"listener report in another's frame", v, nd(all6, other, "::", icmp6(143)), false},

		{"VLAN tag", v, ether(sink, me, 0x8100, append([]byte{0, 5, 8, 0}, ipv4(17, "10.0.0.1", "10.0.0.2", udp(1, 2, "l"))...)), false},
		{"spanning tree", v, ether("01:80:c2:00:00:00", me, 38, append([]byte{0x42, 0x42, 3}, make([]byte, 43)...)), false},
		{"LLDP", v, ether("01:80:c2:00:00:0e", me, 0x88cc, make([]byte, 46)), false},
		{"PPPoE", v, ether(sink, me, 0x8864, make([]byte, 46)), false},
		{"MPLS", v, ether(sink, me, 0x8847, make([]byte, 46)), false},

		{"any address, own MAC", x, ip4(sink, pany.MacAddress, ipv4(17, "192.0.2.1", "10.0.0.2", udp(1, 2, "m"))), true},
		{"any address, ARP", x, ether(all, pany.MacAddress, 0x0806, arp(2, pany.MacAddress, "192.0.2.1", zero, "10.0.0.2")), true},
		{"any IPv6 address", x, udp6(sink, pany.MacAddress, "2001:db8::5", 1, 2), true},
		{"any address, another's MAC", x, ip4(sink, other, ipv4(17, "192.0.2.1", "10.0.0.2", udp(1, 2, "n"))), false},
		{"any address, DHCP server", x, ip4(sink, pany.MacAddress, ipv4(17, "192.0.2.1", "10.0.0.2", udp(67, 68, "o"))), false},
		{"any address, router advertisement", x, nd(all6, pany.MacAddress, node, icmp6(134, make([]byte, 8))), false},

		{"router port sends for others", o, ip4(sink, po.MacAddress, ipv4(17, "192.0.2.9", "10.0.0.2", udp(1, 2, "p"))), true},
		{"router port advertises", o, nd(all6, po.MacAddress, node, icmp6(134, make([]byte, 8))), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			// A frame that passes for sure comes after it: so nobody has to wait for what does not come.
			mark := []byte(fmt.Sprintf("mark %s %d", test.name, time.Now().UnixNano()))
			last := ip4(sink, me, ipv4(17, "10.0.0.1", "10.0.0.2", udp(1000, 1000, string(mark))))
			if test.from != v {
				last = ip4(sink, test.from.MAC, ipv4(17, map[*ovstest.Guest]string{x: "10.0.0.11", o: "10.0.0.7"}[test.from], "10.0.0.2", udp(1000, 1000, string(mark))))
			}
			for _, frame := range [][]byte{test.frame, last} {
				if err := test.from.Raw().Send(frame); err != nil {
					t.Fatal(err)
				}
			}
			seen := false
			_, err := s.Raw().Await(2*time.Second, func(frame []byte) bool {
				seen = seen || bytes.HasPrefix(frame, test.frame)
				return bytes.Contains(frame, mark)
			})
			if err != nil {
				t.Fatalf("the frame after it: %v", err)
			}
			if seen != test.pass {
				t.Errorf("passed: %v, want %v", seen, test.pass)
			}
		})
	}
}
