// Package all is the only list of segment type drivers.
//
// It must not know anything else.
package all

import (
	_ "isospin/internal/driver/segment/flat"
	_ "isospin/internal/driver/segment/geneve"
	_ "isospin/internal/driver/segment/gre"
	_ "isospin/internal/driver/segment/local"
	_ "isospin/internal/driver/segment/vlan"
	_ "isospin/internal/driver/segment/vxlan"
)
