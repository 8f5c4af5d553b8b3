package qos

import (
	"context"
	"errors"
	"strings"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// ruled is a pointer to a rule of some type.
type ruled[T any] interface {
	collection.Object[T]
	rule() *Rule
	embedded() Embedded
}

// rules are the rules of one type.
type rules[T any, P ruled[T]] struct {
	*collection.Collection[T, P]
	of       *service
	ruleType string
}

// kind is rules of one type, whichever.
type kind interface {
	// fill adds the rules of policies to them.
	fill(tx *store.Tx, by map[string]*Policy, ids []string) error
	// removeOf removes those of a policy.
	removeOf(ctx context.Context, tx *store.Tx, policyID string) error
}

func (s *service) registerRules(c *core.Core) {
	addRules[BandwidthLimit](s, c, typeBandwidthLimit, true)
	addRules[DSCPMarking](s, c, typeDSCPMarking, true)
	addRules[PacketRateLimit](s, c, typePacketRateLimit, false) // no extension has its aliases
	addRules[MinimumBandwidth](s, c, typeMinimumBandwidth, true)
	addRules[MinimumPacketRate](s, c, typeMinimumPacketRate, true)
}

func addRules[T any, P ruled[T]](s *service, c *core.Core, ruleType string, aliased bool) {
	r := &rules[T, P]{of: s, ruleType: ruleType}
	res := newRuleResource(ruleType, s.policies.Resource)
	r.Collection = collection.New[T, P](collection.Options[T]{
		Store: c.Store, Resource: res, Table: store.NewTable[T]("qos_"+ruleType+"_rule", store.TableOptions[T]{}),
		Create: r.create, Update: r.update, Delete: r.delete,
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'qos_policy' AND r.object_id = t.qos_policy_id AND r.target_project IN ('*', ?))", []any{who, who}
		},
	})
	res.Through = &resource.Through{Kind: "policy", Attribute: "policy_id"}
	res.Within = r.Within(collection.Parent[T]{
		Member: "policy_id", Column: "qos_policy_id",
		Of: func(o *T) string { return P(o).rule().PolicyID },
		Enter: func(ctx context.Context, tx *store.Tx, id string) error {
			_, err := s.policies.Find(ctx, tx, id)
			return err
		},
		NotFound: notFound,
	})
	s.kinds = append(s.kinds, r)
	core.Add(c, r.Collection)
	if aliased {
		alias := newAliasResource(ruleType)
		alias.Service = r.Collection
		c.Registry.Add(alias)
	}
}

func notFound(policyID, id string) error {
	return fault.New(fault.NotFound, "QosRuleNotFound", "QoS rule %s for policy %s could not be found.", id, policyID)
}

func (r *rules[T, P]) fill(tx *store.Tx, by map[string]*Policy, ids []string) error {
	for len(ids) > 0 {
		n := min(len(ids), 512)
		values := make([]any, n)
		for i, id := range ids[:n] {
			values[i] = id
		}
		in, args := store.In("t.qos_policy_id", values)
		rows, err := r.Table.Select(tx, "WHERE "+in+" ORDER BY t.created_at, t.id", args...)
		if err != nil {
			return err
		}
		for _, o := range rows {
			p := by[P(o).rule().PolicyID]
			p.Rules = append(p.Rules, P(o).embedded())
		}
		ids = ids[n:]
	}
	return nil
}

func (r *rules[T, P]) removeOf(ctx context.Context, tx *store.Tx, policyID string) error {
	rows, err := r.Table.Select(tx, "WHERE t.qos_policy_id = ?", policyID)
	if err != nil {
		return err
	}
	for _, o := range rows {
		if err := r.Remove(ctx, tx, o); err != nil {
			return err
		}
	}
	return nil
}

func (r *rules[T, P]) create(ctx context.Context, tx *store.Tx, o *T, _ *resource.Body) error {
	rule := P(o).rule()
	p, err := r.of.policies.Load(tx, rule.PolicyID)
	if err != nil {
		return err
	}
	rule.ProjectID = p.ProjectID
	if err := checkRule(p, P(o).embedded()); err != nil {
		return err
	}
	if err := r.conflict(tx, o, r.Insert(ctx, tx, o)); err != nil {
		return err
	}
	return r.of.rulesChanged(ctx, tx, rule.PolicyID, r.ruleType)
}

func (r *rules[T, P]) update(ctx context.Context, tx *store.Tx, _, want *T, _ *resource.Body) error {
	p, err := r.of.policies.Load(tx, P(want).rule().PolicyID)
	if err != nil {
		return err
	}
	if err := checkRule(p, P(want).embedded()); err != nil {
		return err
	}
	if err := r.conflict(tx, want, r.Save(ctx, tx, want)); err != nil {
		return err
	}
	return r.of.rulesChanged(ctx, tx, p.ID, r.ruleType)
}

func (r *rules[T, P]) delete(ctx context.Context, tx *store.Tx, o *T) error {
	if err := r.Remove(ctx, tx, o); err != nil {
		return err
	}
	return r.of.rulesChanged(ctx, tx, P(o).rule().PolicyID, r.ruleType)
}

// checkRule refuses a rule that contradicts another of the policy: what is
// guaranteed may not be more than what is allowed, and packets are counted
// either by direction or not.
func checkRule(p *Policy, e Embedded) error {
	contradicts := func(value any, have Embedded, existing any) error {
		return fault.New(fault.Conflict, "QoSRuleParameterConflict", "Unable to add the rule with value %v to the policy %s as the existing rule of type %s has value %v.", value, p.ID, have.Type, existing)
	}
	for _, have := range p.Rules {
		same := have.Direction == e.Direction
		switch {
		case have.ID == e.ID:
		case same && e.Type == typeBandwidthLimit && have.Type == typeMinimumBandwidth && *have.MinKbps > *e.MaxKbps:
			return contradicts(*e.MaxKbps, have, *have.MinKbps)
		case same && e.Type == typeMinimumBandwidth && have.Type == typeBandwidthLimit && *have.MaxKbps < *e.MinKbps:
			return contradicts(*e.MinKbps, have, *have.MaxKbps)
		case e.Type == typeMinimumPacketRate && have.Type == e.Type && (have.Direction == anyDirection) != (e.Direction == anyDirection):
			return contradicts(e.Direction, have, have.Direction)
		}
	}
	return nil
}

// conflict finds the rule that is there already when a key says so.
func (r *rules[T, P]) conflict(tx *store.Tx, o *T, err error) error {
	if !errors.Is(err, store.ErrDuplicate) {
		return err
	}
	mine := P(o).embedded()
	rows, err := r.Table.Select(tx, "WHERE t.qos_policy_id = ? AND t.id <> ?", mine.PolicyID, mine.ID)
	if err != nil {
		return err
	}
	other := ""
	for _, row := range rows {
		if e := P(row).embedded(); e.Direction == mine.Direction {
			other = e.ID
		}
	}
	return fault.New(fault.Conflict, "QoSRulesConflict", "Rule %s conflicts with rule %s which already exists in QoS Policy %s.", r.ruleType, other, mine.PolicyID)
}

func dashes(s string) string { return strings.ReplaceAll(s, "_", "-") }
