// Package flat registers the flat segment type: a whole physical network, untagged.
//
// It must not know anything else.
package flat

import (
	"slices"

	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/driver/segment"
	"isospin/internal/fault"
	"isospin/internal/store"
)

type driver struct {
	networks []string
	mtu      func(physicalNetwork string) int
}

func init() {
	segment.Register("flat", func(c *config.Config) (network.SegmentDriver, error) {
		mtu, err := segment.PhysicalMTU(c)
		if err != nil {
			return nil, err
		}
		return &driver{networks: config.ML2FlatNetworks.Of(c), mtu: mtu}, nil
	})
}

func (d *driver) Type() string                   { return "flat" }
func (d *driver) MTU(physicalNetwork string) int { return d.mtu(physicalNetwork) }

func (d *driver) Reserve(tx *store.Tx, r network.Request, _ network.Ranges, segmentID string) (network.Request, error) {
	switch {
	case r.SegmentationID != 0:
		return r, fault.InvalidInput("segmentation_id prohibited for flat provider network")
	case r.PhysicalNetwork == "":
		return r, fault.InvalidInput("physical_network required for flat provider network")
	case len(d.networks) == 0:
		return r, fault.InvalidInput("Flat provider networks are disabled")
	case !slices.Contains(d.networks, "*") && !slices.Contains(d.networks, r.PhysicalNetwork):
		return r, fault.InvalidInput("physical_network '%s' unknown for flat provider network", r.PhysicalNetwork)
	}
	ok, err := segment.Take(tx, "flat", r.PhysicalNetwork, 0, segmentID)
	if err == nil && !ok {
		err = fault.New(fault.Conflict, "FlatNetworkInUse", "Unable to create the flat network. Physical network %s is in use.", r.PhysicalNetwork)
	}
	return r, err
}
