package port

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"isospin/internal/core/agent"
	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/core/rbac"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Options of New.
type Options struct {
	Store    *store.Store     // required
	Networks *network.Service // required
	Subnets  *subnet.Service  // required
	Agents   *agent.Service   // required
	Quota    collection.Quota
	// Mechanisms bind ports, tried in order ([ml2] mechanism_drivers).
	Mechanisms []Mechanism
	// BaseMAC is [DEFAULT] base_mac, "fa:16:3e:00:00:00".
	BaseMAC string
	// MaxAddressPairs is [DEFAULT] max_allowed_address_pair.
	MaxAddressPairs int
}

// Service is the ports collection.
type Service struct {
	*collection.Collection[Port, *Port]
	options Options

	// BeforeCreate hooks complete and check a port before it is stored.
	BeforeCreate []func(ctx context.Context, tx *store.Tx, p *Port, body *resource.Body) error
	// BeforeUpdate hooks check and complete a change of a port.
	BeforeUpdate []func(ctx context.Context, tx *store.Tx, old, want *Port, body *resource.Body) error
	// AfterAddresses hooks check what a client's update made of a port's addresses; old still has the former ones.
	AfterAddresses []func(ctx context.Context, tx *store.Tx, old, now *Port) error
	// BeforeDelete hooks run for every deletion of a port.
	BeforeDelete []func(ctx context.Context, tx *store.Tx, p *Port) error
	// BeforeClientDelete hooks refuse what clients may not delete directly.
	BeforeClientDelete []func(ctx context.Context, tx *store.Tx, p *Port) error
	// AfterBind hooks follow a stored port to another host, or off its host; they run before it is stored again.
	AfterBind []func(ctx context.Context, tx *store.Tx, p *Port) error
}

// New returns the ports collection and hooks it into networks and subnets.
func New(o Options) *Service {
	s := &Service{options: o}
	table := store.NewTable[Port]("port", store.TableOptions[Port]{
		Kind:     "port",
		Children: []func(*store.Tx, []*Port) error{collection.Tagged[Port]("port"), fillFixedIPs, fillSecurityGroups},
		Columns:  map[string]string{"binding:host_id": "host_id", "binding:vif_type": "vif_type", "binding:vnic_type": "vnic_type"},
		Conditions: map[string]func([]any) (string, []any){
			"fixed_ips":   fixedIPCondition,
			"mac_address": macCondition,
			"security_groups": func(values []any) (string, []any) {
				in, args := store.In("g.security_group_id", values)
				return "EXISTS (SELECT 1 FROM port_security_group g WHERE g.port_id = t.id AND " + in + ")", args
			},
		},
	})
	s.Collection = collection.New[Port](collection.Options[Port]{
		Store: o.Store, Resource: newResource(), Table: table, Quota: o.Quota,
		Create: s.create, Update: s.update, Delete: s.clientDelete,
		Present: func(_ context.Context, rows []*Port) {
			for _, p := range rows {
				if p.VIFType == vifNone {
					p.VIFType = VIFUnbound
				}
			}
		},
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM network n WHERE n.id = t.network_id AND n.project_id = ?)", []any{who, who}
		},
	})
	s.Resource.Through = &resource.Through{Kind: "network", Attribute: "network_id", Owner: true}
	// Before the subnets' hook: ports go before the subnets they have addresses on.
	o.Networks.BeforeDelete = append([]func(context.Context, *store.Tx, *network.Network) error{s.deleteOfNetwork}, o.Networks.BeforeDelete...)
	o.Networks.BeforeUpdate = append(o.Networks.BeforeUpdate, s.checkUnsharing)
	o.Subnets.AfterCreate = append(o.Subnets.AfterCreate, s.addAutoAddresses)
	o.Subnets.AfterUpdate = append(o.Subnets.AfterUpdate, func(ctx context.Context, tx *store.Tx, _, n *subnet.Subnet) error {
		return s.ensureDHCP(ctx, tx, n.NetworkID)
	})
	o.Networks.BeforeRenumber = append(o.Networks.BeforeRenumber, s.checkRenumber)
	o.Subnets.BeforeDelete = append(o.Subnets.BeforeDelete, s.releaseSubnet)
	o.Subnets.AfterDelegation = append(o.Subnets.AfterDelegation, s.renumber)
	o.Subnets.BeforeUpdate = append(o.Subnets.BeforeUpdate, s.checkGatewayChange)
	return s
}

func index(rows []*Port) ([]string, map[string]*Port) {
	ids, by := make([]string, len(rows)), make(map[string]*Port, len(rows))
	for i, p := range rows {
		ids[i], by[p.ID] = p.ID, p
	}
	return ids, by
}

func fillFixedIPs(tx *store.Tx, rows []*Port) error {
	ids, by := index(rows)
	return store.Gather(tx, "SELECT port_id, subnet_id, ip_address FROM ip_allocation WHERE %s ORDER BY port_id, position", "port_id", ids, func(scan func(...any) error) error {
		var id, subnetID, text string
		if err := scan(&id, &subnetID, &text); err != nil {
			return err
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("address of port %s: %w", id, err)
		}
		by[id].FixedIPs = append(by[id].FixedIPs, FixedIP{subnetID, a})
		return nil
	})
}

func fillSecurityGroups(tx *store.Tx, rows []*Port) error {
	ids, by := index(rows)
	return store.Gather(tx, "SELECT port_id, security_group_id FROM port_security_group WHERE %s ORDER BY port_id, security_group_id", "port_id", ids, func(scan func(...any) error) error {
		var id, group string
		if err := scan(&id, &group); err != nil {
			return err
		}
		by[id].SecurityGroups = append(by[id].SecurityGroups, group)
		return nil
	})
}

// fixedIPCondition answers fixed_ips=key=value filters: values of one key are
// alternatives, the keys must all match, each on any of the port's addresses.
func fixedIPCondition(values []any) (string, []any) {
	byKey := map[string][]any{}
	for _, v := range values {
		members, _ := v.(map[string]any)
		for k, list := range members {
			switch list := list.(type) {
			case []any:
				byKey[k] = append(byKey[k], list...)
			case []string:
				for _, t := range list {
					byKey[k] = append(byKey[k], t)
				}
			default:
				byKey[k] = append(byKey[k], list)
			}
		}
	}
	var parts []string
	var args []any
	for _, k := range []string{"subnet_id", "ip_address", "ip_address_substr"} {
		list := byKey[k]
		if len(list) == 0 {
			continue
		}
		var in string
		var a []any
		switch k {
		case "ip_address_substr":
			var likes []string
			for _, t := range list {
				likes = append(likes, `a.ip_address LIKE ? ESCAPE '\'`)
				a = append(a, "%"+strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(fmt.Sprint(t))+"%")
			}
			in = "(" + strings.Join(likes, " OR ") + ")"
		case "ip_address":
			for i, t := range list {
				if addr, err := netip.ParseAddr(fmt.Sprint(t)); err == nil {
					list[i] = addr.String()
				}
			}
			in, a = store.In("a.ip_address", list)
		default:
			in, a = store.In("a."+k, list)
		}
		parts = append(parts, "EXISTS (SELECT 1 FROM ip_allocation a WHERE a.port_id = t.id AND "+in+")")
		args = append(args, a...)
	}
	if len(parts) == 0 {
		return "1 = 1", nil
	}
	return strings.Join(parts, " AND "), args
}

func macCondition(values []any) (string, []any) {
	normal := make([]any, len(values))
	for i, v := range values {
		normal[i] = v
		if t, ok := v.(string); ok {
			if mac, err := net.ParseMAC(t); err == nil {
				normal[i] = mac.String()
			} else {
				normal[i] = strings.ToLower(t)
			}
		}
	}
	return store.In("t.mac_address", normal)
}

// RandomMAC is an address of [DEFAULT] base_mac; whether it is free on a network is decided by who takes it.
func (s *Service) RandomMAC() string { return s.randomMAC() }

func (s *Service) randomMAC() string {
	var m [6]byte
	base, err := net.ParseMAC(s.options.BaseMAC)
	if err != nil || len(base) != 6 {
		base = net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, 0}
	}
	copy(m[:], base)
	r := rand.Uint32()
	m[3], m[4], m[5] = byte(r>>16), byte(r>>8), byte(r)
	if base[3] != 0 { // a base of four octets
		m[3] = base[3]
	}
	return net.HardwareAddr(m[:]).String()
}

// Draft is a port that the server makes for itself (routers, DHCP, floating
// IPs): what is not set is chosen as for a client.
type Draft struct {
	Port
	// FixedIPs asked for; nil: choose; entries without address get one of the subnet.
	Addresses []FixedIP
	// Plain: no security groups and no port security.
	Plain bool
}

// Make stores a port of the server's own, outside of quotas.
func (s *Service) Make(ctx context.Context, tx *store.Tx, d Draft) (*Port, error) {
	p := d.Port
	body := &resource.Body{Values: map[string]any{}, Given: map[string]bool{}}
	p.AdminStateUp = true
	if p.VNICType == "" {
		p.VNICType = "normal"
	}
	if d.Addresses != nil {
		body.Values["fixed_ips"] = asRequest(d.Addresses)
		body.Given["fixed_ips"] = true
	}
	if p.HostID != "" {
		body.Given["binding:host_id"] = true
	}
	if d.Plain {
		body.Given["port_security_enabled"] = true
		body.Values["port_security_enabled"] = false
	}
	return &p, s.create(ctx, tx, &p, body)
}

func asRequest(addresses []FixedIP) []any {
	list := []any{}
	for _, a := range addresses {
		item := map[string]any{"subnet_id": a.SubnetID}
		if a.SubnetID == "" {
			delete(item, "subnet_id")
		}
		if a.IPAddress.IsValid() {
			item["ip_address"] = a.IPAddress.String()
		}
		list = append(list, item)
	}
	return list
}

func (s *Service) create(ctx context.Context, tx *store.Tx, p *Port, body *resource.Body) error {
	if p.ID == "" {
		p.ID = resource.NewID()
	}
	parent, err := s.options.Networks.Table.Get(tx, p.NetworkID)
	if errors.Is(err, store.ErrNoRow) {
		return s.options.Networks.NotFound(p.NetworkID)
	} else if err != nil {
		return err
	}
	if who := identity.From(ctx); !who.SeesAll() && parent.ProjectID != who.ProjectID && !parent.SharedFor(who.ProjectID) {
		return s.options.Networks.NotFound(p.NetworkID)
	}
	p.parent = parent
	subnets, err := s.options.Subnets.OfNetwork(tx, p.NetworkID)
	if err != nil {
		return err
	}
	p.Status, p.VIFType, p.VIFDetails = StatusDown, VIFUnbound, json.RawMessage("{}")
	p.FixedIPs, p.Generation, p.IPAllocation = nil, 1, AllocationImmediate
	if p.DeviceOwner == OwnerFloatingIP {
		p.Status = StatusNone
	}
	if !body.Has("port_security_enabled") {
		p.PortSecurityEnabled = parent.PortSecurityEnabled
		if p.Service() {
			p.PortSecurityEnabled = false
		}
	}
	if err := s.checkMAC(p, body); err != nil {
		return err
	}
	if err := s.completePairs(p, body); err != nil {
		return err
	}
	p.ExtraDHCPOpts = dhcpOptions(nil, body)
	if body.Values["binding:profile"] == nil {
		p.Profile = json.RawMessage("{}")
	} else if len(p.Profile) > 4095 {
		return fault.InvalidInput("binding:profile value too large")
	}
	for _, hook := range s.BeforeCreate {
		if err := hook(ctx, tx, p, body); err != nil {
			return err
		}
	}
	subnets, deferred, err := s.eligible(tx, p, parent, subnets, body)
	if err != nil {
		return err
	}
	if list, listed := body.Values["fixed_ips"].([]any); deferred {
		p.IPAllocation = AllocationDeferred
	} else if listed && len(list) == 0 {
		p.IPAllocation = AllocationNone
	}
	if p.HostID != "" {
		if err := s.bind(tx, p, parent); err != nil {
			return err
		}
	}
	if err := s.insertWithMAC(ctx, tx, p); err != nil {
		return err
	}
	wanted, err := s.plan(tx, p, parent, subnets, body, nil)
	if err != nil {
		return err
	}
	if p.FixedIPs, err = s.allocate(tx, p, subnets, wanted); err != nil {
		return err
	}
	if err := s.storeSecurityGroups(tx, p.ID, nil, p.SecurityGroups); err != nil {
		return err
	}
	if len(p.Tags) > 0 {
		slices.Sort(p.Tags)
		if err := collection.StoreTags(tx, s.Kind(), p.ID, nil, p.Tags); err != nil {
			return err
		}
	}
	switch {
	case p.DeviceOwner == OwnerDHCP:
		return nil
	case p.Bound():
		return s.ensureDHCP(ctx, tx, p.NetworkID)
	}
	return s.expectDHCP(ctx, tx, p, subnets)
}

// Network is the port's network, which is read once in a transaction. It is not to be changed.
func (s *Service) Network(tx *store.Tx, p *Port) (*network.Network, error) {
	if p.parent == nil || p.parent.ID != p.NetworkID {
		parent, err := s.options.Networks.Load(tx, p.NetworkID)
		if err != nil {
			return nil, err
		}
		p.parent = parent
	}
	return p.parent, nil
}

// insertWithMAC stores the port; a generated MAC that is taken is replaced.
func (s *Service) insertWithMAC(ctx context.Context, tx *store.Tx, p *Port) error {
	generated := p.MACAddress == ""
	for range 16 {
		if generated {
			p.MACAddress = s.randomMAC()
		}
		err := s.Insert(ctx, tx, p)
		switch {
		case err == nil:
			return nil
		case store.Duplicate(err, "port", "mac_address"):
			if !generated {
				return macInUse(p)
			}
		case errors.Is(err, store.ErrReferenced):
			return s.options.Networks.NotFound(p.NetworkID)
		default:
			return err
		}
	}
	return fault.New(fault.Unavailable, "MacAddressGenerationFailure", "Unable to generate unique mac on network %s.", p.NetworkID)
}

func macInUse(p *Port) error {
	return fault.New(fault.Conflict, "MacAddressInUse", "Unable to complete operation for network %s. The mac address %s is in use.", p.NetworkID, p.MACAddress)
}

func (s *Service) checkMAC(p *Port, body *resource.Body) error {
	if p.MACAddress == "" {
		return nil
	}
	mac, err := net.ParseMAC(p.MACAddress)
	if err != nil || len(mac) != 6 {
		return fault.InvalidInput("'%s' is not a valid MAC address", p.MACAddress)
	}
	p.MACAddress = mac.String()
	return nil
}

// completePairs fills in the MACs of address pairs and checks what they need.
func (s *Service) completePairs(p *Port, body *resource.Body) error {
	if len(p.AllowedAddressPairs) == 0 {
		return nil
	}
	if !p.PortSecurityEnabled {
		return fault.New(fault.Conflict, "AddressPairAndPortSecurityRequired", "Port Security must be enabled in order to have allowed address pairs on a port.")
	}
	if limit := s.options.MaxAddressPairs; limit > 0 && len(p.AllowedAddressPairs) > limit {
		return fault.New(fault.Invalid, "AllowedAddressPairExhausted", "The number of allowed address pair exceeds the maximum %d.", limit)
	}
	if p.MACAddress == "" {
		p.MACAddress = s.randomMAC()
	}
	for i := range p.AllowedAddressPairs {
		pair := &p.AllowedAddressPairs[i]
		if pair.MACAddress == "" {
			pair.MACAddress = p.MACAddress
		} else if mac, err := net.ParseMAC(pair.MACAddress); err == nil {
			pair.MACAddress = mac.String()
		}
		if slices.Contains(p.AllowedAddressPairs[:i], *pair) {
			return fault.New(fault.Invalid, "DuplicateAddressPairInRequest", "Request contains duplicate address pair: mac_address %s ip_address %s.", pair.MACAddress, pair.IPAddress)
		}
	}
	return nil
}

// blankable are the options whose empty value means something.
var blankable = []string{"router", "classless-static-route"}

// dhcpOptions merges the options of a body into those that are there, by name
// and family; a null value removes one.
func dhcpOptions(have []DHCPOption, body *resource.Body) []DHCPOption {
	list, given := body.Values["extra_dhcp_opts"].([]any)
	if !given {
		return have
	}
	merged := slices.Clone(have)
	for _, item := range list {
		members, _ := item.(map[string]any)
		o := DHCPOption{IPVersion: 4}
		o.OptName, _ = members["opt_name"].(string)
		if v, ok := members["ip_version"].(int64); ok {
			o.IPVersion = int(v)
		}
		value, hasValue := members["opt_value"].(string)
		o.OptValue = value
		i := slices.IndexFunc(merged, func(h DHCPOption) bool { return h.OptName == o.OptName && h.IPVersion == o.IPVersion })
		switch {
		case !hasValue && i >= 0:
			merged = slices.Delete(merged, i, i+1)
		case !hasValue, value == "" && !slices.Contains(blankable, o.OptName):
		case i >= 0:
			merged[i] = o
		default:
			merged = append(merged, o)
		}
	}
	return merged
}

func (s *Service) storeSecurityGroups(tx *store.Tx, id string, have, want []string) error {
	for _, g := range have {
		if !slices.Contains(want, g) {
			if err := tx.Put("DELETE FROM port_security_group WHERE port_id = ? AND security_group_id = ?", id, g); err != nil {
				return err
			}
		}
	}
	for _, g := range want {
		if !slices.Contains(have, g) {
			if err := tx.Put("INSERT INTO port_security_group (port_id, security_group_id) VALUES (?, ?) ON CONFLICT DO NOTHING", id, g); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) update(ctx context.Context, tx *store.Tx, old, want *Port, body *resource.Body) error {
	parent, err := s.Network(tx, want)
	if err != nil {
		return err
	}
	if body.Has("mac_address") {
		if err := s.checkMAC(want, body); err != nil {
			return err
		}
		if want.MACAddress != old.MACAddress {
			if old.Bound() && body.Values["binding:host_id"] == nil {
				return fault.New(fault.Conflict, "PortBound", "Unable to complete operation on port %s, port is already bound, port type: %s, old_mac %s, new_mac %s.", old.ID, old.VIFType, old.MACAddress, want.MACAddress)
			}
			if old.Service() {
				return fault.New(fault.Conflict, "UnsupportedPortDeviceOwner", "Operation %s is not supported for device_owner %s on port %s.", "mac address update", old.DeviceOwner, old.ID)
			}
		}
	}
	if err := s.completePairs(want, body); err != nil {
		return err
	}
	want.ExtraDHCPOpts = dhcpOptions(old.ExtraDHCPOpts, body)
	if body.Has("binding:profile") && body.Values["binding:profile"] == nil {
		want.Profile = json.RawMessage("{}")
	} else if len(want.Profile) > 4095 {
		return fault.InvalidInput("binding:profile value too large")
	}
	if body.Has("binding:vnic_type") && want.VNICType != old.VNICType && old.Bound() {
		return fault.New(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", old.ID, old.NetworkID, old.DeviceID)
	}
	for _, hook := range s.BeforeUpdate {
		if err := hook(ctx, tx, old, want, body); err != nil {
			return err
		}
	}
	if err := s.follow(tx, old, want, parent, body); err != nil {
		return err
	}
	if body.Has("fixed_ips") || want.MACAddress != old.MACAddress {
		subnets, err := s.options.Subnets.OfNetwork(tx, want.NetworkID)
		if err != nil {
			return err
		}
		if err := s.reallocate(tx, old, want, parent, subnets, body); err != nil {
			return err
		}
		for _, hook := range s.AfterAddresses {
			if err := hook(ctx, tx, old, want); err != nil {
				return err
			}
		}
	}
	if body.Has("security_groups") || !slices.Equal(old.SecurityGroups, want.SecurityGroups) {
		if err := s.storeSecurityGroups(tx, want.ID, old.SecurityGroups, want.SecurityGroups); err != nil {
			return err
		}
	}
	store := s.store
	if body.Has("binding:host_id") && want.HostID != old.HostID || body.Has("binding:profile") && string(want.Profile) != string(old.Profile) ||
		body.Has("binding:vnic_type") && want.VNICType != old.VNICType {
		if err := s.rebind(ctx, tx, want, parent); err != nil {
			return err
		}
		store = s.storeBound
	}
	if old.AdminStateUp && !want.AdminStateUp && want.Status != StatusNone {
		want.Status, want.L2Ready, want.BindingGeneration = StatusDown, false, want.Generation+1
	}
	return store(ctx, tx, want)
}

// store saves a changed port as a new generation for its host.
func (s *Service) store(ctx context.Context, tx *store.Tx, p *Port) error {
	p.Generation++
	if err := s.Save(ctx, tx, p); err != nil {
		if store.Duplicate(err, "port", "mac_address") {
			return macInUse(p)
		}
		return err
	}
	return nil
}

// Renew saves a port of which its host must be told anew: as a new generation.
func (s *Service) Renew(ctx context.Context, tx *store.Tx, p *Port) error { return s.store(ctx, tx, p) }

// Store saves a port that an extension has changed, as a new generation for its host.
func (s *Service) Store(ctx context.Context, tx *store.Tx, p *Port) error { return s.store(ctx, tx, p) }

// SetDevice changes whom a port belongs to and where it is; empty host leaves the binding.
func (s *Service) SetDevice(ctx context.Context, tx *store.Tx, p *Port, deviceID, owner string) error {
	p.DeviceID, p.DeviceOwner = deviceID, owner
	return s.store(ctx, tx, p)
}

// SetAddresses replaces the addresses of a port of the server's own.
func (s *Service) SetAddresses(ctx context.Context, tx *store.Tx, p *Port, addresses []FixedIP) error {
	old := *p
	parent, err := s.options.Networks.Load(tx, p.NetworkID)
	if err != nil {
		return err
	}
	subnets, err := s.options.Subnets.OfNetwork(tx, p.NetworkID)
	if err != nil {
		return err
	}
	body := &resource.Body{Values: map[string]any{"fixed_ips": asRequest(addresses)}, Given: map[string]bool{"fixed_ips": true}}
	if err := s.reallocate(tx, &old, p, parent, subnets, body); err != nil {
		return err
	}
	return s.store(ctx, tx, p)
}

func (s *Service) clientDelete(ctx context.Context, tx *store.Tx, p *Port) error {
	if err := foresee(ctx, tx, []*Port{p}, s.BeforeClientDelete, s.BeforeDelete); err != nil {
		return err
	}
	for _, hook := range s.BeforeClientDelete {
		if err := hook(ctx, tx, p); err != nil {
			return err
		}
	}
	return s.drop(ctx, tx, p)
}

// foresee lets hooks ask together what they will ask of ports.
func foresee(ctx context.Context, tx *store.Tx, ports []*Port, hooks ...[]func(ctx context.Context, tx *store.Tx, p *Port) error) error {
	var closures []func(tx *store.Tx) error
	for _, p := range ports {
		rehearsed := *p
		rehearsed.Slots = maps.Clone(p.Slots)
		for _, hook := range slices.Concat(hooks...) {
			closures = append(closures, func(tx *store.Tx) error { return hook(ctx, tx, &rehearsed) })
		}
	}
	return tx.Foresee(closures...)
}

// DeleteOf deletes all ports of a network that clients may delete, and refuses
// when there are others but those that go along with it.
func (s *Service) DeleteOf(ctx context.Context, tx *store.Tx, networkID string) error {
	ports, err := s.Table.Select(tx, "WHERE t.network_id = ? ORDER BY t.id", networkID)
	if err != nil {
		return err
	}
	ports = slices.DeleteFunc(ports, func(p *Port) bool { return slices.Contains(removable, p.DeviceOwner) })
	for some := range slices.Chunk(ports, 50) {
		if err := foresee(ctx, tx, some, s.BeforeClientDelete, s.BeforeDelete); err != nil {
			return err
		}
		for _, p := range some {
			if err := s.clientDelete(ctx, tx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// Drop deletes a port, whoever's it is.
func (s *Service) Drop(ctx context.Context, tx *store.Tx, p *Port) error {
	if err := foresee(ctx, tx, []*Port{p}, s.BeforeDelete); err != nil {
		return err
	}
	return s.drop(ctx, tx, p)
}

func (s *Service) drop(ctx context.Context, tx *store.Tx, p *Port) error {
	for _, hook := range s.BeforeDelete {
		if err := hook(ctx, tx, p); err != nil {
			return err
		}
	}
	return s.Remove(ctx, tx, p)
}

// checkUnsharing refuses to take a network away from projects that use it.
func (s *Service) checkUnsharing(_ context.Context, tx *store.Tx, old, want *network.Network) error {
	if want.Shared || !slices.Contains(old.SharedWith, "*") {
		return nil
	}
	projects, err := projectsOn(tx, old.ID)
	used := slices.ContainsFunc(projects, func(project string) bool {
		return project != old.ProjectID && !slices.Contains(old.SharedWith, project)
	})
	if err == nil && used {
		err = fault.New(fault.Conflict, "InvalidSharedSetting", multipleProjects, old.Name)
	}
	return err
}

const multipleProjects = "Unable to reconfigure sharing settings for network %s. Multiple projects are using it."

// projectsOn are the projects with ports or subnets on a network.
func projectsOn(tx *store.Tx, networkID string) ([]string, error) {
	return rbac.Projects(tx, `SELECT project_id FROM port WHERE network_id = ? AND project_id <> '' AND device_owner NOT IN (?, ?, ?, ?, ?)
		UNION SELECT project_id FROM subnet WHERE network_id = ?`,
		networkID, OwnerDHCP, OwnerDistributed, OwnerAgentGateway, OwnerRouterGateway, OwnerFloatingIP, networkID)
}

// NetworkUse is the use of other projects' networks: ports and subnets there.
func (s *Service) NetworkUse() rbac.Use {
	return rbac.Use{Projects: projectsOn, Details: func(p *rbac.Policy) string { return fmt.Sprintf(multipleProjects, p.ObjectID) }}
}

// removable ports go along with their network or subnet.
var removable = []string{OwnerDHCP, OwnerDistributed, OwnerAgentGateway}

func (s *Service) deleteOfNetwork(ctx context.Context, tx *store.Tx, n *network.Network) error {
	ports, err := s.Table.Select(tx, "WHERE t.network_id = ?", n.ID)
	if err != nil {
		return err
	}
	var left []string
	for _, p := range ports {
		if !slices.Contains(removable, p.DeviceOwner) {
			left = append(left, p.ID)
		}
	}
	if len(left) > 0 {
		return network.InUse(n.ID, "There are one or more ports still in use on the network, id for these ports is: "+strings.Join(left, ","))
	}
	for _, p := range ports {
		if err := s.Drop(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}

// OfDevice returns the ports of a device, oldest first, those of the owners when given.
func (s *Service) OfDevice(tx *store.Tx, deviceID string, owners ...string) ([]*Port, error) {
	if len(owners) == 0 {
		return s.Table.Select(tx, "WHERE t.device_id = ? ORDER BY t.created_at, t.id", deviceID)
	}
	list := make([]any, len(owners))
	for i, o := range owners {
		list[i] = o
	}
	in, args := store.In("t.device_owner", list)
	return s.Table.Select(tx, "WHERE t.device_id = ? AND "+in+" ORDER BY t.created_at, t.id", append([]any{deviceID}, args...)...)
}
