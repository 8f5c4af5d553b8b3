// Package dhcp answers DHCPv4, DHCPv6 and DNS for the ports of this host, from
// sockets that the agent itself holds in the namespace qdhcp-<network id> of
// each network. Every host serves its own ports under the network's one DHCP
// port (same MAC and addresses everywhere), so there is nothing to schedule and
// nothing to fail over.
//
// What the servers answer is an immutable table, made from the desired state by
// pure code (plan.go) and swapped atomically; a packet of a guest can only ever
// select an entry of it.
//
// It must not know how the bridge forwards, how routers advertise themselves
// (router advertisements are theirs), nor what the metadata service does.
package dhcp
