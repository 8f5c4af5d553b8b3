package l2ovs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/ovs/ovstest"
)

// station is a port of TestPrivateNetworks with its guest.
type station struct {
	*placed
	name  string
	guest *ovstest.Guest
}

func (s *station) role() role {
	return roleOf(s.port.PvlanType, s.port.PvlanCommunity, s.port.DeviceOwner)
}

// Ports of a private network reach each other as their types say, in whatever
// they send and on whatever hosts they are, and at once when a type changes.
func TestPrivateNetworks(t *testing.T) {
	for _, kind := range []string{"vxlan", "vlan"} {
		t.Run(kind, func(t *testing.T) {
			l := ovstest.NewLab(t)
			wire := func(o *Options) { o.BridgeMappings = map[string]string{"physnet1": "br-ex"} }
			u, physical := l.Underlay("ul"), l.Underlay("phys")
			h1 := newHost(t, l, u, "h1", "172.31.0.1", wire)
			h2 := newHost(t, l, u, "h2", "172.31.0.2", wire)
			physicalBridge(t, h1, physical)
			physicalBridge(t, h2, physical)
			ovstest.Eventually(t, quickly, func() error { _, err := l.Try(h1.s.Netns, "ping", "-c1", "-W1", h2.address); return err })

			c := newCloud()
			network := func(private bool) {
				c.networks["net"] = &feed.Network{Id: "net", AdminStateUp: true, Pvlan: private, DhcpPort: dhcpPort("net"),
					Segment: &feed.Segment{NetworkType: kind, PhysicalNetwork: "physnet1", SegmentationId: 101}}
			}
			network(true)
			c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", -1, -1, -1, ""), rule("ingress", "IPv6", -1, -1, -1, ""))...)
			// Another policy is another way through the flooding.
			c.groups["open2"] = group("open2", c.groups["open"].Rules...)
			const virtual = "00:00:5e:00:01:07"
			var stations []*station
			by := map[string]*station{}
			for n, h := range []*host{h1, h2} {
				for m, r := range []role{{}, {isolated: true}, {community: "a"}, {community: "a"}, {community: "b"}, {isolated: true}} {
					name := fmt.Sprintf("%s%d%d", map[bool]string{true: "i", false: "p" + r.community}[r.isolated], n+1, m)
					address := fmt.Sprintf("10.0.0.%d", 10*(n+1)+m)
					p := c.port(h, name, "net", []string{map[bool]string{true: "open", false: "open2"}[m%2 == 0]}, address)
					p.PvlanType, p.PvlanCommunity = kindOf(r), r.community
					if name == "i25" {
						p.AllowedAddressPairs = []*feed.AddressPair{{IpAddress: "10.0.0.99", MacAddress: virtual}}
					}
					s := &station{name: name}
					stations, by[name] = append(stations, s), s
					s.guest = l.Guest(h.s, "br-int", name, name, p.MacAddress, address+"/24")
				}
			}
			// A router's port is promiscuous, whatever it is called.
			router := c.port(h1, "router", "net", nil, "10.0.0.1")
			router.DeviceOwner, router.PvlanType = "network:router_interface", "isolated"
			s := &station{name: "router"}
			s.guest = l.Guest(h1.s, "br-int", "router", "router", router.MacAddress, "10.0.0.1/24")
			stations, by["router"] = append(stations, s), s
			for i := range c.ports {
				by[c.ports[i].port.Id].placed = &c.ports[i]
			}
			l.Guest(h1.s, "br-int", "dhcp", "dhcp", c.networks["net"].DhcpPort.MacAddress, "10.0.0.254/24")
			c.push(h1, h2)
			for _, s := range stations {
				s.host.expect(s.name, feed.State_STATE_ACTIVE)
				s.guest.Raw()
			}

			// settle waits until the switches have thrown away what they have cached of former flows.
			settle := func() {
				t.Helper()
				for _, h := range []*host{h1, h2} {
					if _, err := h.s.AppCtl(t.Context(), "revalidator/wait"); err != nil {
						t.Fatal(err)
					}
				}
			}
			round := 0
			// heard is the words of the frames that a guest hears, until they are enough.
			heard := func(s *station, within time.Duration, until func(words string) bool) string {
				var words strings.Builder
				_, err := s.guest.Raw().Await(within, func(frame []byte) bool {
					if i := bytes.Index(frame, []byte("<")); i >= 0 {
						if j := bytes.IndexByte(frame[i:], '>'); j > 0 {
							words.Write(frame[i : i+j+1])
						}
					}
					return until(words.String())
				})
				if err != nil && !errors.Is(err, ovstest.ErrQuiet) {
					t.Fatal(err)
				}
				return words.String()
			}
			// matrix checks all pairs; may says who may reach whom.
			matrix := func(name string, may func(from, to *station) bool) {
				t.Helper()
				settle()
				for _, from := range stations {
					round++
					me, mine := from.port.MacAddress, from.port.FixedIps[0].IpAddress
					send := func(dst, to, word string) {
						t.Helper()
						if err := from.guest.Raw().Send(ether(dst, me, 0x0800, ipv4(17, mine, to, udp(1, uint16(1000+round), fmt.Sprintf("<%d %s>", round, word))))); err != nil {
							t.Fatal(err)
						}
					}
					shout := ether("ff:ff:ff:ff:ff:ff", me, 0x0806, append(arp(1, me, mine, "00:00:00:00:00:00", "10.0.0.200"), fmt.Sprintf("<%d arp>", round)...))
					if err := from.guest.Raw().Send(shout); err != nil {
						t.Fatal(err)
					}
					send("ff:ff:ff:ff:ff:ff", "10.0.0.255", "broadcast")
					send("01:00:5e:00:00:fb", "224.0.0.251", "multicast")
					for _, to := range stations {
						send(to.port.MacAddress, to.port.FixedIps[0].IpAddress, "to "+to.name)
					}
					// All hosts have dealt with the frames when those who are to hear have heard all.
					send("ff:ff:ff:ff:ff:ff", "10.0.0.255", "last")
					expected := func(to *station) []string {
						return []string{fmt.Sprintf("<%d arp>", round), fmt.Sprintf("<%d broadcast>", round), fmt.Sprintf("<%d multicast>", round), fmt.Sprintf("<%d to %s>", round, to.name)}
					}
					last := fmt.Sprintf("<%d last>", round)
					words := map[*station]string{}
					for _, s := range stations {
						if s != from && may(from, s) {
							words[s] = heard(s, quickly, func(words string) bool {
								return !slices.ContainsFunc(append(expected(s), last), func(word string) bool { return !strings.Contains(words, word) })
							})
						}
					}
					for _, to := range stations {
						if to == from {
							continue
						}
						all := words[to] + heard(to, time.Millisecond, func(string) bool { return false })
						for _, word := range expected(to) {
							if got := strings.Contains(all, word); got != may(from, to) {
								t.Errorf("%s: from %s to %s, %s: %v", name, from.name, to.name, word, got)
							}
						}
						for _, other := range stations {
							if other != to && strings.Contains(all, fmt.Sprintf("<%d to %s>", round, other.name)) {
								t.Errorf("%s: what %s says to %s is heard by %s", name, from.name, other.name, to.name)
							}
						}
					}
				}
			}
			byRole := func(from, to *station) bool {
				a, b := from.role(), to.role()
				return a == role{} || b == role{} || a.community != "" && a == b
			}
			set := func(name, kind, community string) {
				p := replace(c, by[name].port)
				p.PvlanType, p.PvlanCommunity = kind, community
				by[name].port = p
			}
			matrix("at first", byRole)
			// With ARP and answers.
			ovstest.Eventually(t, quickly, func() error { return by["i11"].guest.Ping(by["p20"].port.FixedIps[0].IpAddress) })
			ovstest.Eventually(t, quickly, func() error { return by["p20"].guest.Ping(by["i11"].port.FixedIps[0].IpAddress) })
			ovstest.Eventually(t, quickly, func() error { return by["pa12"].guest.Ping(by["pa22"].port.FixedIps[0].IpAddress) })
			ovstest.Eventually(t, quickly, func() error { return by["i11"].guest.Ping("10.0.0.254") })
			ovstest.Eventually(t, quickly, func() error { return by["i21"].guest.Ping("10.0.0.1") })
			if by["i11"].guest.Ping(by["i21"].port.FixedIps[0].IpAddress) == nil {
				t.Error("isolated ports reach each other")
			}

			// A second address of an isolated port is isolated as well, as source and once it has been learned.
			i25, p10, i11 := by["i25"], by["p10"], by["i11"]
			if err := i25.guest.Raw().Send(ether("ff:ff:ff:ff:ff:ff", virtual, 0x0806, append(arp(1, virtual, "10.0.0.99", "00:00:00:00:00:00", "10.0.0.200"), "<virtual>"...))); err != nil {
				t.Fatal(err)
			}
			if words := heard(p10, quickly, func(words string) bool { return strings.Contains(words, "<virtual>") }); !strings.Contains(words, "<virtual>") {
				t.Error("the second address of an isolated port does not reach a promiscuous one")
			}
			if words := heard(i11, time.Millisecond, func(string) bool { return false }); strings.Contains(words, "<virtual>") {
				t.Error("the second address of an isolated port reaches another isolated one")
			}
			for _, from := range []*station{by["i21"], i11, p10, by["p20"]} {
				word := "<" + from.name + " to the second>"
				if err := from.guest.Raw().Send(ether(virtual, from.port.MacAddress, 0x0800, ipv4(17, from.port.FixedIps[0].IpAddress, "10.0.0.99", udp(1, 2, word)))); err != nil {
					t.Fatal(err)
				}
			}
			words := ""
			for _, last := range []string{"<p10 to the second>", "<p20 to the second>"} {
				if !strings.Contains(words, last) {
					words += heard(i25, quickly, func(words string) bool { return strings.Contains(words, last) })
				}
			}
			if !strings.Contains(words, "<p10") || !strings.Contains(words, "<p20") || strings.Contains(words, "<i") {
				t.Errorf("to the second address of an isolated port: %s", words)
			}

			// A station that a host has not heard of yet is none that it may trust, unless it can be outside of all hosts.
			table := h1.state.Forwarding["net"]
			h1.state = clone(h1.state)
			without := *table
			without.Entries = mapsClone(table.Entries)
			delete(without.Entries, "p20")
			h1.state.Forwarding["net"] = &without
			h1.all()
			settle()
			p20 := by["p20"]
			if err := p20.guest.Raw().Send(ether("ff:ff:ff:ff:ff:ff", p20.port.MacAddress, 0x0806, append(arp(1, p20.port.MacAddress, "10.0.0.20", "00:00:00:00:00:00", "10.0.0.200"), "<unknown>"...))); err != nil {
				t.Fatal(err)
			}
			if words := heard(p10, quickly, func(words string) bool { return strings.Contains(words, "<unknown>") }); !strings.Contains(words, "<unknown>") {
				t.Error("a station not known yet does not reach a promiscuous port")
			}
			if words := heard(i11, time.Millisecond, func(string) bool { return false }); strings.Contains(words, "<unknown>") != (kind == "vlan") {
				t.Errorf("from a station not known yet, an isolated port heard %q", words)
			}

			set("i11", "community", "a")
			set("pb24", "promiscuous", "")
			set("pa22", "community", "b")
			set("p20", "isolated", "")
			c.push(h1, h2)
			matrix("after changes", byRole)
			network(false)
			c.push(h1, h2)
			matrix("no longer private", func(_, _ *station) bool { return true })
			network(true)
			c.push(h1, h2)
			matrix("private again", byRole)

			before := identities(h1)
			h1.stop()
			h1.start()
			c.push(h1)
			if after := identities(h1); after != before {
				t.Errorf("after a restart:\n%s", difference(after, before))
			}
		})
	}
}
