// Package local registers the local segment type: a network that does not
// leave its host and takes no id.
//
// It must not know anything else.
package local

import (
	"isospin/internal/config"
	"isospin/internal/core/network"
	"isospin/internal/driver/segment"
	"isospin/internal/fault"
	"isospin/internal/store"
)

type driver struct{}

func init() {
	segment.Register("local", func(*config.Config) (network.SegmentDriver, error) { return driver{}, nil })
}

func (driver) Type() string   { return "local" }
func (driver) MTU(string) int { return 0 }

func (driver) Reserve(_ *store.Tx, r network.Request, _ network.Ranges, _ string) (network.Request, error) {
	switch {
	case r.PhysicalNetwork != "":
		return r, fault.InvalidInput("physical_network prohibited for local provider network")
	case r.SegmentationID != 0:
		return r, fault.InvalidInput("segmentation_id prohibited for local provider network")
	}
	return r, nil
}
