package qos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/notify/placement"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// change is what becomes of an instance's allocations when its port gets
// another policy.
type change struct {
	port *port.Port
	// had is the policy of the port, or of its network, that it is about.
	had  string
	diff placement.Difference
	// groups are the providers by request group from then on.
	groups map[string]string
}

// planChange works out the change from some rules to others; nil: none. What
// was never allocated cannot be changed: then the rules only hold for whoever
// is scheduled later.
func (s *service) planChange(p *port.Port, had, want []Embedded) (*change, error) {
	providers := allocation(p)
	c := &change{port: p, diff: placement.Difference{}, groups: map[string]string{}}
	before := 0
	for _, ruleType := range []string{typeMinimumBandwidth, typeMinimumPacketRate} {
		old, now := promised(had, ruleType), promised(want, ruleType)
		before += len(old)
		if len(old) == 0 || len(providers) == 0 {
			if len(now) > 0 {
				s.core.Logger.Warn("nothing was allocated for a port: rules of its new policy hold when it is scheduled anew", "port", p.ID, "rules", ruleType)
			}
			continue
		}
		group := func(rules []Embedded) string {
			if s.grouped || ruleType != typeMinimumBandwidth {
				return groupID(p.ID, rules)
			}
			return ungrouped
		}
		provider := providers[group(old)]
		if provider == "" {
			s.core.Logger.Warn("no resource provider is known for rules of a port: its allocations stay as they are", "port", p.ID, "rules", ruleType)
			continue
		}
		if len(now) > 0 {
			if (old[0].Direction == anyDirection) != (now[0].Direction == anyDirection) {
				return nil, fault.New(fault.NotImplemented, "NotImplementedError",
					"Changing from direction-less QoS minimum packet rate rule to a direction-oriented minimum packet rate rule, or vice versa, is not supported.")
			}
			c.groups[group(now)] = provider
		}
		if c.diff[provider] == nil {
			c.diff[provider] = map[string]int64{}
		}
		for _, e := range old {
			class, n := resourceOf(e)
			c.diff[provider][class] -= n
		}
		for _, e := range now {
			class, n := resourceOf(e)
			c.diff[provider][class] += n
		}
	}
	if before == 0 || len(providers) == 0 {
		return nil, nil
	}
	for provider, classes := range c.diff {
		maps.DeleteFunc(classes, func(_ string, n int64) bool { return n == 0 })
		if len(classes) == 0 {
			delete(c.diff, provider)
		}
	}
	return c, nil
}

// profile is the binding profile of the changed port.
func (c *change) profile(of json.RawMessage) (json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(of, &members); err != nil {
		return nil, fmt.Errorf("profile of port %s: %w", c.port.ID, err)
	}
	var value any = c.groups
	if one, ok := c.groups[ungrouped]; ok {
		value = one
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	members["allocation"] = raw
	return json.Marshal(members)
}

// text is a difference as Neutron prints it.
func text(d placement.Difference) string {
	var providers []string
	for _, provider := range slices.Sorted(maps.Keys(d)) {
		var classes []string
		for _, class := range slices.Sorted(maps.Keys(d[provider])) {
			classes = append(classes, fmt.Sprintf("'%s': %d", class, d[provider][class]))
		}
		providers = append(providers, fmt.Sprintf("'%s': {%s}", provider, strings.Join(classes, ", ")))
	}
	return "{" + strings.Join(providers, ", ") + "}"
}

// changesKey is that of the changes that Placement has made already, in the
// context of the transaction that makes them here.
type changesKey struct{}

// changing returns the change of a port's allocations that is under way; nil: none.
func changing(ctx context.Context, portID string) *change {
	all, _ := ctx.Value(changesKey{}).([]*change)
	for _, c := range all {
		if c.port.ID == portID {
			return c
		}
	}
	return nil
}

// reallocated is the change that is under way of a port, of which the
// transaction now knows the present state. It fails when that is another than
// the change was made for.
func reallocated(ctx context.Context, now *port.Port, policy string) (*change, error) {
	c := changing(ctx, now.ID)
	if c != nil && (string(now.Profile) != string(c.port.Profile) || now.DeviceID != c.port.DeviceID || policy != c.had) {
		return nil, placement.Overtaken(now.DeviceID)
	}
	return c, nil
}

// undoTime bounds how long it may take to give back what was allocated in vain.
const undoTime = 30 * time.Second

// allocate makes changes in Placement, outside of any transaction, then what
// update does here, and takes them back when either fails.
func (s *service) allocate(ctx context.Context, changes []*change, update func(ctx context.Context) (resource.Object, error)) (resource.Object, error) {
	var done []*change
	undo := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		for _, c := range done {
			if err := s.placement.Allocate(ctx, c.port.DeviceID, c.diff.Inverse()); err != nil {
				s.core.Logger.ErrorContext(ctx, "allocations of an instance do not agree with its port's policy", "instance", c.port.DeviceID, "port", c.port.ID, "too_much", text(c.diff), "error", err)
			}
		}
	}
	for _, c := range changes {
		if len(c.diff) == 0 {
			continue
		}
		if err := s.placement.Allocate(ctx, c.port.DeviceID, c.diff); err != nil {
			undo()
			if errors.Is(err, placement.ErrExceeded) {
				err = fault.New(fault.Conflict, "QosPlacementAllocationUpdateConflict",
					"Updating placement allocation with %s for consumer %s failed. The requested resources would exceed the capacity available.", text(c.diff), c.port.DeviceID)
			}
			return nil, err
		}
		done = append(done, c)
	}
	o, err := update(context.WithValue(ctx, changesKey{}, changes))
	if err != nil {
		undo()
	}
	return o, err
}

// computes tells whether a port is an instance's.
func computes(p *port.Port) bool { return strings.HasPrefix(p.DeviceOwner, "compute:") }

// rulesOf are the rules of a policy; empty: none.
func (s *service) rulesOf(tx *store.Tx, policy string) ([]Embedded, error) {
	if policy == "" {
		return nil, nil
	}
	p, err := s.policies.Load(tx, policy)
	if err != nil {
		return nil, err
	}
	return p.Rules, nil
}

// wanted is the policy that a body names; empty: none.
func wanted(body *resource.Body) string {
	id, _ := body.Values[attribute].(string)
	return id
}

// portService is the ports, of which the allocations follow their policies.
type portService struct {
	*collection.Collection[port.Port, *port.Port]
	of *service
}

// Update implements resource.Service.
func (l portService) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	var changes []*change
	if body.Has(attribute) {
		err := l.of.core.Store.View(ctx, func(tx *store.Tx) error {
			changes = nil
			p, err := l.Find(ctx, tx, id)
			if err != nil || !computes(p) || len(allocation(p)) == 0 {
				return err
			}
			inherited, err := stored(tx, networkPolicy, p.NetworkID)
			if err != nil {
				return err
			}
			had, want := own(p.Slots), wanted(body)
			if had == want {
				return nil
			}
			if want != "" {
				if _, err := l.of.policies.Find(ctx, tx, want); err != nil {
					return err
				}
			}
			before, err := l.of.rulesOf(tx, either(had, inherited))
			if err != nil {
				return err
			}
			after, err := l.of.rulesOf(tx, either(want, inherited))
			if err != nil {
				return err
			}
			c, err := l.of.planChange(p, before, after)
			if c != nil {
				c.had = had
				changes = append(changes, c)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return l.of.allocate(ctx, changes, func(ctx context.Context) (resource.Object, error) { return l.Collection.Update(ctx, id, body, match) })
}

func either(own, inherited string) string {
	if own != "" {
		return own
	}
	return inherited
}

// networkService is the networks, with whose policies the allocations of their ports go.
type networkService struct {
	*collection.Collection[network.Network, *network.Network]
	of *service
}

// Update implements resource.Service.
func (l networkService) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	var changes []*change
	if body.Has(attribute) {
		err := l.of.core.Store.View(ctx, func(tx *store.Tx) error {
			changes = nil
			n, err := l.Find(ctx, tx, id)
			if err != nil {
				return err
			}
			had, want := own(n.Slots), wanted(body)
			if had == want {
				return nil
			}
			if want != "" {
				if _, err := l.of.policies.Find(ctx, tx, want); err != nil {
					return err
				}
			}
			before, err := l.of.rulesOf(tx, had)
			if err != nil {
				return err
			}
			after, err := l.of.rulesOf(tx, want)
			if err != nil {
				return err
			}
			rows, err := l.of.core.Ports.Table.SelectBare(tx, "WHERE t.network_id = ? AND t.device_owner LIKE 'compute:%' AND NOT EXISTS (SELECT 1 FROM qos_port_policy b WHERE b.port_id = t.id) ORDER BY t.id", id)
			if err != nil {
				return err
			}
			for _, p := range rows {
				c, err := l.of.planChange(p, before, after)
				if err != nil {
					return err
				}
				if c != nil {
					c.had = had
					changes = append(changes, c)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return l.of.allocate(ctx, changes, func(ctx context.Context) (resource.Object, error) { return l.Collection.Update(ctx, id, body, match) })
}

// reallocatePorts notes where the resources of a network's ports come from
// after its policy was changed.
func (s *service) reallocatePorts(ctx context.Context, tx *store.Tx, networkID, had string) error {
	all, _ := ctx.Value(changesKey{}).([]*change)
	for _, planned := range all {
		if planned.port.NetworkID != networkID {
			continue
		}
		p, err := s.core.Ports.Load(tx, planned.port.ID)
		if err != nil {
			return err
		}
		if own(p.Slots) != "" {
			return placement.Overtaken(p.DeviceID)
		}
		c, err := reallocated(ctx, p, had)
		if err != nil {
			return err
		}
		if p.Profile, err = c.profile(p.Profile); err != nil {
			return err
		}
		if err := s.core.Ports.Save(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}
