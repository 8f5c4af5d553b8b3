// Package packetlog writes the records of packets that security groups of a
// host accept or drop, in the words of Neutron's agents, for what reads them.
//
// It must not know how a packet got here or why.
package packetlog
