// Package vlan registers the VLAN segment type (IEEE 802.1Q): a tag on a
// physical network.
//
// It must not know anything else.
package vlan

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/driver/segment"
	"isospin/internal/fault"
	"isospin/internal/store"
)

type driver struct {
	// ranges by physical network; a physical network without ranges is for administrators' explicit tags.
	ranges map[string][]segment.Range
	mtu    func(physicalNetwork string) int
}

const option = "[ml2_type_vlan] network_vlan_ranges"

func init() {
	segment.Register("vlan", func(c *config.Config) (network.SegmentDriver, error) {
		d := &driver{ranges: map[string][]segment.Range{}}
		for _, text := range config.ML2VLANRanges.Of(c) {
			name, span, ranged := strings.Cut(strings.TrimSpace(text), ":")
			if name == "" {
				return nil, fmt.Errorf("%s: %q names no physical network; write physnet1:100:199", option, text)
			}
			d.ranges[name] = append([]segment.Range(nil), d.ranges[name]...)
			if ranged {
				r, err := segment.ParseRanges([]string{span}, option, 1, 4094)
				if err != nil {
					return nil, err
				}
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

func (d *driver) Reserve(tx *store.Tx, r network.Request, segmentID string) (network.Request, error) {
	if r.PhysicalNetwork == "" {
		if r.SegmentationID != 0 {
			return r, fault.InvalidInput("segmentation_id requires physical_network for VLAN provider network")
		}
		names := make([]string, 0, len(d.ranges))
		for name := range d.ranges {
			names = append(names, name)
		}
		sort.Strings(names)
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			id, err := segment.TakeAny(tx, "vlan", name, d.ranges[name], segmentID)
			if err == network.ErrNoneFree {
				continue
			}
			r.PhysicalNetwork, r.SegmentationID = name, id
			return r, err
		}
		return r, network.ErrNoneFree
	}
	ranges, known := d.ranges[r.PhysicalNetwork]
	if !known {
		return r, fault.InvalidInput("physical_network '%s' unknown for VLAN provider network", r.PhysicalNetwork)
	}
	if r.SegmentationID == 0 {
		if len(ranges) == 0 {
			return r, fault.InvalidInput("Physical network %s requires segmentation_id to be specified when creating a provider network", r.PhysicalNetwork)
		}
		var err error
		r.SegmentationID, err = segment.TakeAny(tx, "vlan", r.PhysicalNetwork, ranges, segmentID)
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
