// Package vlan registers the VLAN segment type (IEEE 802.1Q): a tag on a
// physical network.
//
// It must not know anything else.
package vlan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/driver/segment"
	"isospin/internal/fault"
	"isospin/internal/store"
)

type driver struct {
	// ranges by physical network; a physical network without ranges is for administrators' explicit tags.
	ranges map[string][]network.Range
	mtu    func(physicalNetwork string) int
}

var _ network.RangedDriver = (*driver)(nil)

const option = "[ml2_type_vlan] network_vlan_ranges"

func init() {
	segment.Register("vlan", func(c *config.Config) (network.SegmentDriver, error) {
		d := &driver{ranges: map[string][]network.Range{}}
		for _, text := range config.ML2VLANRanges.Of(c) {
			name, span, ranged := strings.Cut(strings.TrimSpace(text), ":")
			if name == "" {
				return nil, fmt.Errorf("%s: %q names no physical network; write physnet1:100:199", option, text)
			}
			d.ranges[name] = append([]network.Range(nil), d.ranges[name]...)
			if ranged {
				r, err := segment.ParseRanges([]string{span}, option, 1, 4094)
				if err != nil {
					return nil, err
				}
				r[0].PhysicalNetwork = name
				d.ranges[name] = append(d.ranges[name], r...)
			}
		}
		var err error
		d.mtu, err = segment.PhysicalMTU(c)
		return d, err
	})
}

func (d *driver) Type() string                   { return "vlan" }
func (d *driver) MTU(physicalNetwork string) int { return d.mtu(physicalNetwork) }

// Greatest implements network.RangedDriver: 4095 is reserved.
func (d *driver) Greatest() int { return 4094 }

// Configured implements network.RangedDriver.
func (d *driver) Configured() []network.Range {
	var all []network.Range
	for _, name := range slices.Sorted(maps.Keys(d.ranges)) {
		all = append(all, d.ranges[name]...)
	}
	return all
}

// physical are the physical networks of ranges, in an order by chance.
func physical(ranges []network.Range) []string {
	var names []string
	for _, r := range ranges {
		if !slices.Contains(names, r.PhysicalNetwork) {
			names = append(names, r.PhysicalNetwork)
		}
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

func (d *driver) Reserve(tx *store.Tx, r network.Request, from network.Ranges, segmentID string) (network.Request, error) {
	if r.PhysicalNetwork == "" {
		if r.SegmentationID != 0 {
			return r, fault.InvalidInput("segmentation_id requires physical_network for VLAN provider network")
		}
		for _, ranges := range [][]network.Range{from.Preferred, from.Shared} {
			for _, name := range physical(ranges) {
				id, err := segment.TakeAny(tx, "vlan", name, segment.On(ranges, name), segmentID)
				if err == network.ErrNoneFree {
					continue
				}
				r.PhysicalNetwork, r.SegmentationID = name, id
				return r, err
			}
		}
		return r, network.ErrNoneFree
	}
	if _, known := d.ranges[r.PhysicalNetwork]; !known && !slices.Contains(from.Physical, r.PhysicalNetwork) {
		return r, fault.InvalidInput("physical_network '%s' unknown for VLAN provider network", r.PhysicalNetwork)
	}
	if r.SegmentationID == 0 {
		if len(segment.On(from.Preferred, r.PhysicalNetwork)) == 0 && len(segment.On(from.Shared, r.PhysicalNetwork)) == 0 {
			return r, fault.InvalidInput("Physical network %s requires segmentation_id to be specified when creating a provider network", r.PhysicalNetwork)
		}
		var err error
		r.SegmentationID, err = segment.TakePreferred(tx, "vlan", r.PhysicalNetwork, from, segmentID)
		return r, err
	}
	if r.SegmentationID < 1 || r.SegmentationID > 4094 {
		return r, fault.InvalidInput("segmentation_id out of range (1 through 4094)")
	}
	ok, err := segment.Take(tx, "vlan", r.PhysicalNetwork, r.SegmentationID, segmentID)
	if err == nil && !ok {
		err = fault.New(fault.Conflict, "VlanIdInUse", "Unable to create the network. The VLAN %d on physical network %s is in use.", r.SegmentationID, r.PhysicalNetwork)
	}
	return r, err
}
