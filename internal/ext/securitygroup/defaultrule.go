package securitygroup

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// parent stands, as the remote group of a default rule, for the group that the rule becomes part of.
const parent = "PARENT"

// DefaultRule is a rule that new groups begin with. Groups that are there keep their rules.
type DefaultRule struct {
	resource.Standard
	Direction            string  `json:"direction" db:"direction"`
	EtherType            string  `json:"ethertype" db:"ethertype"`
	Protocol             *string `json:"protocol" db:"protocol"`
	PortRangeMin         *int    `json:"port_range_min" db:"port_range_min"`
	PortRangeMax         *int    `json:"port_range_max" db:"port_range_max"`
	RemoteIPPrefix       *string `json:"remote_ip_prefix" db:"remote_ip_prefix"`
	RemoteGroupID        *string `json:"remote_group_id" db:"remote_group_id"`
	RemoteAddressGroupID *string `json:"remote_address_group_id" db:"remote_address_group_id"`
	// UsedInDefault: in each project's default group; UsedInNonDefault: in all other groups.
	UsedInDefault    bool `json:"used_in_default_sg" db:"used_in_default_sg"`
	UsedInNonDefault bool `json:"used_in_non_default_sg" db:"used_in_non_default_sg"`
	// RemoteGroupReference is RemoteGroupID unless it is parent: it keeps the group.
	RemoteGroupReference *string `json:"-" db:"remote_group_reference"`
	Fingerprint          string  `json:"-" db:"fingerprint"`
}

var defaultRuleTables = []string{
	`CREATE TABLE default_security_group_rule (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(1024) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		direction VARCHAR(16) NOT NULL, ethertype VARCHAR(16) NOT NULL, protocol VARCHAR(40),
		port_range_min INTEGER, port_range_max INTEGER, remote_ip_prefix VARCHAR(255),
		remote_group_id VARCHAR(36), remote_group_reference VARCHAR(36) REFERENCES security_group (id),
		remote_address_group_id VARCHAR(36) REFERENCES address_group (id),
		used_in_default_sg BOOLEAN NOT NULL, used_in_non_default_sg BOOLEAN NOT NULL, fingerprint VARCHAR(255) NOT NULL)`,
	// A group has no rule twice.
	`CREATE UNIQUE INDEX default_security_group_rule_default ON default_security_group_rule (fingerprint) WHERE used_in_default_sg`,
	`CREATE UNIQUE INDEX default_security_group_rule_other ON default_security_group_rule (fingerprint) WHERE used_in_non_default_sg`,
	`CREATE INDEX default_security_group_rule_remote ON default_security_group_rule (remote_group_reference)`,
	`CREATE INDEX default_security_group_rule_address_group ON default_security_group_rule (remote_address_group_id)`,
	// What was always so: everything may leave, and members of a default group may reach each other.
	`INSERT INTO default_security_group_rule (id, project_id, revision_number, created_at, updated_at,
		description, direction, ethertype, remote_group_id, fingerprint, used_in_default_sg, used_in_non_default_sg)
	VALUES
		('5e4c27d5-78ca-4835-8b9f-5b1d8bef932f', '', 0, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z', 'Legacy default SG rule for egress traffic', 'egress', 'IPv4', NULL, 'egress|IPv4|-1||||', TRUE, TRUE),
		('ab494707-19fb-4e72-92cb-a26dcaff811e', '', 0, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z', 'Legacy default SG rule for ingress traffic', 'ingress', 'IPv4', 'PARENT', 'ingress|IPv4|-1||||PARENT', TRUE, FALSE),
		('b73ce6ef-b6ea-4362-9c30-2f11ea028860', '', 0, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z', 'Legacy default SG rule for egress traffic', 'egress', 'IPv6', NULL, 'egress|IPv6|-1||||', TRUE, TRUE),
		('e491050f-22e0-4899-a6ef-9756625fb340', '', 0, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z', 'Legacy default SG rule for ingress traffic', 'ingress', 'IPv6', 'PARENT', 'ingress|IPv6|-1||||PARENT', TRUE, FALSE)`,
}

func newDefaultRuleResource() *resource.Resource {
	r := &resource.Resource{
		Name: "default_security_group_rule", Collection: "default_security_group_rules", Path: "default-security-group-rules",
		Older: true, NoBulk: true, Standard: true,
		NotFound: "DefaultSecurityGroupRuleNotFound", NotFoundText: "Default Security Group rule %s does not exist",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | policy, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "remote_group_id", Flags: post | visible | filter | sortKey, Default: nil, Type: "string|null"},
		resource.Attribute{Name: "remote_address_group_id", Flags: post | visible | filter | sortKey, Default: nil, Type: "string|null"},
		resource.Attribute{Name: "direction", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:values": []any{"ingress", "egress"}}, Type: "string"},
		resource.Attribute{Name: "protocol", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_protocol", Type: "string|null"},
		resource.Attribute{Name: "port_range_min", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_validate_port_value", Type: "int|null"},
		resource.Attribute{Name: "port_range_max", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_validate_port_value", Type: "int|null"},
		resource.Attribute{Name: "ethertype", Flags: post | visible | filter | sortKey, Default: "IPv4", Convert: "convert_ethertype_to_case_insensitive", Validate: resource.Rules{"type:values": []any{"IPv4", "IPv6"}}, Type: "string"},
		resource.Attribute{Name: "remote_ip_prefix", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_ip_prefix_to_cidr", Type: "string|null"},
		resource.Attribute{Name: "used_in_default_sg", Flags: post | visible | filter, Required: true, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "used_in_non_default_sg", Flags: post | visible | filter, Required: true, Convert: "convert_to_boolean", Type: "bool"},
	)
	return r.Add(describedAtLength(resource.StandardAttributes(false), post|visible|filter)...)
}

func (s *service) newDefaultRules(c *core.Core) *collection.Collection[DefaultRule, *DefaultRule] {
	return collection.New[DefaultRule](collection.Options[DefaultRule]{
		Store: c.Store, Resource: newDefaultRuleResource(),
		Table:  store.NewTable[DefaultRule]("default_security_group_rule", store.TableOptions[DefaultRule]{}),
		Create: s.createDefaultRule,
		Delete: func(ctx context.Context, tx *store.Tx, d *DefaultRule) error {
			return s.defaultRules.Remove(ctx, tx, d)
		},
		// Policies decide who may read them.
		Scope: func(context.Context) (string, []any) { return "1 = 1", nil },
	})
}

// rule is the rule that a group with that id gets.
func (d *DefaultRule) rule(group string) *Rule {
	r := &Rule{
		SecurityGroupID: group, Direction: d.Direction, EtherType: d.EtherType, Protocol: d.Protocol,
		PortRangeMin: d.PortRangeMin, PortRangeMax: d.PortRangeMax, RemoteIPPrefix: d.RemoteIPPrefix,
		RemoteGroupID: d.RemoteGroupID, RemoteAddressGroupID: d.RemoteAddressGroupID,
	}
	if d.RemoteGroupID != nil && *d.RemoteGroupID == parent {
		r.RemoteGroupID = &group
	}
	return r
}

func (s *service) createDefaultRule(ctx context.Context, tx *store.Tx, d *DefaultRule, _ *resource.Body) error {
	r := d.rule(parent)
	if err := checkRule(r); err != nil {
		return err
	}
	d.Protocol, d.PortRangeMin, d.PortRangeMax, d.Fingerprint = r.Protocol, r.PortRangeMin, r.PortRangeMax, fingerprint(r)
	if d.RemoteGroupID != nil && *d.RemoteGroupID != parent {
		if _, err := s.visibleGroup(ctx, tx, *d.RemoteGroupID); err != nil {
			return err
		}
		d.RemoteGroupReference = d.RemoteGroupID
	}
	if d.RemoteAddressGroupID != nil {
		if _, err := s.addressGroups.Find(ctx, tx, *d.RemoteAddressGroupID); err != nil {
			return err
		}
	}
	err := s.defaultRules.Insert(ctx, tx, d)
	if !store.Duplicate(err, "default_security_group_rule", "fingerprint") {
		return err
	}
	var id string
	if err := tx.Row("SELECT id FROM default_security_group_rule WHERE fingerprint = ? AND (used_in_default_sg AND ? OR used_in_non_default_sg AND ?) ORDER BY id LIMIT 1",
		[]any{d.Fingerprint, d.UsedInDefault, d.UsedInNonDefault}, &id); err != nil {
		return err
	}
	return fault.New(fault.Conflict, "DefaultSecurityGroupRuleExists", "Default Security group rule already exists. Rule id is %s.", id)
}

// firstRules are the rules that a new group begins with.
func (s *service) firstRules(tx *store.Tx, g *Group, isDefault bool) ([]*Rule, error) {
	used := "used_in_non_default_sg"
	if isDefault {
		used = "used_in_default_sg"
	}
	templates, err := s.defaultRules.Table.Select(tx, "WHERE t."+used+" ORDER BY t.created_at, t.id")
	if err != nil {
		return nil, err
	}
	rules := make([]*Rule, len(templates))
	for i, d := range templates {
		r := d.rule(g.ID)
		// Stored in normal form, which the rule's prefix is not.
		if err := checkRule(r); err != nil {
			return nil, err
		}
		r.ProjectID, r.BelongsToDefault, r.Fingerprint = g.ProjectID, isDefault, fingerprint(r)
		rules[i] = r
	}
	return rules, nil
}

// begin stores a new group's first rules.
func (s *service) begin(ctx context.Context, tx *store.Tx, g *Group, rules []*Rule) error {
	for _, r := range rules {
		if err := s.rules.Insert(ctx, tx, r); err != nil {
			return err
		}
		g.Rules = append(g.Rules, r)
	}
	return nil
}
