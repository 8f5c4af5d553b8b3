package qos

import (
	"context"
	"slices"

	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
)

// ruleTypes are all types that the API defines.
var ruleTypes = []string{typeBandwidthLimit, typePacketRateLimit, typeDSCPMarking, typeMinimumBandwidth, typeMinimumPacketRate}

// driver is what the software of hosts can enforce, or Placement can promise
// for it, by the name of the mechanism driver that binds to it.
type driver struct {
	name      string
	rules     []string
	vifTypes  []string
	vnicTypes []string
}

var drivers = []driver{{
	name: "openvswitch", rules: []string{typeBandwidthLimit, typeDSCPMarking, typePacketRateLimit, typeMinimumBandwidth, typeMinimumPacketRate},
	vifTypes: []string{"ovs", "vhostuser"}, vnicTypes: []string{"normal", "direct"},
}}

// supported tells whether a port can have a rule: as it is bound, or, before
// that, by what it asks to be.
func supported(ruleType string, p *port.Port) bool {
	return slices.ContainsFunc(drivers, func(d driver) bool {
		if !slices.Contains(d.rules, ruleType) {
			return false
		}
		if p.Bound() {
			return slices.Contains(d.vifTypes, p.VIFType)
		}
		return slices.Contains(d.vnicTypes, p.VNICType)
	})
}

// onNetworks tells whether the ports of any network can have a rule.
func onNetworks(ruleType string) bool {
	return slices.ContainsFunc(drivers, func(d driver) bool { return slices.Contains(d.rules, ruleType) })
}

// RuleType is a type of rules with the drivers that support it.
type RuleType struct {
	Type string `json:"type"`
	// Drivers are shown with a single type only.
	Drivers []Driver `json:"drivers,omitempty"`
}

// Driver says what values of a rule type's parameters a driver takes.
type Driver struct {
	Name       string      `json:"name"`
	Parameters []Parameter `json:"supported_parameters"`
}

// Parameter is an attribute of a rule type.
type Parameter struct {
	Name string `json:"parameter_name"`
	// Type is range, of {"start", "end"}, or choices, of a list.
	Type   string `json:"parameter_type"`
	Values any    `json:"parameter_values"`
}

func details(ruleType string) []Driver {
	list := []Driver{}
	for _, d := range drivers {
		if !slices.Contains(d.rules, ruleType) {
			continue
		}
		one := Driver{Name: d.name, Parameters: []Parameter{}}
		for _, a := range attributesOf(ruleType) {
			p := Parameter{Name: a.Name}
			if limits, ok := a.Validate["type:range"].([]any); ok {
				p.Type, p.Values = "range", map[string]any{"start": limits[0], "end": limits[1]}
			} else {
				p.Type, p.Values = "choices", a.Validate["type:values"]
			}
			one.Parameters = append(one.Parameters, p)
		}
		list = append(list, one)
	}
	return list
}

// typeService serves rule types, which are not stored.
type typeService struct {
	*resource.Resource
	encoder *resource.Encoder
}

func newRuleTypes() *typeService {
	flag := func(name string) resource.Attribute {
		return resource.Attribute{Name: name, Flags: post | put | filter, Default: resource.Unspecified, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"}
	}
	s := &typeService{Resource: &resource.Resource{
		Name: "rule_type", Collection: "rule_types", Path: "rule-types", Prefix: "/qos", Older: true,
		Only: []resource.Operation{resource.Show, resource.List},
	}}
	s.Add(
		resource.Attribute{Name: "type", Flags: visible, Type: "string"},
		resource.Attribute{Name: "drivers", Flags: visible, Type: "list<object>"},
		flag("all_rules"), flag("all_supported"),
	)
	s.Service = s
	s.encoder = resource.NewModel[RuleType]().NewEncoder(s.Resource)
	return s
}

// Get implements resource.Service: the details of one type, for administrators.
func (s *typeService) Get(ctx context.Context, name string) (resource.Object, error) {
	if !identity.From(ctx).Admin {
		return nil, fault.New(fault.Forbidden, "NotAuthorized", "Not authorized.")
	}
	if !slices.Contains(ruleTypes, name) {
		return nil, fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
	}
	return &RuleType{Type: name, Drivers: details(name)}, nil
}

// List implements resource.Service: the types that every driver supports,
// those that any does (all_supported), or all (all_rules).
func (s *typeService) List(_ context.Context, q *resource.Query) ([]resource.Object, error) {
	asked := func(name string) bool { return slices.Contains(q.Filter(name), any(true)) }
	list := []resource.Object{}
	for _, t := range ruleTypes {
		by := 0
		for _, d := range drivers {
			if slices.Contains(d.rules, t) {
				by++
			}
		}
		if asked("all_rules") || asked("all_supported") && by > 0 || by == len(drivers) {
			list = append(list, &RuleType{Type: t})
		}
	}
	return list, nil
}

// Create implements resource.Service; rule types are what they are.
func (s *typeService) Create(context.Context, []*resource.Body) ([]resource.Object, error) {
	return nil, unchangeable()
}

// Update implements resource.Service.
func (s *typeService) Update(context.Context, string, *resource.Body, resource.Match) (resource.Object, error) {
	return nil, unchangeable()
}

// Delete implements resource.Service.
func (s *typeService) Delete(context.Context, string, resource.Match) error { return unchangeable() }

func unchangeable() error {
	return fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
}

// Encode implements resource.Service.
func (s *typeService) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}
