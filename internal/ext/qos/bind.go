package qos

import (
	"context"
	"errors"
	"slices"

	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// policyOf is the policy of a network or port itself, empty: none.
var policyOf = resource.NewSlot[*string](attribute)

func own(slots resource.Slots) string {
	if p := policyOf.Get(slots); p != nil {
		return *p
	}
	return ""
}

// inherits tells whether a port without a policy of its own has that of its
// network: those of the cloud itself do not.
func inherits(p *port.Port) bool { return !p.Service() }

func (s *service) hook() {
	networks, ports := s.core.Networks, s.core.Ports
	networks.OnWrite = append(networks.OnWrite, s.onNetworkWrite)
	networks.AfterCreate = append(networks.AfterCreate, s.onNetworkCreated)
	ports.Table.Derive("inherited.qos_policy_id", "LEFT JOIN qos_network_policy inherited ON inherited.network_id = t.network_id", func(p *port.Port, policy *string) {
		p.NetworkQoSPolicyID = policy
	})
	ports.BeforeCreate = append(ports.BeforeCreate, func(ctx context.Context, tx *store.Tx, p *port.Port, _ *resource.Body) error {
		n, err := ports.Network(tx, p)
		if err != nil {
			return err
		}
		if id := own(n.Slots); id != "" {
			p.NetworkQoSPolicyID = &id
		}
		return s.bindPort(ctx, tx, nil, p)
	})
	ports.BeforeUpdate = append(ports.BeforeUpdate, func(ctx context.Context, tx *store.Tx, old, want *port.Port, _ *resource.Body) error {
		return s.bindPort(ctx, tx, old, want)
	})
	if s.placement != nil {
		ports.Resource.Service = portService{ports.Collection, s}
		networks.Resource.Service = networkService{networks.Collection, s}
	}
	before := ports.Present
	ports.Present = func(ctx context.Context, rows []*port.Port) {
		if before != nil {
			before(ctx, rows)
		}
		s.presentPorts(ctx, rows)
	}
}

// stored is the policy that the table has for a network or port.
func stored(tx *store.Tx, query, id string) (string, error) {
	var policy string
	err := tx.Row(query, []any{id}, &policy)
	if errors.Is(err, store.ErrNoRow) {
		err = nil
	}
	return policy, err
}

const networkPolicy = "SELECT qos_policy_id FROM qos_network_policy WHERE network_id = ?"

// onNetworkWrite keeps the policy of a network; a new one without takes its project's default.
func (s *service) onNetworkWrite(ctx context.Context, tx *store.Tx, n *network.Network) error {
	created := n.CreatedAt == ""
	want, have := own(n.Slots), ""
	var err error
	if !created {
		if have, err = stored(tx, networkPolicy, n.ID); err != nil {
			return err
		}
	} else if want == "" {
		var id string
		err := tx.Row("SELECT id FROM qos_policy WHERE project_id = ? AND is_default", []any{n.ProjectID}, &id)
		if errors.Is(err, store.ErrNoRow) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := policyOf.Set(&n.Slots, &id); err != nil {
			return err
		}
		return bind(tx, "network", n.ID, id)
	}
	if want == have {
		return nil
	}
	p, err := s.change(ctx, tx, have, want)
	if err != nil {
		return err
	}
	if p != nil && !created {
		if err := s.checkNetwork(tx, p, n.ID, physicalOf(n)); err != nil {
			return err
		}
	}
	if !created {
		if err := s.reallocatePorts(ctx, tx, n.ID, have); err != nil {
			return err
		}
	}
	return bind(tx, "network", n.ID, want)
}

// onNetworkCreated checks the policy of a new network, whose segments are known by then.
func (s *service) onNetworkCreated(ctx context.Context, tx *store.Tx, n *network.Network, _ *resource.Body) error {
	id := own(n.Slots)
	if id == "" {
		return nil
	}
	p, err := s.policies.Load(tx, id)
	if err != nil {
		return err
	}
	return s.checkNetwork(tx, p, n.ID, physicalOf(n))
}

// physicalOf is the physical network of a network's first segment; empty: none.
func physicalOf(n *network.Network) string {
	if len(n.Segments) == 0 {
		return ""
	}
	return n.Segments[0].PhysicalNetwork
}

// bindPort keeps the policy of a port; old is nil for a new one.
func (s *service) bindPort(ctx context.Context, tx *store.Tx, old, want *port.Port) error {
	have := ""
	if old != nil {
		have = own(old.Slots)
	}
	id := own(want.Slots)
	if err := s.checkAllocation(tx, old, want); err != nil {
		return err
	}
	if id == have {
		if old == nil && (!everything(want) || !s.tunnelled) {
			return s.checkInherited(tx, want)
		}
		return nil
	}
	p, err := s.change(ctx, tx, have, id)
	if err != nil {
		return err
	}
	if p != nil {
		if err := s.checkPort(tx, p, want); err != nil {
			return err
		}
	}
	if old != nil {
		c, err := reallocated(ctx, old, have)
		if err != nil {
			return err
		}
		if c != nil {
			if want.Profile, err = c.profile(want.Profile); err != nil {
				return err
			}
		}
	}
	return bind(tx, "port", want.ID, id)
}

// checkInherited checks that a new port can have its network's policy.
func (s *service) checkInherited(tx *store.Tx, p *port.Port) error {
	if !inherits(p) {
		return nil
	}
	id, err := stored(tx, networkPolicy, p.NetworkID)
	if err != nil || id == "" {
		return err
	}
	policy, err := s.policies.Load(tx, id)
	if err != nil {
		return err
	}
	return s.checkPort(tx, policy, p)
}

// change checks that the caller may take a policy away, and that the other
// is theirs to use, and returns that; nil: none.
func (s *service) change(ctx context.Context, tx *store.Tx, have, want string) (*Policy, error) {
	if have != "" {
		_, err := s.policies.Find(ctx, tx, have)
		if fault.IsKind(err, fault.NotFound) {
			return nil, fault.New(fault.Forbidden, "PolicyRemoveAuthorizationError", "Failed to remove provided policy %s because you are not authorized.", have)
		}
		if err != nil {
			return nil, err
		}
	}
	if want == "" {
		return nil, nil
	}
	return s.policies.Find(ctx, tx, want)
}

func bind(tx *store.Tx, kind, id, policy string) error {
	if policy == "" {
		err := tx.Put("DELETE FROM qos_"+kind+"_policy WHERE "+kind+"_id = ?", id)
		return err
	}
	err := tx.Put("INSERT INTO qos_"+kind+"_policy ("+kind+"_id, qos_policy_id) VALUES (?, ?) ON CONFLICT ("+kind+"_id) DO UPDATE SET qos_policy_id = excluded.qos_policy_id", id, policy)
	return err
}

// checkUses refuses a policy that something which has it cannot have.
func (s *service) checkUses(tx *store.Tx, p *Policy) error {
	ports, err := s.core.Ports.Table.SelectBare(tx, "WHERE t.id IN (SELECT port_id FROM qos_port_policy WHERE qos_policy_id = ?)", p.ID)
	if err != nil {
		return err
	}
	for _, o := range ports {
		if err := s.checkPort(tx, p, o); err != nil {
			return err
		}
	}
	var networks []string
	err = tx.Query(func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		networks = append(networks, id)
		return err
	}, "SELECT network_id FROM qos_network_policy WHERE qos_policy_id = ? ORDER BY network_id", p.ID)
	if err != nil {
		return err
	}
	physical, err := physicalNetworks(tx, networks)
	if err != nil {
		return err
	}
	for _, id := range networks {
		if err := s.checkNetwork(tx, p, id, physical[id]); err != nil {
			return err
		}
	}
	return nil
}

// checkNetwork checks a network, whose first segment is of a physical network or of
// none, and the ports that would inherit its policy.
func (s *service) checkNetwork(tx *store.Tx, p *Policy, networkID, physical string) error {
	for _, r := range p.Rules {
		if !onNetworks(r.Type) || r.Type == typeMinimumBandwidth && physical == "" && !s.tunnelled {
			return fault.New(fault.Conflict, "QosRuleNotSupportedByNetwork", "Rule %s is not supported by network %s", r.Type, networkID)
		}
	}
	ports, err := s.core.Ports.Table.SelectBare(tx, "WHERE t.network_id = ? AND (t.host_id <> '' OR t.vnic_type <> 'normal') AND NOT EXISTS (SELECT 1 FROM qos_port_policy b WHERE b.port_id = t.id)", networkID)
	if err != nil {
		return err
	}
	for _, o := range ports {
		if !inherits(o) {
			continue
		}
		if err := s.checkPort(tx, p, o); err != nil {
			return err
		}
	}
	return nil
}

// checkPort refuses a policy with a rule that the port cannot have.
func (s *service) checkPort(tx *store.Tx, p *Policy, o *port.Port) error {
	for _, r := range p.Rules {
		can := supported(r.Type, o)
		if can && r.Type == typeMinimumBandwidth && !s.tunnelled {
			physical, err := physicalNetworks(tx, []string{o.NetworkID})
			if err != nil {
				return err
			}
			can = physical[o.NetworkID] != ""
		}
		if !can {
			return fault.New(fault.Conflict, "QosRuleNotSupported", "Rule %s is not supported by port %s", r.Type, o.ID)
		}
	}
	return nil
}

// everything tells whether a port can have rules of all types.
func everything(p *port.Port) bool {
	return !slices.ContainsFunc(ruleTypes, func(t string) bool { return !supported(t, p) })
}

// presentPorts shows what ports need by their policies.
func (s *service) presentPorts(ctx context.Context, rows []*port.Port) {
	var limited []*port.Port
	for _, p := range rows {
		if delete(p.Slots, requestAttribute); effective(p) != "" {
			limited = append(limited, p)
		}
	}
	if len(limited) == 0 {
		return
	}
	if err := s.core.Store.View(ctx, func(tx *store.Tx) error { return s.presentRequests(tx, limited) }); err != nil {
		s.core.Logger.ErrorContext(ctx, "what ports need by their policies is not shown", "error", err)
	}
}

// effective is the policy of a port, or else of its network; empty: none.
func effective(p *port.Port) string {
	if id := own(p.Slots); id != "" || p.NetworkQoSPolicyID == nil {
		return id
	}
	return *p.NetworkQoSPolicyID
}

// networkPolicies reads the policies of networks into by.
func (s *service) networkPolicies(ctx context.Context, ids []string, by map[string]*string) error {
	return s.core.Store.View(ctx, func(tx *store.Tx) error { return networkPolicies(tx, ids, by) })
}

func networkPolicies(tx *store.Tx, ids []string, by map[string]*string) error {
	return store.Child(tx, "SELECT network_id, qos_policy_id FROM qos_network_policy WHERE %s", "network_id", ids, func(scan func(...any) error) error {
		var id, policy string
		err := scan(&id, &policy)
		by[id] = &policy
		return err
	})
}

var ofNetwork = resource.NewSlot[*string](networkAttribute)
