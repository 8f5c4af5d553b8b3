package l2ovs

import (
	"fmt"
	"net/netip"

	"isospin/internal/ovs/openflow"
)

// Tables of br-int.
const (
	tableClassify        = 0
	tableEgressPackets   = 100
	tableFromUplink      = 105
	tableSource          = 106
	tableSpoof           = 110
	tableSpoofIPv6       = 111
	tableLearn           = 115
	tableServices        = 120
	tableSolicitations   = 121 // of br-int and br-tun: neighbour solicitations made advertisements
	tableLocalIP         = 122
	tableEgressTrack     = 130
	tableEgressState     = 131
	tableEgressRules     = 132
	tableEgressAccepted  = 133
	tableEgressDropped   = 134
	tableLookup          = 140
	tableLearned         = 141
	tableUnknown         = 142
	tableFlood           = 150
	tableFloodOrigin     = 151
	tableIngressBase     = 160
	tableIngressState    = 161
	tableIngressRules    = 162
	tableIngressAccepted = 163
	tableIngressDropped  = 164
	tableDeliver         = 170
	tableFloodOut        = 171
	tableOutput          = 175
	tableIngressLimit    = 176
	tableIngressPackets  = 177
	tablePrivate         = 178
	tableTagged          = 179
)

// Tables of br-tun.
const (
	tableFromIntegration = 100
	tableFromVXLAN       = 101
	tableFromGRE         = 102
	tableFromGeneve      = 103
	tableUnicast         = 110
	tableAnswer          = 120
	tableTunnelFlood     = 130
)

// Registers of br-int:
//
//	reg3   1: an answer that has been put to the connections of local IPs
//	reg4   1: the port may hear the source, where ports are kept apart
//	reg5   OpenFlow port to deliver to; 0: flooding or not known yet; 0xffff: the uplink
//	reg6   local VLAN of the network, which is its conntrack zone too
//	reg7   egress policy of the source port; 0: none
//	reg8   ingress policy of the destination port; 0: none
//	reg9   origin: 0 a port of this host, 1 the DHCP port of this host, 2 the uplink
//	reg10  the guest's VLAN tag, while another goes around it
//	reg11  ingress policy of the source port, to be learned with its address
//	reg12  class of the source, where ports are kept apart; 0: promiscuous
const (
	originDHCP   = 1
	originUplink = 2
	uplink       = 0xffff
	// statelessPolicy is set in the number of a policy without conntrack.
	statelessPolicy = 0x80000000
)

// Cookie marks: of the flows of plan, and of those that learn actions make.
const (
	flowMark    = 0x1505
	learnedMark = 0x1506
)

const (
	multicast = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"
	broadcast = "dl_dst=ff:ff:ff:ff:ff:ff"
	untagged  = "vlan_tci=0x0000/0x1000"
)

var (
	metadataIPv4 = netip.MustParseAddr("169.254.169.254")
	metadataIPv6 = netip.MustParseAddr("fe80::a9fe:a9fe")
)

// flows collects the flows of one unit.
type flows []openflow.Flow

func (f *flows) add(table uint8, priority uint16, match, actions string) {
	*f = append(*f, openflow.Flow{Table: table, Priority: priority, Match: match, Actions: actions})
}

func (f *flows) addf(table uint8, priority uint16, match, actions string, args ...any) {
	f.add(table, priority, match, fmt.Sprintf(actions, args...))
}

func resubmit(table int) string { return fmt.Sprintf("resubmit(,%d)", table) }

// baseFlows is what br-int holds for no port and no network. answersND tells
// whether the datapath can rewrite neighbour solicitations; filtered ports may
// use ethertypes besides IP and ARP.
func baseFlows(answersND bool, ethertypes []uint16) flows {
	var f flows
	for _, t := range ethertypes {
		match := fmt.Sprintf("dl_type=%#x", t)
		f.add(tableServices, 50, match, resubmit(tableLookup))
		f.add(tableIngressBase, 100, match, resubmit(tableDeliver))
	}
	f.add(tableClassify, 150, "", "drop") // whatever of lower priority another agent has left behind

	f.add(tableFromUplink, 1, "", resubmit(tableLookup))

	// Filtered ports: nobody plays DHCP server or router.
	dropped := resubmit(tableEgressDropped)
	f.add(tableSpoof, 100, "udp,tp_src=67,tp_dst=68", dropped)
	f.add(tableSpoof, 100, "udp6,tp_src=547,tp_dst=546", dropped)
	f.add(tableSpoof, 100, "icmp6,icmp_type=134", dropped)
	// Solicitations and advertisements pass only as some port's flow of priority 90 says.
	f.add(tableSpoof, 85, "icmp6,icmp_type=135", dropped)
	f.add(tableSpoof, 85, "icmp6,icmp_type=136", dropped)
	f.add(tableSpoof, 1, "", dropped)
	f.add(tableSpoofIPv6, 1, "", dropped)

	f.add(tableLearn, 1, "", resubmit(tableServices))

	f.add(tableServices, 50, "arp", resubmit(tableLookup))
	f.add(tableServices, 40, "reg7=0", resubmit(tableLookup))
	for _, t := range []int{131, 132, 133, 135, 136, 143} { // listener reports, router and neighbour discovery
		f.add(tableServices, 30, fmt.Sprintf("icmp6,icmp_type=%d", t), resubmit(tableLookup))
	}
	f.add(tableServices, 30, "udp,tp_src=68,tp_dst=67", resubmit(tableLookup))
	f.add(tableServices, 30, "udp6,tp_src=546,tp_dst=547", resubmit(tableLookup))
	f.add(tableServices, 1, "", resubmit(tableEgressTrack))
	if answersND {
		f.add(tableSolicitations, 1, "icmp6,icmp_type=136,icmp_code=0", solicitationAnswer)
	}

	// There are no replies to multicast, so it needs no connection.
	f.add(tableEgressTrack, 30, multicast, resubmit(tableEgressRules))
	f.addf(tableEgressTrack, 20, fmt.Sprintf("reg7=%#x/%#x", uint32(statelessPolicy), uint32(statelessPolicy)), "resubmit(,%d)", tableEgressRules)
	f.add(tableIngressBase, 30, multicast, resubmit(tableIngressRules))
	f.addf(tableIngressBase, 20, fmt.Sprintf("reg8=%#x/%#x", uint32(statelessPolicy), uint32(statelessPolicy)), "resubmit(,%d)", tableIngressRules)
	for _, family := range []string{"ip", "ipv6"} {
		f.addf(tableEgressTrack, 10, "ct_state=-trk,"+family, "ct(table=%d,zone=NXM_NX_REG6[0..15])", tableEgressState)
		f.addf(tableIngressBase, 10, "ct_state=-trk,"+family, "ct(table=%d,zone=NXM_NX_REG6[0..15])", tableIngressState)
	}
	f.add(tableIngressBase, 10, "ct_state=+trk", resubmit(tableIngressState))

	for _, t := range []struct{ state, rules, accepted, dropped, next uint8 }{
		{tableEgressState, tableEgressRules, tableEgressAccepted, tableEgressDropped, tableLookup},
		{tableIngressState, tableIngressRules, tableIngressAccepted, tableIngressDropped, tableDeliver},
	} {
		dropped := resubmit(int(t.dropped))
		f.add(t.state, 100, "ct_state=+trk+inv", dropped)
		// What answers an allowed connection passes. What continues one is put to the rules again each time, so that it
		// ends with its rule: it is then marked, which stops the answers too.
		f.add(t.state, 90, "ct_state=+trk+est+rpl,ct_mark=0", resubmit(int(t.next)))
		f.add(t.state, 90, "ct_state=+trk+rel-new,ct_mark=0", resubmit(int(t.next)))
		f.add(t.state, 80, "ct_state=+trk+rpl", dropped)
		f.add(t.state, 80, "ct_state=+trk+rel-new", dropped)
		f.add(t.state, 1, "", resubmit(int(t.rules)))
		for _, family := range []string{"ip", "ipv6"} {
			f.add(t.rules, 1, "ct_state=+trk+est-rpl,ct_mark=0,"+family, "ct(commit,zone=NXM_NX_REG6[0..15],exec(set_field:0x1->ct_mark)),"+dropped)
		}
		f.add(t.rules, 0, "", dropped)
		f.add(t.accepted, 1, "", resubmit(int(t.next)))
	}

	f.add(tableLookup, 50, multicast, resubmit(tableFlood))
	f.add(tableLookup, 1, "", resubmit(tableLearned)+","+resubmit(tableUnknown))
	f.add(tableUnknown, 20, "reg8=0", resubmit(tableDeliver))
	f.add(tableUnknown, 10, "", resubmit(tableIngressBase))

	f.add(tableIngressBase, 100, "arp", resubmit(tableDeliver))
	for _, t := range []int{130, 134, 135, 136} {
		f.add(tableIngressBase, 100, fmt.Sprintf("icmp6,icmp_type=%d", t), resubmit(tableDeliver))
	}
	f.add(tableIngressBase, 100, "udp,tp_src=67,tp_dst=68", resubmit(tableDeliver))
	f.add(tableIngressBase, 100, "udp6,tp_src=547,tp_dst=546", resubmit(tableDeliver))

	f.add(tableDeliver, 30, "reg5=0", resubmit(tableFloodOut))
	for _, family := range []string{"ip", "ipv6"} {
		f.addf(tableDeliver, 20, "ct_state=+trk+new,"+family, "ct(commit,zone=NXM_NX_REG6[0..15]),resubmit(,%d)", tableOutput)
		// Its rule has come back.
		f.addf(tableDeliver, 20, "ct_state=+trk+est-rpl,ct_mark=0x1,"+family,
			"ct(commit,zone=NXM_NX_REG6[0..15],exec(set_field:0->ct_mark)),resubmit(,%d)", tableOutput)
	}
	f.add(tableDeliver, 1, "", resubmit(tableOutput))

	f.addf(tableOutput, 40, fmt.Sprintf("reg5=%#x,reg9=%#x", uplink, originDHCP), "drop")
	f.addf(tableOutput, 40, fmt.Sprintf("reg5=%#x,reg9=%#x", uplink, originUplink), "drop")
	f.add(tableOutput, 1, "", "output:NXM_NX_REG5[0..15]")
	return f
}

// tunnelBaseFlows is what br-tun holds for no network.
func tunnelBaseFlows(patchInt int, answersND bool) flows {
	var f flows
	f.add(tableClassify, 150, "", "drop")
	f.addf(tableClassify, 200, fmt.Sprintf("in_port=%d", patchInt), "resubmit(,%d)", tableFromIntegration)
	f.addf(tableFromIntegration, 20, multicast, "resubmit(,%d)", tableAnswer)
	f.addf(tableFromIntegration, 10, "", "resubmit(,%d)", tableUnicast)
	f.add(tableUnicast, 1, "", resubmit(tableTunnelFlood))
	f.add(tableAnswer, 1, "", resubmit(tableTunnelFlood))
	if answersND {
		f.add(tableSolicitations, 1, "icmp6,icmp_type=136,icmp_code=0", solicitationAnswer)
	}
	return f
}

// arpAnswer turns an ARP request into the answer and sends it back.
func arpAnswer(m mac, address netip.Addr) string {
	return fmt.Sprintf("move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:%s->eth_src,set_field:2->arp_op,"+
		"move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"+
		"set_field:%s->arp_sha,set_field:%s->arp_spa,IN_PORT", m, m, address)
}

// ndAnswer begins to turn a neighbour solicitation into the advertisement: the
// fields of one message type can only be set in a table that matches the type,
// hence solicitationAnswer.
func ndAnswer(m mac) string {
	return fmt.Sprintf("set_field:0x%x->xreg0,set_field:136->icmpv6_type,resubmit(,%d)", m[:], tableSolicitations)
}

// solicitationAnswer: solicited, overriding; from the target, whose MAC is in
// xreg0, to who asked (RFC 4861, section 4.4).
const solicitationAnswer = "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],move:OXM_OF_PKT_REG0[0..47]->NXM_OF_ETH_SRC[]," +
	"move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],move:NXM_NX_ND_TARGET[]->NXM_NX_IPV6_SRC[]," +
	"set_field:2->nd_options_type,set_field:0x60000000->nd_reserved,move:OXM_OF_PKT_REG0[0..47]->NXM_NX_ND_TLL[],IN_PORT"
