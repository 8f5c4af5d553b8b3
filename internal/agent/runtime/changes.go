package runtime

import "isospin/api/feed"

// Empty tells whether nothing has changed.
func (c *Changes) Empty() bool {
	return !c.All && len(c.Ports) == 0 && len(c.Networks) == 0 && len(c.Forwarding) == 0 &&
		len(c.SecurityGroups) == 0 && len(c.AddressSets) == 0 && len(c.Routers) == 0 && len(c.QoSPolicies) == 0 && len(c.Trunks) == 0 && len(c.Logs) == 0
}

// mark notes that the object is new, gone or replaced.
func (c *Changes) mark(kind feed.Kind, id string) {
	switch kind {
	case feed.Kind_KIND_PORT:
		add(&c.Ports, id)
	case feed.Kind_KIND_NETWORK:
		add(&c.Networks, id)
	case feed.Kind_KIND_SECURITY_GROUP:
		add(&c.SecurityGroups, id)
	case feed.Kind_KIND_ROUTER:
		add(&c.Routers, id)
	case feed.Kind_KIND_QOS_POLICY:
		add(&c.QoSPolicies, id)
	case feed.Kind_KIND_TRUNK:
		add(&c.Trunks, id)
	case feed.Kind_KIND_LOG:
		add(&c.Logs, id)
	case feed.Kind_KIND_FORWARDING:
		c.markForwarding(id, ForwardingChange{Whole: true})
	case feed.Kind_KIND_ADDRESS_SET:
		c.markAddressSet(id, AddressSetChange{Whole: true})
	}
}

func (c *Changes) markForwarding(networkID string, more ForwardingChange) {
	if c.Forwarding == nil {
		c.Forwarding = map[string]ForwardingChange{}
	}
	have := c.Forwarding[networkID]
	if more.Whole || have.Whole {
		c.Forwarding[networkID] = ForwardingChange{Whole: true}
		return
	}
	union(&have.Ports, more.Ports)
	c.Forwarding[networkID] = have
}

func (c *Changes) markAddressSet(id string, more AddressSetChange) {
	if c.AddressSets == nil {
		c.AddressSets = map[string]AddressSetChange{}
	}
	have := c.AddressSets[id]
	if more.Whole || have.Whole {
		c.AddressSets[id] = AddressSetChange{Whole: true}
		return
	}
	union(&have.Addresses, more.Addresses)
	c.AddressSets[id] = have
}

// each calls do for every object that is named.
func (c *Changes) each(do func(objectKey)) {
	for kind, set := range map[feed.Kind]map[string]struct{}{
		feed.Kind_KIND_PORT:           c.Ports,
		feed.Kind_KIND_NETWORK:        c.Networks,
		feed.Kind_KIND_SECURITY_GROUP: c.SecurityGroups,
		feed.Kind_KIND_ROUTER:         c.Routers,
		feed.Kind_KIND_QOS_POLICY:     c.QoSPolicies,
		feed.Kind_KIND_TRUNK:          c.Trunks,
		feed.Kind_KIND_LOG:            c.Logs,
	} {
		for id := range set {
			do(objectKey{kind, id})
		}
	}
	for id := range c.Forwarding {
		do(objectKey{feed.Kind_KIND_FORWARDING, id})
	}
	for id := range c.AddressSets {
		do(objectKey{feed.Kind_KIND_ADDRESS_SET, id})
	}
}

// merge adds what other names to c. They share nothing afterwards.
func (c *Changes) merge(other *Changes) {
	if c.All || other.All {
		*c = Changes{All: true}
		return
	}
	union(&c.Ports, other.Ports)
	union(&c.Networks, other.Networks)
	union(&c.SecurityGroups, other.SecurityGroups)
	union(&c.Routers, other.Routers)
	union(&c.QoSPolicies, other.QoSPolicies)
	union(&c.Trunks, other.Trunks)
	union(&c.Logs, other.Logs)
	for id, change := range other.Forwarding {
		c.markForwarding(id, change)
	}
	for id, change := range other.AddressSets {
		c.markAddressSet(id, change)
	}
}

func add(set *map[string]struct{}, id string) {
	if *set == nil {
		*set = map[string]struct{}{}
	}
	(*set)[id] = struct{}{}
}

func union(into *map[string]struct{}, from map[string]struct{}) {
	for id := range from {
		add(into, id)
	}
}
