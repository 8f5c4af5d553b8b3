// Package all links every feature of an agent into the binary. It is the only
// list of them.
package all

import (
	_ "isospin/internal/agent/dhcp"
	_ "isospin/internal/agent/l2ovs"
	_ "isospin/internal/agent/l3"
	_ "isospin/internal/agent/metadata"
)
