package placement

import (
	"regexp"
	"strings"

	"github.com/google/uuid"
)

// Resource classes, of kilobits and thousands of packets in a second.
const (
	BandwidthEgress   = "NET_BW_EGR_KILOBIT_PER_SEC"
	BandwidthIngress  = "NET_BW_IGR_KILOBIT_PER_SEC"
	PacketRate        = "NET_PACKET_RATE_KILOPACKET_PER_SEC"
	PacketRateEgress  = "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC"
	PacketRateIngress = "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC"
)

// TunnelTrait is that of providers of bandwidth for networks without a physical network.
const TunnelTrait = "CUSTOM_NETWORK_TUNNEL_PROVIDER"

// namespace of the providers of Open vSwitch agents: Neutron's, for UUIDs of
// version 5 (RFC 9562).
var namespace = uuid.MustParse("87ee7d5c-73bb-11e8-9008-c4d987b2a692")

// AgentProvider is the id of the provider of packet rates on a hypervisor, and
// the parent of those of its bridges.
func AgentProvider(hypervisor string) string {
	return uuid.NewSHA1(namespace, []byte(hypervisor)).String()
}

// DeviceProvider is the id of the provider of a bridge's bandwidth.
func DeviceProvider(hypervisor, device string) string {
	return uuid.NewSHA1(namespace, []byte(hypervisor+":"+device)).String()
}

// RequestGroup is the id of what a port requests because of rules, of which
// the ids are given. A port whose id is no UUID has none.
func RequestGroup(portID string, rules []string) string {
	id, err := uuid.Parse(portID)
	if err != nil {
		return ""
	}
	return uuid.NewSHA1(id, []byte(strings.Join(rules, ":"))).String()
}

var notInTraits = regexp.MustCompile(`[^0-9A-Za-z]+`)

func trait(name string) string {
	return "CUSTOM_" + strings.ToUpper(notInTraits.ReplaceAllString(name, "_"))
}

// PhysicalNetworkTrait is that of providers which reach a physical network.
func PhysicalNetworkTrait(name string) string { return trait("PHYSNET_" + name) }

// VNICTypeTrait is that of providers which serve ports of a vnic_type.
func VNICTypeTrait(vnicType string) string { return trait("VNIC_TYPE_" + vnicType) }
