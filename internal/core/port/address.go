package port

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isospin/internal/core/ipam"
	"isospin/internal/core/network"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// wish is one address that a port is to get.
type wish struct {
	// among are the subnets that will do, in order.
	among []*subnet.Subnet
	// address is the one that must be it; invalid: any of the pools.
	address netip.Addr
	// keep: the port has it already.
	keep bool
}

// plan works out which addresses a port is to have: those of the body, or one
// of each family, and its own address on each auto-address subnet. had are
// the addresses before an update.
func (s *Service) plan(tx *store.Tx, p *Port, parent *network.Network, subnets []*subnet.Subnet, body *resource.Body, had []FixedIP) ([]wish, error) {
	subnets, err := serving(p, subnets, had)
	if err != nil {
		return nil, err
	}
	var wishes []wish
	covered := map[string]bool{}
	list, listed := body.Values["fixed_ips"].([]any)
	if listed {
		for _, item := range list {
			members, _ := item.(map[string]any)
			w, err := s.wishFor(p, members, subnets, had, wishes)
			if err != nil {
				return nil, err
			}
			for _, n := range w.among {
				covered[n.ID] = true
			}
			wishes = append(wishes, w)
		}
	} else if !body.Has("fixed_ips") {
		byFamily := map[int][]*subnet.Subnet{}
		for _, n := range subnets {
			if !n.AutoAddress() || routerOwner(p.DeviceOwner) {
				byFamily[n.IPVersion] = append(byFamily[n.IPVersion], n)
			}
		}
		for _, version := range []int{4, 6} {
			if among := byFamily[version]; len(among) > 0 {
				wishes = append(wishes, wish{among: among})
			}
		}
	}
	if routerOwner(p.DeviceOwner) {
		return wishes, nil
	}
	for _, n := range subnets {
		if !n.AutoAddress() || covered[n.ID] {
			continue
		}
		a, err := ipam.EUI64(n.CIDR, p.MACAddress)
		if err != nil {
			return nil, err
		}
		wishes = append(wishes, wish{among: []*subnet.Subnet{n}, address: a})
	}
	return wishes, nil
}

// serving are the subnets that are for ports of that device owner, those with
// service types first, and those on which the port has addresses already.
func serving(p *Port, subnets []*subnet.Subnet, had []FixedIP) ([]*subnet.Subnet, error) {
	if p.DeviceOwner == OwnerDHCP { // DHCP is served on all
		return subnets, nil
	}
	var typed, others []*subnet.Subnet
	for _, n := range subnets {
		switch {
		case !n.For(p.DeviceOwner) && !slices.ContainsFunc(had, func(f FixedIP) bool { return f.SubnetID == n.ID }):
		case len(n.ServiceTypes) > 0:
			typed = append(typed, n)
		default:
			others = append(others, n)
		}
	}
	if len(typed)+len(others) == 0 && len(subnets) > 0 {
		return nil, fault.New(fault.Conflict, "IpAddressGenerationFailureNoMatchingSubnet", "No valid service subnet for the given device owner, network %s, service type %s.", p.NetworkID, p.DeviceOwner)
	}
	return append(typed, others...), nil
}

func (s *Service) wishFor(p *Port, members map[string]any, subnets []*subnet.Subnet, had []FixedIP, before []wish) (wish, error) {
	if len(subnets) == 0 {
		return wish{}, fault.InvalidInput("IP allocation requires subnets for network")
	}
	subnetID, _ := members["subnet_id"].(string)
	text, _ := members["ip_address"].(string)
	var on *subnet.Subnet
	if subnetID != "" {
		if on = subnet.Of(subnets, subnetID); on == nil {
			return wish{}, fault.InvalidInput("Failed to create port on network %s, because fixed_ips included invalid subnet %s", p.NetworkID, subnetID)
		}
	}
	if text == "" {
		if on == nil {
			return wish{}, fault.InvalidInput("IP allocation requires subnet_id or ip_address")
		}
		if on.AutoAddress() && !routerOwner(p.DeviceOwner) {
			a, err := ipam.EUI64(on.CIDR, p.MACAddress)
			return wish{among: []*subnet.Subnet{on}, address: a}, err
		}
		// Keep an address of that subnet that no earlier entry keeps.
		for _, f := range had {
			if f.SubnetID == on.ID && !slices.ContainsFunc(before, func(w wish) bool { return w.address == f.IPAddress }) {
				return wish{among: []*subnet.Subnet{on}, address: f.IPAddress}, nil
			}
		}
		return wish{among: []*subnet.Subnet{on}}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return wish{}, fault.InvalidInput("'%s' is not a valid IP address", text)
	}
	if on == nil {
		for _, n := range subnets {
			if n.CIDR.Contains(a) {
				on = n
				break
			}
		}
		if on == nil {
			return wish{}, fault.New(fault.Invalid, "InvalidIpForNetwork", "IP address %s is not a valid IP for any of the subnets on the specified network.", a)
		}
	}
	if !on.CIDR.Contains(a) || on.IPVersion == 4 && on.CIDR.Bits() < 31 && (a == on.CIDR.Masked().Addr() || a == ipam.Last(on.CIDR)) {
		return wish{}, fault.New(fault.Invalid, "InvalidIpForSubnet", "IP address %s is not a valid IP for the specified subnet.", a)
	}
	if on.AutoAddress() && !routerOwner(p.DeviceOwner) {
		if own, err := ipam.EUI64(on.CIDR, p.MACAddress); err != nil || own != a {
			return wish{}, fault.New(fault.Invalid, "AllocationOnAutoAddressSubnet", "IPv6 address %s cannot be directly assigned to a port on subnet %s as the subnet is configured for automatic addresses", a, on.ID)
		}
	}
	return wish{among: []*subnet.Subnet{on}, address: a}, nil
}

// allocate makes the wishes true; the unique key on (subnet, address) decides.
func (s *Service) allocate(tx *store.Tx, p *Port, subnets []*subnet.Subnet, wishes []wish) ([]FixedIP, error) {
	var got []FixedIP
	for position, w := range wishes {
		f, err := s.allocateOne(tx, p, w, position)
		if err != nil {
			return nil, err
		}
		got = append(got, f)
	}
	return got, nil
}

func (s *Service) allocateOne(tx *store.Tx, p *Port, w wish, position int) (FixedIP, error) {
	take := func(n *subnet.Subnet) func(netip.Addr) (bool, error) {
		return func(a netip.Addr) (bool, error) {
			err := tx.Put("INSERT INTO ip_allocation (subnet_id, ip_address, port_id, position) VALUES (?, ?, ?, ?)", n.ID, a.String(), p.ID, position)
			if errors.Is(err, store.ErrDuplicate) {
				return false, nil
			}
			return err == nil, err
		}
	}
	if w.address.IsValid() {
		n := w.among[0]
		if w.keep {
			f := FixedIP{n.ID, w.address}
			return f, place(tx, f, position)
		}
		ok, err := take(n)(w.address)
		if err == nil && !ok {
			err = fault.New(fault.Conflict, "IpAddressAlreadyAllocated", "IP address %s already allocated in subnet %s", w.address, n.ID)
		}
		return FixedIP{n.ID, w.address}, err
	}
	for _, n := range w.among {
		some := func(pick func() netip.Addr) ([]netip.Addr, error) { return spare(tx, n, pick) }
		if p.DeviceOwner == OwnerDHCP { // the first free one
			some = nil
		}
		a, err := ipam.Choose(n.AllocationPools, take(n), some, func() (map[netip.Addr]bool, error) {
			return used(tx, "SELECT ip_address FROM ip_allocation WHERE subnet_id = ?", n.ID)
		})
		if err != nil {
			return FixedIP{}, err
		}
		if a.IsValid() {
			return FixedIP{n.ID, a}, nil
		}
	}
	return FixedIP{}, exhausted(p.NetworkID)
}

// place notes which of its port's addresses one is.
func place(tx *store.Tx, f FixedIP, position int) error {
	return tx.Put("UPDATE ip_allocation SET position = ? WHERE subnet_id = ? AND ip_address = ?", position, f.SubnetID, f.IPAddress.String())
}

// used are the addresses that a query returns.
func used(tx *store.Tx, query string, args ...any) (map[netip.Addr]bool, error) {
	found := map[netip.Addr]bool{}
	err := tx.Query(func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		a, err := netip.ParseAddr(text)
		found[a] = true
		return err
	}, query, args...)
	return found, err
}

// spare are some addresses of a subnet's pools that nobody has.
func spare(tx *store.Tx, n *subnet.Subnet, pick func() netip.Addr) ([]netip.Addr, error) {
	texts, err := tx.Spare("address "+n.ID+fmt.Sprint(n.AllocationPools), func(tries int) ([]string, error) {
		// Not one list of addresses: before it has statistics PostgreSQL reads the subnet to find them.
		const one = "SELECT ip_address FROM ip_allocation WHERE subnet_id = ? AND ip_address = ?"
		var args []any
		var among []netip.Addr
		for range tries {
			a := pick()
			among, args = append(among, a), append(args, n.ID, a.String())
		}
		taken, err := used(tx, one+strings.Repeat(" UNION ALL "+one, tries-1), args...)
		if err != nil {
			return nil, err
		}
		var free []string
		for _, a := range among {
			if !taken[a] {
				taken[a] = true // picked twice
				free = append(free, a.String())
			}
		}
		return free, nil
	})
	if err != nil {
		return nil, err
	}
	free := make([]netip.Addr, len(texts))
	for i, text := range texts {
		if free[i], err = netip.ParseAddr(text); err != nil {
			return nil, err
		}
	}
	return free, nil
}

func exhausted(networkID string) error {
	return fault.New(fault.Conflict, "IpAddressGenerationFailure", "No more IP addresses available on network %s.", networkID)
}

// reallocate makes the port's addresses be what an update asks for: what
// stays is left alone, the rest is released first.
func (s *Service) reallocate(tx *store.Tx, old, want *Port, parent *network.Network, subnets []*subnet.Subnet, body *resource.Body) error {
	if !body.Has("fixed_ips") { // the MAC has changed: the others stay, its own addresses follow
		kept := []FixedIP{}
		for _, f := range old.FixedIPs {
			if n := subnet.Of(subnets, f.SubnetID); n == nil || !n.AutoAddress() {
				kept = append(kept, f)
			}
		}
		allocation := want.IPAllocation
		defer func() { want.IPAllocation = allocation }()
		body = &resource.Body{Values: map[string]any{"fixed_ips": asRequest(kept)}, Given: map[string]bool{"fixed_ips": true}}
	}
	if list, listed := body.Values["fixed_ips"].([]any); listed {
		want.IPAllocation = AllocationImmediate
		if len(list) == 0 {
			want.IPAllocation = AllocationNone
		}
	}
	subnets, _, err := s.eligible(tx, want, parent, subnets, body)
	if err != nil {
		return err
	}
	wishes, err := s.plan(tx, want, parent, subnets, body, old.FixedIPs)
	if err != nil {
		return err
	}
	keep := map[FixedIP]bool{}
	for i, w := range wishes {
		if w.address.IsValid() {
			f := FixedIP{w.among[0].ID, w.address}
			if slices.Contains(old.FixedIPs, f) && !keep[f] {
				keep[f], wishes[i].keep = true, true
			}
		}
	}
	for _, f := range old.FixedIPs {
		if !keep[f] {
			if err := tx.Put("DELETE FROM ip_allocation WHERE subnet_id = ? AND ip_address = ? AND port_id = ?", f.SubnetID, f.IPAddress.String(), want.ID); err != nil {
				return err
			}
		}
	}
	want.FixedIPs, err = s.allocate(tx, want, subnets, wishes)
	return err
}

// addAutoAddresses gives every port of a network its address on a new auto-address subnet.
func (s *Service) addAutoAddresses(ctx context.Context, tx *store.Tx, n *subnet.Subnet) error {
	if n.AutoAddress() {
		subnets, err := s.options.Subnets.OfNetwork(tx, n.NetworkID)
		if err != nil {
			return err
		}
		ports, err := s.Table.Select(tx, "WHERE t.network_id = ?", n.NetworkID)
		if err != nil {
			return err
		}
		for _, p := range ports {
			if routerOwner(p.DeviceOwner) || !p.reaches(n, subnets) {
				continue
			}
			if p.DeviceOwner != OwnerDHCP && !n.For(p.DeviceOwner) {
				continue
			}
			a, err := ipam.EUI64(n.CIDR, p.MACAddress)
			if err != nil {
				return fmt.Errorf("port %s: %w", p.ID, err)
			}
			f, err := s.allocateOne(tx, p, wish{among: []*subnet.Subnet{n}, address: a}, len(p.FixedIPs))
			if err != nil {
				return err
			}
			p.FixedIPs = append(p.FixedIPs, f)
			if err := s.store(ctx, tx, p); err != nil {
				return err
			}
		}
	}
	return s.ensureDHCP(ctx, tx, n.NetworkID)
}

// releaseSubnet refuses to let a subnet go that ports need, and takes its
// addresses off the others.
func (s *Service) releaseSubnet(ctx context.Context, tx *store.Tx, n *subnet.Subnet) error {
	ports, err := s.Table.Select(tx, "WHERE t.id IN (SELECT port_id FROM ip_allocation WHERE subnet_id = ?)", n.ID)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if routerOwner(p.DeviceOwner) || !n.AutoAddress() && !slices.Contains(removable, p.DeviceOwner) {
			return subnet.InUse(n.ID, "One or more ports have an IP allocation from this subnet")
		}
		// A port of a routed network would be without any address, and could be moved nowhere.
		if n.SegmentID != nil && len(p.FixedIPs) == 1 && !slices.Contains(removable, p.DeviceOwner) {
			return subnet.InUse(n.ID, "One or more ports have an IP allocation from this subnet")
		}
	}
	for _, p := range ports {
		left := slices.DeleteFunc(slices.Clone(p.FixedIPs), func(f FixedIP) bool { return f.SubnetID == n.ID })
		if len(left) == 0 && p.DeviceOwner == OwnerDHCP {
			if err := s.Drop(ctx, tx, p); err != nil {
				return err
			}
			continue
		}
		if err := tx.Put("DELETE FROM ip_allocation WHERE subnet_id = ? AND port_id = ?", n.ID, p.ID); err != nil {
			return err
		}
		for i, f := range left { // no two have one position: the next comes after all of them
			if f == p.FixedIPs[i] {
				continue
			}
			if err := place(tx, f, i); err != nil {
				return err
			}
		}
		p.FixedIPs = left
		if err := s.store(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}

// checkGatewayChange refuses to move a gateway address that a router holds.
func (s *Service) checkGatewayChange(_ context.Context, tx *store.Tx, old, want *subnet.Subnet) error {
	if old.GatewayIP == want.GatewayIP || !old.GatewayIP.IsValid() {
		return nil
	}
	var id, owner string
	err := tx.Row("SELECT p.id, p.device_owner FROM ip_allocation a JOIN port p ON p.id = a.port_id WHERE a.subnet_id = ? AND a.ip_address = ?", []any{old.ID, old.GatewayIP.String()}, &id, &owner)
	if err == store.ErrNoRow || err == nil && !routerOwner(owner) {
		return nil
	}
	if err != nil {
		return err
	}
	return fault.New(fault.Conflict, "GatewayIpInUse", "Current gateway ip %s already in use by port %s. Unable to update.", old.GatewayIP, id)
}
