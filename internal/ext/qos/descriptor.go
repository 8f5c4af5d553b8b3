// Package qos is the QoS extension family: policies with their rules, policies
// of networks and ports, default policies of projects, and what hosts must
// know to enforce them.
//
// It must not know how hosts enforce rules.
package qos

import (
	"encoding/json"

	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "qos", Schemas: []store.Schema{schema}, Install: install, After: []string{"router"}})
}

func install(c *core.Core, f *feed.Hub) error {
	e := func(alias, name, description, updated string, requires ...string) resource.Extension {
		return resource.Extension{Alias: alias, Name: name, Description: description, Updated: updated, Requires: requires}
	}
	c.Registry.AddExtension(
		e("qos", "Quality of Service", "The Quality of Service extension.", "2015-06-08T10:00:00-00:00"),
		e("qos-bw-limit-direction", "Direction for QoS bandwidth limit rule", "Allow to configure QoS bandwidth limit rule with specific direction: ingress or egress", "2017-04-10T10:00:00-00:00", "qos"),
		e("qos-default", "QoS default policy", "Expose the QoS default policy per project", "2017-041-06T10:00:00-00:00", "qos"),
		e("qos-pps", "QoS Rule Type Packet per Second Extension", "Provides packet rate limit rules: how many packets a port may send and receive in a second.", "2021-05-12T10:00:00-00:00", "qos"),
		e("qos-bw-minimum-ingress", "Ingress direction for QoS minimum bandwidth rule", "Allow to configure QoS minimum bandwidth rule with ingress direction.", "2018-07-09T10:00:00-00:00", "qos"),
		e("qos-pps-minimum", "QoS minimum packet rate rule", "Allow to configure QoS minimum packet rate rule.", "2021-07-14T10:00:00-00:00", "qos"),
		e("qos-pps-minimum-rule-alias", "QoS minimum packet rate rule alias", "API to enable GET, PUT and DELETE operations on QoS minimum packet rate rule without specifying policy ID", "2021-10-22T10:00:00-00:00", "qos", "qos-pps-minimum"),
		e("port-resource-request", "Port Resource Request", "Expose resource request to Port", "2018-05-08T10:00:00-00:00"),
		e("qos-port-network-policy", "QoS port network policy ID", "Expose the QoS policy of the network of a port", "2019-11-01T10:00:00-00:00", "qos"),
		e("qos-rule-type-details", "Details of QoS rule types", "Expose details about QoS rule types supported by loaded backend drivers", "2017-06-22T10:00:00-00:00", "qos"),
		e("qos-rule-type-filter", "Allow to filter the list of QoS rule types", "Adds the flags all_supported and all_rules to lists of QoS rule types", "2022-02-02T10:00:00-00:00", "qos"),
		e("qos-rules-alias", "Quality of Service rules alias API", "API to enable GET, PUT and DELETE operations on QoS policy rules without specifying policy ID", "2018-10-07T10:00:00-00:00", "qos", "qos-bw-limit-direction"),
	)
	for _, r := range []*resource.Resource{c.Networks.Resource, c.Ports.Resource} {
		r.Add(resource.Attribute{Name: attribute, Flags: post | put | visible | resource.EnforcePolicy, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"})
	}
	c.Ports.Resource.Add(resource.Attribute{Name: networkAttribute, Flags: visible, Default: nil, Validate: resource.Rules{"type:uuid_or_none": nil}, Type: "string|null"})
	c.Ports.Resource.Add(resource.Attribute{Name: requestAttribute, Flags: visible, Default: resource.Unspecified, Type: "object|null"})
	s, err := newService(c)
	if err != nil {
		return err
	}
	if s.grouped {
		c.Registry.AddExtension(e(requestGroups, "Port Resource Request Groups", "Support requesting multiple groups of resources and traits from the same RP subtree in resource_request", "2021-08-02T10:00:00-00:00"))
	}
	core.Add(c, s.policies)
	c.RBAC.Register(s.shareable())
	s.registerRules(c)
	c.Registry.Add(newRuleTypes().Resource)
	s.hook()
	s.extendL3(c)
	project(f, s)
	return nil
}

// Attributes of networks and ports.
const (
	attribute        = "qos_policy_id"
	networkAttribute = "qos_network_policy_id"
	requestAttribute = "resource_request"
	requestGroups    = "port-resource-request-groups"
)

// Policy is a set of rules that networks and ports may have.
type Policy struct {
	resource.Standard
	Name string `json:"name" db:"name"`
	// IsDefault: networks of the project that name no policy get this one.
	IsDefault bool `json:"is_default" db:"is_default"`

	// SharedWith are the projects ("*": all) with access_as_shared.
	SharedWith []string `json:"shared_with,omitempty"`
	// Rules of all types.
	Rules []Embedded `json:"rules"`
	// Shared is only shown.
	Shared bool `json:"shared"`
}

// Embedded is a rule as it stands inside of its policy: with its type. The
// fields of other types are nil.
type Embedded struct {
	ID           string `json:"id"`
	PolicyID     string `json:"qos_policy_id"`
	Type         string `json:"type"`
	Direction    string `json:"direction,omitempty"`
	MaxKbps      *int   `json:"max_kbps,omitempty"`
	MaxBurstKbps *int   `json:"max_burst_kbps,omitempty"`
	DSCPMark     *int   `json:"dscp_mark,omitempty"`
	MaxKpps      *int   `json:"max_kpps,omitempty"`
	MaxBurstKpps *int   `json:"max_burst_kpps,omitempty"`
	MinKbps      *int   `json:"min_kbps,omitempty"`
	MinKpps      *int   `json:"min_kpps,omitempty"`
}

// Rule is what rules of all types have in common.
type Rule struct {
	resource.Standard
	PolicyID string `json:"policy_id" db:"qos_policy_id"`
}

// BandwidthLimit limits how many kilobits a port may send (egress) or receive
// (ingress) in a second. A burst of 0 is left to hosts.
type BandwidthLimit struct {
	Rule
	MaxKbps      int    `json:"max_kbps" db:"max_kbps"`
	MaxBurstKbps int    `json:"max_burst_kbps" db:"max_burst_kbps"`
	Direction    string `json:"direction" db:"direction"`
}

// DSCPMarking sets the DSCP (RFC 2474) of the IP packets that a port sends.
type DSCPMarking struct {
	Rule
	DSCPMark int `json:"dscp_mark" db:"dscp_mark"`
}

// PacketRateLimit limits how many thousands of packets a port may send or receive in a second.
type PacketRateLimit struct {
	Rule
	MaxKpps      int    `json:"max_kpps" db:"max_kpps"`
	MaxBurstKpps int    `json:"max_burst_kpps" db:"max_burst_kpps"`
	Direction    string `json:"direction" db:"direction"`
}

// MinimumBandwidth is how many kilobits a port is guaranteed to send (egress)
// or receive (ingress) in a second: as much is allocated in Placement on the
// host that the port's instance is scheduled to.
type MinimumBandwidth struct {
	Rule
	MinKbps   int    `json:"min_kbps" db:"min_kbps"`
	Direction string `json:"direction" db:"direction"`
}

// MinimumPacketRate is the same of thousands of packets; the direction any
// counts both.
type MinimumPacketRate struct {
	Rule
	MinKpps   int    `json:"min_kpps" db:"min_kpps"`
	Direction string `json:"direction" db:"direction"`
}

// Rule types, by Neutron's names.
const (
	typeBandwidthLimit    = "bandwidth_limit"
	typeDSCPMarking       = "dscp_marking"
	typePacketRateLimit   = "packet_rate_limit"
	typeMinimumBandwidth  = "minimum_bandwidth"
	typeMinimumPacketRate = "minimum_packet_rate"
)

func (r *BandwidthLimit) rule() *Rule    { return &r.Rule }
func (r *DSCPMarking) rule() *Rule       { return &r.Rule }
func (r *PacketRateLimit) rule() *Rule   { return &r.Rule }
func (r *MinimumBandwidth) rule() *Rule  { return &r.Rule }
func (r *MinimumPacketRate) rule() *Rule { return &r.Rule }

func (r *BandwidthLimit) embedded() Embedded {
	return Embedded{ID: r.ID, PolicyID: r.PolicyID, Type: typeBandwidthLimit, Direction: r.Direction, MaxKbps: &r.MaxKbps, MaxBurstKbps: &r.MaxBurstKbps}
}

func (r *DSCPMarking) embedded() Embedded {
	return Embedded{ID: r.ID, PolicyID: r.PolicyID, Type: typeDSCPMarking, DSCPMark: &r.DSCPMark}
}

func (r *PacketRateLimit) embedded() Embedded {
	return Embedded{ID: r.ID, PolicyID: r.PolicyID, Type: typePacketRateLimit, Direction: r.Direction, MaxKpps: &r.MaxKpps, MaxBurstKpps: &r.MaxBurstKpps}
}

func (r *MinimumBandwidth) embedded() Embedded {
	return Embedded{ID: r.ID, PolicyID: r.PolicyID, Type: typeMinimumBandwidth, Direction: r.Direction, MinKbps: &r.MinKbps}
}

func (r *MinimumPacketRate) embedded() Embedded {
	return Embedded{ID: r.ID, PolicyID: r.PolicyID, Type: typeMinimumPacketRate, Direction: r.Direction, MinKpps: &r.MinKpps}
}

const standardColumns = `id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL`

var schema = store.Schema{Module: "ext/qos", Steps: [][]string{{
	`CREATE TABLE qos_policy (` + standardColumns + `, name VARCHAR(255) NOT NULL, is_default BOOLEAN NOT NULL)`,
	`CREATE INDEX qos_policy_project ON qos_policy (project_id, name)`,
	`CREATE UNIQUE INDEX qos_policy_default ON qos_policy (project_id) WHERE is_default`,
	// The keys decide which of two rules that exclude each other is there.
	`CREATE TABLE qos_bandwidth_limit_rule (` + standardColumns + `,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id) ON DELETE CASCADE,
		max_kbps INTEGER NOT NULL, max_burst_kbps INTEGER NOT NULL, direction VARCHAR(16) NOT NULL, UNIQUE (qos_policy_id, direction))`,
	`CREATE TABLE qos_dscp_marking_rule (` + standardColumns + `,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id) ON DELETE CASCADE, dscp_mark INTEGER NOT NULL, UNIQUE (qos_policy_id))`,
	`CREATE TABLE qos_packet_rate_limit_rule (` + standardColumns + `,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id) ON DELETE CASCADE,
		max_kpps INTEGER NOT NULL, max_burst_kpps INTEGER NOT NULL, direction VARCHAR(16) NOT NULL, UNIQUE (qos_policy_id, direction))`,
	// The slots of networks and ports say the same; here it is found by policy, and a policy in use cannot go.
	`CREATE TABLE qos_network_policy (
		network_id VARCHAR(36) PRIMARY KEY REFERENCES network (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id))`,
	`CREATE INDEX qos_network_policy_policy ON qos_network_policy (qos_policy_id)`,
	`CREATE TABLE qos_port_policy (
		port_id VARCHAR(36) PRIMARY KEY REFERENCES port (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id))`,
	`CREATE INDEX qos_port_policy_policy ON qos_port_policy (qos_policy_id)`,
}, {
	`CREATE TABLE qos_floatingip_policy (
		floatingip_id VARCHAR(36) PRIMARY KEY REFERENCES floatingip (id) ON DELETE CASCADE,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id))`,
	`CREATE INDEX qos_floatingip_policy_policy ON qos_floatingip_policy (qos_policy_id)`,
	`CREATE TABLE qos_router_policy (
		router_id VARCHAR(36) PRIMARY KEY REFERENCES router (id) ON DELETE CASCADE,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id))`,
	`CREATE INDEX qos_router_policy_policy ON qos_router_policy (qos_policy_id)`,
}, {
	`CREATE TABLE qos_minimum_bandwidth_rule (` + standardColumns + `,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id) ON DELETE CASCADE,
		min_kbps INTEGER NOT NULL, direction VARCHAR(16) NOT NULL, UNIQUE (qos_policy_id, direction))`,
	`CREATE TABLE qos_minimum_packet_rate_rule (` + standardColumns + `,
		qos_policy_id VARCHAR(36) NOT NULL REFERENCES qos_policy (id) ON DELETE CASCADE,
		min_kpps INTEGER NOT NULL, direction VARCHAR(16) NOT NULL, UNIQUE (qos_policy_id, direction))`,
}}}

const (
	post     = resource.Post
	put      = resource.Put
	visible  = resource.Visible
	filter   = resource.Filter
	sortKey  = resource.Sort
	greatest = 2147483647
)

func newPolicyResource() *resource.Resource {
	r := &resource.Resource{
		Name: "policy", Collection: "policies", Path: "policies", Prefix: "/qos", Older: true,
		Standard: true, Taggable: true,
		NotFound: "QosPolicyNotFound", NotFoundText: "QoS policy %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "shared", Flags: post | put | visible | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | resource.RequiredByPolicy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "rules", Flags: visible, Type: "list<object>"},
		resource.Attribute{Name: "is_default", Flags: post | put | visible | filter, Default: false, Convert: "convert_to_boolean", Type: "bool"},
	)
	return r.Add(resource.StandardAttributes(true)...)
}

// Attributes of rules. Aliases can only be updated.

func limit(name string) resource.Attribute {
	return resource.Attribute{Name: name, Flags: post | put | visible | filter | sortKey, Required: true, Convert: "convert_to_int", Validate: resource.Rules{"type:range": []any{int64(0), int64(greatest)}}, Type: "int"}
}

func burst(name string) resource.Attribute {
	a := limit(name)
	a.Required, a.Default = false, int64(0)
	return a
}

func direction() resource.Attribute {
	return resource.Attribute{Name: "direction", Flags: post | put | visible | filter | sortKey, Default: "egress", Validate: resource.Rules{"type:values": directions}, Type: "string"}
}

var directions = []any{"ingress", "egress"}

// anyDirection counts the packets of both directions.
const anyDirection = "any"

// dscpMarks are the code points that rules may set.
var dscpMarks = func() []any {
	var list []any
	for _, mark := range []int64{0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56} {
		list = append(list, mark)
	}
	return list
}()

func attributesOf(ruleType string) []resource.Attribute {
	switch ruleType {
	case typeBandwidthLimit:
		return []resource.Attribute{limit("max_kbps"), burst("max_burst_kbps"), direction()}
	case typeDSCPMarking:
		return []resource.Attribute{{Name: "dscp_mark", Flags: post | put | visible | filter | sortKey, Required: true, Convert: "convert_to_int", Validate: resource.Rules{"type:values": dscpMarks}, Type: "int"}}
	case typePacketRateLimit:
		return []resource.Attribute{limit("max_kpps"), burst("max_burst_kpps"), direction()}
	case typeMinimumBandwidth:
		return []resource.Attribute{limit("min_kbps"), direction()}
	case typeMinimumPacketRate:
		either := direction()
		either.Validate = resource.Rules{"type:values": append([]any{anyDirection}, directions...)}
		return []resource.Attribute{limit("min_kpps"), either}
	}
	return nil
}

func newRuleResource(ruleType string, parent *resource.Resource) *resource.Resource {
	r := &resource.Resource{
		Name: ruleType + "_rule", Collection: ruleType + "_rules", Path: ruleType + "_rules", Parent: parent, Older: true,
		NoBulk:   ruleType == typePacketRateLimit,
		NotFound: "QosRuleNotFound", NotFoundText: "QoS rule %s for policy  could not be found.",
	}
	r.Add(resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"})
	return r.Add(attributesOf(ruleType)...)
}

// newAliasResource is the resource of the same rules without their policies.
func newAliasResource(ruleType string) *resource.Resource {
	r := &resource.Resource{
		Name: "alias_" + ruleType + "_rule", Collection: "alias_" + ruleType + "_rules", Prefix: "/qos", Older: true,
		Only:     []resource.Operation{resource.Show, resource.Update, resource.Delete},
		NotFound: "QosRuleNotFound", NotFoundText: "QoS rule %s for policy  could not be found.",
	}
	r.Path = "alias-" + dashes(ruleType) + "-rules"
	r.Add(resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"})
	if ruleType != typeMinimumPacketRate { // whose aliases are another extension's
		r.Add(resource.Attribute{Name: "tenant_id", Flags: visible | resource.RequiredByPolicy, Type: "string"})
	}
	for _, a := range attributesOf(ruleType) {
		a.Flags &^= post
		a.Required = false
		r.Add(a)
	}
	return r
}

// MarshalJSON keeps an absent list of rules a list.
func (p *Policy) MarshalJSON() ([]byte, error) {
	type plain Policy
	c := *p
	if c.Rules == nil {
		c.Rules = []Embedded{}
	}
	return json.Marshal((*plain)(&c))
}
