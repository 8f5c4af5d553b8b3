// Package bgp is a small BGP speaker for EVPN routes of type 5, IP prefixes of
// routers, carried by VXLAN: it announces what it is told, and says what
// neighbors announce. RFC 4271 (sessions), 4760 (capability and attributes of
// other families), 6793 (four-octet AS numbers), 7606 (what is malformed),
// 2385 (TCP MD5), 7432 and 9136 (the routes), 8365 (VXLAN, route targets),
// 9012 (encapsulation).
//
// It passes nothing on: it is the leaf of a fabric, behind route reflectors or
// eBGP neighbors. There is no graceful restart: a session that is lost takes its
// routes along, and those that neighbors have of us go with it.
//
// It must not know routers, devices, or network namespaces.
package bgp
