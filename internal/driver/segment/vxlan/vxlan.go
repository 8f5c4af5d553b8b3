// Package vxlan registers the vxlan segment type (RFC 7348: UDP 8, VXLAN 8, inner Ethernet 14).
//
// It must not know anything but its ids and header sizes.
package vxlan

import (
	"isospin/internal/config"
	"isospin/internal/driver/segment/tunnel"
)

func init() {
	tunnel.Register("vxlan", config.ML2VXLANVNIRanges, "[ml2_type_vxlan] vni_ranges", 1<<24-1, func(_ *config.Config) int { return 30 })
}
