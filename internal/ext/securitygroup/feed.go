package securitygroup

import (
	"slices"
	"sort"

	message "isospin/api/feed"
	"isospin/internal/core/port"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// projection tells hosts the groups of their ports, and the addresses of the
// security groups and address groups that those groups' rules name.
type projection struct {
	// onHost: host → group → ports of the host that have the group.
	onHost map[string]map[string]map[string]struct{}
	// hosts: group → host → present.
	hosts map[string]map[string]struct{}
	// rules: group → rule id → rule.
	rules map[string]map[string]*Rule
	// members: remote group → address → how often it is there: on ports, or in an address group.
	members map[string]map[string]int
	// sums of the hashes of members' addresses, by group.
	sums map[string]uint64
	// naming: remote group → groups whose rules name it, with the number of such rules.
	naming map[string]map[string]int
}

func project(h *feed.Hub, s *service) {
	feed.Keep(h, "security_group", func(tx *store.Tx) ([]*Group, error) { return s.groups.Table.SelectBare(tx, "") }, func(g *Group) string { return g.ID })
	feed.Keep(h, "security_group_rule", func(tx *store.Tx) ([]*Rule, error) { return s.rules.Table.SelectBare(tx, "") }, func(r *Rule) string { return r.ID })
	feed.Keep(h, "address_group", func(tx *store.Tx) ([]*AddressGroup, error) { return s.addressGroups.Table.Select(tx, "") }, func(g *AddressGroup) string { return g.ID })
	h.Project(&projection{
		onHost: map[string]map[string]map[string]struct{}{}, hosts: map[string]map[string]struct{}{}, rules: map[string]map[string]*Rule{},
		members: map[string]map[string]int{}, sums: map[string]uint64{}, naming: map[string]map[string]int{},
	})
}

func groupKey(id string) feed.Key { return feed.Key{Kind: message.Kind_KIND_SECURITY_GROUP, ID: id} }
func setKey(id string) feed.Key   { return feed.Key{Kind: message.Kind_KIND_ADDRESS_SET, ID: id} }

func (p *projection) Apply(_ *feed.Copy, ch feed.Change, mark feed.Marker) {
	switch ch.Kind {
	case "security_group":
		for host := range p.hosts[ch.ID] {
			mark.Object(host, groupKey(ch.ID))
		}
	case "security_group_rule":
		if old, _ := ch.Old.(*Rule); old != nil {
			p.rule(old, -1, mark)
		}
		if now, _ := ch.New.(*Rule); now != nil {
			p.rule(now, 1, mark)
		}
	case "address_group":
		change := map[string]int{}
		for o, n := range map[any]int{ch.Old: -1, ch.New: 1} {
			if g, _ := o.(*AddressGroup); g != nil {
				for _, a := range g.Addresses {
					change[element(a)] += n
				}
			}
		}
		p.count(ch.ID, change, mark)
	case "port":
		old, _ := ch.Old.(*port.Port)
		now, _ := ch.New.(*port.Port)
		p.membership(old, now, mark)
		// What stays where it is must not be told again: the sets that its rules name may be large.
		for _, g := range boundGroups(old) {
			if !slices.Contains(boundGroups(now), g) || now.HostID != old.HostID {
				p.leave(old, g, mark)
			}
		}
		for _, g := range boundGroups(now) {
			p.place(now, g, mark)
		}
	}
}

func (p *projection) rule(r *Rule, n int, mark feed.Marker) {
	g := r.SecurityGroupID
	if n > 0 {
		if p.rules[g] == nil {
			p.rules[g] = map[string]*Rule{}
		}
		p.rules[g][r.ID] = r
	} else {
		delete(p.rules[g], r.ID)
		if len(p.rules[g]) == 0 {
			delete(p.rules, g)
		}
	}
	if remote := r.remote(); remote != "" {
		if p.naming[remote] == nil {
			p.naming[remote] = map[string]int{}
		}
		if p.naming[remote][g] += n; p.naming[remote][g] == 0 {
			delete(p.naming[remote], g)
		}
		if len(p.naming[remote]) == 0 {
			delete(p.naming, remote)
		}
		for host := range p.hosts[g] {
			mark.Object(host, setKey(remote))
		}
	}
	for host := range p.hosts[g] {
		mark.Object(host, groupKey(g))
	}
}

// membership adds up the addresses of groups' members.
func (p *projection) membership(old, now *port.Port, mark feed.Marker) {
	change := map[string]map[string]int{}
	note := func(o *port.Port, n int) {
		if o == nil {
			return
		}
		for _, g := range o.SecurityGroups {
			if change[g] == nil {
				change[g] = map[string]int{}
			}
			for _, a := range addressesOf(o) {
				change[g][a] += n
			}
		}
	}
	note(old, -1)
	note(now, 1)
	for g, addresses := range change {
		p.count(g, addresses, mark)
	}
}

// count changes how often addresses are in a set, and marks those that came or went.
func (p *projection) count(g string, change map[string]int, mark feed.Marker) {
	for a, n := range change {
		if n == 0 {
			continue
		}
		if p.members[g] == nil {
			p.members[g] = map[string]int{}
		}
		before := p.members[g][a]
		after := before + n
		switch {
		case after == 0:
			delete(p.members[g], a)
			p.sums[g] -= feed.HashBytes([]byte(a))
		case before == 0:
			p.members[g][a] = after
			p.sums[g] += feed.HashBytes([]byte(a))
		default:
			p.members[g][a] = after
			continue
		}
		for naming := range p.naming[g] {
			for host := range p.hosts[naming] {
				mark.Element(host, setKey(g), a)
			}
		}
	}
	if len(p.members[g]) == 0 {
		delete(p.members, g)
		delete(p.sums, g)
	}
}

// boundGroups are the groups that a host needs for a port.
func boundGroups(o *port.Port) []string {
	if o == nil || !o.Bound() {
		return nil
	}
	return o.SecurityGroups
}

// place notes that a host needs a group for a port of its own; leave, that it does not any more.
func (p *projection) place(o *port.Port, g string, mark feed.Marker) {
	groups := p.onHost[o.HostID]
	if groups == nil {
		groups = map[string]map[string]struct{}{}
		p.onHost[o.HostID] = groups
	}
	if len(groups[g]) == 0 {
		groups[g] = map[string]struct{}{}
		p.markGroup(o.HostID, g, mark)
	}
	groups[g][o.ID] = struct{}{}
	if p.hosts[g] == nil {
		p.hosts[g] = map[string]struct{}{}
	}
	p.hosts[g][o.HostID] = struct{}{}
}

func (p *projection) leave(o *port.Port, g string, mark feed.Marker) {
	groups := p.onHost[o.HostID]
	delete(groups[g], o.ID)
	if len(groups[g]) == 0 {
		delete(groups, g)
		delete(p.hosts[g], o.HostID)
		if len(p.hosts[g]) == 0 {
			delete(p.hosts, g)
		}
		p.markGroup(o.HostID, g, mark)
	}
	if len(groups) == 0 {
		delete(p.onHost, o.HostID)
	}
}

func (p *projection) markGroup(host, g string, mark feed.Marker) {
	mark.Object(host, groupKey(g))
	for _, r := range p.rules[g] {
		if remote := r.remote(); remote != "" {
			mark.Object(host, setKey(remote))
		}
	}
}

func (p *projection) Keys(_ *feed.Copy, host string, each func(feed.Key)) {
	for g := range p.onHost[host] {
		each(groupKey(g))
		for _, r := range p.rules[g] {
			if remote := r.remote(); remote != "" {
				each(setKey(remote))
			}
		}
	}
}

// needsSet tells whether a rule of one of the host's groups names the group.
func (p *projection) needsSet(host, remote string) bool {
	for g := range p.naming[remote] {
		if _, ok := p.hosts[g][host]; ok {
			return true
		}
	}
	return false
}

func (p *projection) Render(c *feed.Copy, host string, key feed.Key) *message.Object {
	switch key.Kind {
	case message.Kind_KIND_SECURITY_GROUP:
		g := feed.Get[Group](c, "security_group", key.ID)
		if _, here := p.hosts[key.ID][host]; !here || g == nil {
			return nil
		}
		m := &message.SecurityGroup{Id: g.ID, Name: g.Name, Stateful: g.Stateful}
		for _, r := range p.rules[key.ID] {
			m.Rules = append(m.Rules, ruleMessage(r))
		}
		sort.Slice(m.Rules, func(i, j int) bool { return m.Rules[i].Id < m.Rules[j].Id })
		return &message.Object{Body: &message.Object_SecurityGroup{SecurityGroup: m}}
	case message.Kind_KIND_ADDRESS_SET:
		if !p.needsSet(host, key.ID) {
			return nil
		}
		m := &message.AddressSet{Id: key.ID}
		for a := range p.members[key.ID] {
			m.Addresses = append(m.Addresses, a)
		}
		sort.Strings(m.Addresses)
		return &message.Object{Version: p.version(key.ID), Body: &message.Object_AddressSet{AddressSet: m}}
	}
	return nil
}

// Version implements feed.Versioned.
func (p *projection) Version(_ *feed.Copy, host string, key feed.Key) uint64 {
	if key.Kind != message.Kind_KIND_ADDRESS_SET || !p.needsSet(host, key.ID) {
		return 0
	}
	return p.version(key.ID)
}

func (p *projection) version(g string) uint64 {
	if v := p.sums[g]; v != 0 {
		return v
	}
	return 1
}

// Uniform implements feed.Uniform: a group's addresses are the same everywhere.
func (*projection) Uniform(kind message.Kind) bool { return kind == message.Kind_KIND_ADDRESS_SET }

func (p *projection) Delta(_ *feed.Copy, host string, key feed.Key, elements map[string]struct{}, m *message.ServerMessage) uint64 {
	if key.Kind != message.Kind_KIND_ADDRESS_SET || !p.needsSet(host, key.ID) {
		return 0
	}
	d := &message.AddressSetDelta{Id: key.ID, Version: p.version(key.ID)}
	for a := range elements {
		if p.members[key.ID][a] > 0 {
			d.Adds = append(d.Adds, a)
		} else {
			d.Deletes = append(d.Deletes, a)
		}
	}
	m.AddressSetDeltas = append(m.AddressSetDeltas, d)
	return d.Version
}

func ruleMessage(r *Rule) *message.SecurityGroupRule {
	m := &message.SecurityGroupRule{
		Id: r.ID, Direction: r.Direction, Ethertype: r.EtherType, Protocol: int32(number(r.Protocol, r.EtherType)), PortRangeMin: -1, PortRangeMax: -1,
	}
	if r.PortRangeMin != nil {
		m.PortRangeMin = int32(*r.PortRangeMin)
	}
	if r.PortRangeMax != nil {
		m.PortRangeMax = int32(*r.PortRangeMax)
	}
	if r.NormalizedCIDR != nil {
		m.RemoteIpPrefix = *r.NormalizedCIDR
	}
	m.RemoteAddressSetId = r.remote()
	return m
}

// remote is the id of the set of addresses that the rule names; "": none.
func (r *Rule) remote() string {
	switch {
	case r.RemoteGroupID != nil:
		return *r.RemoteGroupID
	case r.RemoteAddressGroupID != nil:
		return *r.RemoteAddressGroupID
	}
	return ""
}

// element is an address or CIDR as address sets have it: hosts without a length.
func element(address string) string {
	p, ok := normalize(address)
	if !ok {
		return ""
	}
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
