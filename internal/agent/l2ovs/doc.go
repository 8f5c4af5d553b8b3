// Package l2ovs is the layer 2 of a host on Open vSwitch: local ports, provider
// networks, tunnels, anti-spoofing and stateful security groups, as flows of
// the integration bridge (br-int) and the tunnel bridge (br-tun).
//
// plan turns the host's desired state and local facts (which ports are
// plugged, under which OpenFlow numbers) into wanted flows; it is pure and
// remembers what it rendered, so that a change costs what it touches. Apply
// gathers the facts, makes bridges and ports, and puts the delta of the flows
// in place.
//
// It must not know how a port got here or who serves it: DHCP, routers and
// metadata are other features, whose ports it finds on br-int by their id.
//
// # Pipeline of br-int
//
//	0    classify: which port, hence which network and which policies; its limit and DSCP
//	100  limit of packets, for a port that has one of kilobits too
//	105  from the uplink (tunnels or physical network); 106: class of the source, where ports are kept apart
//	110  anti-spoofing of filtered ports; 111: IPv6 source
//	115  learning of addresses that the server does not know
//	120  services on this host: DHCP, metadata address, local IPs; 122: local IPs, translated
//	130  egress: conntrack; 131: state; 132: rules; 133, 134: accepted, dropped, where packet logs look
//	140  lookup of the destination; 141: learned ones; 142: unknown ones
//	150  flooding; 151: what depends on the origin
//	160  ingress: always allowed, conntrack; 161: state; 162: rules; 163, 164: accepted, dropped
//	170  delivery, with commit to conntrack; 171: to the ports of one policy
//	175  output; 176, 177: limits of what the port receives; 178: whether it may hear the source; 179: a tag around a guest's
//
// Nothing passes that no flow lets pass; what 134 and 164 do not send to a
// packet log ends there. NORMAL is not used: a frame for a
// filtered port cannot go round the ingress tables.
//
// # Pipeline of br-tun
//
//	0    classify; 100: from br-int; 101 to 103: from tunnels, by type
//	110  unicast to known ports; 120: ARP and ND answers (121: ND); 130: flooding
//
// Table numbers and priorities are above those of Neutron's agent, so that
// taking over a host from it leaves its flows without effect.
package l2ovs
