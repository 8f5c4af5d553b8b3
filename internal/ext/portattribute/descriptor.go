// Package portattribute is what compute services and administrators note on
// ports for others to read: device profile, NUMA affinity, hardware offload,
// trust, hints to Open vSwitch, propagation of the uplink's state, the state of
// the data plane, and the MAC address of a physical device that is passed
// through.
//
// It must not know who reads them.
package portattribute

import (
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
)

func init() { ext.Register(ext.Module{Name: "portattribute", Install: install}) }

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	enforce = resource.EnforcePolicy
)

// Slots of the attributes that are read here.
var (
	offload = resource.NewSlot[*string]("hardware_offload_type")
	trusted = resource.NewSlot[*bool]("trusted")
)

func install(c *core.Core, _ *feed.Hub) error {
	e := func(alias, name, description, updated string, requires ...string) resource.Extension {
		return resource.Extension{Alias: alias, Name: name, Description: description, Updated: updated, Requires: requires}
	}
	c.Registry.AddExtension(
		e("data-plane-status", "Port data plane status extension", "Status of the underlying data plane.", "2017-01-24T10:00:00-00:00"),
		e("port-device-profile", "Port device profile", "Expose the port device profile (Cyborg)", "2020-12-17T10:00:00-00:00"),
		e("port-hardware-offload-type", "Port hardware offload", "Expose the port hardware offload type requested", "2023-05-09T10:00:00-00:00"),
		e("port-hints", "Port hints", "Add hints for various backends to a port.", "2023-01-01T00:00:00-00:00"),
		e("port-hint-ovs-tx-steering", "Port hint: Open vSwitch Tx steering", "Allow the hint that sets the transmit steering of an Open vSwitch interface.", "2023-01-01T00:00:00-00:00", "port-hints"),
		e("port-mac-override", "Neutron Port MAC address override", "Allow overriding the MAC address of a direct-physical port by that of its device", "2022-03-18T10:00:00-00:00"),
		e("port-numa-affinity-policy", "Port NUMA affinity policy", "Expose the port NUMA affinity policy", "2020-07-08T10:00:00-00:00"),
		e("port-numa-affinity-policy-socket", `Port NUMA affinity policy "socket"`, `Adds the policy "socket" to the port NUMA affinity policies`, "2024-02-09T10:00:00-00:00", "port-numa-affinity-policy"),
		e("port-trusted-vif", "Port trusted vif", "Expose port 'trusted' attribute to be set by administrators", "2024-07-10T10:00:00-00:00", "binding"),
		e("uplink-status-propagation", "Uplink status propagation extension", "Extension for uplink status propagation", "2018-05-31T18:00:00-00:00"),
		e("uplink-status-propagation-updatable", "Uplink status propagation updatable extension", "Extension for updating the uplink status propagation of ports", "2024-09-03T18:00:00-00:00", "uplink-status-propagation"),
	)
	steering := resource.Rules{"tx-steering": map[string]any{"type:values": []any{"thread", "hash"}}}
	c.Ports.Resource.Add(
		resource.Attribute{Name: "data_plane_status", Flags: put | visible | enforce, Default: resource.Unspecified, Validate: resource.Rules{"type:values": []any{nil, "ACTIVE", "DOWN"}}, Type: "string|null"},
		resource.Attribute{Name: "device_profile", Flags: post | visible, Default: nil, Validate: resource.Rules{"type:string_or_none": 255}, Type: "string|null"},
		resource.Attribute{Name: "hardware_offload_type", Flags: post | visible | enforce, Default: resource.Unspecified, Convert: "convert_to_string", Validate: resource.Rules{"type:values": []any{"switchdev"}}, Type: "string|null"},
		resource.Attribute{Name: "hints", Flags: post | put | visible | enforce, Default: nil, Validate: resource.Rules{"type:dict_or_none": map[string]any{
			"openvswitch": map[string]any{"type:dict": map[string]any{"other_config": map[string]any{"type:dict": map[string]any(steering)}}},
		}}, Type: "object|null"},
		resource.Attribute{Name: "numa_affinity_policy", Flags: post | put | visible, Default: nil, Validate: resource.Rules{"type:values": []any{"required", "preferred", "legacy", "socket", nil}}, Type: "string|null"},
		resource.Attribute{Name: "propagate_uplink_status", Flags: post | put | visible, Default: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "trusted", Flags: post | put | visible | enforce, Default: resource.Unspecified, Convert: "convert_to_boolean", Validate: resource.Rules{"type:boolean": nil}, Type: "bool|null"},
	)
	s := service{c.Ports}
	c.Ports.BeforeCreate = append(c.Ports.BeforeCreate, s.beforeCreate)
	c.Ports.BeforeUpdate = append(c.Ports.BeforeUpdate, s.beforeUpdate)
	return nil
}
