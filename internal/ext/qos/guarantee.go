package qos

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"isospin/internal/core/agent"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/notify/placement"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// guarantees tells whether rules of a type are promises, which Placement keeps
// account of.
func guarantees(ruleType string) bool {
	return ruleType == typeMinimumBandwidth || ruleType == typeMinimumPacketRate
}

// resourceOf is what a rule asks of Placement.
func resourceOf(e Embedded) (class string, amount int64) {
	switch {
	case e.Type == typeMinimumBandwidth && e.Direction == "ingress":
		return placement.BandwidthIngress, int64(*e.MinKbps)
	case e.Type == typeMinimumBandwidth:
		return placement.BandwidthEgress, int64(*e.MinKbps)
	case e.Direction == "ingress":
		return placement.PacketRateIngress, int64(*e.MinKpps)
	case e.Direction == "egress":
		return placement.PacketRateEgress, int64(*e.MinKpps)
	}
	return placement.PacketRate, int64(*e.MinKpps)
}

// promised are the rules of a type, in the order in which they make the id of a request group.
func promised(rules []Embedded, ruleType string) []Embedded {
	var list []Embedded
	for _, r := range rules {
		if r.Type == ruleType {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Embedded) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// groupID is the id of what a port requests because of rules of one type.
func groupID(portID string, rules []Embedded) string {
	ids := make([]string, len(rules))
	for i, r := range rules {
		ids[i] = r.ID
	}
	return placement.RequestGroup(portID, ids)
}

// Request is what a port needs of the host that it is scheduled to.
type Request struct {
	Groups []RequestGroup `json:"request_groups,omitempty"`
	// SameSubtree are the ids of groups that one host must serve.
	SameSubtree []string `json:"same_subtree,omitempty"`

	// Required and Amounts are all that there is of it without the extension
	// port-resource-request-groups, for a Nova that knows no groups: bandwidth alone.
	Required []string         `json:"required,omitempty"`
	Amounts  map[string]int64 `json:"resources,omitempty"`
}

// RequestGroup is what one resource provider must have.
type RequestGroup struct {
	ID       string           `json:"id"`
	Required []string         `json:"required"`
	Amounts  map[string]int64 `json:"resources"`
}

var requestOf = resource.NewSlot[*Request](requestAttribute)

// request is what a port needs because of rules; nil: nothing. physical is the
// physical network of its network's first segment, empty: none.
func request(p *port.Port, rules []Embedded, physical string) *Request {
	r := &Request{}
	for _, ruleType := range []string{typeMinimumBandwidth, typeMinimumPacketRate} {
		list := promised(rules, ruleType)
		if len(list) == 0 {
			continue
		}
		g := RequestGroup{ID: groupID(p.ID, list), Amounts: map[string]int64{}}
		switch {
		case ruleType == typeMinimumPacketRate:
		case physical == "":
			g.Required = append(g.Required, placement.TunnelTrait)
		default:
			g.Required = append(g.Required, placement.PhysicalNetworkTrait(physical))
		}
		g.Required = append(g.Required, placement.VNICTypeTrait(p.VNICType))
		for _, e := range list {
			class, n := resourceOf(e)
			g.Amounts[class] = n
		}
		r.Groups = append(r.Groups, g)
		r.SameSubtree = append(r.SameSubtree, g.ID)
	}
	if len(r.Groups) == 0 {
		return nil
	}
	return r
}

// ungrouped is the request in the form without groups; nil: nothing that it can tell.
func (r *Request) ungrouped() *Request {
	for _, g := range r.Groups {
		_, egress := g.Amounts[placement.BandwidthEgress]
		_, ingress := g.Amounts[placement.BandwidthIngress]
		if egress || ingress {
			return &Request{Required: g.Required, Amounts: g.Amounts}
		}
	}
	return nil
}

// presentRequests shows what ports need that have a policy.
func (s *service) presentRequests(tx *store.Tx, rows []*port.Port) error {
	var policies []string
	for _, p := range rows {
		if id := effective(p); !slices.Contains(policies, id) {
			policies = append(policies, id)
		}
	}
	rules := map[string][]Embedded{}
	for ruleType, query := range map[string]string{
		typeMinimumBandwidth:  "SELECT id, qos_policy_id, direction, min_kbps FROM qos_minimum_bandwidth_rule WHERE %s",
		typeMinimumPacketRate: "SELECT id, qos_policy_id, direction, min_kpps FROM qos_minimum_packet_rate_rule WHERE %s",
	} {
		err := store.Child(tx, query, "qos_policy_id", policies, func(scan func(...any) error) error {
			e := Embedded{Type: ruleType}
			var n int
			err := scan(&e.ID, &e.PolicyID, &e.Direction, &n)
			e.MinKbps, e.MinKpps = &n, &n
			rules[e.PolicyID] = append(rules[e.PolicyID], e)
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(rules) == 0 {
		return nil
	}
	var ids []string
	for _, p := range rows {
		if rules[effective(p)] != nil && !slices.Contains(ids, p.NetworkID) {
			ids = append(ids, p.NetworkID)
		}
	}
	physical, err := physicalNetworks(tx, ids)
	if err != nil {
		return err
	}
	for _, p := range rows {
		if list := rules[effective(p)]; list != nil {
			r := request(p, list, physical[p.NetworkID])
			if r != nil && !s.grouped {
				r = r.ungrouped()
			}
			if err := requestOf.Set(&p.Slots, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// physicalNetworks are those of the first segments of networks; empty: a tunnel, or local.
func physicalNetworks(tx *store.Tx, networks []string) (map[string]string, error) {
	physical := map[string]string{}
	err := store.Child(tx, "SELECT network_id, physical_network FROM network_segment WHERE %s ORDER BY network_id, position", "network_id", networks, func(scan func(...any) error) error {
		var id, name string
		err := scan(&id, &name)
		if _, later := physical[id]; !later {
			physical[id] = name
		}
		return err
	})
	return physical, err
}

// checkScheduled refuses to change promises that instances were scheduled by.
func checkScheduled(tx *store.Tx, policy string) error {
	var n int
	err := tx.Row(`SELECT COUNT(*) FROM (SELECT 1 FROM port p WHERE p.device_owner LIKE 'compute:%' AND (p.id IN (SELECT port_id FROM qos_port_policy WHERE qos_policy_id = ?)
		OR p.network_id IN (SELECT network_id FROM qos_network_policy WHERE qos_policy_id = ?) AND NOT EXISTS (SELECT 1 FROM qos_port_policy b WHERE b.port_id = p.id)) LIMIT 1) x`,
		[]any{policy, policy}, &n)
	if err != nil || n == 0 {
		return err
	}
	return fault.New(fault.NotImplemented, "NotImplementedError", "Cannot update QoS policies/rules backed by resources tracked in Placement")
}

// ungrouped is the request group of bandwidth where there are no groups.
const ungrouped = ""

// allocation is the resource providers that a port's resources were taken
// from, by request group.
func allocation(p *port.Port) map[string]string {
	var profile struct {
		Allocation json.RawMessage `json:"allocation"`
	}
	var groups map[string]string
	var one string
	switch {
	case json.Unmarshal(p.Profile, &profile) != nil || profile.Allocation == nil:
	case json.Unmarshal(profile.Allocation, &groups) == nil:
		return groups
	case json.Unmarshal(profile.Allocation, &one) == nil && one != "":
		return map[string]string{ungrouped: one}
	}
	return nil // some other form is nobody's here
}

// checkAllocation refuses to bind a port to a host whose agent has not
// reported the resource providers that the port's resources were taken from.
func (s *service) checkAllocation(tx *store.Tx, old, want *port.Port) error {
	providers := allocation(want)
	if want.HostID == "" || len(providers) == 0 || old != nil && old.HostID == want.HostID && string(old.Profile) == string(want.Profile) {
		return nil
	}
	agents, err := s.core.Agents.OnHost(tx, want.HostID)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, a := range agents {
		if a.AgentType != agent.OpenVSwitch || !a.AdminStateUp {
			continue
		}
		r, err := placement.Read(a.Host, a.Configurations)
		if err != nil {
			continue // the agent has said nothing that can be relied on
		}
		known = r.IDs()
	}
	var names []string
	unknown := false
	for _, id := range providers {
		names = append(names, id)
		unknown = unknown || !known[strings.ToLower(id)]
	}
	if !unknown {
		return nil
	}
	slices.Sort(names)
	return fault.New(fault.Invalid, "UnknownResourceProvider", "No such resource provider known by Neutron: %s", strings.Join(names, ","))
}

// allocator is what keeps account of what instances have.
type allocator interface {
	// Allocate changes what is allocated to an instance; placement.ErrExceeded when that cannot be.
	Allocate(ctx context.Context, consumer string, d placement.Difference) error
}
