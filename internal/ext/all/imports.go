// Package all is the only list of extension families.
//
// It must not know anything else.
package all

import (
	_ "isospin/internal/ext/addressscope"
	_ "isospin/internal/ext/autoallocate"
	_ "isospin/internal/ext/availabilityzone"
	_ "isospin/internal/ext/conntrackhelper"
	_ "isospin/internal/ext/dhcpscheduler"
	_ "isospin/internal/ext/dns"
	_ "isospin/internal/ext/evpn"
	_ "isospin/internal/ext/flavor"
	_ "isospin/internal/ext/localip"
	_ "isospin/internal/ext/logging"
	_ "isospin/internal/ext/metering"
	_ "isospin/internal/ext/ndpproxy"
	_ "isospin/internal/ext/networkcascade"
	_ "isospin/internal/ext/networkipavailability"
	_ "isospin/internal/ext/portattribute"
	_ "isospin/internal/ext/portbinding"
	_ "isospin/internal/ext/portforwarding"
	_ "isospin/internal/ext/pvlan"
	_ "isospin/internal/ext/qos"
	_ "isospin/internal/ext/rbac"
	_ "isospin/internal/ext/resourceprovider"
	_ "isospin/internal/ext/router"
	_ "isospin/internal/ext/securitygroup"
	_ "isospin/internal/ext/segment"
	_ "isospin/internal/ext/segmentrange"
	_ "isospin/internal/ext/subnetpool"
	_ "isospin/internal/ext/trunk"
	_ "isospin/internal/ext/vlantransparent"
)
