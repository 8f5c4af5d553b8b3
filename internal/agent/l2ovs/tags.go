package l2ovs

import (
	"fmt"

	"isospin/api/feed"
)

// Networks may carry the VLAN tags of their guests. A frame keeps its tag all
// the way through br-int, whose flows look through it: anti-spoofing and
// security groups hold for what is inside as they do for frames without one.
// What the host itself offers on the network, such as DHCP, is there without
// tag alone. On the way out the network's own tag goes around the guest's.

// lookThrough is how many tags the switch must look through: the network's on
// the physical network, and the guest's.
const lookThrough = 2

// EtherTypes of tags.
const (
	customerTag = 0x8100
	serviceTag  = 0x88a8 // IEEE 802.1ad
)

const tagged = "vlan_tci=0x1000/0x1000"

// carriesTags tells whether a network carries its guests' tags. A flat one does
// not: there, a guest's tag would be that of another network.
func carriesTags(n *feed.Network) bool {
	return (n.VlanTransparent || n.Qinq) && n.Segment != nil && n.Segment.NetworkType != "flat"
}

// tagType is the EtherType of the tag that frames leave br-int with.
func (n *localNetwork) tagType() int {
	if n.network.Qinq && n.network.Segment.GetNetworkType() == "vlan" {
		return serviceTag
	}
	return customerTag
}

// plain matches what belongs to a network itself, not to a VLAN of its guests.
func plain(net string, tags bool) string {
	if tags {
		return net + "," + untagged
	}
	return net
}

// doubleTagFlows make a frame with a guest's tag leave with the network's tag
// around it, as out does. The switch knows two tags of a frame: with a third
// around them the innermost would be lost, and the frame be in another VLAN of
// the guests. So what has two already ends here.
func doubleTagFlows(f *flows, net, out string) {
	f.addf(tableOutput, 25, fmt.Sprintf("reg5=%#x,%s,%s", uplink, net, tagged), "move:NXM_OF_VLAN_TCI[]->NXM_NX_REG10[0..15],pop_vlan,resubmit(,%d)", tableTagged)
	f.addf(tableTagged, 10, net+","+untagged, "push_vlan:%#x,move:NXM_NX_REG10[0..15]->NXM_OF_VLAN_TCI[],%s", customerTag, out)
}
