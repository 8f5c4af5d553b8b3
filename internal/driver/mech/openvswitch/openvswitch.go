// Package openvswitch registers the mechanism driver "openvswitch": it binds
// ports on hosts whose Open vSwitch agent lives and reaches one of the
// network's segments.
//
// It must not know how the agent wires them.
package openvswitch

import (
	"fmt"
	"slices"

	"isospin/internal/config"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/driver/mech"
)

type driver struct{}

var (
	_ port.Mechanism  = driver{}
	_ port.Connector  = driver{}
	_ port.TagCarrier = driver{}
	_ port.Isolator   = driver{}
)

func init() {
	mech.Register("openvswitch", func(*config.Config) (port.Mechanism, error) { return driver{}, nil })
}

func (driver) Name() string { return "openvswitch" }

// VLANTransparent: on a flat network a guest's tag would be that of another network.
func (driver) VLANTransparent(networkType string) bool { return networkType != "flat" }

// QinQ: nothing but a VLAN has a tag that could be of another type.
func (driver) QinQ(networkType string) bool { return networkType == "vlan" }

// PrivateVLANs: hosts keep ports apart on networks of every type.
func (driver) PrivateVLANs() bool { return true }

// Bind takes the first segment that the host's agent can reach.
func (driver) Bind(r port.BindRequest) (port.Binding, bool) {
	if r.VNICType != "normal" && r.VNICType != "" {
		return port.Binding{}, false
	}
	for _, a := range r.Agents {
		if a.AgentType != agent.OpenVSwitch || !r.Alive(a) || !a.AdminStateUp {
			continue
		}
		c := a.Configuration()
		for _, s := range r.Segments {
			if reaches(c, s) {
				bridge := c.Bridge
				if bridge == "" {
					bridge = "br-int"
				}
				if trunk := r.Port.TrunkID(); trunk != "" {
					bridge = fmt.Sprintf("tbr-%.11s", trunk) // the VIF goes to a bridge of the trunk's own, which the agent connects
				}
				return port.Binding{SegmentID: s.ID, VIFType: "ovs", VIFDetails: map[string]any{
					"port_filter": true, "connectivity": "l2", "bridge_name": bridge, "datapath_type": c.DatapathType, "ovs_hybrid_plug": false,
				}}, true
			}
		}
	}
	return port.Binding{}, false
}

// Connects tells whether the agent's bridges or tunnels lead to the segment.
func (driver) Connects(a *agent.Agent, s network.Segment) bool {
	return a.AgentType == agent.OpenVSwitch && reaches(a.Configuration(), s)
}

func reaches(c agent.Configuration, s network.Segment) bool {
	switch s.NetworkType {
	case "local":
		return true
	case "flat", "vlan":
		return c.BridgeMappings[s.PhysicalNetwork] != ""
	default:
		return slices.Contains(c.TunnelTypes, s.NetworkType)
	}
}
