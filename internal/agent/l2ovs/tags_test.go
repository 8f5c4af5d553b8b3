package l2ovs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
	"isospin/internal/ovs/ovstest"
)

// What a network's flows are with its guests' tags, or with its ports kept
// apart, beside what they are without: nothing else changes.
func TestGoldenOfNetworks(t *testing.T) {
	base, f := example()
	for name, change := range map[string]func(tenant, provider *feed.Network){
		"vlan-transparent": func(tenant, provider *feed.Network) { tenant.VlanTransparent, provider.VlanTransparent = true, true },
		"qinq":             func(_, provider *feed.Network) { provider.Qinq = true },
		"pvlan":            func(tenant, provider *feed.Network) { tenant.Pvlan, provider.Pvlan = true, true },
	} {
		want := clone(base)
		// On a private network, the ports have roles; on another they mean nothing.
		for id, r := range map[string]role{"vm": {isolated: true}, "vm2": {community: "blue"}, "open": {community: "red"}} {
			want.Ports[id] = proto.CloneOf(base.Ports[id])
			want.Ports[id].PvlanType, want.Ports[id].PvlanCommunity = kindOf(r), r.community
		}
		table := *base.Forwarding["tenant"]
		table.Entries = mapsClone(table.Entries)
		far := proto.CloneOf(table.Entries["far"])
		far.PvlanType, far.PvlanCommunity, far.FurtherMacAddresses = "community", "green", []string{"00:00:5e:00:01:07"}
		table.Entries["far"], want.Forwarding["tenant"] = far, &table
		without := planned(want, f)
		if name != "pvlan" {
			if got, want := text(without.integration), text(planned(base, f).integration); got != want {
				t.Errorf("roles of ports mean something on a network whose ports are not kept apart:\n%s", difference(got, want))
			}
		}
		tenant, provider := proto.CloneOf(base.Networks["tenant"]), proto.CloneOf(base.Networks["provider"])
		change(tenant, provider)
		want.Networks["tenant"], want.Networks["provider"] = tenant, provider
		with := planned(want, f)
		golden(t, name+".flows", "br-int\n"+difference(text(with.integration), text(without.integration))+
			"br-tun\n"+difference(text(with.tunnels), text(without.tunnels)))
		parses(t, text(with.integration))
		parses(t, text(with.tunnels))
	}
}

func kindOf(r role) string {
	switch {
	case r.isolated:
		return "isolated"
	case r.community != "":
		return "community"
	}
	return "promiscuous"
}

// physicalBridge gives a host a bridge br-ex that is wired to a network.
func physicalBridge(t *testing.T, h *host, u *ovstest.Underlay) {
	t.Helper()
	u.Attach(h.s.Netns, "nic0")
	if _, err := h.s.VSCtl(t.Context(), "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev", "--", "add-port", "br-ex", "nic0"); err != nil {
		t.Fatal(err)
	}
}

// inTags puts tags into a frame, the outermost first: their EtherType and their content.
func inTags(frame []byte, tags ...[2]uint16) []byte {
	b := append([]byte{}, frame[:12]...)
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, tag[0]), tag[1])
	}
	return append(b, frame[12:]...)
}

// Tags of guests pass a network that carries them, on one host and between
// hosts, in tunnels and inside the network's own tag; they lead nowhere else.
// What is inside is filtered as what has none.
func TestGuestTags(t *testing.T) {
	l := ovstest.NewLab(t)
	u, physical := l.Underlay("ul"), l.Underlay("phys")
	wire := func(o *Options) {
		o.BridgeMappings = map[string]string{"physnet1": "br-ex"}
		o.TunnelTypes = []string{"vxlan", "gre", "geneve"}
	}
	h1 := newHost(t, l, u, "h1", "172.31.0.1", wire)
	h2 := newHost(t, l, u, "h2", "172.31.0.2", wire)
	physicalBridge(t, h1, physical)
	physicalBridge(t, h2, physical)
	ovstest.Eventually(t, quickly, func() error { _, err := l.Try(h1.s.Netns, "ping", "-c1", "-W1", h2.address); return err })
	outside := l.Namespace("out")
	physical.Attach(outside, "eth0")
	outer, err := ovstest.OpenRaw(outside, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		network  string
		from, to *feed.Port // filtered
		bare     *feed.Port // on the host of to, not filtered
		a, b, c  *ovstest.Guest
	}
	c := newCloud()
	c.groups["g"] = group("g", append(egressAll(), rule("ingress", "IPv4", 17, 2000, 2000, ""), rule("ingress", "IPv4", 1, -1, -1, ""))...)
	var places []*place
	for n, network := range []*feed.Network{
		{Id: "local", VlanTransparent: true, Segment: &feed.Segment{NetworkType: "local"}},
		{Id: "vxlan", VlanTransparent: true, Segment: &feed.Segment{NetworkType: "vxlan", SegmentationId: 501}},
		{Id: "gre", VlanTransparent: true, Segment: &feed.Segment{NetworkType: "gre", SegmentationId: 502}},
		{Id: "geneve", VlanTransparent: true, Segment: &feed.Segment{NetworkType: "geneve", SegmentationId: 503}},
		{Id: "vlan", VlanTransparent: true, Segment: &feed.Segment{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationId: 101}},
		{Id: "qinq", Qinq: true, Segment: &feed.Segment{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationId: 102}},
		{Id: "flat", VlanTransparent: true, Segment: &feed.Segment{NetworkType: "flat", PhysicalNetwork: "physnet1"}},
		{Id: "normal", Segment: &feed.Segment{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationId: 103}},
	} {
		network.AdminStateUp = true
		c.networks[network.Id] = network
		far := h2
		if network.Id == "local" {
			far = h1
		}
		address := func(last int) string { return fmt.Sprintf("10.%d.0.%d", n, last) }
		p := &place{network: network.Id}
		p.from = c.port(h1, "a-"+network.Id, network.Id, []string{"g"}, address(1))
		p.to = c.port(far, "b-"+network.Id, network.Id, []string{"g"}, address(2))
		p.bare = c.port(far, "c-"+network.Id, network.Id, nil, address(3))
		p.bare.PortSecurityEnabled = false
		p.a = l.Guest(h1.s, "br-int", "a-"+network.Id, p.from.Id, p.from.MacAddress, address(1)+"/24")
		p.b = l.Guest(far.s, "br-int", "b-"+network.Id, p.to.Id, p.to.MacAddress, address(2)+"/24")
		p.c = l.Guest(far.s, "br-int", "c-"+network.Id, p.bare.Id, p.bare.MacAddress, address(3)+"/24")
		places = append(places, p)
	}
	c.push(h1, h2)
	for _, p := range places {
		h1.expect(p.from.Id, feed.State_STATE_ACTIVE)
		ovstest.Eventually(t, quickly, func() error { return p.a.Ping(p.to.FixedIps[0].IpAddress) })
		ovstest.Eventually(t, quickly, func() error { return p.a.Ping(p.bare.FixedIps[0].IpAddress) })
	}
	const all, zero, stranger = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "fa:16:3e:77:77:77"
	const tag = 3<<13 | 5 // with a priority, which is to be kept
	guestTag := [2]uint16{customerTag, tag}
	// The VLANs of other networks, on the wire and on br-int.
	abroad := [][2]uint16{{customerTag, 103}, {customerTag, uint16(h1.f.vlans["normal"])}, {customerTag, uint16(h2.f.vlans["normal"])}}
	marks := 0
	// arrives sends a frame, and one after it that passes for sure, and tells whether the first arrived too.
	arrives := func(p *place, from, to *ovstest.Guest, last []byte, frame []byte) bool {
		t.Helper()
		marks++
		mark := fmt.Sprintf("mark %d.", marks)
		last = append(append([]byte{}, last...), mark...)
		seen := false
		to.Raw()
		if err := from.Raw().Send(frame); err != nil {
			t.Fatal(err)
		}
		if err := from.Raw().Send(last); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Raw().Await(quickly, func(got []byte) bool {
			seen = seen || bytes.HasPrefix(got, frame)
			if !bytes.HasPrefix(got, frame) && len(frame) > 60 && bytes.Contains(got, frame[len(frame)-16:]) && bytes.Contains(frame, []byte("double")) {
				t.Errorf("%s: %x arrives as %x", p.network, frame, got)
			}
			return bytes.Contains(got, []byte(mark))
		}); err != nil {
			t.Fatalf("%s: the frame after it: %v", p.network, err)
		}
		return seen
	}
	for _, p := range places {
		carries := p.network != "normal" && p.network != "flat"
		me, you, bare := p.from.MacAddress, p.to.MacAddress, p.bare.MacAddress
		mine, yours, bares := p.from.FixedIps[0].IpAddress, p.to.FixedIps[0].IpAddress, p.bare.FixedIps[0].IpAddress
		last := func(dst, to string) []byte { return ether(dst, me, 0x0800, ipv4(17, mine, to, udp(9, 2000, ""))) }
		for _, test := range []struct {
			name  string
			to    *ovstest.Guest
			frame []byte
			want  bool
		}{
			{"allowed", p.b, inTags(ether(you, me, 0x0800, ipv4(17, mine, yours, udp(1000, 2000, "tagged, and allowed"))), guestTag), carries},
			{"not allowed", p.b, inTags(ether(you, me, 0x0800, ipv4(17, mine, yours, udp(1000, 2001, "tagged, not allowed"))), guestTag), false},
			{"not filtered there", p.c, inTags(ether(bare, me, 0x0800, ipv4(17, mine, bares, udp(1000, 2001, "tagged, not filtered"))), guestTag), carries},
			{"address of another", p.c, inTags(ether(bare, me, 0x0800, ipv4(17, "10.9.9.9", bares, udp(1000, 2000, "tagged, not mine"))), guestTag), false},
			{"MAC of another", p.c, inTags(ether(bare, stranger, 0x0800, ipv4(17, mine, bares, udp(1000, 2000, "tagged, stranger"))), guestTag), false},
			{"ARP", p.b, inTags(ether(all, me, 0x0806, arp(1, me, mine, zero, yours)), guestTag), carries},
			{"ARP of another", p.b, inTags(ether(all, me, 0x0806, arp(1, me, "10.9.9.9", zero, yours)), guestTag), false},
			{"priority alone", p.b, inTags(ether(you, me, 0x0800, ipv4(17, mine, yours, udp(1000, 2000, "priority"))), [2]uint16{customerTag, 3 << 13}), carries},
			{"IPv6 multicast of another", p.c, inTags(ether("33:33:00:00:00:fb", me, 0x86dd, ipv6(17, "fe80::7", "ff02::fb", 6, udp(1, 2, "not mine"))), guestTag), false},
		} {
			target := map[*ovstest.Guest][2]string{p.b: {you, yours}, p.c: {bare, bares}}[test.to]
			if got := arrives(p, p.a, test.to, last(target[0], target[1]), test.frame); got != test.want {
				t.Errorf("%s: %s: arrives: %v, want %v", p.network, test.name, got, test.want)
			}
		}
		if carries {
			// An answer needs no rule; another frame from there does.
			back := ether(me, you, 0x0800, ipv4(17, yours, mine, udp(9, 2000, "")))
			if !arrives(p, p.b, p.a, back, inTags(ether(me, you, 0x0800, ipv4(17, yours, mine, udp(2000, 1000, "an answer"))), guestTag)) {
				t.Errorf("%s: the answer does not arrive", p.network)
			}
			if arrives(p, p.b, p.a, back, inTags(ether(me, you, 0x0800, ipv4(17, yours, mine, udp(2000, 1001, "no answer"))), guestTag)) {
				t.Errorf("%s: what answers nothing arrives", p.network)
			}
			// A port that is not filtered bridges whatever is behind it, and is found there again.
			if !arrives(p, p.c, p.a, ether(me, bare, 0x0800, ipv4(17, bares, mine, udp(9, 2000, ""))), inTags(ether(all, stranger, 0x0806, arp(1, stranger, "192.0.2.1", zero, "192.0.2.2")), guestTag)) {
				t.Errorf("%s: what is behind a port that is not filtered does not arrive", p.network)
			}
			if !arrives(p, p.a, p.c, last(bare, bares), inTags(ether(stranger, me, 0x0800, ipv4(17, mine, "192.0.2.1", udp(1, 1, "to the stranger"))), guestTag)) {
				t.Errorf("%s: what is behind a port that is not filtered is not found", p.network)
			}
			// Two tags: between hosts they do not pass, and never with one of them lost.
			double := inTags(ether(bare, me, 0x0800, ipv4(17, mine, bares, udp(1, 1, "with double tags"))), [2]uint16{customerTag, 7}, guestTag)
			if got := arrives(p, p.a, p.c, last(bare, bares), double); got != (p.network == "local") {
				t.Errorf("%s: with two tags: arrives: %v", p.network, got)
			}
		}
		// The tag of another network is none here.
		normal := places[len(places)-1]
		if p != normal {
			for _, tag := range abroad {
				frame := inTags(ether(all, me, 0x0806, arp(1, me, mine, zero, yours)), tag)
				if err := p.a.Raw().Send(frame); err != nil {
					t.Fatal(err)
				}
			}
			heard := false
			after := ether(normal.bare.MacAddress, normal.from.MacAddress, 0x0800, ipv4(17, normal.from.FixedIps[0].IpAddress, normal.bare.FixedIps[0].IpAddress, udp(1, 1, "after "+p.network)))
			normal.c.Raw()
			// What the first has sent has been through when a frame of the same guest has.
			if !arrives(p, p.a, p.b, last(you, yours), ether(you, me, 0x0800, ipv4(17, mine, yours, udp(1, 2000, "through")))) {
				t.Errorf("%s: nothing passes", p.network)
			}
			if err := normal.a.Raw().Send(after); err != nil {
				t.Fatal(err)
			}
			if _, err := normal.c.Raw().Await(quickly, func(got []byte) bool {
				heard = heard || bytes.Contains(got, hw(me))
				return bytes.Contains(got, []byte("after "+p.network))
			}); err != nil || heard {
				t.Errorf("%s: a tag leads into another network: %v, %v", p.network, heard, err)
			}
		}
	}

	// On the wire, the network's tag is around the guest's, and of its kind.
	for _, w := range []struct {
		network string
		tag     [2]uint16
	}{{"vlan", [2]uint16{customerTag, 101}}, {"qinq", [2]uint16{0x88a8, 102}}} {
		var p *place
		for _, candidate := range places {
			if candidate.network == w.network {
				p = candidate
			}
		}
		me, mine := p.from.MacAddress, p.from.FixedIps[0].IpAddress
		for _, tags := range [][][2]uint16{{}, {guestTag}} {
			frame := ether(all, me, 0x0806, arp(1, me, mine, zero, "10.0.0.200"))
			if err := p.a.Raw().Send(inTags(frame, tags...)); err != nil {
				t.Fatal(err)
			}
			want := inTags(frame, append([][2]uint16{w.tag}, tags...)...)
			var seen [][]byte
			if _, err := outer.Await(5*time.Second, func(got []byte) bool {
				if bytes.Contains(got, frame[14:]) {
					seen = append(seen, append([]byte{}, got...))
				}
				return bytes.HasPrefix(got, want)
			}); err != nil {
				t.Errorf("%s: on the wire is not %x but %x", w.network, want, seen)
			}
		}
		inside := ether(p.bare.MacAddress, stranger, 0x0800, ipv4(17, "192.0.2.7", p.bare.FixedIps[0].IpAddress, udp(1, 1, "from outside")))
		p.c.Raw()
		if err := outer.Send(inTags(inside, w.tag, guestTag)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.c.Raw().Await(5*time.Second, func(got []byte) bool { return bytes.HasPrefix(got, inTags(inside, guestTag)) }); err != nil {
			t.Errorf("%s: from outside: %v", w.network, err)
		}
	}
	// A new agent changes nothing.
	before := identities(h1)
	h1.stop()
	h1.start()
	c.push(h1)
	if after := identities(h1); after != before {
		t.Errorf("after a restart:\n%s", difference(after, before))
	}
}
