package securitygroup

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strconv"
	"strings"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/rbac"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

type service struct {
	core   *core.Core
	groups *collection.Collection[Group, *Group]
	rules  *collection.Collection[Rule, *Rule]

	addressGroups *collection.Collection[AddressGroup, *AddressGroup]
	defaultRules  *collection.Collection[DefaultRule, *DefaultRule]
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	rules := store.NewTable[Rule]("security_group_rule", store.TableOptions[Rule]{
		Children: []func(*store.Tx, []*Rule) error{fillDefault},
		Conditions: map[string]func([]any) (string, []any){
			"belongs_to_default_sg": func(values []any) (string, []any) {
				exists := "EXISTS (SELECT 1 FROM default_security_group d WHERE d.security_group_id = t.security_group_id)"
				if slices.Contains(values, any(true)) {
					if slices.Contains(values, any(false)) {
						return "1 = 1", nil
					}
					return exists, nil
				}
				return "NOT " + exists, nil
			},
		},
	})
	s.rules = collection.New[Rule](collection.Options[Rule]{
		Store: c.Store, Resource: newRuleResource(), Table: rules, Quota: c.Quotas,
		CheckAll: checkBulk, Create: s.createRule, Delete: s.deleteRule, BeforeList: s.ensureDefaultOf,
		Scope: func(ctx context.Context) (string, []any) {
			who := identity.From(ctx).ProjectID
			shared, args := sharedGroup("t.security_group_id", who)
			return "t.project_id = ? OR EXISTS (SELECT 1 FROM security_group g WHERE g.id = t.security_group_id AND g.project_id = ?) OR " + shared, append([]any{who, who}, args...)
		},
	})
	groups := store.NewTable[Group]("security_group", store.TableOptions[Group]{
		Kind:       "security_group",
		Children:   []func(*store.Tx, []*Group) error{collection.Tagged[Group]("security_group"), s.fillRules, fillGroupTargets},
		Conditions: map[string]func([]any) (string, []any){"shared": rbac.SharedCondition("security_group", "t.id")},
	})
	s.groups = collection.New[Group](collection.Options[Group]{
		Store: c.Store, Resource: newGroupResource(), Table: groups, Quota: c.Quotas,
		Create: s.createGroup, Update: s.updateGroup, Delete: s.deleteGroup, BeforeList: s.ensureDefaultOf,
		Scope: func(ctx context.Context) (string, []any) {
			return rbac.VisibleCondition("security_group", identity.From(ctx).ProjectID)
		},
		Present: func(ctx context.Context, rows []*Group) {
			for _, g := range rows {
				g.Shared = rbac.Open(g.SharedWith, identity.From(ctx).ProjectID)
				if g.Rules == nil {
					g.Rules = []*Rule{}
				}
			}
		},
	})
	s.groups.Resource.Shared = collection.Shared(func(g *Group) []string { return g.SharedWith })
	s.rules.Resource.Through = &resource.Through{Kind: "security_group", Attribute: "security_group_id"}
	s.addressGroups = s.newAddressGroups(c)
	s.addressGroups.Resource.Shared = collection.Shared(func(g *AddressGroup) []string { return g.SharedWith })
	s.defaultRules = s.newDefaultRules(c)
	s.defaultRules.Resource.Shared = collection.WithAll
	return s
}

func fillDefault(tx *store.Tx, rows []*Rule) error {
	byGroup := map[string][]*Rule{}
	var ids []string
	for _, r := range rows {
		if byGroup[r.SecurityGroupID] == nil {
			ids = append(ids, r.SecurityGroupID)
		}
		byGroup[r.SecurityGroupID] = append(byGroup[r.SecurityGroupID], r)
	}
	return store.Gather(tx, "SELECT security_group_id FROM default_security_group WHERE %s", "security_group_id", ids, func(scan func(...any) error) error {
		var id string
		if err := scan(&id); err != nil {
			return err
		}
		for _, r := range byGroup[id] {
			r.BelongsToDefault = true
		}
		return nil
	})
}

// fillRules reads the rules of groups, oldest first.
func (s *service) fillRules(tx *store.Tx, rows []*Group) error {
	by := map[string]*Group{}
	ids := make([]any, len(rows))
	for i, g := range rows {
		by[g.ID], ids[i] = g, g.ID
	}
	for len(ids) > 0 {
		n := min(len(ids), 512)
		in, args := store.In("t.security_group_id", ids[:n])
		rules, err := s.rules.Table.Select(tx, "WHERE "+in+" ORDER BY t.security_group_id, t.created_at, t.id", args...)
		if err != nil {
			return err
		}
		for _, r := range rules {
			g := by[r.SecurityGroupID]
			g.Rules = append(g.Rules, r)
		}
		ids = ids[n:]
	}
	return nil
}

// defaultOf is the id of a project's default group; "" when it was not made yet.
func (s *service) defaultOf(tx *store.Tx, project string) (string, error) {
	var id string
	err := tx.Row("SELECT security_group_id FROM default_security_group WHERE project_id = ?", []any{project}, &id)
	if errors.Is(err, store.ErrNoRow) {
		return "", nil
	}
	return id, err
}

// ensureDefault makes a project's default group on first use.
func (s *service) ensureDefault(ctx context.Context, tx *store.Tx, project string) (string, error) {
	if project == "" {
		return "", nil
	}
	id, err := s.defaultOf(tx, project)
	if err != nil || id != "" {
		return id, err
	}
	is, err := stateful(tx, project)
	if err != nil {
		return "", err
	}
	g := &Group{Standard: resource.Standard{ID: resource.NewID(), ProjectID: project, Description: "Default security group"}, Name: "default", Stateful: is}
	n, err := tx.Exec("INSERT INTO default_security_group (project_id, security_group_id) VALUES (?, ?) ON CONFLICT DO NOTHING", project, g.ID)
	if err != nil {
		return "", err
	}
	if n == 0 { // another transaction was first
		return s.defaultOf(tx, project)
	}
	rules, err := s.firstRules(tx, g, true)
	if err != nil {
		return "", err
	}
	if err := s.groups.Insert(ctx, tx, g); err != nil {
		return "", err
	}
	return g.ID, s.begin(ctx, tx, g, rules)
}

// ensureDefaultOf makes the default group of the project that a list is about.
func (s *service) ensureDefaultOf(ctx context.Context, q *resource.Query) error {
	projects := []any{identity.From(ctx).ProjectID}
	if filter := q.Filter("tenant_id"); len(filter) > 0 && identity.From(ctx).Admin {
		projects = filter
	}
	for _, p := range projects {
		project, _ := p.(string)
		if len(project) > 255 { // no project has such an id
			continue
		}
		var have string
		err := s.core.Store.View(ctx, func(tx *store.Tx) (err error) {
			have, err = s.defaultOf(tx, project)
			return err
		})
		if err != nil {
			return err
		}
		if have != "" || project == "" {
			continue
		}
		if err := s.core.Store.Tx(ctx, func(tx *store.Tx) error {
			_, err := s.ensureDefault(ctx, tx, project)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) onNetworkWrite(ctx context.Context, tx *store.Tx, n *network.Network) error {
	_, err := s.ensureDefault(ctx, tx, n.ProjectID)
	return err
}

func (s *service) createGroup(ctx context.Context, tx *store.Tx, g *Group, body *resource.Body) error {
	if strings.EqualFold(g.Name, "default") {
		return fault.New(fault.Conflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
	}
	if _, err := s.ensureDefault(ctx, tx, g.ProjectID); err != nil {
		return err
	}
	g.ID = resource.NewID()
	rules, err := s.firstRules(tx, g, false)
	if err != nil {
		return err
	}
	if !body.Has("stateful") {
		if g.Stateful, err = stateful(tx, g.ProjectID); err != nil {
			return err
		}
	}
	if err := s.core.Quotas.Reserve(ctx, tx, "security_group_rule", g.ProjectID, len(rules)); err != nil {
		return err
	}
	if err := s.groups.Insert(ctx, tx, g); err != nil {
		return err
	}
	return s.begin(ctx, tx, g, rules)
}

func inUse(id string) error {
	return fault.New(fault.Conflict, "SecurityGroupInUse", "Security Group %s in use.", id)
}

func (s *service) isDefault(tx *store.Tx, g *Group) (bool, error) {
	id, err := s.defaultOf(tx, g.ProjectID)
	return id == g.ID, err
}

func (s *service) used(tx *store.Tx, id string) (bool, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM port_security_group WHERE security_group_id = ? LIMIT 1) x", []any{id}, &n)
	return n > 0, err
}

func (s *service) updateGroup(ctx context.Context, tx *store.Tx, old, want *Group, body *resource.Body) error {
	isDefault, err := s.isDefault(tx, old)
	if err != nil {
		return err
	}
	if isDefault && body.Has("name") && want.Name != old.Name {
		return fault.New(fault.Conflict, "SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
	}
	if old.Stateful != want.Stateful {
		used, err := s.used(tx, old.ID)
		if err != nil {
			return err
		}
		if used {
			return inUse(old.ID)
		}
	}
	return s.groups.Save(ctx, tx, want)
}

func (s *service) deleteGroup(ctx context.Context, tx *store.Tx, g *Group) error {
	used, err := s.used(tx, g.ID)
	if err != nil {
		return err
	}
	if used {
		return inUse(g.ID)
	}
	isDefault, err := s.isDefault(tx, g)
	if err != nil {
		return err
	}
	if isDefault && !identity.From(ctx).Admin {
		return fault.New(fault.Conflict, "SecurityGroupCannotRemoveDefault", "Insufficient rights for removing default security group.")
	}
	for _, hook := range s.core.SecurityGroups.BeforeDelete {
		if err := hook(ctx, tx, g.ID); err != nil {
			return err
		}
	}
	// Rules of its own go along; those of other groups that name it keep it.
	for _, r := range g.Rules {
		if err := s.rules.Remove(ctx, tx, r); err != nil {
			return err
		}
	}
	if err := rbac.RevokeAll(tx, "security_group", g.ID); err != nil {
		return err
	}
	if err := s.groups.Remove(ctx, tx, g); errors.Is(err, store.ErrReferenced) {
		return inUse(g.ID)
	} else if err != nil {
		return err
	}
	return nil
}

// fingerprint tells rules apart by what they match; 0.0.0.0/0, ::/0 and none are the same.
func fingerprint(r *Rule) string {
	text := func(p *string) string {
		if p == nil {
			return ""
		}
		return *p
	}
	integer := func(p *int) string {
		if p == nil {
			return ""
		}
		return strconv.Itoa(*p)
	}
	prefix := text(r.NormalizedCIDR)
	if prefix == "0.0.0.0/0" || prefix == "::/0" {
		prefix = ""
	}
	parts := []string{r.Direction, r.EtherType, strconv.Itoa(number(r.Protocol, r.EtherType)), integer(r.PortRangeMin), integer(r.PortRangeMax), prefix, text(r.RemoteGroupID)}
	if r.RemoteAddressGroupID != nil {
		parts = append(parts, *r.RemoteAddressGroupID)
	}
	return strings.Join(parts, "|")
}

// checkBulk: rules of one request are of one group and one project, and differ.
func checkBulk(_ context.Context, _ *store.Tx, rows []*Rule) error {
	seen := map[string]bool{}
	for _, r := range rows {
		if r.SecurityGroupID != rows[0].SecurityGroupID {
			return fault.New(fault.Invalid, "SecurityGroupNotSingleGroupRules", "Only allowed to update rules for one security profile at a time")
		}
		if r.ProjectID != rows[0].ProjectID {
			return fault.New(fault.Invalid, "SecurityGroupRulesNotSingleProject", "Multiple project_ids in bulk security group rule create not allowed")
		}
		// In normal form, which says of each on its own what is wrong with it.
		if err := checkRule(r); err != nil {
			return err
		}
		f := fingerprint(r)
		if seen[f] {
			return fault.New(fault.Conflict, "DuplicateSecurityGroupRuleInPost", "Duplicate Security Group Rule in POST.")
		}
		seen[f] = true
	}
	return nil
}

func (s *service) createRule(ctx context.Context, tx *store.Tx, r *Rule, _ *resource.Body) error {
	if err := checkRule(r); err != nil {
		return err
	}
	g, err := s.ownGroup(ctx, tx, r.SecurityGroupID)
	if err != nil {
		return err
	}
	if r.RemoteGroupID != nil {
		if _, err := s.visibleGroup(ctx, tx, *r.RemoteGroupID); err != nil {
			return err
		}
	}
	if r.RemoteAddressGroupID != nil {
		if _, err := s.addressGroups.Find(ctx, tx, *r.RemoteAddressGroupID); err != nil {
			return err
		}
	}
	if r.ProjectID == "" || !identity.From(ctx).Admin {
		r.ProjectID = g.ProjectID
	}
	r.Fingerprint = fingerprint(r)
	if err := s.rules.Insert(ctx, tx, r); store.Duplicate(err, "security_group_rule", "fingerprint") {
		var id string
		if err := tx.Row("SELECT id FROM security_group_rule WHERE security_group_id = ? AND fingerprint = ?", []any{r.SecurityGroupID, r.Fingerprint}, &id); err != nil {
			return err
		}
		return fault.New(fault.Conflict, "SecurityGroupRuleExists", "Security group rule already exists. Rule id is %s.", id)
	} else if err != nil {
		return err
	}
	if err := fillDefault(tx, []*Rule{r}); err != nil {
		return err
	}
	return s.bump(ctx, tx, g)
}

// visibleGroup is a group that the caller may use, without its rules: a rule
// costs the same in a group of many.
func (s *service) visibleGroup(ctx context.Context, tx *store.Tx, id string) (*Group, error) {
	rows, err := s.groups.Table.SelectBare(tx, "WHERE t.id = ?", id)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, s.groups.NotFound(id)
	}
	if owns(ctx, rows[0]) {
		return rows[0], nil
	}
	open, err := openTo(tx, id, identity.From(ctx).ProjectID)
	if err != nil {
		return nil, err
	}
	if !open {
		return nil, s.groups.NotFound(id)
	}
	return rows[0], nil
}

// owns tells whether the caller need not be given access to a group.
func owns(ctx context.Context, g *Group) bool {
	who := identity.From(ctx)
	return who.SeesAll() || g.ProjectID == who.ProjectID
}

// bump makes a new revision of a group whose rules have changed. Its event
// carries no rules: they have events of their own.
func (s *service) bump(ctx context.Context, tx *store.Tx, g *Group) error {
	for _, fill := range []func(*store.Tx, []*Group) error{collection.Tagged[Group]("security_group"), fillGroupTargets} {
		if err := fill(tx, []*Group{g}); err != nil {
			return err
		}
	}
	return s.groups.Save(ctx, tx, g)
}

func (s *service) deleteRule(ctx context.Context, tx *store.Tx, r *Rule) error {
	if err := s.rules.Remove(ctx, tx, r); err != nil {
		return err
	}
	rows, err := s.groups.Table.SelectBare(tx, "WHERE t.id = ?", r.SecurityGroupID)
	if err != nil || len(rows) == 0 {
		return err
	}
	return s.bump(ctx, tx, rows[0])
}

var (
	// withPorts: tcp, udp, sctp. Neutron has dccp and udplite too, whose ports
	// no switch can match: what cannot be rendered is refused here, so that it
	// never keeps a port from being wired.
	withPorts = []int{6, 17, 132}
	onlyIPv6  = []int{41, 44, 58, 59, 60, 43}
)

// checkRule checks a rule on its own and brings it into normal form.
func checkRule(r *Rule) error {
	remotes := 0
	for _, remote := range []*string{r.RemoteIPPrefix, r.RemoteGroupID, r.RemoteAddressGroupID} {
		if remote != nil {
			remotes++
		}
	}
	if remotes > 1 {
		return fault.New(fault.Invalid, "SecurityGroupMultipleRemoteEntites", "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.")
	}
	if r.RemoteIPPrefix != nil {
		p, ok := normalize(*r.RemoteIPPrefix)
		if !ok {
			return fault.New(fault.Invalid, "InvalidCIDR", "Invalid CIDR %s given as IP prefix.", *r.RemoteIPPrefix)
		}
		if p.Addr().Is4() != (r.EtherType == "IPv4") {
			return fault.New(fault.Invalid, "SecurityGroupRuleParameterConflict", "Conflicting value ethertype %s for CIDR %s", r.EtherType, *r.RemoteIPPrefix)
		}
		text := p.String()
		r.NormalizedCIDR = &text
	}
	if r.Protocol == nil {
		if r.PortRangeMin != nil || r.PortRangeMax != nil {
			return fault.New(fault.Invalid, "SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.")
		}
		return nil
	}
	if _, named := protocols[*r.Protocol]; !named && *r.Protocol != "any" {
		if n, err := strconv.Atoi(*r.Protocol); err != nil || n < 0 || n > 255 {
			return invalidProtocol(*r.Protocol)
		}
	}
	if *r.Protocol == "any" {
		r.Protocol = nil
		return checkNoPorts(r, "any")
	}
	if r.EtherType == "IPv6" && (*r.Protocol == "icmp" || *r.Protocol == "icmpv6") {
		normal := "ipv6-icmp"
		r.Protocol = &normal
	}
	n := number(r.Protocol, r.EtherType)
	if r.EtherType == "IPv4" && slices.Contains(onlyIPv6, n) {
		return fault.New(fault.Invalid, "SecurityGroupEthertypeConflictWithProtocol", "Invalid ethertype %s for protocol %s.", r.EtherType, *r.Protocol)
	}
	switch {
	case n == 1 || n == 58:
		return checkICMP(r)
	case !slices.Contains(withPorts, n):
		return checkNoPorts(r, *r.Protocol)
	}
	if r.PortRangeMin == nil && r.PortRangeMax == nil {
		return nil
	}
	for _, p := range []*int{r.PortRangeMin, r.PortRangeMax} {
		if p != nil && *p == 0 {
			return fault.New(fault.Invalid, "SecurityGroupInvalidPortValue", "Invalid value for port %d", *p)
		}
	}
	if r.PortRangeMin == nil || r.PortRangeMax == nil || *r.PortRangeMin > *r.PortRangeMax {
		return fault.New(fault.Invalid, "SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max")
	}
	if *r.PortRangeMin == 1 && *r.PortRangeMax == 65535 {
		r.PortRangeMin, r.PortRangeMax = nil, nil
	}
	return nil
}

func invalidProtocol(p string) error {
	names := make([]any, 0, len(protocols)+1)
	for n := range protocols {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { return names[i].(string) < names[j].(string) })
	return fault.New(fault.Invalid, "SecurityGroupRuleInvalidProtocol", "Security group rule protocol %s not supported. Only protocol values %s and integer representations [0 to 255] are supported.",
		p, value.Repr(append([]any{nil}, names...)))
}

func checkNoPorts(r *Rule, protocol string) error {
	if r.PortRangeMin == nil && r.PortRangeMax == nil {
		return nil
	}
	return fault.New(fault.Invalid, "SecurityGroupInvalidProtocolForPort", "Ports cannot be specified for protocol %s. Ports are only supported for %s.", protocol, "sctp, tcp, udp")
}

func checkICMP(r *Rule) error {
	for _, f := range []struct {
		field, attribute string
		v                *int
	}{{"port_range_min", "type", r.PortRangeMin}, {"port_range_max", "code", r.PortRangeMax}} {
		if f.v != nil && (*f.v < 0 || *f.v > 255) {
			return fault.New(fault.Invalid, "SecurityGroupInvalidIcmpValue", "Invalid value for ICMP %s (%s) %d. It must be 0 to 255.", f.field, f.attribute, *f.v)
		}
	}
	if r.PortRangeMin == nil && r.PortRangeMax != nil {
		return fault.New(fault.Invalid, "SecurityGroupMissingIcmpType", "ICMP code (port-range-max) %d is provided but ICMP type (port-range-min) is missing.", *r.PortRangeMax)
	}
	return nil
}

// completePort gives a new port its groups: those that were asked for, or its project's default.
func (s *service) completePort(ctx context.Context, tx *store.Tx, p *port.Port, body *resource.Body) error {
	if p.DeviceOwner == port.OwnerDHCP || p.Service() && !body.Has("security_groups") {
		p.SecurityGroups = nil
		return nil
	}
	id, err := s.ensureDefault(ctx, tx, p.ProjectID)
	if err != nil {
		return err
	}
	if !body.Has("security_groups") {
		if p.PortSecurityEnabled && id != "" {
			p.SecurityGroups = []string{id}
		}
		return nil
	}
	if len(p.SecurityGroups) > 0 && !p.PortSecurityEnabled {
		return needsPortSecurity()
	}
	return s.checkGroups(ctx, tx, p)
}

func needsPortSecurity() error {
	return fault.New(fault.Invalid, "PortSecurityAndIPRequiredForSecurityGroups", "Port security must be enabled and port must have an IP address in order to use security groups.")
}

// checkGroups makes sure that the port's groups exist, are the caller's to use, and are alike.
func (s *service) checkGroups(ctx context.Context, tx *store.Tx, p *port.Port) error {
	stateful, stateless := false, false
	slices.Sort(p.SecurityGroups)
	p.SecurityGroups = slices.Compact(p.SecurityGroups)
	for _, id := range p.SecurityGroups {
		g, err := s.visibleGroup(ctx, tx, id)
		if err != nil {
			return err
		}
		stateful, stateless = stateful || g.Stateful, stateless || !g.Stateful
	}
	if stateful && stateless {
		return fault.New(fault.Conflict, "SecurityGroupConflict", "Error %s while attempting the operation.", "cannot apply both stateful and stateless security groups on the same port")
	}
	return nil
}

func (s *service) checkPortUpdate(ctx context.Context, tx *store.Tx, old, want *port.Port, body *resource.Body) error {
	if body.Has("security_groups") {
		if len(want.SecurityGroups) > 0 && !want.PortSecurityEnabled {
			return needsPortSecurity()
		}
		return s.checkGroups(ctx, tx, want)
	}
	if old.PortSecurityEnabled && !want.PortSecurityEnabled && len(want.SecurityGroups) > 0 {
		return fault.New(fault.Conflict, "PortSecurityPortHasSecurityGroup", "Port has security group associated. Cannot disable port security or IP address until security group is removed.")
	}
	return nil
}

// addressesOf are the addresses that a member adds to its groups: its own and those of its address pairs.
func addressesOf(p *port.Port) []string {
	var all []string
	for _, f := range p.FixedIPs {
		all = append(all, f.IPAddress.String())
	}
	for _, a := range p.AllowedAddressPairs {
		if text := element(a.IPAddress); text != "" && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}
