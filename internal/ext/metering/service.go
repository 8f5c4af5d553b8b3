package metering

import (
	"context"
	"net/netip"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	labels *collection.Collection[Label, *Label]
	rules  *collection.Collection[Rule, *Rule]
}

func newService(c *core.Core) *service {
	s := &service{}
	s.rules = collection.New[Rule](collection.Options[Rule]{
		Store: c.Store, Resource: newRuleResource(), Table: store.NewTable[Rule]("metering_label_rule", store.TableOptions[Rule]{}),
		Create: s.createRule,
		Delete: func(ctx context.Context, tx *store.Tx, r *Rule) error {
			if err := s.rules.Remove(ctx, tx, r); err != nil {
				return err
			}
			return s.labels.Bump(ctx, tx, r.LabelID)
		},
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM metering_label l WHERE l.id = t.metering_label_id AND l.shared)", []any{who}
		},
	})
	s.labels = collection.New[Label](collection.Options[Label]{
		Store: c.Store, Resource: newLabelResource(),
		Table: store.NewTable[Label]("metering_label", store.TableOptions[Label]{Children: []func(*store.Tx, []*Label) error{s.fillRules}}),
		Create: func(ctx context.Context, tx *store.Tx, l *Label, _ *resource.Body) error {
			return s.labels.Insert(ctx, tx, l)
		},
		Delete: s.deleteLabel,
		Scope: func(ctx context.Context) (string, []any) {
			return "t.project_id = ? OR t.shared", []any{identity.From(ctx).ProjectID}
		},
	})
	s.labels.Resource.Shared = func(o resource.Object) []string {
		if l, ok := o.(*Label); ok && l.Shared {
			return []string{"*"}
		}
		return nil
	}
	s.rules.Resource.Through = &resource.Through{Kind: "metering_label", Attribute: "metering_label_id"}
	return s
}

func (s *service) fillRules(tx *store.Tx, rows []*Label) error {
	by, ids := make(map[string]*Label, len(rows)), make([]any, len(rows))
	for i, l := range rows {
		by[l.ID], ids[i] = l, l.ID
	}
	for len(ids) > 0 {
		n := min(len(ids), 512)
		in, args := store.In("t.metering_label_id", ids[:n])
		rules, err := s.rules.Table.Select(tx, "WHERE "+in+" ORDER BY t.id", args...)
		if err != nil {
			return err
		}
		for _, r := range rules {
			by[r.LabelID].Rules = append(by[r.LabelID].Rules, r)
		}
		ids = ids[n:]
	}
	return nil
}

func (s *service) deleteLabel(ctx context.Context, tx *store.Tx, l *Label) error {
	for _, r := range l.Rules {
		if err := s.rules.Remove(ctx, tx, r); err != nil {
			return err
		}
	}
	return s.labels.Remove(ctx, tx, l)
}

// refused is a refusal to which Neutron gives no status.
func refused(format string, args ...any) error {
	return fault.New(fault.Unmapped, "Invalid", format, args...)
}

// prefix reads an address, with or without the length of a prefix.
func prefix(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// complete checks the prefixes of a rule; empty ones are none.
func complete(r *Rule) error {
	given := map[string]netip.Prefix{}
	for _, f := range []struct {
		name  string
		value **string
	}{{"remote_ip_prefix", &r.RemotePrefix}, {"source_ip_prefix", &r.SourcePrefix}, {"destination_ip_prefix", &r.DestinationPrefix}} {
		if *f.value == nil || **f.value == "" {
			*f.value = nil
			continue
		}
		p, ok := prefix(**f.value)
		if !ok {
			return refused("%s: %s is invalid ['%s' does not appear to be an IPv4 or IPv6 interface].", f.name, **f.value, **f.value)
		}
		given[f.name] = p
	}
	source, hasSource := given["source_ip_prefix"]
	destination, hasDestination := given["destination_ip_prefix"]
	_, hasRemote := given["remote_ip_prefix"]
	switch {
	case hasRemote && (hasSource || hasDestination):
		return refused("Cannot use 'remote-ip-prefix' in conjunction with 'source-ip-prefix' or 'destination-ip-prefix'.")
	case len(given) == 0:
		return refused("You must define at least one of the following parameters 'remote_ip_prefix', or 'source_ip_prefix' or 'destination_ip_prefix'.")
	case hasSource && hasDestination && source.Addr().Is4() != destination.Addr().Is4():
		// No packet is of both families: hosts cannot have such a rule.
		return refused("source_ip_prefix: %s is invalid [destination_ip_prefix is of another IP version].", *r.SourcePrefix)
	}
	return nil
}

func (s *service) createRule(ctx context.Context, tx *store.Tx, r *Rule, _ *resource.Body) error {
	if err := complete(r); err != nil {
		return err
	}
	// Rules of one label are compared with each other: one transaction at a time.
	n, err := tx.Exec("UPDATE metering_label SET shared = shared WHERE id = ?", r.LabelID)
	if err != nil {
		return err
	}
	if n == 0 {
		return s.labels.NotFound(r.LabelID)
	}
	l, err := s.labels.Find(ctx, tx, r.LabelID)
	if err != nil {
		return err
	}
	if r.RemotePrefix != nil {
		mine, _ := prefix(*r.RemotePrefix)
		for _, other := range l.Rules {
			if other.RemotePrefix == nil || other.Direction != r.Direction || other.Excluded != r.Excluded {
				continue
			}
			if theirs, ok := prefix(*other.RemotePrefix); ok && theirs.Overlaps(mine) {
				return fault.New(fault.Conflict, "MeteringLabelRuleOverlaps", "Metering label rule with remote_ip_prefix '%s' overlaps another.", *r.RemotePrefix)
			}
		}
	}
	if who := identity.From(ctx); !who.Admin && l.ProjectID != who.ProjectID {
		return s.labels.NotFound(l.ID) // a shared one is for use, not for change
	}
	r.ProjectID = l.ProjectID
	if err := s.rules.Insert(ctx, tx, r); err != nil {
		return err
	}
	return s.labels.Bump(ctx, tx, l.ID)
}
