package l2ovs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isospin/api/feed"
)

// outlet is how frames of a network leave the integration bridge.
type outlet struct {
	ofport  int    // of the patch port; 0: none, the network ends on this host
	tag     int    // VLAN on the other side; 0: untagged
	problem string // why there should be an outlet and is none
}

// localNetwork is a network on this host with all that its flows depend on.
type localNetwork struct {
	network  *feed.Network
	vlan     int
	outlet   outlet
	dhcp     int          // OpenFlow port of this host's DHCP port; 0: not plugged
	members  []*localPort // sorted by port number
	netdev   bool         // the datapath can answer neighbour solicitations
	dhcpMAC  mac
	dhcpIPs  []netip.Addr
	learning bool // some member has addresses that the server does not know
}

// parseDHCP takes over the DHCP port of the network, if it has one.
func (n *localNetwork) parseDHCP() error {
	p := n.network.DhcpPort
	if p == nil {
		n.dhcp = 0
		return nil
	}
	var err error
	if n.dhcpMAC, err = parseMAC(p.MacAddress); err != nil {
		return fmt.Errorf("DHCP port: %w", err)
	}
	for _, ip := range p.FixedIps {
		a, err := netip.ParseAddr(ip.IpAddress)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("DHCP port: address %q is not valid", ip.IpAddress)
		}
		n.dhcpIPs = append(n.dhcpIPs, a)
	}
	return nil
}

// networkFlows renders what the ports of a network have in common.
func networkFlows(n *localNetwork) flows {
	var f flows
	net := fmt.Sprintf("reg6=%#x", n.vlan)
	tags, private := carriesTags(n.network), n.network.Pvlan
	here := plain(net, tags)
	hasDHCP := n.network.DhcpPort != nil && n.dhcpMAC != (mac{})

	if n.outlet.ofport != 0 {
		from := fmt.Sprintf("in_port=%d", n.outlet.ofport)
		load := fmt.Sprintf("set_field:%#x->reg6,set_field:%d->reg9,resubmit(,%d)", n.vlan, originUplink, tableFromUplink)
		to := fmt.Sprintf("output:%d", n.outlet.ofport)
		if n.outlet.tag != 0 {
			f.add(tableClassify, 200, fmt.Sprintf("%s,dl_vlan=%d", from, n.outlet.tag), "pop_vlan,"+load)
			to = fmt.Sprintf("push_vlan:%#x,set_field:%d->vlan_vid,%s", n.tagType(), 0x1000|n.outlet.tag, to)
			if tags {
				doubleTagFlows(&f, net, to)
			}
		} else {
			f.add(tableClassify, 200, from+","+untagged, load)
		}
		f.add(tableOutput, 20, fmt.Sprintf("reg5=%#x,%s", uplink, net), to)
		onward := resubmit(tableLookup)
		if n.learning {
			onward = learn(n.vlan, uplink, fmt.Sprintf("load:%#x->NXM_NX_REG5[0..15]", uplink)) + "," + onward
		}
		if private {
			onward = resubmit(tableSource) + "," + onward
		}
		if n.learning || private {
			f.add(tableFromUplink, 10, net, onward)
		}
	}
	if private {
		privateFlows(&f, net, n.dhcp)
	}
	if hasDHCP {
		// The same MAC and addresses are on every host of the network: they are never seen outside of one.
		for _, match := range []string{"dl_src=" + n.dhcpMAC.String(), "dl_dst=" + n.dhcpMAC.String()} {
			f.add(tableFromUplink, 100, net+","+match, "drop")
			f.add(tableOutput, 30, fmt.Sprintf("reg5=%#x,%s,%s", uplink, net, match), "drop")
		}
		for _, ip := range n.dhcpIPs {
			f.add(tableFromUplink, 100, solicits(net, ip), "drop")
		}
	}
	if hasDHCP && n.dhcp != 0 {
		deliver := fmt.Sprintf("set_field:%#x->reg5,resubmit(,%d)", n.dhcp, tableOutput)
		f.addf(tableClassify, 200, fmt.Sprintf("in_port=%d,%s", n.dhcp, untagged),
			"set_field:%#x->reg6,set_field:%d->reg9,resubmit(,%d)", n.vlan, originDHCP, tableLookup)
		for _, ip := range n.dhcpIPs {
			f.add(tableServices, 90, solicits(here, ip), deliver)
		}
		f.add(tableServices, 90, "udp,"+here+","+broadcast+",tp_src=68,tp_dst=67", deliver)
		f.add(tableServices, 90, "udp6,"+here+",ipv6_dst=ff02::1:2,tp_dst=547", deliver)
		f.add(tableServices, 100, solicits(here, metadataIPv4), arpAnswer(n.dhcpMAC, metadataIPv4))
		if n.netdev {
			f.add(tableServices, 100, solicits(here, metadataIPv6), ndAnswer(n.dhcpMAC))
		} else {
			f.add(tableServices, 100, solicits(here, metadataIPv6), deliver)
		}
		intercept := fmt.Sprintf("set_field:%s->eth_dst,set_field:%#x->reg5,resubmit(,%d)", n.dhcpMAC, n.dhcp, tableDeliver)
		f.add(tableLookup, 100, fmt.Sprintf("tcp,%s,reg9=0,nw_dst=%s,tp_dst=80", here, metadataIPv4), intercept)
		f.add(tableLookup, 100, fmt.Sprintf("tcp6,%s,reg9=0,ipv6_dst=%s,tp_dst=80", here, metadataIPv6), intercept)
		f.addf(tableLookup, 80, fmt.Sprintf("%s,dl_dst=%s", here, n.dhcpMAC), "set_field:%#x->reg5,resubmit(,%d)", n.dhcp, tableDeliver)
	}

	for _, a := range n.audiences() {
		floodFlows(&f, n, net, a)
	}
	out := fmt.Sprintf("set_field:%#x->reg5,resubmit(,%d)", uplink, tableOutput)
	if hasDHCP && n.dhcp != 0 {
		f.addf(tableFloodOrigin, 10, here+",reg9=0", "output:%d,%s", n.dhcp, out)
		if tags {
			f.add(tableFloodOrigin, 10, net+",reg9=0,"+tagged, out)
		}
	} else {
		f.add(tableFloodOrigin, 10, net+",reg9=0", out)
	}
	return f
}

// floodFlows render what is for all of an audience, or for a station that is not known.
func floodFlows(f *flows, n *localNetwork, net string, a audience) {
	var all, unfiltered, open []string
	byPolicy := map[uint32][]string{}
	var policies []uint32
	for _, p := range n.members {
		if !a.includes(p) {
			continue
		}
		to := p.receive()
		all = append(all, to)
		if p.open {
			open = append(open, to)
		}
		if p.policy == nil {
			unfiltered = append(unfiltered, to)
			continue
		}
		number := p.policy.number
		if byPolicy[number] == nil {
			policies = append(policies, number)
		}
		byPolicy[number] = append(byPolicy[number], to)
	}
	slices.Sort(policies)
	// A frame for many is put to the rules once per policy, and copied to its ports if it passes.
	var flood []string
	for _, number := range policies {
		flood = append(flood, fmt.Sprintf("set_field:%#x->reg8,resubmit(,%d)", number, tableIngressBase))
		f.add(tableFloodOut, a.after(10), fmt.Sprintf("%s,reg8=%#x%s", net, number, a.match), strings.Join(byPolicy[number], ","))
	}
	origin := resubmit(tableFloodOrigin)
	f.add(tableFlood, a.after(20), "arp,"+net+a.match, strings.Join(append(all, origin), ","))
	f.add(tableFlood, a.after(10), net+a.match, strings.Join(append(append(flood, unfiltered...), origin), ","))
	// An unknown station is outside, or behind a port that may hold any.
	f.add(tableUnknown, a.after(30), "reg5=0,"+net+a.match, strings.Join(append(open, fmt.Sprintf("set_field:%#x->reg5,resubmit(,%d)", uplink, tableDeliver)), ","))
}

// solicits matches ARP requests or neighbour solicitations for an address.
func solicits(net string, a netip.Addr) string {
	if a.Is4() {
		return fmt.Sprintf("arp,%s,arp_op=1,arp_tpa=%s", net, a)
	}
	return fmt.Sprintf("icmp6,%s,icmp_type=135,icmp_code=0,nd_target=%s", net, a)
}
