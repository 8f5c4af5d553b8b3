// Package geneve registers the geneve segment type (RFC 8926).
//
// It must not know anything but its ids and header sizes.
package geneve

import (
	"isospin/internal/config"
	"isospin/internal/driver/segment/tunnel"
)

func init() {
	tunnel.Register("geneve", config.ML2GeneveVNIRanges, "[ml2_type_geneve] vni_ranges", 1<<24-1, func(c *config.Config) int { return config.ML2GeneveMaxHeaderSize.Of(c) })
}
