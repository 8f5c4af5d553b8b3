package portattribute

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"

	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct{ ports *port.Service }

func (s service) beforeCreate(_ context.Context, _ *store.Tx, p *port.Port, body *resource.Body) error {
	if err := settle(p, body, "hints"); err != nil {
		return err
	}
	if kind := offload.Get(p.Slots); kind != nil {
		if err := rewrite(p, func(profile map[string]any) {
			list, _ := profile["capabilities"].([]any)
			if !slices.Contains(list, any(*kind)) {
				profile["capabilities"] = append(list, *kind)
			}
		}); err != nil {
			return err
		}
	}
	if err := showTrust(p); err != nil {
		return err
	}
	return override(p)
}

func (s service) beforeUpdate(_ context.Context, _ *store.Tx, old, want *port.Port, body *resource.Body) error {
	if body.Has("numa_affinity_policy") && old.Bound() {
		return fault.New(fault.Conflict, "PortBoundNUMAAffinityPolicy", "Unable to complete operation on port %s, port is already bound to host %s, numa_affinity_policy value given %s.",
			old.ID, old.HostID, value.Text(body.Values["numa_affinity_policy"]))
	}
	if err := settle(want, body, "hints"); err != nil {
		return err
	}
	if err := showTrust(want); err != nil {
		return err
	}
	if want.VNICType == directPhysical && old.DeviceID != "" && want.DeviceID == "" && want.DeviceOwner == "" && want.MACAddress == old.MACAddress {
		// The device's own address is free for who gets the device next.
		want.MACAddress = s.ports.RandomMAC()
		return nil
	}
	return override(want)
}

// settle stores an empty object as null.
func settle(p *port.Port, body *resource.Body, attribute string) error {
	v, given := body.Values[attribute].(map[string]any)
	if !given || len(v) > 0 {
		return nil
	}
	return resource.NewSlot[*string](attribute).Set(&p.Slots, nil)
}

// rewrite changes the binding profile of a port.
func rewrite(p *port.Port, change func(profile map[string]any)) error {
	decoded, err := value.Decode(p.Profile)
	profile, _ := decoded.(map[string]any)
	if err != nil || profile == nil {
		profile = map[string]any{}
	}
	change(profile)
	raw, err := json.Marshal(profile)
	if err != nil {
		return fmt.Errorf("binding profile of port %s: %w", p.ID, err)
	}
	p.Profile = raw
	return nil
}

// showTrust puts the port's trust into its binding profile, where compute services read it.
func showTrust(p *port.Port) error {
	is := trusted.Get(p.Slots)
	if is == nil {
		return nil
	}
	return rewrite(p, func(profile map[string]any) { profile["trusted"] = *is })
}

// directPhysical is the VNIC type of a whole physical device.
const directPhysical = "direct-physical"

// override gives a port the MAC address of the physical device that it is on
// its host, which its active binding's profile names.
func override(p *port.Port) error {
	if p.VNICType != directPhysical || p.HostID == "" {
		return nil
	}
	var profile struct {
		MAC string `json:"device_mac_address"`
	}
	// A profile of another shape names no device.
	if json.Unmarshal(p.Profile, &profile) != nil || profile.MAC == "" {
		return nil
	}
	mac, err := net.ParseMAC(profile.MAC)
	if err != nil || len(mac) != 6 {
		return fault.InvalidInput("'%s' is not a valid MAC address", profile.MAC)
	}
	p.MACAddress = mac.String()
	return nil
}
