package securitygroup

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// AddressGroup is a named list of CIDRs that rules may name as their remote side.
type AddressGroup struct {
	resource.Standard
	Name string `json:"name" db:"name"`
	// Addresses are CIDRs as they were given, in order: "10.0.0.0/24", "2001:db8::1/128".
	Addresses []string `json:"addresses"`
	// SharedWith are the projects ("*": all) with access_as_shared.
	SharedWith []string `json:"shared_with,omitempty"`

	// Shared is for policies only: the caller has the group from another project.
	Shared bool `json:"shared"`
}

var addressGroupTables = []string{
	`CREATE TABLE address_group (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(1024) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		name VARCHAR(255) NOT NULL)`,
	`CREATE INDEX address_group_project ON address_group (project_id)`,
	`CREATE TABLE address_group_address (
		address_group_id VARCHAR(36) NOT NULL REFERENCES address_group (id) ON DELETE CASCADE, address VARCHAR(64) NOT NULL,
		PRIMARY KEY (address_group_id, address))`,
	`ALTER TABLE security_group_rule ADD COLUMN remote_address_group_id VARCHAR(36) REFERENCES address_group (id)`,
	`CREATE INDEX security_group_rule_address_group ON security_group_rule (remote_address_group_id)`,
}

func (s *service) newAddressGroupResource() *resource.Resource {
	r := &resource.Resource{
		Name: "address_group", Collection: "address_groups", Path: "address-groups", Older: true, Standard: true,
		NotFound: "AddressGroupNotFound", NotFoundText: "Address group %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey | resource.PrimaryKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "name", Flags: post | put | visible | filter | sortKey, Default: "", Validate: resource.Rules{"type:name_string": 255}, Type: "string"},
		resource.Attribute{Name: "tenant_id", Flags: post | visible | policy | filter | sortKey, Validate: resource.Rules{"type:string": 255}, Type: "string"},
		resource.Attribute{Name: "addresses", Flags: post | visible, Default: resource.Unspecified, Convert: "convert_none_to_empty_list", Validate: resource.Rules{"type:subnet_list": nil}, Type: "list<string>"},
		resource.Attribute{Name: "shared", Default: false, Convert: "convert_to_boolean", Type: "bool"},
	)
	r.Add(describedAtLength(resource.StandardAttributes(false), post|put|visible|filter|sortKey)...)
	r.Actions = []resource.Action{
		{Method: "PUT", Name: "add_addresses", Do: s.addAddresses},
		{Method: "PUT", Name: "remove_addresses", Do: s.removeAddresses},
	}
	return r
}

// describedAtLength gives the description its own flags and four times the usual length.
func describedAtLength(standard []resource.Attribute, flags resource.Flags) []resource.Attribute {
	for i := range standard {
		if standard[i].Name == "description" {
			standard[i].Flags, standard[i].Validate = flags, resource.Rules{"type:string": 1024}
		}
	}
	return standard
}

func (s *service) newAddressGroups(c *core.Core) *collection.Collection[AddressGroup, *AddressGroup] {
	table := store.NewTable[AddressGroup]("address_group", store.TableOptions[AddressGroup]{
		Children: []func(*store.Tx, []*AddressGroup) error{fillAddresses, fillTargets},
	})
	return collection.New[AddressGroup](collection.Options[AddressGroup]{
		Store: c.Store, Resource: s.newAddressGroupResource(), Table: table,
		Create: s.createAddressGroup,
		Update: func(ctx context.Context, tx *store.Tx, _, want *AddressGroup, _ *resource.Body) error {
			return s.addressGroups.Save(ctx, tx, want)
		},
		Delete: s.deleteAddressGroup,
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = 'address_group' AND r.object_id = t.id AND r.action = 'access_as_shared' AND r.target_project IN ('*', ?))", []any{who, who}
		},
		Present: func(ctx context.Context, rows []*AddressGroup) {
			who := identity.From(ctx).ProjectID
			for _, g := range rows {
				g.Shared = slices.Contains(g.SharedWith, "*") || slices.Contains(g.SharedWith, who)
			}
		},
	})
}

func indexAddressGroups(rows []*AddressGroup) ([]string, map[string]*AddressGroup) {
	ids, by := make([]string, len(rows)), make(map[string]*AddressGroup, len(rows))
	for i, g := range rows {
		ids[i], by[g.ID] = g.ID, g
	}
	return ids, by
}

func fillAddresses(tx *store.Tx, rows []*AddressGroup) error {
	ids, by := indexAddressGroups(rows)
	return store.Child(tx, "SELECT address_group_id, address FROM address_group_address WHERE %s ORDER BY address_group_id, address", "address_group_id", ids, func(scan func(...any) error) error {
		var id, address string
		if err := scan(&id, &address); err != nil {
			return err
		}
		by[id].Addresses = append(by[id].Addresses, address)
		return nil
	})
}

func fillTargets(tx *store.Tx, rows []*AddressGroup) error {
	ids, by := indexAddressGroups(rows)
	return rbac.Targets(tx, "address_group", rbac.AccessAsShared, ids, func(id, target string) {
		by[id].SharedWith = append(by[id].SharedWith, target)
	})
}

// cidrs brings addresses into CIDR form without host bits, each once, in order.
func cidrs(addresses []string) ([]string, error) {
	list := make([]string, 0, len(addresses))
	for _, text := range addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				return nil, fault.BadRequest("Invalid input for addresses. Reason: '%s' is not a valid IP subnet.", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		list = append(list, p.Masked().String())
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func (s *service) createAddressGroup(ctx context.Context, tx *store.Tx, g *AddressGroup, _ *resource.Body) error {
	var err error
	if g.Addresses, err = cidrs(g.Addresses); err != nil {
		return err
	}
	if err := s.addressGroups.Insert(ctx, tx, g); err != nil {
		return err
	}
	for _, a := range g.Addresses {
		if err := tx.Put("INSERT INTO address_group_address (address_group_id, address) VALUES (?, ?)", g.ID, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) deleteAddressGroup(ctx context.Context, tx *store.Tx, g *AddressGroup) error {
	if err := rbac.RevokeAll(tx, "address_group", g.ID); err != nil {
		return err
	}
	err := s.addressGroups.Remove(ctx, tx, g)
	if errors.Is(err, store.ErrReferenced) {
		return fault.New(fault.Conflict, "AddressGroupInUse", "Address group %s is in use on one or more security group rules.", g.ID)
	}
	return err
}

func (s *service) addAddresses(ctx context.Context, id string, body any) (any, error) {
	return s.changeAddresses(ctx, id, body, func(tx *store.Tx, addresses []string) error {
		refused, err := refusedBy(tx, "INSERT INTO address_group_address (address_group_id, address) VALUES (?, ?) ON CONFLICT DO NOTHING", id, addresses)
		if err != nil || len(refused) == 0 {
			return err
		}
		return fault.New(fault.Invalid, "AddressesAlreadyExist", "Addresses %s already exist in the address group %s.", value.Repr(refused), id)
	})
}

func (s *service) removeAddresses(ctx context.Context, id string, body any) (any, error) {
	return s.changeAddresses(ctx, id, body, func(tx *store.Tx, addresses []string) error {
		refused, err := refusedBy(tx, "DELETE FROM address_group_address WHERE address_group_id = ? AND address = ?", id, addresses)
		if err != nil || len(refused) == 0 {
			return err
		}
		return fault.New(fault.NotFound, "AddressesNotFound", "Addresses %s not found in the address group %s.", value.Repr(refused), id)
	})
}

// refusedBy runs a statement for each address and returns those for which it changed nothing.
func refusedBy(tx *store.Tx, statement, id string, addresses []string) ([]any, error) {
	var refused []any
	for _, a := range addresses {
		n, err := tx.Exec(statement, id, a)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			refused = append(refused, a)
		}
	}
	return refused, nil
}

func (s *service) changeAddresses(ctx context.Context, id string, body any, change func(tx *store.Tx, addresses []string) error) (any, error) {
	members, _ := body.(map[string]any)
	given, ok := members["addresses"]
	if !ok {
		return nil, fault.BadRequest("Failed to parse request. Required attribute 'addresses' not specified")
	}
	items, ok := given.([]any)
	if !ok {
		return nil, fault.BadRequest("Invalid input for addresses. Reason: '%s' is not a list.", value.Text(given))
	}
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = value.Text(item)
	}
	addresses, err := cidrs(texts)
	if err != nil {
		return nil, err
	}
	var g *AddressGroup
	err = s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		if _, err := s.addressGroups.Find(ctx, tx, id); err != nil {
			return err
		}
		if err := change(tx, addresses); err != nil {
			return err
		}
		if g, err = s.addressGroups.Load(tx, id); err != nil || len(addresses) == 0 {
			return err
		}
		return s.addressGroups.Save(ctx, tx, g)
	})
	if err != nil {
		return nil, err
	}
	return map[string]json.RawMessage{"address_group": s.addressGroups.Encode(nil, g, nil)}, nil
}
