package subnet

import (
	"context"
	"math"
	"math/big"
	"net/netip"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Pool is what others must know of a subnet pool.
type Pool struct {
	ID        string
	ProjectID string
	IPVersion int
	Prefixes  []netip.Prefix
	// AddressScopeID is empty when the pool is in no address scope.
	AddressScopeID string
	// SharedWith are the projects ("*": all) that may use the pool beside its own.
	SharedWith []string
}

// Pools gives subnets their prefixes. A subnet's row, with its pool and CIDR,
// is the allocation: deleting it is what releases the prefix.
type Pools interface {
	// Find returns a pool that the caller may see. Fault: SubnetPoolNotFound.
	Find(ctx context.Context, tx *store.Tx, id string) (*Pool, error)
	// Default is the default pool of a family that the caller may see, nil when there is none.
	Default(ctx context.Context, tx *store.Tx, version int) (*Pool, error)
	// Allocate takes cidr, or when that is not valid a prefix of that length
	// (the pool's default when negative), for a subnet of a project. Until the
	// transaction ends nobody else allocates from the pool. Faults:
	// SubnetAllocationError, SubnetPoolQuotaExceeded and the bounds' errors.
	Allocate(ctx context.Context, tx *store.Tx, p *Pool, project string, cidr netip.Prefix, length int) (netip.Prefix, error)
	// Load returns pools by id, whoever's they are; absent ones are left out.
	Load(tx *store.Tx, ids ...string) (map[string]*Pool, error)
	// InScope returns the pools of an address scope.
	InScope(tx *store.Tx, scopeID string) ([]*Pool, error)
}

// PoolHook is run before a pool is stored: old is nil for a new one.
type PoolHook func(ctx context.Context, tx *store.Tx, old, want *Pool) error

// choosePool returns the pool that the body of a create selects, nil for none.
func (s *Service) choosePool(ctx context.Context, tx *store.Tx, n *Subnet, body *resource.Body) (*Pool, error) {
	id, _ := body.Values["subnetpool_id"].(string)
	byDefault, _ := body.Values["use_default_subnetpool"].(bool)
	switch {
	case id != "" && byDefault:
		return nil, bad("subnetpool_id and use_default_subnetpool cannot both be specified")
	case id == PrefixDelegation && n.CIDR.IsValid(): // a prefix that is asked for is not delegated
		n.SubnetPoolID = nil
		return nil, nil
	case id == PrefixDelegation:
		return &delegation, nil
	case id != "" && s.Pools == nil:
		return nil, fault.New(fault.NotFound, "SubnetPoolNotFound", "Subnet pool %s could not be found.", id)
	case id != "":
		return s.Pools.Find(ctx, tx, id)
	case byDefault && s.Pools != nil:
		version := n.IPVersion
		if n.CIDR.IsValid() {
			version = map[bool]int{true: 4, false: 6}[n.CIDR.Addr().Is4()]
		} else if version == 6 && s.options.DelegateByDefault {
			return &delegation, nil
		}
		p, err := s.Pools.Default(ctx, tx, version)
		if err == nil && p == nil {
			err = bad("No default subnetpool found for IPv%d", version)
		}
		return p, err
	}
	return nil, nil
}

// allocate makes the subnet one of the pool.
func (s *Service) allocate(ctx context.Context, tx *store.Tx, n *Subnet, p *Pool, body *resource.Body) (err error) {
	if pools, ok := body.Values["allocation_pools"].([]any); ok && pools != nil && !n.CIDR.IsValid() {
		return bad("allocation_pools allowed only for specific subnet requests.")
	}
	if p == &delegation {
		return s.provisional(n)
	}
	if n.IPVersion != p.IPVersion {
		return bad("Cannot allocate IPv%d subnet from IPv%d subnet pool", n.IPVersion, p.IPVersion)
	}
	length := -1
	switch v := body.Values["prefixlen"].(type) {
	case int64:
		length = int(min(v, math.MaxInt32))
	case *big.Int: // beyond all limits
		length = math.MaxInt32
	}
	n.SubnetPoolID = &p.ID
	n.CIDR, err = s.Pools.Allocate(ctx, tx, p, n.ProjectID, n.CIDR, length)
	return err
}

// checkBeside makes sure that a network's subnets of one family are all of one
// pool, or of pools of one address scope.
func (s *Service) checkBeside(tx *store.Tx, n *Subnet, pool *Pool, existing []*Subnet) error {
	if s.Pools == nil {
		return nil
	}
	var ids []string
	for _, e := range existing {
		if e.IPVersion == n.IPVersion && e.SubnetPoolID != nil {
			ids = append(ids, *e.SubnetPoolID)
		}
	}
	pools, err := s.Pools.Load(tx, ids...)
	if err != nil {
		return err
	}
	scope := ""
	for _, p := range pools {
		if p.AddressScopeID != "" {
			scope = p.AddressScopeID
		}
	}
	if scope != "" && pool != nil && pool.AddressScopeID != scope {
		return ScopeAffinity()
	}
	for _, e := range existing {
		if e.IPVersion != n.IPVersion {
			continue
		}
		alike := pool == nil && e.SubnetPoolID == nil ||
			pool != nil && (scope != "" || e.SubnetPoolID != nil && *e.SubnetPoolID == pool.ID)
		if !alike {
			return fault.New(fault.Invalid, "NetworkSubnetPoolAffinityError", "Subnets hosted on the same network must be allocated from the same subnet pool.")
		}
	}
	return nil
}

// ScopeAffinity is the fault for a network of two address scopes in one family.
func ScopeAffinity() error {
	return fault.New(fault.Invalid, "NetworkAddressScopeAffinityError", "Subnets of the same address family hosted on the same network must all participate in the same address scope.")
}
