package runtime

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"isospin/api/feed"
)

// objectKey names one object of the feed.
type objectKey struct {
	kind feed.Kind
	id   string
}

// table is a map that is copied before a change if a State shares it.
type table[V any] struct {
	m      map[string]V
	shared bool
}

// own returns the map for changing.
func (t *table[V]) own() map[string]V {
	if t.shared || t.m == nil {
		m := make(map[string]V, len(t.m)+1)
		maps.Copy(m, t.m)
		t.m, t.shared = m, false
	}
	return t.m
}

// share returns the map for reading for ever.
func (t *table[V]) share() map[string]V {
	t.shared = true
	if t.m == nil {
		t.m = map[string]V{}
	}
	return t.m
}

// objects is what the stream has told so far: the builder of States. A State
// that was handed out never changes: the first change after it copies the
// tables that it touches, later ones until the next State change them in
// place. Not safe for concurrent use.
type objects struct {
	ports          table[*feed.Port]
	networks       table[*feed.Network]
	forwarding     table[*ForwardingTable]
	securityGroups table[*feed.SecurityGroup]
	addressSets    table[*AddressSet]
	routers        table[*feed.Router]
	qosPolicies    table[*feed.QoSPolicy]
	trunks         table[*feed.Trunk]
	logs           table[*feed.Log]
	adminStateUp   map[string]bool // replaced, never changed

	versions map[objectKey]uint64
	// Forwarding tables and address sets that no State shares yet.
	private map[objectKey]struct{}
	current *State // nil after a change
}

func newObjects() *objects {
	return &objects{versions: map[objectKey]uint64{}, private: map[objectKey]struct{}{}}
}

// state returns the State of now.
func (o *objects) state() *State {
	if o.current == nil {
		clear(o.private)
		o.current = &State{
			Ports:          o.ports.share(),
			Networks:       o.networks.share(),
			Forwarding:     o.forwarding.share(),
			SecurityGroups: o.securityGroups.share(),
			AddressSets:    o.addressSets.share(),
			Routers:        o.routers.share(),
			QoSPolicies:    o.qosPolicies.share(),
			Trunks:         o.trunks.share(),
			Logs:           o.logs.share(),
			AdminStateUp:   o.adminStateUp,
		}
	}
	return o.current
}

// held lists what the server need not send again.
func (o *objects) held() []*feed.Held {
	list := make([]*feed.Held, 0, len(o.versions))
	for key, version := range o.versions {
		list = append(list, &feed.Held{Kind: key.kind, Id: key.id, Version: version})
	}
	return list
}

// errNotHeld says that a delta came for an object that is not here: the stream
// must be opened again, for the server to send the object whole.
var errNotHeld = errors.New("delta for an object that is not held")

// apply takes a message and returns what it changed. What makes no sense, or
// is of a kind that only newer agents know, is left out and named by the
// error; the rest is applied all the same.
func (o *objects) apply(msg *feed.ServerMessage) (Changes, error) {
	var changes Changes
	var errs []error
	for _, object := range msg.Upserts {
		key, err := o.upsert(object)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if key != (objectKey{}) {
			changes.mark(key.kind, key.id)
		}
	}
	for _, key := range msg.Deletes {
		if o.delete(objectKey{key.Kind, key.Id}) {
			changes.mark(key.Kind, key.Id)
		}
	}
	for _, delta := range msg.ForwardingDeltas {
		change, err := o.forwardingDelta(delta)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(change.Ports) > 0 {
			changes.markForwarding(delta.NetworkId, change)
		}
	}
	for _, delta := range msg.AddressSetDeltas {
		change, err := o.addressSetDelta(delta)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(change.Addresses) > 0 {
			changes.markAddressSet(delta.Id, change)
		}
	}
	if len(msg.AdminStateUp) > 0 && o.mergeAdminStateUp(msg.AdminStateUp) {
		changes.All = true
	}
	return changes, errors.Join(errs...)
}

// upsert returns the zero key if the object was held in that version.
func (o *objects) upsert(object *feed.Object) (objectKey, error) {
	key := keyOf(object)
	if key.id == "" {
		return objectKey{}, fmt.Errorf("object of unknown kind or without id (version %x)", object.Version)
	}
	if version, ok := o.versions[key]; ok && version == object.Version {
		return objectKey{}, nil
	}
	switch body := object.Body.(type) {
	case *feed.Object_Port:
		o.ports.own()[key.id] = body.Port
	case *feed.Object_Network:
		o.networks.own()[key.id] = body.Network
	case *feed.Object_SecurityGroup:
		o.securityGroups.own()[key.id] = body.SecurityGroup
	case *feed.Object_Router:
		o.routers.own()[key.id] = body.Router
	case *feed.Object_QosPolicy:
		o.qosPolicies.own()[key.id] = body.QosPolicy
	case *feed.Object_Trunk:
		o.trunks.own()[key.id] = body.Trunk
	case *feed.Object_Log:
		o.logs.own()[key.id] = body.Log
	case *feed.Object_Forwarding:
		t := &ForwardingTable{NetworkID: key.id, Entries: make(map[string]*feed.ForwardingEntry, len(body.Forwarding.Entries))}
		for _, entry := range body.Forwarding.Entries {
			t.Entries[entry.PortId] = entry
		}
		o.forwarding.own()[key.id] = t
		o.private[key] = struct{}{}
	case *feed.Object_AddressSet:
		s := &AddressSet{ID: key.id, Addresses: make(map[string]struct{}, len(body.AddressSet.Addresses))}
		for _, address := range body.AddressSet.Addresses {
			s.Addresses[address] = struct{}{}
		}
		o.addressSets.own()[key.id] = s
		o.private[key] = struct{}{}
	}
	o.versions[key] = object.Version
	o.current = nil
	return key, nil
}

// delete tells whether the object was there.
func (o *objects) delete(key objectKey) bool {
	if _, ok := o.versions[key]; !ok {
		return false
	}
	switch key.kind {
	case feed.Kind_KIND_PORT:
		delete(o.ports.own(), key.id)
	case feed.Kind_KIND_NETWORK:
		delete(o.networks.own(), key.id)
	case feed.Kind_KIND_SECURITY_GROUP:
		delete(o.securityGroups.own(), key.id)
	case feed.Kind_KIND_ROUTER:
		delete(o.routers.own(), key.id)
	case feed.Kind_KIND_QOS_POLICY:
		delete(o.qosPolicies.own(), key.id)
	case feed.Kind_KIND_TRUNK:
		delete(o.trunks.own(), key.id)
	case feed.Kind_KIND_LOG:
		delete(o.logs.own(), key.id)
	case feed.Kind_KIND_FORWARDING:
		delete(o.forwarding.own(), key.id)
	case feed.Kind_KIND_ADDRESS_SET:
		delete(o.addressSets.own(), key.id)
	}
	delete(o.versions, key)
	delete(o.private, key)
	o.current = nil
	return true
}

func (o *objects) forwardingDelta(delta *feed.ForwardingDelta) (ForwardingChange, error) {
	key := objectKey{feed.Kind_KIND_FORWARDING, delta.NetworkId}
	have, ok := o.forwarding.m[key.id]
	if !ok {
		return ForwardingChange{}, fmt.Errorf("%w: forwarding of network %q", errNotHeld, key.id)
	}
	if _, private := o.private[key]; !private {
		have = &ForwardingTable{NetworkID: key.id, Entries: maps.Clone(have.Entries)}
		o.forwarding.own()[key.id] = have
		o.private[key] = struct{}{}
	}
	var change ForwardingChange
	for _, id := range delta.DeletePortIds {
		delete(have.Entries, id)
		add(&change.Ports, id)
	}
	for _, entry := range delta.Upserts {
		have.Entries[entry.PortId] = entry
		add(&change.Ports, entry.PortId)
	}
	o.versions[key] = delta.Version
	o.current = nil
	return change, nil
}

func (o *objects) addressSetDelta(delta *feed.AddressSetDelta) (AddressSetChange, error) {
	key := objectKey{feed.Kind_KIND_ADDRESS_SET, delta.Id}
	have, ok := o.addressSets.m[key.id]
	if !ok {
		return AddressSetChange{}, fmt.Errorf("%w: address set %q", errNotHeld, key.id)
	}
	if _, private := o.private[key]; !private {
		have = &AddressSet{ID: key.id, Addresses: maps.Clone(have.Addresses)}
		o.addressSets.own()[key.id] = have
		o.private[key] = struct{}{}
	}
	var change AddressSetChange
	for _, address := range delta.Deletes {
		delete(have.Addresses, address)
		add(&change.Addresses, address)
	}
	for _, address := range delta.Adds {
		have.Addresses[address] = struct{}{}
		add(&change.Addresses, address)
	}
	o.versions[key] = delta.Version
	o.current = nil
	return change, nil
}

// mergeAdminStateUp tells whether it changed anything.
func (o *objects) mergeAdminStateUp(news map[string]bool) bool {
	merged := maps.Clone(o.adminStateUp)
	if merged == nil {
		merged = map[string]bool{}
	}
	changed := false
	for agentType, up := range news {
		if have, ok := merged[agentType]; !ok && up || ok && have == up {
			continue
		}
		merged[agentType] = up
		changed = true
	}
	if changed {
		o.adminStateUp, o.current = merged, nil
	}
	return changed
}

// messages renders a State as the messages that would build it, at most
// perMessage objects each.
func messages(state *State, versions map[objectKey]uint64, perMessage int) []*feed.ServerMessage {
	var all []*feed.Object
	object := func(kind feed.Kind, id string) *feed.Object {
		o := &feed.Object{Version: versions[objectKey{kind, id}]}
		all = append(all, o)
		return o
	}
	for id, v := range state.Ports {
		object(feed.Kind_KIND_PORT, id).Body = &feed.Object_Port{Port: v}
	}
	for id, v := range state.Networks {
		object(feed.Kind_KIND_NETWORK, id).Body = &feed.Object_Network{Network: v}
	}
	for id, v := range state.SecurityGroups {
		object(feed.Kind_KIND_SECURITY_GROUP, id).Body = &feed.Object_SecurityGroup{SecurityGroup: v}
	}
	for id, v := range state.Routers {
		object(feed.Kind_KIND_ROUTER, id).Body = &feed.Object_Router{Router: v}
	}
	for id, v := range state.QoSPolicies {
		object(feed.Kind_KIND_QOS_POLICY, id).Body = &feed.Object_QosPolicy{QosPolicy: v}
	}
	for id, v := range state.Trunks {
		object(feed.Kind_KIND_TRUNK, id).Body = &feed.Object_Trunk{Trunk: v}
	}
	for id, v := range state.Logs {
		object(feed.Kind_KIND_LOG, id).Body = &feed.Object_Log{Log: v}
	}
	for id, v := range state.Forwarding {
		object(feed.Kind_KIND_FORWARDING, id).Body = &feed.Object_Forwarding{Forwarding: &feed.Forwarding{
			NetworkId: id, Entries: slices.Collect(maps.Values(v.Entries))}}
	}
	for id, v := range state.AddressSets {
		object(feed.Kind_KIND_ADDRESS_SET, id).Body = &feed.Object_AddressSet{AddressSet: &feed.AddressSet{
			Id: id, Addresses: slices.Collect(maps.Keys(v.Addresses))}}
	}
	var list []*feed.ServerMessage
	for chunk := range slices.Chunk(all, perMessage) {
		list = append(list, &feed.ServerMessage{Upserts: chunk})
	}
	return append(list, &feed.ServerMessage{AdminStateUp: state.AdminStateUp, Synced: true})
}

func keyOf(object *feed.Object) objectKey {
	kind, id := object.KindAndID()
	return objectKey{kind, id}
}
