package networkipavailability

import (
	"context"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strconv"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/ipam"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Availability is how many addresses a network has. IPv6 numbers exceed 64 bits.
type Availability struct {
	NetworkID   string `json:"network_id" db:"id"`
	NetworkName string `json:"network_name" db:"name"`
	ProjectID   string `json:"tenant_id" db:"project_id"`
	Counts
	Subnets []SubnetAvailability `json:"subnet_ip_availability"`
}

// SubnetAvailability is how many addresses a subnet has.
type SubnetAvailability struct {
	SubnetID   string `json:"subnet_id"`
	SubnetName string `json:"subnet_name"`
	IPVersion  int    `json:"ip_version"`
	CIDR       string `json:"cidr"`
	Counts
}

// Counts of addresses.
type Counts struct {
	// Total is what allocation pools have; of a subnet without pools, all of its CIDR.
	Total *big.Int `json:"total_ips"`
	// Used are all addresses in use, also those outside of pools.
	Used    int64   `json:"used_ips"`
	Details Details `json:"ip_availability_details"`
}

// Details tell pools and the rest of a subnet apart.
type Details struct {
	// TotalInSubnet is what ports can have: all but an IPv4 subnet's network and broadcast addresses.
	TotalInSubnet *big.Int `json:"total_ips_in_subnet"`
	TotalInPools  *big.Int `json:"total_ips_in_allocation_pool"`
	UsedInSubnet  int64    `json:"used_ips_in_subnet"`
	UsedInPools   int64    `json:"used_ips_in_allocation_pool"`
}

func noAddresses() Counts {
	return Counts{Total: new(big.Int), Details: Details{TotalInSubnet: new(big.Int), TotalInPools: new(big.Int)}}
}

func (c *Counts) add(o *Counts) {
	c.Total.Add(c.Total, o.Total)
	c.Used += o.Used
	c.Details.TotalInSubnet.Add(c.Details.TotalInSubnet, o.Details.TotalInSubnet)
	c.Details.TotalInPools.Add(c.Details.TotalInPools, o.Details.TotalInPools)
	c.Details.UsedInSubnet += o.Details.UsedInSubnet
	c.Details.UsedInPools += o.Details.UsedInPools
}

type service struct {
	collection.ReadOnly
	core    *core.Core
	table   *store.Table[Availability]
	encoder *resource.Encoder
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	s.Resource = newResource()
	s.Resource.Service = s
	s.encoder = resource.NewModel[Availability]().NewEncoder(s.Resource)
	s.table = store.NewTable[Availability]("network", store.TableOptions[Availability]{
		Columns: map[string]string{"network_id": "id", "network_name": "name"},
		Conditions: map[string]func([]any) (string, []any){
			"ip_version": func(values []any) (string, []any) {
				in, args := store.In("s.ip_version", versions(values))
				return "EXISTS (SELECT 1 FROM subnet s WHERE s.network_id = t.id AND " + in + ")", args
			},
		},
	})
	return s
}

// versions are the numbers among the values of a filter.
func versions(values []any) []any {
	var list []any
	for _, v := range values {
		text, _ := v.(string)
		if n, err := strconv.Atoi(text); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// scope keeps the networks that the caller may see.
func (s *service) scope(ctx context.Context) (string, []any) {
	if identity.From(ctx).SeesAll() {
		return "", nil
	}
	return s.core.Networks.Scope(ctx)
}

// Get implements resource.Service; the id is the network's.
func (s *service) Get(ctx context.Context, id string) (resource.Object, error) {
	q := &resource.Query{Filters: []resource.FilterBy{{Attribute: s.Resource.Attribute("network_id"), Values: []any{id}}}}
	rows, err := s.List(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, s.Resource.NotFound, s.Resource.NotFoundText, id)
	}
	return rows[0], nil
}

// List implements resource.Service. With a filter on ip_version only subnets
// of that version count.
func (s *service) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	scope, args := s.scope(ctx)
	var rows []*Availability
	err := s.core.Store.View(ctx, func(tx *store.Tx) (err error) {
		if rows, err = s.table.List(tx, q, scope, args...); err != nil {
			return err
		}
		return s.fill(tx, rows, versions(q.Filter("ip_version")))
	})
	if errors.Is(err, store.ErrNoRow) { // the marker
		return nil, nil
	}
	objects := make([]resource.Object, len(rows))
	for i, n := range rows {
		objects[i] = n
	}
	return objects, err
}

// Encode implements resource.Service.
func (s *service) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}

// counted is a subnet while its addresses are counted.
type counted struct {
	SubnetAvailability
	networkID string
	pools     []ipam.Pool
}

func (s *service) fill(tx *store.Tx, rows []*Availability, ipVersions []any) error {
	networks := make([]string, len(rows))
	for i, n := range rows {
		networks[i] = n.NetworkID
	}
	var order []*counted
	for chunk := range slices.Chunk(networks, 1024) {
		in, args := store.In("t.network_id", anys(chunk))
		if ipVersions != nil {
			also, more := store.In("t.ip_version", ipVersions)
			in, args = in+" AND "+also, append(args, more...)
		}
		subnets, err := s.core.Subnets.Table.SelectBare(tx, "WHERE "+in+" ORDER BY t.created_at, t.id", args...)
		if err != nil {
			return err
		}
		for _, n := range subnets {
			order = append(order, newCounted(n))
		}
	}
	if err := use(tx, order); err != nil {
		return err
	}
	by := make(map[string]*Availability, len(rows))
	for _, n := range rows {
		n.Counts, n.Subnets = noAddresses(), []SubnetAvailability{}
		by[n.NetworkID] = n
	}
	for _, c := range order {
		n := by[c.networkID]
		n.Subnets = append(n.Subnets, c.SubnetAvailability)
		n.add(&c.Counts)
	}
	return nil
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	return list
}

func newCounted(n *subnet.Subnet) *counted {
	c := &counted{networkID: n.NetworkID, pools: n.AllocationPools}
	c.SubnetID, c.SubnetName, c.IPVersion, c.CIDR = n.ID, n.Name, n.IPVersion, n.CIDR.String()
	whole := ipam.Size([]ipam.Pool{{Start: n.CIDR.Masked().Addr(), End: ipam.Last(n.CIDR)}})
	pools := ipam.Size(n.AllocationPools)
	c.Total = pools
	if len(n.AllocationPools) == 0 {
		c.Total = whole
	}
	c.Details.TotalInPools, c.Details.TotalInSubnet = pools, whole
	if n.IPVersion == 4 {
		// Subnets of one or two addresses have neither a network nor a broadcast address.
		c.Details.TotalInSubnet = ipam.Size(ipam.DefaultPools(n.CIDR, netip.Addr{}))
	}
	return c
}

// use counts the addresses of subnets that are in use.
func use(tx *store.Tx, subnets []*counted) error {
	by := make(map[string]*counted, len(subnets))
	ids := make([]string, len(subnets))
	for i, c := range subnets {
		ids[i], by[c.SubnetID] = c.SubnetID, c
	}
	return store.Child(tx, "SELECT subnet_id, ip_address FROM ip_allocation WHERE %s", "subnet_id", ids, func(scan func(...any) error) error {
		var id, text string
		if err := scan(&id, &text); err != nil {
			return err
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		c := by[id]
		c.Used++
		c.Details.UsedInSubnet++
		if slices.ContainsFunc(c.pools, func(p ipam.Pool) bool { return p.Contains(a) }) {
			c.Details.UsedInPools++
		}
		return nil
	})
}
