package subnet

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"isospin/internal/core/collection"
	"isospin/internal/core/ipam"
	"isospin/internal/core/network"
	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// Options of New.
type Options struct {
	Store    *store.Store     // required
	Networks *network.Service // required
	Quota    collection.Quota
	// MaxNameservers and MaxHostRoutes are [DEFAULT] max_dns_nameservers and max_subnet_host_routes.
	MaxNameservers int
	MaxHostRoutes  int
	// ShowExternal: subnets of external networks tell so, and are shown to all
	// who may use these (subnet-external-network).
	ShowExternal bool
	// DelegateByDefault is [DEFAULT] ipv6_pd_enabled: the default IPv6 pool is prefix delegation.
	DelegateByDefault bool
}

// Service is the subnets collection.
type Service struct {
	*collection.Collection[Subnet, *Subnet]
	options Options
	// Pools gives prefixes of subnet pools; nil: there are none.
	Pools Pools
	// BeforePool hooks run before a subnet pool is created or updated.
	BeforePool []PoolHook
	// Hooks of what lives on subnets, run in order in the same transaction.
	BeforeCreate []func(ctx context.Context, tx *store.Tx, s *Subnet, beside []*Subnet) error
	AfterCreate  []func(ctx context.Context, tx *store.Tx, s *Subnet) error
	BeforeUpdate []func(ctx context.Context, tx *store.Tx, old, want *Subnet) error
	AfterUpdate  []func(ctx context.Context, tx *store.Tx, old, s *Subnet) error
	BeforeDelete []func(ctx context.Context, tx *store.Tx, s *Subnet) error
	// AfterDelegation hooks follow a subnet to another prefix; old has the former one.
	AfterDelegation []func(ctx context.Context, tx *store.Tx, old, now *Subnet) error
}

// New returns the subnets collection and hooks it into networks.
func New(o Options) *Service {
	s := &Service{options: o}
	shared := "r.action = 'access_as_shared'"
	if o.ShowExternal {
		shared = "r.action IN ('access_as_shared', 'access_as_external')"
	}
	table := store.NewTable[Subnet]("subnet", store.TableOptions[Subnet]{
		Kind:     "subnet",
		Children: []func(*store.Tx, []*Subnet) error{collection.Tagged[Subnet]("subnet"), fillExternal},
		Texts:    map[string]func(*Subnet) (string, bool){"cidr": row},
		Conditions: map[string]func([]any) (string, []any){
			"cidr":   cidrCondition,
			"shared": rbac.SharedCondition("network", "t.network_id"),
			"router:external": func(values []any) (string, []any) {
				in, args := store.In("n.external", values)
				return "EXISTS (SELECT 1 FROM network n WHERE n.id = t.network_id AND " + in + ")", args
			},
		},
	})
	s.Collection = collection.New[Subnet](collection.Options[Subnet]{
		Store: o.Store, Resource: newResource(o.ShowExternal), Table: table, Quota: o.Quota,
		Create: s.create, Update: s.update, Delete: s.delete,
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return `t.project_id = ? OR EXISTS (SELECT 1 FROM network n WHERE n.id = t.network_id AND n.project_id = ?)
				OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'network' AND r.object_id = t.network_id AND ` + shared + ` AND r.target_project IN ('*', ?))`, []any{who, who, who}
		},
	})
	s.Resource.Through = &resource.Through{Kind: "network", Attribute: "network_id"}
	o.Networks.BeforeDelete = append(o.Networks.BeforeDelete, s.deleteOfNetwork)
	o.Networks.BeforeUpdate = append(o.Networks.BeforeUpdate, s.checkNetworkMTU)
	return s
}

// fillExternal fills in whether the subnets' networks are external.
func fillExternal(tx *store.Tx, rows []*Subnet) error {
	ids, of := make([]string, 0, len(rows)), map[string][]*Subnet{}
	for _, n := range rows {
		if of[n.NetworkID] == nil {
			ids = append(ids, n.NetworkID)
		}
		of[n.NetworkID] = append(of[n.NetworkID], n)
	}
	return store.Gather(tx, "SELECT id, external FROM network WHERE %s", "id", ids, func(scan func(...any) error) error {
		var id string
		var external bool
		if err := scan(&id, &external); err != nil {
			return err
		}
		for _, n := range of[id] {
			n.External = external
		}
		return nil
	})
}

// OfNetwork returns a network's subnets, oldest first.
func (s *Service) OfNetwork(tx *store.Tx, networkID string) ([]*Subnet, error) {
	return s.Table.SelectBare(tx, "WHERE t.network_id = ? ORDER BY t.created_at, t.id", networkID)
}

func bad(format string, args ...any) error {
	return fault.New(fault.Invalid, "BadRequest", "Bad subnets request: "+format+".", args...)
}

func (s *Service) create(ctx context.Context, tx *store.Tx, n *Subnet, body *resource.Body) error {
	parent, err := s.options.Networks.Find(ctx, tx, n.NetworkID)
	if err != nil {
		return err
	}
	n.ID, n.External = resource.NewID(), parent.External
	if n.CIDR.IsValid() && body.Has("prefixlen") {
		return bad("cidr and prefixlen must not be supplied together")
	}
	pool, err := s.choosePool(ctx, tx, n, body)
	if err != nil {
		return err
	}
	if pool == nil && !n.CIDR.IsValid() {
		return bad("a subnetpool must be specified in the absence of a cidr")
	}
	if n.CIDR.IsValid() {
		n.CIDR = n.CIDR.Masked()
	}
	if pool != nil {
		if err := s.allocate(ctx, tx, n, pool, body); err != nil {
			return err
		}
	}
	if !body.Has("gateway_ip") {
		n.GatewayIP = defaultGateway(n)
	}
	if err := s.checkForm(n, nil); err != nil {
		return err
	}
	existing, err := s.OfNetwork(tx, n.NetworkID)
	if err != nil {
		return err
	}
	for _, e := range existing {
		if !e.Pending() && e.CIDR.Overlaps(n.CIDR) {
			return overlap(n)
		}
	}
	if err := s.checkBeside(tx, n, pool, existing); err != nil {
		return err
	}
	if pools, ok := body.Values["allocation_pools"].([]any); ok && pools != nil {
		if err := checkPools(n); err != nil {
			return err
		}
	} else {
		n.AllocationPools = ipam.DefaultPools(n.CIDR, n.GatewayIP)
	}
	if err := checkMTU(parent, n.IPVersion); err != nil {
		return err
	}
	for _, hook := range s.BeforeCreate {
		if err := hook(ctx, tx, n, existing); err != nil {
			return err
		}
	}
	if err := s.Insert(ctx, tx, n); errors.Is(err, store.ErrDuplicate) {
		return overlap(n)
	} else if errors.Is(err, store.ErrReferenced) {
		return s.options.Networks.NotFound(n.NetworkID)
	} else if err != nil {
		return err
	}
	for _, hook := range s.AfterCreate {
		if err := hook(ctx, tx, n); err != nil {
			return err
		}
	}
	return s.options.Networks.Bump(ctx, tx, n.NetworkID)
}

func overlap(n *Subnet) error {
	return fault.InvalidInput("Requested subnet with cidr: %s for network: %s overlaps with another subnet", n.CIDR, n.NetworkID)
}

// defaultGateway is the first address of the subnet; the only one of a /32 or /128 has no use as one.
func defaultGateway(n *Subnet) netip.Addr {
	if n.CIDR.Bits() == n.CIDR.Addr().BitLen() {
		return n.CIDR.Addr()
	}
	return n.CIDR.Addr().Next()
}

// checkForm checks what a subnet must be on its own. old is nil on create.
func (s *Service) checkForm(n, old *Subnet) error {
	version := func(name string, a netip.Addr, text string) error {
		if a.Is4() != (n.IPVersion == 4) {
			return fault.InvalidInput("%s '%s' does not match the ip_version '%d'", name, text, n.IPVersion)
		}
		return nil
	}
	if err := version("cidr", n.CIDR.Addr(), n.CIDR.String()); err != nil {
		return err
	}
	if old == nil {
		if n.CIDR.Bits() == 0 {
			return fault.InvalidInput("0 is not allowed as CIDR prefix length")
		}
		if n.IPVersion == 6 && n.CIDR.Addr().IsUnspecified() && !n.Delegated() {
			return fault.InvalidInput("IPv6 subnet '::' is not supported")
		}
	}
	if err := s.checkModes(n, old); err != nil {
		return err
	}
	if n.EnableDHCP {
		limit := map[int]int{4: 30, 6: 126}[n.IPVersion]
		if n.CIDR.Bits() > limit {
			return fault.InvalidInput("Subnet has a prefix length that is incompatible with DHCP service enabled")
		}
		if a := n.CIDR.Addr(); a.IsMulticast() {
			return fault.InvalidInput("Multicast IP subnet is not supported if enable_dhcp is True")
		} else if a.IsLoopback() {
			return fault.InvalidInput("Loopback IP subnet is not supported if enable_dhcp is True")
		} else if a.Is4() && a.IsUnspecified() {
			return fault.InvalidInput("First IP '0.0.0.0' of network is not supported if enable_dhcp is True.")
		}
	}
	if n.GatewayIP.IsValid() {
		if err := version("gateway_ip", n.GatewayIP, n.GatewayIP.String()); err != nil {
			return err
		}
		if !gatewayFits(n) {
			return fault.InvalidInput("Gateway is not valid on subnet")
		}
	}
	if len(n.DNSNameservers) > s.options.MaxNameservers {
		return fault.New(fault.Invalid, "DNSNameServersExhausted", "Unable to complete operation for %s. The number of DNS nameservers exceeds the limit %d.", n.ID, s.options.MaxNameservers)
	}
	for _, text := range n.DNSNameservers {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fault.InvalidInput("Error parsing dns address %s", text)
		}
		if err := version("dns_nameserver", a, text); err != nil {
			return err
		}
	}
	if len(n.HostRoutes) > s.options.MaxHostRoutes {
		return fault.New(fault.Invalid, "HostRoutesExhausted", "Unable to complete operation for %s. The number of host routes exceeds the limit %d.", n.ID, s.options.MaxHostRoutes)
	}
	for _, r := range n.HostRoutes {
		a, err := netip.ParseAddr(r.NextHop)
		if err != nil {
			return fault.InvalidInput("Invalid route: %s", value.Repr(map[string]any{"destination": r.Destination, "nexthop": r.NextHop}))
		}
		p, err := netip.ParsePrefix(r.Destination)
		if err != nil {
			return fault.InvalidInput("Invalid route: %s", value.Repr(map[string]any{"destination": r.Destination, "nexthop": r.NextHop}))
		}
		if err := version("nexthop", a, r.NextHop); err != nil {
			return err
		}
		if err := version("destination", p.Addr(), r.Destination); err != nil {
			return err
		}
	}
	return nil
}

// gatewayFits: not the network or broadcast address; outside of the CIDR is fine.
func gatewayFits(n *Subnet) bool {
	if !n.CIDR.Contains(n.GatewayIP) || n.CIDR.Addr().BitLen()-n.CIDR.Bits() <= 1 {
		return true
	}
	if n.IPVersion == 6 {
		return true
	}
	return n.GatewayIP != n.CIDR.Addr() && n.GatewayIP != ipam.Last(n.CIDR)
}

func (s *Service) checkModes(n, old *Subnet) error {
	set := n.IPv6RAMode != nil || n.IPv6AddressMode != nil
	if !set {
		return nil
	}
	if n.IPVersion == 4 {
		name := "ipv6_ra_mode"
		if n.IPv6RAMode == nil {
			name = "ipv6_address_mode"
		}
		return fault.InvalidInput("%s is not valid when ip_version is 4", name)
	}
	if !n.EnableDHCP {
		if old != nil {
			return fault.InvalidInput("Cannot disable enable_dhcp with ipv6 attributes set")
		}
		return fault.InvalidInput("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
	}
	if n.IPv6RAMode != nil && n.IPv6AddressMode != nil && *n.IPv6RAMode != *n.IPv6AddressMode {
		return fault.InvalidInput("ipv6_ra_mode set to '%s' with ipv6_address_mode set to '%s' is not valid. If both attributes are set, they must be the same value", *n.IPv6RAMode, *n.IPv6AddressMode)
	}
	if auto(n.IPv6AddressMode) && n.CIDR.Bits() != 64 {
		return fault.InvalidInput("Invalid CIDR %s for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64", n.CIDR)
	}
	return nil
}

// checkPools checks given pools and sorts them.
func checkPools(n *Subnet) error {
	pools := n.AllocationPools
	for _, p := range pools {
		if p.Start.BitLen() != p.End.BitLen() || p.Start.Is4() != (n.IPVersion == 4) || p.End.Less(p.Start) {
			return fault.New(fault.Invalid, "InvalidAllocationPool", "The allocation pool %s is not valid.", p)
		}
		first, last := n.CIDR.Addr(), ipam.Last(n.CIDR)
		if n.CIDR.Addr().BitLen()-n.CIDR.Bits() > 1 {
			first = first.Next()
			if n.IPVersion == 4 {
				last = last.Prev()
			}
		}
		if p.Start.Less(first) || last.Less(p.End) {
			return fault.New(fault.Invalid, "OutOfBoundsAllocationPool", "The allocation pool %s spans beyond the subnet cidr %s.", p, n.CIDR)
		}
	}
	ipam.SortPools(pools)
	for i := 1; i < len(pools); i++ {
		if !pools[i-1].End.Less(pools[i].Start) {
			return fault.New(fault.Conflict, "OverlappingAllocationPools", "Found overlapping allocation pools: %s %s for subnet %s.", pools[i-1], pools[i], n.CIDR)
		}
	}
	return checkGatewayOutside(n)
}

func checkGatewayOutside(n *Subnet) error {
	for _, p := range n.AllocationPools {
		if n.GatewayIP.IsValid() && p.Contains(n.GatewayIP) {
			return fault.New(fault.Conflict, "GatewayConflictWithAllocationPools", "Gateway ip %s conflicts with allocation pool %s.", n.GatewayIP, p)
		}
	}
	return nil
}

func checkMTU(parent *network.Network, version int) error {
	least := map[int]int{4: 68, 6: 1280}[version]
	if parent.MTU > 0 && parent.MTU < least {
		return fault.New(fault.Conflict, "NetworkMTUSubnetConflict", "MTU of %s is not valid, subnet requires a minimum of %d", parent.ID, least)
	}
	return nil
}

func (s *Service) checkNetworkMTU(_ context.Context, tx *store.Tx, old, want *network.Network) error {
	if old.MTU == want.MTU {
		return nil
	}
	subnets, err := s.OfNetwork(tx, want.ID)
	if err != nil {
		return err
	}
	for _, n := range subnets {
		if err := checkMTU(want, n.IPVersion); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) update(ctx context.Context, tx *store.Tx, old, want *Subnet, body *resource.Body) error {
	if err := s.checkForm(want, old); err != nil {
		return err
	}
	if body.Has("allocation_pools") {
		if err := checkPools(want); err != nil {
			return err
		}
	} else if body.Has("gateway_ip") && want.GatewayIP != old.GatewayIP {
		if err := checkGatewayOutside(want); err != nil {
			return err
		}
	}
	for _, hook := range s.BeforeUpdate {
		if err := hook(ctx, tx, old, want); err != nil {
			return err
		}
	}
	if err := s.Save(ctx, tx, want); err != nil {
		return err
	}
	for _, hook := range s.AfterUpdate {
		if err := hook(ctx, tx, old, want); err != nil {
			return err
		}
	}
	return s.options.Networks.Bump(ctx, tx, want.NetworkID)
}

func (s *Service) delete(ctx context.Context, tx *store.Tx, n *Subnet) error {
	if err := s.drop(ctx, tx, n); err != nil {
		return err
	}
	return s.options.Networks.Bump(ctx, tx, n.NetworkID)
}

func (s *Service) drop(ctx context.Context, tx *store.Tx, n *Subnet) error {
	for _, hook := range s.BeforeDelete {
		if err := hook(ctx, tx, n); err != nil {
			return err
		}
	}
	err := s.Remove(ctx, tx, n)
	if errors.Is(err, store.ErrReferenced) {
		return InUse(n.ID, "One or more ports have an IP allocation from this subnet")
	}
	return err
}

// InUse is the fault for a subnet that cannot go yet.
func InUse(id, reason string) error {
	return fault.New(fault.Conflict, "SubnetInUse", "Unable to complete operation on subnet %s: %s.", id, reason)
}

// deleteOfNetwork takes the subnets along with their network. It runs after
// the ports' hook has seen that no port is left that matters.
func (s *Service) deleteOfNetwork(ctx context.Context, tx *store.Tx, n *network.Network) error {
	subnets, err := s.OfNetwork(tx, n.ID)
	if err != nil {
		return err
	}
	for _, o := range subnets {
		if err := s.drop(ctx, tx, o); err != nil {
			return err
		}
	}
	return nil
}

// Of returns the subnet with that id among subnets.
func Of(subnets []*Subnet, id string) *Subnet {
	i := slices.IndexFunc(subnets, func(n *Subnet) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return subnets[i]
}
