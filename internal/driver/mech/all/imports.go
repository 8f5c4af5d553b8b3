// Package all is the only list of mechanism drivers.
//
// It must not know anything else.
package all

import (
	_ "isospin/internal/driver/mech/openvswitch"
)
