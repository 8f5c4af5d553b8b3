// Package tunnel is what the tunnelled segment types (VXLAN, GRE, Geneve)
// have in common: an id from configured ranges and the room that headers take.
//
// It must not know hosts or tunnel endpoints.
package tunnel

import (
	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/driver/segment"
	"isospin/internal/fault"
	"isospin/internal/store"
)

// Driver allocates ids of one tunnel type.
type Driver struct {
	Name string
	// Ranges of the configuration.
	Ranges []network.Range
	// GreatestID that the encapsulation can carry.
	GreatestID int
	// Capacity of the segment in bytes; 0 is unknown.
	Capacity int
}

var _ network.RangedDriver = (*Driver)(nil)

// Capacity is what is left of the underlay's MTU beside IP and tunnel headers.
func Capacity(c *config.Config, headers int) int {
	underlay := config.GlobalPhysnetMTU.Of(c)
	if path := config.ML2PathMTU.Of(c); path > 0 && (underlay == 0 || path < underlay) {
		underlay = path
	}
	if underlay == 0 {
		return 0
	}
	ip := 20
	if config.ML2OverlayIPVersion.Of(c) == 6 {
		ip = 40
	}
	return underlay - ip - headers
}

// Type implements network.SegmentDriver.
func (d *Driver) Type() string { return d.Name }

// MTU implements network.SegmentDriver.
func (d *Driver) MTU(string) int { return d.Capacity }

// Configured implements network.RangedDriver.
func (d *Driver) Configured() []network.Range { return d.Ranges }

// Greatest implements network.RangedDriver.
func (d *Driver) Greatest() int { return d.GreatestID }

// Reserve implements network.SegmentDriver.
func (d *Driver) Reserve(tx *store.Tx, r network.Request, from network.Ranges, segmentID string) (network.Request, error) {
	if r.PhysicalNetwork != "" {
		return r, fault.InvalidInput("provider:physical_network specified for %s network", d.Name)
	}
	if r.SegmentationID == 0 {
		id, err := segment.TakePreferred(tx, d.Name, "", from, segmentID)
		r.SegmentationID = id
		return r, err
	}
	if r.SegmentationID < 1 || r.SegmentationID > d.GreatestID {
		return r, fault.InvalidInput("segmentation_id out of range (1 through %d)", d.GreatestID)
	}
	ok, err := segment.Take(tx, d.Name, "", r.SegmentationID, segmentID)
	if err == nil && !ok {
		err = fault.New(fault.Conflict, "TunnelIdInUse", "Unable to create the network. The tunnel ID %d is in use.", r.SegmentationID)
	}
	return r, err
}

// Register adds a tunnel type whose headers beside IP take the given bytes.
func Register(name string, ranges *config.Option[[]string], option string, greatest int, headers func(*config.Config) int) {
	segment.Register(name, func(c *config.Config) (network.SegmentDriver, error) {
		parsed, err := segment.ParseRanges(ranges.Of(c), option, 1, greatest)
		if err != nil {
			return nil, err
		}
		return &Driver{Name: name, Ranges: parsed, GreatestID: greatest, Capacity: Capacity(c, headers(c))}, nil
	})
}
