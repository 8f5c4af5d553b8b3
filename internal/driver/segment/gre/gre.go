// Package gre registers the gre segment type (RFC 2890: GRE 8, inner Ethernet 14).
//
// It must not know anything but its ids and header sizes.
package gre

import (
	"isospin/internal/config"
	"isospin/internal/driver/segment/tunnel"
)

func init() {
	tunnel.Register("gre", config.ML2GRETunnelIDRanges, "[ml2_type_gre] tunnel_id_ranges", 1<<32-1, func(_ *config.Config) int { return 22 })
}
