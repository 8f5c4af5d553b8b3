package feed

import (
	"encoding/json"
	"maps"
	"slices"
	"sort"

	"isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// coreProjection makes ports, networks and forwarding tables of hosts.
type coreProjection struct {
	// endpoints are hosts' tunnel addresses.
	endpoints map[string]string
	// bound ports by host and by network.
	byHost map[string]map[string]struct{}
	// byNetwork: network → port → present; every bound port.
	byNetwork map[string]map[string]struct{}
	// hosts: network → host → bound ports there.
	hosts map[string]map[string]map[string]struct{}
	// subnets of a network, and its DHCP port: the first by id, should a client have made more.
	subnets map[string]map[string]struct{}
	dhcp    map[string]map[string]struct{}
	// entries are forwarding entries with their hashes; sums add them up by network.
	entries map[string]entry
	sums    map[string]uint64
	// agents: host → agent → present.
	agents map[string]map[string]struct{}
}

type entry struct {
	message *feed.ForwardingEntry
	hash    uint64
	network string
}

// Services are what the hub keeps of the core.
type Services struct {
	Networks *network.Service
	Subnets  *subnet.Service
	Ports    *port.Service
	Agents   *agent.Service
}

// ProjectCore makes the hub keep the core's objects and project them.
func (h *Hub) ProjectCore(s Services) {
	// Networks and subnets come before the ports that refer to them.
	Keep(h, "agent", func(tx *store.Tx) ([]*agent.Agent, error) { return s.Agents.Table.Select(tx, "") }, func(a *agent.Agent) string { return a.ID })
	Keep(h, "network", func(tx *store.Tx) ([]*network.Network, error) { return s.Networks.Table.Select(tx, "") }, func(n *network.Network) string { return n.ID })
	Keep(h, "subnet", func(tx *store.Tx) ([]*subnet.Subnet, error) {
		return s.Subnets.Table.Select(tx, "ORDER BY t.created_at, t.id")
	}, func(n *subnet.Subnet) string { return n.ID })
	Keep(h, "port", func(tx *store.Tx) ([]*port.Port, error) { return s.Ports.Table.Select(tx, "") }, func(p *port.Port) string { return p.ID })
	s.Ports.Table.Recall(Recall[port.Port](h, "port"))
	p := &coreProjection{
		endpoints: map[string]string{}, byHost: map[string]map[string]struct{}{}, byNetwork: map[string]map[string]struct{}{},
		hosts: map[string]map[string]map[string]struct{}{}, subnets: map[string]map[string]struct{}{}, dhcp: map[string]map[string]struct{}{},
		entries: map[string]entry{}, sums: map[string]uint64{}, agents: map[string]map[string]struct{}{},
	}
	h.Project(p)
	h.admin = func(c *Copy, host string) map[string]bool {
		states := map[string]bool{}
		for id := range p.agents[host] {
			if a := Get[agent.Agent](c, "agent", id); a != nil {
				states[a.AgentType] = a.AdminStateUp
			}
		}
		return states
	}
	h.agents = func(c *Copy, host string) []*agent.Agent {
		var list []*agent.Agent
		for id := range p.agents[host] {
			if a := Get[agent.Agent](c, "agent", id); a != nil {
				list = append(list, a)
			}
		}
		return list
	}
	h.together[feed.Kind_KIND_PORT] = portReports{s.Ports}
}

func add(m map[string]map[string]struct{}, key, member string) {
	if m[key] == nil {
		m[key] = map[string]struct{}{}
	}
	m[key][member] = struct{}{}
}

func remove(m map[string]map[string]struct{}, key, member string) {
	delete(m[key], member)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

func networkKey(id string) Key    { return Key{feed.Kind_KIND_NETWORK, id} }
func forwardingKey(id string) Key { return Key{feed.Kind_KIND_FORWARDING, id} }

func (p *coreProjection) Apply(c *Copy, ch Change, mark Marker) {
	switch ch.Kind {
	case "agent":
		p.agent(c, ch, mark)
	case "network":
		for host := range p.hosts[ch.ID] {
			mark.Object(host, networkKey(ch.ID))
		}
	case "subnet":
		n, _ := ch.New.(*subnet.Subnet)
		if n == nil {
			n = ch.Old.(*subnet.Subnet)
			remove(p.subnets, n.NetworkID, n.ID)
		} else {
			add(p.subnets, n.NetworkID, n.ID)
		}
		for host := range p.hosts[n.NetworkID] {
			mark.Object(host, networkKey(n.NetworkID))
		}
	case "port":
		p.port(ch, mark)
	}
}

func (p *coreProjection) agent(c *Copy, ch Change, mark Marker) {
	a, _ := ch.New.(*agent.Agent)
	if a == nil {
		a = ch.Old.(*agent.Agent)
		remove(p.agents, a.Host, a.ID)
		if a.AgentType == agent.OpenVSwitch {
			p.endpoint(c, a.Host, "", mark)
		}
		return
	}
	add(p.agents, a.Host, a.ID)
	mark.Administration(a.Host)
	if a.AgentType == agent.OpenVSwitch {
		p.endpoint(c, a.Host, a.Configuration().TunnelingIP, mark)
	}
}

// endpoint notes a host's tunnel address; the entries of all its ports follow.
func (p *coreProjection) endpoint(c *Copy, host, address string, mark Marker) {
	if p.endpoints[host] == address {
		return
	}
	p.endpoints[host] = address
	for id := range p.byHost[host] {
		if o := Get[port.Port](c, "port", id); o != nil {
			p.setEntry(o, mark)
		}
	}
}

func (p *coreProjection) port(ch Change, mark Marker) {
	old, _ := ch.Old.(*port.Port)
	now, _ := ch.New.(*port.Port)
	if old != nil && placed(old) && (now == nil || now.HostID != old.HostID || !placed(now)) {
		p.unplace(old, mark)
	}
	if old != nil && old.DHCP() && (now == nil || !now.DHCP()) {
		remove(p.dhcp, old.NetworkID, old.ID)
		p.markNetwork(old.NetworkID, mark)
	}
	if now == nil {
		return
	}
	if now.DHCP() {
		add(p.dhcp, now.NetworkID, now.ID)
		p.markNetwork(now.NetworkID, mark)
		return
	}
	if !placed(now) {
		return
	}
	add(p.byHost, now.HostID, now.ID)
	add(p.byNetwork, now.NetworkID, now.ID)
	hosts := p.hosts[now.NetworkID]
	if hosts == nil {
		hosts = map[string]map[string]struct{}{}
		p.hosts[now.NetworkID] = hosts
	}
	if len(hosts[now.HostID]) == 0 {
		hosts[now.HostID] = map[string]struct{}{}
		mark.Object(now.HostID, networkKey(now.NetworkID))
		mark.Object(now.HostID, forwardingKey(now.NetworkID))
	}
	hosts[now.HostID][now.ID] = struct{}{}
	if old == nil || old.Generation != now.Generation || !placed(old) {
		mark.Object(now.HostID, Key{feed.Kind_KIND_PORT, now.ID})
	}
	if old != nil && old.SegmentID != now.SegmentID {
		mark.Object(now.HostID, networkKey(now.NetworkID))
	}
	p.setEntry(now, mark)
}

// placed tells whether the port is on the one host that it is bound to.
func placed(o *port.Port) bool { return o.Bound() && !o.DHCP() }

// unplace takes a port off the host where it was.
func (p *coreProjection) unplace(old *port.Port, mark Marker) {
	remove(p.byHost, old.HostID, old.ID)
	remove(p.byNetwork, old.NetworkID, old.ID)
	mark.Object(old.HostID, Key{feed.Kind_KIND_PORT, old.ID})
	hosts := p.hosts[old.NetworkID]
	delete(hosts[old.HostID], old.ID)
	if len(hosts[old.HostID]) == 0 {
		delete(hosts, old.HostID)
		mark.Object(old.HostID, networkKey(old.NetworkID))
		mark.Object(old.HostID, forwardingKey(old.NetworkID))
	}
	if len(hosts) == 0 {
		delete(p.hosts, old.NetworkID)
	}
	if e, ok := p.entries[old.ID]; ok {
		p.sums[e.network] -= e.hash
		delete(p.entries, old.ID)
		p.markEntry(old.NetworkID, old.ID, mark)
	}
	if len(p.byNetwork[old.NetworkID]) == 0 {
		delete(p.sums, old.NetworkID)
	}
}

func (p *coreProjection) markNetwork(id string, mark Marker) {
	for host := range p.hosts[id] {
		mark.Object(host, networkKey(id))
	}
}

func (p *coreProjection) markEntry(networkID, portID string, mark Marker) {
	for host := range p.hosts[networkID] {
		mark.Element(host, forwardingKey(networkID), portID)
	}
}

func (p *coreProjection) setEntry(o *port.Port, mark Marker) {
	m := &feed.ForwardingEntry{
		PortId: o.ID, MacAddress: o.MACAddress, TunnelIp: p.endpoints[o.HostID],
		DeviceId: o.DeviceID, DeviceOwner: o.DeviceOwner, ProjectId: o.ProjectID, DnsName: o.HostName(),
	}
	for _, f := range o.FixedIPs {
		if subnet.Provisional.Contains(f.IPAddress) {
			continue
		}
		m.IpAddresses = append(m.IpAddresses, f.IPAddress.String())
	}
	if m.PvlanType = textOf(o.Slots, "pvlan_type"); m.PvlanType != "" {
		m.PvlanCommunity = textOf(o.Slots, "pvlan_community")
		for _, pair := range o.AllowedAddressPairs {
			if other := pair.MACAddress; other != "" && other != o.MACAddress && !slices.Contains(m.FurtherMacAddresses, other) {
				m.FurtherMacAddresses = append(m.FurtherMacAddresses, other)
			}
		}
	}
	e := entry{message: m, hash: Hash(m), network: o.NetworkID}
	had, ok := p.entries[o.ID]
	if ok && had.hash == e.hash {
		return
	}
	p.sums[o.NetworkID] += e.hash - had.hash
	p.entries[o.ID] = e
	p.markEntry(o.NetworkID, o.ID, mark)
}

func (p *coreProjection) Keys(_ *Copy, host string, each func(Key)) {
	for id := range p.byHost[host] {
		each(Key{feed.Kind_KIND_PORT, id})
		network := p.entries[id].network
		each(networkKey(network))
		each(forwardingKey(network))
	}
}

func (p *coreProjection) Render(c *Copy, host string, key Key) *feed.Object {
	switch key.Kind {
	case feed.Kind_KIND_PORT:
		if _, here := p.byHost[host][key.ID]; !here {
			return nil
		}
		if o := Get[port.Port](c, "port", key.ID); o != nil {
			return &feed.Object{Body: &feed.Object_Port{Port: PortMessage(o)}}
		}
	case feed.Kind_KIND_NETWORK:
		if len(p.hosts[key.ID][host]) == 0 {
			return nil
		}
		if m := p.network(c, host, key.ID); m != nil {
			return &feed.Object{Body: &feed.Object_Network{Network: m}}
		}
	case feed.Kind_KIND_FORWARDING:
		if len(p.hosts[key.ID][host]) == 0 {
			return nil
		}
		m := &feed.Forwarding{NetworkId: key.ID}
		for id := range p.byNetwork[key.ID] {
			if _, local := p.hosts[key.ID][host][id]; !local {
				m.Entries = append(m.Entries, p.entries[id].message)
			}
		}
		sort.Slice(m.Entries, func(i, j int) bool { return m.Entries[i].PortId < m.Entries[j].PortId })
		return &feed.Object{Version: p.version(host, key.ID), Body: &feed.Object_Forwarding{Forwarding: m}}
	}
	return nil
}

// Version implements Versioned.
func (p *coreProjection) Version(_ *Copy, host string, key Key) uint64 {
	if key.Kind != feed.Kind_KIND_FORWARDING || len(p.hosts[key.ID][host]) == 0 {
		return 0
	}
	return p.version(host, key.ID)
}

// version of a host's forwarding table: the sum of all entries but its own ports'. Never 0.
func (p *coreProjection) version(host, networkID string) uint64 {
	v := p.sums[networkID]
	for id := range p.hosts[networkID][host] {
		v -= p.entries[id].hash
	}
	if v == 0 {
		return 1
	}
	return v
}

func (p *coreProjection) Delta(_ *Copy, host string, key Key, elements map[string]struct{}, m *feed.ServerMessage) uint64 {
	if key.Kind != feed.Kind_KIND_FORWARDING || len(p.hosts[key.ID][host]) == 0 {
		return 0
	}
	d := &feed.ForwardingDelta{NetworkId: key.ID, Version: p.version(host, key.ID)}
	for id := range elements {
		e, ok := p.entries[id]
		_, local := p.hosts[key.ID][host][id]
		if ok && !local && e.network == key.ID {
			d.Upserts = append(d.Upserts, e.message)
		} else {
			d.DeletePortIds = append(d.DeletePortIds, id)
		}
	}
	m.ForwardingDeltas = append(m.ForwardingDeltas, d)
	return d.Version
}

// PortMessage is a port as hosts know it.
func PortMessage(o *port.Port) *feed.Port {
	m := &feed.Port{
		Id: o.ID, NetworkId: o.NetworkID, ProjectId: o.ProjectID, Name: o.Name, MacAddress: o.MACAddress,
		AdminStateUp: o.AdminStateUp, DeviceId: o.DeviceID, DeviceOwner: o.DeviceOwner,
		PortSecurityEnabled: o.PortSecurityEnabled, SecurityGroupIds: slices.Sorted(slices.Values(o.SecurityGroups)), Revision: o.Generation, VnicType: o.VNICType,
	}
	for _, f := range o.FixedIPs {
		if subnet.Provisional.Contains(f.IPAddress) { // it has none before the prefix is delegated
			continue
		}
		m.FixedIps = append(m.FixedIps, &feed.FixedIP{SubnetId: f.SubnetID, IpAddress: f.IPAddress.String()})
	}
	for _, a := range o.AllowedAddressPairs {
		m.AllowedAddressPairs = append(m.AllowedAddressPairs, &feed.AddressPair{IpAddress: a.IPAddress, MacAddress: a.MACAddress})
	}
	for _, d := range o.ExtraDHCPOpts {
		m.ExtraDhcpOpts = append(m.ExtraDhcpOpts, &feed.ExtraDHCPOption{Name: d.OptName, Value: d.OptValue, IpVersion: int32(d.IPVersion)})
	}
	m.DnsName = o.HostName()
	m.QosPolicyId = textOf(o.Slots, "qos_policy_id")
	for _, l := range o.LocalIPs() {
		m.LocalIps = append(m.LocalIps, &feed.LocalIP{Id: l.ID, LocalIpAddress: l.Address.String(), FixedIpAddress: l.FixedIP.String(), IpMode: l.Mode, NetworkId: l.NetworkID})
	}
	m.TxSteering = steering(o.Slots)
	m.PvlanType, m.PvlanCommunity = textOf(o.Slots, "pvlan_type"), textOf(o.Slots, "pvlan_community")
	return m
}

// steering is how the port's interface is to choose its transmit queue, by the port's hints.
func steering(slots resource.Slots) string {
	var hints struct {
		OpenVSwitch struct {
			OtherConfig struct {
				TxSteering string `json:"tx-steering"`
			} `json:"other_config"`
		} `json:"openvswitch"`
	}
	if raw, ok := slots["hints"]; ok && json.Unmarshal(raw, &hints) != nil {
		return ""
	}
	return hints.OpenVSwitch.OtherConfig.TxSteering
}

// flagOf is the value of an extension's flag; false when there is none.
func flagOf(slots resource.Slots, attribute string) bool { return string(slots[attribute]) == "true" }

// textOf is the value of an extension's attribute; empty when there is none.
func textOf(slots resource.Slots, attribute string) string {
	var text string
	if raw, ok := slots[attribute]; ok && json.Unmarshal(raw, &text) == nil {
		return text
	}
	return ""
}

func (p *coreProjection) network(c *Copy, host, id string) *feed.Network {
	n := Get[network.Network](c, "network", id)
	if n == nil {
		return nil
	}
	m := &feed.Network{Id: n.ID, ProjectId: n.ProjectID, Name: n.Name, Mtu: int32(n.MTU), AdminStateUp: n.AdminStateUp, External: n.External, QosPolicyId: textOf(n.Slots, "qos_policy_id")}
	m.VlanTransparent, m.Qinq, m.Pvlan = flagOf(n.Slots, "vlan_transparent"), flagOf(n.Slots, "qinq"), flagOf(n.Slots, "pvlan")
	segment := ""
	for id := range p.hosts[id][host] {
		if o := Get[port.Port](c, "port", id); o != nil && o.SegmentID > segment {
			segment = o.SegmentID
		}
	}
	for i, s := range n.Segments {
		if s.ID == segment || segment == "" && i == 0 {
			m.Segment = &feed.Segment{Id: s.ID, NetworkType: s.NetworkType, PhysicalNetwork: s.PhysicalNetwork, SegmentationId: int64(s.SegmentationID)}
		}
	}
	// Of a routed network the host has the subnets of its segment: the others are behind routers.
	here := map[string]struct{}{}
	for id := range p.subnets[id] {
		if o := Get[subnet.Subnet](c, "subnet", id); o != nil && o.OnSegment(m.Segment.GetId()) {
			here[id] = struct{}{}
		}
	}
	m.Subnets = SubnetMessages(c, here)
	for _, dhcp := range slices.Sorted(maps.Keys(p.dhcp[id])) {
		if o := Get[port.Port](c, "port", dhcp); o != nil {
			m.DhcpPort = PortMessage(o)
			m.DhcpPort.FixedIps = slices.DeleteFunc(m.DhcpPort.FixedIps, func(f *feed.FixedIP) bool {
				_, is := here[f.SubnetId]
				return !is
			})
			break
		}
	}
	return m
}

// SubnetMessages are subnets as hosts know them, oldest first. Those that wait
// for a delegated prefix are not there yet.
func SubnetMessages(c *Copy, ids map[string]struct{}) []*feed.Subnet {
	var rows []*subnet.Subnet
	for id := range ids {
		if s := Get[subnet.Subnet](c, "subnet", id); s != nil && !s.Pending() {
			rows = append(rows, s)
		}
	}
	sort.Slice(rows, func(i, j int) bool {
		if rows[i].CreatedAt != rows[j].CreatedAt {
			return rows[i].CreatedAt < rows[j].CreatedAt
		}
		return rows[i].ID < rows[j].ID
	})
	var list []*feed.Subnet
	for _, s := range rows {
		list = append(list, SubnetMessage(s))
	}
	return list
}

// SubnetMessage is a subnet as hosts know it.
func SubnetMessage(s *subnet.Subnet) *feed.Subnet {
	m := &feed.Subnet{Id: s.ID, Cidr: s.CIDR.String(), IpVersion: int32(s.IPVersion), EnableDhcp: s.EnableDHCP, DnsNameservers: s.DNSNameservers}
	if s.GatewayIP.IsValid() {
		m.GatewayIp = s.GatewayIP.String()
	}
	if s.IPv6RAMode != nil {
		m.Ipv6RaMode = *s.IPv6RAMode
	}
	if s.IPv6AddressMode != nil {
		m.Ipv6AddressMode = *s.IPv6AddressMode
	}
	for _, r := range s.HostRoutes {
		m.HostRoutes = append(m.HostRoutes, &feed.HostRoute{Destination: r.Destination, Nexthop: r.NextHop})
	}
	return m
}
