// Package conntrack deletes entries of the kernel's connection tracking in the
// network namespace of the calling thread; call it inside netns.Do for another
// one. (A userspace switch has a table of its own, which is not this one.)
//
// It must not know why a flow is to end.
package conntrack

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"isospin/internal/kernel/dump"
)

// Flow is one entry: the first packet's addresses, and those of the answers.
// They mirror each other unless the flow is translated.
type Flow struct {
	Protocol             uint8
	Source, Destination  netip.Addr
	ReplySource, ReplyTo netip.Addr
	DestinationPort      uint16 // of the first packet
	ReplySourcePort      uint16
}

// SourceTranslated tells whether the flow's source address is rewritten.
func (f Flow) SourceTranslated() bool { return f.Source != f.ReplyTo }

// DestinationTranslated tells whether the flow's destination address is rewritten.
func (f Flow) DestinationTranslated() bool { return f.Destination != f.ReplySource }

type filter func(Flow) bool

func (f filter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return f(Flow{
		Protocol: c.Forward.Protocol,
		Source:   addr(c.Forward.SrcIP), Destination: addr(c.Forward.DstIP),
		ReplySource: addr(c.Reverse.SrcIP), ReplyTo: addr(c.Reverse.DstIP),
		DestinationPort: c.Forward.DstPort, ReplySourcePort: c.Reverse.SrcPort,
	})
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Delete4 deletes the IPv4 flows that match and returns how many those were.
// The next packet of such a flow is treated as the first of a new one.
func Delete4(match func(Flow) bool) (int, error) {
	var n uint
	_, err := dump.Read(func() (struct{}, error) {
		matched, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(netlink.FAMILY_V4), filter(match))
		n += matched
		return struct{}{}, err
	})
	if err != nil {
		return int(n), fmt.Errorf("delete connection tracking entries: %w", err)
	}
	return int(n), nil
}
