// Package securitygroup is the security groups extension: groups and rules,
// the default group of each project, groups of ports, and what hosts must know
// to enforce them.
//
// It must not know how hosts enforce rules.
package securitygroup

import (
	"context"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/quota"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/resource"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "securitygroup", Schemas: []store.Schema{schema}, Install: install})
}

func install(c *core.Core, f *feed.Hub) error {
	c.Registry.AddExtension(
		resource.Extension{Alias: "security-group", Name: "security-group", Description: "The security groups extension.", Updated: "2012-10-05T10:00:00-00:00"},
		resource.Extension{Alias: "stateful-security-group", Name: "Stateful security group", Description: "Indicates if the security group is stateful or not", Updated: "2019-11-26T09:00:00-00:00", Requires: []string{"security-group"}},
		resource.Extension{Alias: "security-groups-normalized-cidr", Name: "Normalized CIDR field for security group rules", Description: "Add new field with normalized cidr calculated from remote_ip_prefix in security group rules", Updated: "2020-07-28T10:00:00-00:00", Requires: []string{"security-group"}},
		resource.Extension{Alias: "security-groups-rules-belongs-to-default-sg", Name: "Security group rule belongs to the project's default security group", Description: "Flag to determine if the security group rule belongs to the project's default security group", Updated: "2023-05-23T10:00:00-00:00", Requires: []string{"security-group"}},
		resource.Extension{Alias: "address-group", Name: "Address group", Description: "Support address group", Updated: "2020-07-15T10:00:00-00:00", Requires: []string{"security-group"}},
		resource.Extension{Alias: "security-groups-default-rules", Name: "Default rules for security groups", Description: "Configure set of security group rules used as default rules for every new security group", Updated: "2022-12-19T10:00:00-00:00"},
		resource.Extension{Alias: "security-groups-default-statefulness", Name: "Security Groups Default Statefulness", Description: "Whether new security groups are stateful, for all projects or one", Updated: "2026-04-13T00:00:00-00:00", Requires: []string{"security-group", "stateful-security-group"}},
		resource.Extension{Alias: "security-groups-shared-filtering", Name: "Security group filtering on the shared field", Description: "Support filtering security groups on the shared field", Updated: "2021-10-05T09:00:00-00:00", Requires: []string{"rbac-security-groups"}},
		resource.Extension{Alias: "security-groups-remote-address-group", Name: "Remote address group id field for security group rules", Description: "Add new field of remote address group id in SG rules", Updated: "2020-08-25T10:00:00-00:00", Requires: []string{"security-group"}},
	)
	c.Ports.Resource.Add(resource.Attribute{
		Name: "security_groups", Flags: resource.Post | resource.Put | resource.Visible | resource.Filter, Default: resource.Unspecified,
		Convert: "convert_none_to_empty_list", Validate: resource.Rules{"type:uuid_list": nil}, Type: "list<string>",
	})
	s := newService(c)
	c.Quotas.Register(quota.Limited{Resource: "security_group", Table: "security_group", Default: config.QuotaSecurityGroup.Of(c.Config)})
	c.Quotas.Register(quota.Limited{Resource: "security_group_rule", Table: "security_group_rule", Default: config.QuotaSecurityGroupRule.Of(c.Config)})
	core.Add(c, s.groups)
	core.Add(c, s.rules)
	core.Add(c, s.addressGroups)
	core.Add(c, s.defaultRules)
	core.Add(c, newStatefulness(c))
	c.SecurityGroups.Check = func(ctx context.Context, tx *store.Tx, id string) error {
		_, err := s.visibleGroup(ctx, tx, id)
		return err
	}
	c.Ports.BeforeCreate = append(c.Ports.BeforeCreate, s.completePort)
	c.Ports.BeforeUpdate = append(c.Ports.BeforeUpdate, s.checkPortUpdate)
	c.Networks.OnWrite = append(c.Networks.OnWrite, s.onNetworkWrite)
	for _, t := range s.shareables() {
		c.RBAC.Register(t)
	}
	project(f, s)
	return nil
}

// Group is a security group.
type Group struct {
	resource.Standard
	Name     string `json:"name" db:"name"`
	Stateful bool   `json:"stateful" db:"stateful"`

	Rules []*Rule `json:"security_group_rules,omitempty"`

	// SharedWith are the projects ("*": all) that may use the group.
	SharedWith []string `json:"shared_with,omitempty"`
	// Shared with the caller; only shown.
	Shared bool `json:"shared"`
}

// Rule lets traffic pass that matches all that it names.
type Rule struct {
	resource.Standard
	SecurityGroupID string `json:"security_group_id" db:"security_group_id"`
	// Direction is ingress or egress, EtherType IPv4 or IPv6.
	Direction string  `json:"direction" db:"direction"`
	EtherType string  `json:"ethertype" db:"ethertype"`
	Protocol  *string `json:"protocol" db:"protocol"`
	// PortRangeMin and PortRangeMax are ports; of ICMP, type and code.
	PortRangeMin   *int    `json:"port_range_min" db:"port_range_min"`
	PortRangeMax   *int    `json:"port_range_max" db:"port_range_max"`
	RemoteIPPrefix *string `json:"remote_ip_prefix" db:"remote_ip_prefix"`
	RemoteGroupID  *string `json:"remote_group_id" db:"remote_group_id"`
	// NormalizedCIDR is the network form of RemoteIPPrefix.
	NormalizedCIDR *string `json:"normalized_cidr" db:"normalized_cidr"`
	// RemoteAddressGroupID is the address group whose addresses are the remote side.
	RemoteAddressGroupID *string `json:"remote_address_group_id" db:"remote_address_group_id"`
	// Fingerprint is unique within the group: two rules that match the same have the same.
	Fingerprint string `json:"-" db:"fingerprint"`
	// BelongsToDefault is only shown.
	BelongsToDefault bool `json:"belongs_to_default_sg"`
}

var schema = store.Schema{Module: "ext/securitygroup", Steps: [][]string{{
	`CREATE TABLE security_group (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL, stateful BOOLEAN NOT NULL)`,
	`CREATE INDEX security_group_project ON security_group (project_id, name)`,
	// One default group for each project: the key decides which of two first uses makes it.
	`CREATE TABLE default_security_group (
		project_id VARCHAR(255) PRIMARY KEY,
		security_group_id VARCHAR(36) NOT NULL REFERENCES security_group (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)`,
	`CREATE INDEX default_security_group_group ON default_security_group (security_group_id)`,
	`CREATE TABLE security_group_rule (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		security_group_id VARCHAR(36) NOT NULL REFERENCES security_group (id) ON DELETE CASCADE,
		direction VARCHAR(16) NOT NULL, ethertype VARCHAR(16) NOT NULL, protocol VARCHAR(40),
		port_range_min INTEGER, port_range_max INTEGER, remote_ip_prefix VARCHAR(255),
		remote_group_id VARCHAR(36) REFERENCES security_group (id), normalized_cidr VARCHAR(255), fingerprint VARCHAR(255) NOT NULL,
		UNIQUE (security_group_id, fingerprint))`,
	`CREATE INDEX security_group_rule_project ON security_group_rule (project_id)`,
	`CREATE INDEX security_group_rule_remote ON security_group_rule (remote_group_id)`,
}, addressGroupTables, defaultRuleTables, statefulnessTables}}

const (
	post    = resource.Post
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
	policy  = resource.RequiredByPolicy
)

func newGroupResource() *resource.Resource {
	r := &resource.Resource{
		Name: "security_group", Collection: "security_groups", Path: "security-groups", Older: true,
		Standard: true, Taggable: true, Quota: "security_group", Aside: []string{"security_group_rules"},
		NotFound: "SecurityGroupNotFound", NotFoundText: "Security group %s does not exist",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_not_default": 255}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "security_group_rules", Flags: visible, Type: "list<object>"},
		resource.Attribute{Name: "shared", Flags: visible | policy | resource.EnforcePolicy | filter, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "stateful", Flags: post | put | visible | filter, Default: true, Convert: "convert_to_boolean", Type: "bool"},
	)
	return r.Add(resource.StandardAttributes(true)...)
}

func newRuleResource() *resource.Resource {
	r := &resource.Resource{
		Name: "security_group_rule", Collection: "security_group_rules", Path: "security-group-rules", Older: true,
		Standard: true, Quota: "security_group_rule",
		NotFound: "SecurityGroupRuleNotFound", NotFoundText: "Security group rule %s does not exist",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "security_group_id", Flags: post | visible | policy | filter | sortKey, Required: true, Validate: resource.Rules{"type:string": 36}, Type: "string"},
		resource.Attribute{Name: "remote_group_id", Flags: post | visible | filter | sortKey, Default: nil, Type: "string|null"},
		resource.Attribute{Name: "remote_address_group_id", Flags: post | visible | filter | sortKey, Default: nil, Type: "string|null"},
		resource.Attribute{Name: "direction", Flags: post | visible | filter | sortKey, Required: true, Validate: resource.Rules{"type:values": []any{"ingress", "egress"}}, Type: "string"},
		resource.Attribute{Name: "protocol", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_protocol", Type: "string|null"},
		resource.Attribute{Name: "port_range_min", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_validate_port_value", Type: "int|null"},
		resource.Attribute{Name: "port_range_max", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_validate_port_value", Type: "int|null"},
		resource.Attribute{Name: "ethertype", Flags: post | visible | filter | sortKey, Default: "IPv4", Convert: "convert_ethertype_to_case_insensitive", Validate: resource.Rules{"type:values": []any{"IPv4", "IPv6"}}, Type: "string"},
		resource.Attribute{Name: "remote_ip_prefix", Flags: post | visible | filter | sortKey, Default: nil, Convert: "convert_ip_prefix_to_cidr", Type: "string|null"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "normalized_cidr", Flags: visible | filter | sortKey, Unsortable: resource.NoColumn("securitygrouprules", "normalized_cidr"), Validate: resource.Rules{"type:subnet_or_none": nil}, Type: "string|null"},
		resource.Attribute{Name: "belongs_to_default_sg", Flags: visible | filter, Convert: "convert_to_boolean_if_not_none", Type: "bool|null"},
	)
	return r.Add(resource.StandardAttributes(false)...)
}

// protocols are the names that rules may use, with their IANA numbers.
var protocols = map[string]int{
	"ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": 1, "icmpv6": 58, "igmp": 2, "ipip": 4,
	"ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43,
	"ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}

// number is the IP protocol number of a rule's protocol; -1 is any.
func number(protocol *string, ethertype string) int {
	if protocol == nil || *protocol == "any" {
		return -1
	}
	n, ok := protocols[strings.ToLower(*protocol)]
	if !ok {
		var err error
		if n, err = strconv.Atoi(*protocol); err != nil {
			return -1
		}
	}
	if n == 1 && ethertype == "IPv6" {
		return 58
	}
	return n
}

func normalize(prefix string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(prefix); err == nil {
		return p.Masked(), true
	}
	if a, err := netip.ParseAddr(prefix); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return netip.Prefix{}, false
}

// MarshalJSON is the rule as it stands inside of its group: with both names of its project.
func (r *Rule) MarshalJSON() ([]byte, error) {
	type plain Rule
	c := *r
	if c.Tags == nil {
		c.Tags = []string{}
	}
	return json.Marshal(struct {
		*plain
		Project string `json:"project_id"`
	}{(*plain)(&c), c.ProjectID})
}
