package l2ovs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isospin/api/feed"
)

// A local IP is an address that stands, on this host and network alone, for a
// port of this host. What guests send to it is turned towards the port after
// anti-spoofing and before the rules, which hence see the port's own address;
// the port's answers get the local IP as their source when the rules have let
// them pass, right before they are handed over. Between the two, connections
// are remembered in a zone of their own.

// localZone is the zone of translated connections of a network, beside its own.
func localZone(vlan int) int { return 0x2000 | vlan }

// localIP is one local IP of a port.
type localIP struct {
	vlan           int
	address, fixed netip.Addr
	mac            mac
	ofport         int
	passthrough    bool
	tags           bool // the network carries its guests' VLAN tags
}

// localIPsOf reads the local IPs of a port. Those whose address the port does
// not have any more are left out.
func localIPsOf(p *localPort, port *feed.Port) []localIP {
	var list []localIP
	for _, l := range port.LocalIps {
		address, err := netip.ParseAddr(l.LocalIpAddress)
		fixed, err2 := netip.ParseAddr(l.FixedIpAddress)
		if err != nil || err2 != nil || !address.Is4() || !fixed.Is4() || address == fixed {
			continue
		}
		if !slices.ContainsFunc(port.FixedIps, func(f *feed.FixedIP) bool { return f.IpAddress == l.FixedIpAddress }) {
			continue
		}
		list = append(list, localIP{vlan: p.vlan, address: address, fixed: fixed, mac: p.addressing.mac, ofport: p.ofport, passthrough: l.IpMode == "passthrough", tags: p.tags})
	}
	return list
}

// planLocalIPs renders the local IPs of this host. When several ports of one
// network have the same, it is the first's by id.
func (p *planner) planLocalIPs() {
	type place struct {
		vlan    int
		address netip.Addr
	}
	holders := map[place]string{}
	all := map[place]localIP{}
	for id, lp := range p.local {
		if len(lp.port.LocalIps) == 0 {
			continue
		}
		for _, l := range localIPsOf(lp.member, lp.port) {
			at := place{l.vlan, l.address}
			if holder, ok := holders[at]; !ok || id < holder {
				holders[at], all[at] = id, l
			}
		}
	}
	if len(all) == 0 {
		p.integration.Put("local-ip", nil)
		return
	}
	list := make([]localIP, 0, len(all))
	for _, l := range all {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b localIP) int {
		if a.vlan != b.vlan {
			return a.vlan - b.vlan
		}
		return a.address.Compare(b.address)
	})
	p.integration.Put("local-ip", localIPFlows(list))
}

// localIPFlows renders sorted local IPs.
func localIPFlows(list []localIP) flows {
	var f flows
	// On with what is translated, as services would have sent it on.
	f.add(tableLocalIP, 10, "reg7=0", "ct_clear,"+resubmit(tableLookup))
	f.add(tableLocalIP, 1, "", "ct_clear,"+resubmit(tableEgressTrack))
	answers := map[string]bool{}
	for _, l := range list {
		net := plain(fmt.Sprintf("reg6=%#x", l.vlan), l.tags)
		to := fmt.Sprintf("ip,%s,nw_dst=%s", net, l.address)
		// The port itself reaches whoever else has the address.
		own := fmt.Sprintf("in_port=%d,", l.ofport)
		f.add(tableServices, 85, own+solicits(net, l.address), resubmit(tableLookup))
		f.add(tableServices, 65, strings.Replace(to, "ip,", "ip,"+own, 1), resubmit(tableLocalIP))
		f.add(tableServices, 80, solicits(net, l.address), arpAnswer(l.mac, l.address))
		if l.passthrough {
			f.addf(tableServices, 60, to, "set_field:%s->eth_dst,resubmit(,%d)", l.mac, tableLocalIP)
			continue
		}
		f.addf(tableServices, 60, to, "set_field:%s->eth_dst,ct(commit,table=%d,zone=%d,nat(dst=%s))", l.mac, tableLocalIP, localZone(l.vlan), l.fixed)
		from := fmt.Sprintf("ip,%s,reg3=0,dl_src=%s,nw_src=%s", net, l.mac, l.fixed)
		if !answers[from] { // a port may have several
			answers[from] = true
			f.addf(tableOutput, 15, from, "set_field:1->reg3,ct(table=%d,zone=%d,nat)", tableOutput, localZone(l.vlan))
		}
	}
	return f
}
