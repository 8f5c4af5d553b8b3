package l2ovs

import (
	"crypto/sha1"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"isospin/api/feed"
)

// tunnel is a port of br-tun towards one endpoint.
type tunnel struct {
	kind   string // vxlan, gre, geneve
	remote netip.Addr
}

// name is the one that Neutron's agent gives: operators know it, and a tunnel
// that is there already is taken over.
func (t tunnel) name() string {
	if t.remote.Is4() {
		b := t.remote.As4()
		return t.kind + "-" + hex.EncodeToString(b[:])
	}
	sum := sha1.Sum([]byte(t.remote.String()))
	name := t.kind + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))
	return name[:15] // the limit of device names
}

// Outer says how the outer packets of tunnels look. The zero value fragments
// them where that is needed.
type Outer struct {
	VXLANPort    int  // optional: UDP port, if not 4789
	DontFragment bool // optional
	Checksum     bool // optional: in the UDP or GRE header
	DSCP         int  // optional: 1 to 63
	InheritDSCP  bool // optional: from the inner packet; wins over DSCP
}

func (t tunnel) options(local netip.Addr, outer Outer) map[string]string {
	o := map[string]string{
		"remote_ip": t.remote.String(), "local_ip": local.String(),
		"in_key": "flow", "out_key": "flow", "df_default": strconv.FormatBool(outer.DontFragment), "egress_pkt_mark": "0",
	}
	if outer.VXLANPort != 0 && outer.VXLANPort != 4789 && t.kind == "vxlan" {
		o["dst_port"] = strconv.Itoa(outer.VXLANPort)
	}
	if outer.Checksum {
		o["csum"] = "true"
	}
	if outer.InheritDSCP {
		o["tos"] = "inherit"
	} else if outer.DSCP != 0 {
		o["tos"] = strconv.Itoa(outer.DSCP << 2)
	}
	return o
}

func tunnelTable(kind string) (uint8, bool) {
	t, ok := map[string]uint8{"vxlan": tableFromVXLAN, "gre": tableFromGRE, "geneve": tableFromGeneve}[kind]
	return t, ok
}

// tunnelPortFlows is what br-tun holds for a tunnel port.
func tunnelPortFlows(t tunnel, ofport int) flows {
	var f flows
	if table, ok := tunnelTable(t.kind); ok {
		f.add(tableClassify, 200, fmt.Sprintf("in_port=%d", ofport), resubmit(int(table)))
	}
	return f
}

// tunnelNetworkFlows is what br-tun holds for a network: the way in, and
// flooding to the endpoints that have ports on it, sorted.
func tunnelNetworkFlows(n *localNetwork, patchInt int, endpoints []int) flows {
	var f flows
	segment := n.network.Segment
	table, ok := tunnelTable(segment.NetworkType)
	if !ok {
		return nil
	}
	f.addf(table, 10, fmt.Sprintf("tun_id=%#x", segment.SegmentationId), "push_vlan:0x8100,set_field:%d->vlan_vid,output:%d", 0x1000|n.vlan, patchInt)
	if len(endpoints) > 0 {
		outputs := make([]string, len(endpoints))
		for i, p := range endpoints {
			outputs[i] = fmt.Sprintf("output:%d", p)
		}
		f.addf(tableTunnelFlood, 10, fmt.Sprintf("dl_vlan=%d", n.vlan), "pop_vlan,set_field:%#x->tun_id,%s", segment.SegmentationId, strings.Join(outputs, ","))
	}
	return f
}

// remotePort is a forwarding entry, parsed.
type remotePort struct {
	mac       mac
	addresses []netip.Addr
	endpoint  netip.Addr
	role      role // where ports are kept apart
}

// parseRemote takes a forwarding entry that leads through a tunnel; others
// yield nil.
func parseRemote(e *feed.ForwardingEntry) (*remotePort, error) {
	if e.TunnelIp == "" {
		return nil, nil
	}
	r := &remotePort{role: roleOf(e.PvlanType, e.PvlanCommunity, e.DeviceOwner)}
	var err error
	if r.mac, err = parseMAC(e.MacAddress); err != nil {
		return nil, err
	}
	if r.endpoint, err = netip.ParseAddr(e.TunnelIp); err != nil || r.endpoint.Is4In6() || r.endpoint.IsUnspecified() || r.endpoint.IsMulticast() {
		return nil, fmt.Errorf("tunnel endpoint %q is not valid", e.TunnelIp)
	}
	for _, s := range e.IpAddresses {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return nil, fmt.Errorf("address %q is not valid", s)
		}
		r.addresses = append(r.addresses, a)
	}
	return r, nil
}

// remotePortFlows is what br-tun holds for a port of another host.
func remotePortFlows(r *remotePort, n *localNetwork, ofport int, answersND bool) flows {
	var f flows
	net := fmt.Sprintf("dl_vlan=%d", n.vlan)
	f.addf(tableUnicast, 10, fmt.Sprintf("%s,dl_dst=%s", net, r.mac), "pop_vlan,set_field:%#x->tun_id,output:%d", n.network.Segment.SegmentationId, ofport)
	if carriesTags(n.network) || n.network.Pvlan && r.role != (role{}) {
		return f // who asks in a guest's VLAN, or is not to know, would be answered too
	}
	for _, a := range r.addresses {
		match := solicits(net, a)
		if a.Is4() {
			f.add(tableAnswer, 10, match, arpAnswer(r.mac, a))
			continue
		}
		if answersND {
			f.add(tableAnswer, 10, match, ndAnswer(r.mac))
			// Who looks for a duplicate has no address to be answered at.
			f.add(tableAnswer, 20, match+",ipv6_src=::", resubmit(tableTunnelFlood))
		}
	}
	return f
}
