package subnetpool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/ipam"
	"isospin/internal/core/rbac"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[Pool, *Pool]
	core *core.Core
}

var _ subnet.Pools = (*service)(nil)

func newService(c *core.Core) *service {
	s := &service{core: c}
	table := store.NewTable[Pool]("subnetpool", store.TableOptions[Pool]{
		Kind:     "subnetpool",
		Children: []func(*store.Tx, []*Pool) error{collection.Tagged[Pool]("subnetpool"), fillShared},
	})
	r := newResource()
	s.Collection = collection.New[Pool](collection.Options[Pool]{
		Store: c.Store, Resource: r, Table: table, Quota: c.Quotas,
		Create: s.create, Update: s.update, Delete: s.delete,
		Scope: func(ctx context.Context) (string, []any) {
			return rbac.VisibleCondition("subnetpool", identity.From(ctx).ProjectID)
		},
		Present: func(ctx context.Context, rows []*Pool) {
			project := identity.From(ctx).ProjectID
			for _, p := range rows {
				p.Shared = rbac.Open(p.SharedWith, project)
				p.show(true)
			}
		},
	})
	r.Service = s
	r.Shared = collection.Shared(func(p *Pool) []string { return p.SharedWith })
	r.Actions = []resource.Action{
		{Method: "PUT", Name: "add_prefixes", Do: s.addPrefixes},
		{Method: "PUT", Name: "remove_prefixes", Do: s.removePrefixes},
		{Method: "PUT", Name: "onboard_network_subnets", Do: s.onboard},
	}
	return s
}

func fillShared(tx *store.Tx, rows []*Pool) error {
	ids, by := make([]string, len(rows)), make(map[string]*Pool, len(rows))
	for i, p := range rows {
		ids[i], by[p.ID] = p.ID, p
	}
	return rbac.Targets(tx, "subnetpool", rbac.AccessAsShared, ids, func(id, target string) {
		by[id].SharedWith = append(by[id].SharedWith, target)
	})
}

// Update implements resource.Service: its answers have lengths as numbers.
func (s *service) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	o, err := s.Collection.Update(ctx, id, body, match)
	if err != nil {
		return nil, err
	}
	if p, ok := o.(*Pool); ok {
		p.show(false)
	}
	return o, nil
}

func (s *service) create(ctx context.Context, tx *store.Tx, p *Pool, body *resource.Body) error {
	p.ID = resource.NewID()
	p.forget()
	if err := complete(p, body, true); err != nil {
		return err
	}
	if p.Shared {
		p.SharedWith = []string{"*"}
	}
	if err := s.hooks(ctx, tx, nil, p); err != nil {
		return err
	}
	if err := defaultTaken(s.Insert(ctx, tx, p)); err != nil {
		return err
	}
	if p.Shared {
		return rbac.Grant(ctx, tx, "subnetpool", p.ID, p.ProjectID, rbac.AccessAsShared, "*")
	}
	return nil
}

func (s *service) hooks(ctx context.Context, tx *store.Tx, old, want *Pool) error {
	var before *subnet.Pool
	if old != nil {
		before = old.plain()
	}
	for _, hook := range s.core.Subnets.BeforePool {
		if err := hook(ctx, tx, before, want.plain()); err != nil {
			return err
		}
	}
	return nil
}

func defaultTaken(err error) error {
	if !store.Duplicate(err, "subnetpool", "ip_version") {
		return err
	}
	return fault.InvalidInput("A default subnetpool for this IP family has already been set. Only one default may exist per IP family")
}

// complete reads the prefixes' lengths of a body, fills in what is open in a
// new pool, and checks it all.
func complete(p *Pool, body *resource.Body, isNew bool) error {
	if len(p.Prefixes) == 0 {
		return fault.New(fault.Invalid, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
	}
	version := versionOf(p.Prefixes[0])
	for _, x := range p.Prefixes {
		if versionOf(x) != version {
			return fault.New(fault.Invalid, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
		}
	}
	if !isNew && version != p.IPVersion {
		return fault.New(fault.Invalid, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
	}
	p.IPVersion = version
	p.Prefixes = ipam.Compact(p.Prefixes)
	if isNew {
		p.Least, p.Most = map[int]int{4: 8, 6: 64}[version], bits(version)
	}
	given := func(name string, into *int) bool {
		switch v := body.Values[name].(type) {
		case int64:
			*into = int(min(v, math.MaxInt32))
		case *big.Int: // beyond all limits
			*into = math.MaxInt32
		default:
			return false
		}
		return true
	}
	given("min_prefixlen", &p.Least)
	given("max_prefixlen", &p.Most)
	if !given("default_prefixlen", &p.Usual) && isNew {
		p.Usual = p.Least
	}
	for _, b := range []struct {
		wrong           bool
		name, base      string
		length, against int
	}{
		{p.Least > p.Most, "min_prefixlen", "max_prefixlen", p.Least, p.Most},
		{p.Most > bits(version), "max_prefixlen", "ip_version_max", p.Most, bits(version)},
		{p.Usual < p.Least, "default_prefixlen", "min_prefixlen", p.Usual, p.Least},
		{p.Usual > p.Most, "default_prefixlen", "max_prefixlen", p.Usual, p.Most},
	} {
		if b.wrong {
			return fault.New(fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: %s=%d, %s=%d.", b.name, b.length, b.base, b.against)
		}
	}
	return nil
}

func versionOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

func bits(version int) int { return map[int]int{4: 32, 6: 128}[version] }

// lock keeps others from allocating from the pool until the transaction ends.
func (s *service) lock(tx *store.Tx, id string) error {
	n, err := tx.Exec("UPDATE subnetpool SET allocations = allocations + 1 WHERE id = ?", id)
	if err == nil && n == 0 {
		err = s.NotFound(id)
	}
	return err
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Pool, body *resource.Body) error {
	want.forget()
	if err := s.lock(tx, old.ID); err != nil {
		return err
	}
	if err := complete(want, body, false); err != nil {
		return err
	}
	if body.Has("prefixes") {
		for _, p := range old.Prefixes {
			if !slices.ContainsFunc(want.Prefixes, func(n netip.Prefix) bool { return ipam.Covers(n, p) }) {
				return illegalPrefixes("Existing prefixes must be a subset of the new prefixes")
			}
		}
	}
	return s.save(ctx, tx, old, want)
}

func illegalPrefixes(message string) error {
	return fault.New(fault.Invalid, "IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: %s.", message)
}

// save stores a changed pool whose form has been checked.
func (s *service) save(ctx context.Context, tx *store.Tx, old, want *Pool) error {
	if err := s.hooks(ctx, tx, old, want); err != nil {
		return err
	}
	if err := defaultTaken(s.Save(ctx, tx, want)); err != nil {
		return err
	}
	if old.plain().AddressScopeID == want.plain().AddressScopeID {
		return nil
	}
	// Networks show the scopes of their subnets' pools.
	networks, err := rbac.Projects(tx, "SELECT DISTINCT network_id FROM subnet WHERE subnetpool_id = ? ORDER BY network_id", want.ID)
	if err != nil {
		return err
	}
	for _, id := range networks {
		if err := s.core.Networks.Bump(ctx, tx, id); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) delete(ctx context.Context, tx *store.Tx, p *Pool) error {
	if err := s.lock(tx, p.ID); err != nil {
		return err
	}
	taken, err := allocated(tx, p.ID)
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return fault.New(fault.Invalid, "SubnetPoolDeleteError", "Unable to delete subnet pool: %s.", "Subnet pool has existing allocations")
	}
	if err := rbac.RevokeAll(tx, "subnetpool", p.ID); err != nil {
		return err
	}
	return s.Remove(ctx, tx, p)
}

// allocation is a prefix that a subnet of a project has.
type allocation struct {
	cidr    netip.Prefix
	project string
}

// allocated are the prefixes that subnets have of a pool.
func allocated(tx *store.Tx, id string) ([]allocation, error) {
	var list []allocation
	err := tx.Query(func(scan func(...any) error) error {
		var text, project string
		if err := scan(&text, &project); err != nil {
			return err
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("subnet of pool %s: %w", id, err)
		}
		list = append(list, allocation{p, project})
		return nil
	}, "SELECT cidr, project_id FROM subnet WHERE subnetpool_id = ?", id)
	return list, err
}

func prefixesOf(list []allocation) []netip.Prefix {
	taken := make([]netip.Prefix, len(list))
	for i, a := range list {
		taken[i] = a.cidr
	}
	return ipam.Compact(taken)
}

// Find implements subnet.Pools.
func (s *service) Find(ctx context.Context, tx *store.Tx, id string) (*subnet.Pool, error) {
	p, err := s.Collection.Find(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	return p.plain(), nil
}

// Default implements subnet.Pools.
func (s *service) Default(ctx context.Context, tx *store.Tx, version int) (*subnet.Pool, error) {
	var id string
	err := tx.Row("SELECT id FROM subnetpool WHERE is_default AND ip_version = ?", []any{version}, &id)
	if errors.Is(err, store.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := s.Find(ctx, tx, id)
	if fault.IsKind(err, fault.NotFound) {
		return nil, nil
	}
	return p, err
}

// Load implements subnet.Pools.
func (s *service) Load(tx *store.Tx, ids ...string) (map[string]*subnet.Pool, error) {
	pools := make(map[string]*subnet.Pool, len(ids))
	for chunk := range slices.Chunk(ids, 512) {
		list := make([]any, len(chunk))
		for i, id := range chunk {
			list[i] = id
		}
		in, args := store.In("t.id", list)
		rows, err := s.Table.Select(tx, "WHERE "+in, args...)
		if err != nil {
			return nil, err
		}
		for _, p := range rows {
			pools[p.ID] = p.plain()
		}
	}
	return pools, nil
}

// InScope implements subnet.Pools.
func (s *service) InScope(tx *store.Tx, scopeID string) ([]*subnet.Pool, error) {
	rows, err := s.Table.Select(tx, "WHERE t.address_scope_id = ? ORDER BY t.id", scopeID)
	pools := make([]*subnet.Pool, len(rows))
	for i, p := range rows {
		pools[i] = p.plain()
	}
	return pools, err
}

// Allocate implements subnet.Pools.
func (s *service) Allocate(_ context.Context, tx *store.Tx, of *subnet.Pool, project string, cidr netip.Prefix, length int) (netip.Prefix, error) {
	none := netip.Prefix{}
	if err := s.lock(tx, of.ID); err != nil {
		return none, err
	}
	p, err := s.Collection.Load(tx, of.ID) // as it is now that nobody else changes it
	if err != nil {
		return none, err
	}
	switch {
	case cidr.IsValid():
		length = cidr.Bits()
	case length < 0:
		length = p.Usual
	}
	if length > p.Most {
		return none, fault.New(fault.Invalid, "MaxPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length %d, maximum allowed prefix is %d.", length, p.Most)
	}
	if length < p.Least {
		return none, fault.New(fault.Invalid, "MinPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length %d, minimum allowed prefix is %d.", length, p.Least)
	}
	list, err := allocated(tx, p.ID)
	if err != nil {
		return none, err
	}
	if err := checkQuota(p, list, project, length); err != nil {
		return none, err
	}
	got, ok := choose(p.Prefixes, prefixesOf(list), cidr, length)
	switch {
	case ok:
		return got, nil
	case cidr.IsValid():
		return none, fault.New(fault.Unmapped, "SubnetAllocationError", "Failed to allocate subnet: %s.", "Cannot allocate requested subnet from the available set of prefixes")
	}
	return none, fault.New(fault.Unmapped, "SubnetAllocationError", "Failed to allocate subnet: Insufficient prefix space to allocate subnet size /%d.", length)
}

// choose picks cidr itself when it is valid and free, else the first prefix of
// that length in the smallest free block that has room for it.
func choose(prefixes, taken []netip.Prefix, cidr netip.Prefix, length int) (netip.Prefix, bool) {
	var best netip.Prefix
	for _, whole := range prefixes {
		if cidr.IsValid() && !ipam.Covers(whole, cidr) {
			continue
		}
		for _, free := range ipam.Subtract(whole, taken) {
			switch {
			case cidr.IsValid():
				if ipam.Covers(free, cidr) {
					return cidr, true
				}
			case free.Bits() <= length && (!best.IsValid() || free.Bits() > best.Bits()):
				best = free
			}
		}
	}
	if !best.IsValid() {
		return best, false
	}
	return netip.PrefixFrom(best.Addr(), length), true
}

// checkQuota keeps a project within the pool's quota, counted in addresses of
// IPv4 and in /64 of IPv6; what is smaller than a unit counts as its part.
func checkQuota(p *Pool, list []allocation, project string, length int) error {
	if p.DefaultQuota == nil || *p.DefaultQuota == 0 {
		return nil
	}
	addresses := func(length int) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(bits(p.IPVersion)-length)) }
	used := addresses(length)
	for _, a := range list {
		if a.project == project {
			used.Add(used, addresses(a.cidr.Bits()))
		}
	}
	unit := addresses(map[int]int{4: 32, 6: 64}[p.IPVersion])
	if used.Cmp(unit.Mul(unit, big.NewInt(int64(*p.DefaultQuota)))) > 0 {
		return fault.New(fault.Conflict, "SubnetPoolQuotaExceeded", "Per-project subnet pool prefix quota exceeded.")
	}
	return nil
}

// act runs a member action on a pool that the caller may change, which nobody
// else does meanwhile.
func (s *service) act(ctx context.Context, id string, do func(tx *store.Tx, p *Pool) error) error {
	return s.Store.Tx(ctx, func(tx *store.Tx) error {
		p, err := s.Collection.Find(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := s.lock(tx, p.ID); err != nil {
			return err
		}
		if p, err = s.Collection.Load(tx, p.ID); err != nil {
			return err
		}
		return do(tx, p)
	})
}

func invalidBody() error { return fault.BadRequest("Request body contains invalid data") }

// prefixesIn reads {"prefixes": [cidr, …]}.
func prefixesIn(body any) ([]netip.Prefix, error) {
	members, _ := body.(map[string]any)
	list, _ := members["prefixes"].([]any)
	if len(list) == 0 {
		return nil, invalidBody()
	}
	prefixes := make([]netip.Prefix, len(list))
	for i, v := range list {
		text, _ := v.(string)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, invalidBody()
		}
		prefixes[i] = p.Masked()
	}
	return prefixes, nil
}

// shown is the answer to changes of prefixes.
type shown struct {
	Prefixes []netip.Prefix `json:"prefixes"`
}

func (s *service) addPrefixes(ctx context.Context, id string, body any) (any, error) {
	add, err := prefixesIn(body)
	if err != nil {
		return nil, err
	}
	var answer shown
	err = s.act(ctx, id, func(tx *store.Tx, old *Pool) error {
		want := *old
		want.Prefixes = append(slices.Clone(old.Prefixes), add...)
		if err := complete(&want, &resource.Body{}, false); err != nil {
			return err
		}
		answer.Prefixes = want.Prefixes
		return s.save(ctx, tx, old, &want)
	})
	return answer, err
}

func (s *service) removePrefixes(ctx context.Context, id string, body any) (any, error) {
	remove, err := prefixesIn(body)
	if err != nil {
		return nil, err
	}
	var answer shown
	err = s.act(ctx, id, func(tx *store.Tx, old *Pool) error {
		list, err := allocated(tx, old.ID)
		if err != nil {
			return err
		}
		for _, r := range remove {
			if slices.ContainsFunc(list, func(a allocation) bool { return a.cidr.Overlaps(r) }) {
				return illegalPrefixes("One or more of the prefixes to be removed is in use by a subnet")
			}
		}
		// Prefixes of the other family are not in the pool.
		remove := ipam.Compact(slices.DeleteFunc(remove, func(p netip.Prefix) bool { return versionOf(p) != old.IPVersion }))
		want := *old
		want.Prefixes = nil
		for _, p := range old.Prefixes {
			want.Prefixes = append(want.Prefixes, ipam.Subtract(p, remove)...)
		}
		if err := complete(&want, &resource.Body{}, false); err != nil {
			return err
		}
		answer.Prefixes = want.Prefixes
		return s.save(ctx, tx, old, &want)
	})
	return answer, err
}

// onboarded is one subnet in the answer to onboarding.
type onboarded struct {
	ID   string       `json:"id"`
	CIDR netip.Prefix `json:"cidr"`
}

// onboard makes the subnets of a network, of the pool's family, the pool's.
func (s *service) onboard(ctx context.Context, id string, body any) (any, error) {
	members, _ := body.(map[string]any)
	networkID, _ := members["network_id"].(string)
	if networkID == "" {
		return nil, fault.InvalidInput("network_id must be specified.")
	}
	answer := []onboarded{}
	err := s.act(ctx, id, func(tx *store.Tx, old *Pool) error {
		n, err := s.core.Networks.Find(ctx, tx, networkID)
		if err != nil {
			return err
		}
		if who := identity.From(ctx); !who.Admin && who.ProjectID != n.ProjectID {
			return fault.New(fault.Forbidden, "NotAuthorized", "Not authorized.")
		}
		subnets, err := s.core.Subnets.Table.Select(tx, "WHERE t.network_id = ? AND t.ip_version = ? ORDER BY t.created_at, t.id", networkID, old.IPVersion)
		if err != nil || len(subnets) == 0 {
			return err
		}
		list, err := allocated(tx, old.ID)
		if err != nil {
			return err
		}
		want := *old
		want.Prefixes = slices.Clone(old.Prefixes)
		for _, o := range subnets {
			if slices.ContainsFunc(list, func(a allocation) bool { return a.cidr.Overlaps(o.CIDR) }) {
				return illegalUpdate(fmt.Sprintf("Onboarding subnet %s: %s conflicts with existing prefixes in subnet pool %s", o.ID, o.CIDR, old.ID))
			}
			want.Prefixes = append(want.Prefixes, o.CIDR)
			list = append(list, allocation{o.CIDR, o.ProjectID})
		}
		if err := complete(&want, &resource.Body{}, false); err != nil {
			return err
		}
		if err := s.save(ctx, tx, old, &want); err != nil {
			return err
		}
		for _, o := range subnets {
			o.SubnetPoolID = &old.ID
			if err := s.core.Subnets.Save(ctx, tx, o); err != nil {
				return err
			}
			answer = append(answer, onboarded{o.ID, o.CIDR})
		}
		return s.core.Networks.Bump(ctx, tx, networkID)
	})
	return answer, err
}

func illegalUpdate(reason string) error {
	return fault.New(fault.Invalid, "IllegalSubnetPoolUpdate", "Illegal subnetpool update : %s.", reason)
}

// owner and accessChanged make pools objects of RBAC policies.

func (s *service) owner(ctx context.Context, tx *store.Tx, id string) (string, error) {
	p, err := s.Collection.Find(ctx, tx, id)
	if err != nil {
		return "", err
	}
	return p.ProjectID, nil
}

func (s *service) accessChanged(ctx context.Context, tx *store.Tx, id string) error {
	p, err := s.Collection.Load(tx, id)
	if err != nil {
		return err
	}
	p.Shared = slices.Contains(p.SharedWith, "*")
	return s.Save(ctx, tx, p)
}
