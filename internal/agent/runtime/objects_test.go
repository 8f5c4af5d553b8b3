package runtime

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"isospin/api/feed"
)

// world is a server's idea of what a host must hold, in the plainest form.
type world struct {
	objects map[objectKey]*feed.Object // without forwarding and address sets
	entries map[string]map[string]*feed.ForwardingEntry
	members map[string]map[string]bool
	version uint64
	current map[objectKey]uint64 // versions
}

func newWorld() *world {
	return &world{objects: map[objectKey]*feed.Object{}, entries: map[string]map[string]*feed.ForwardingEntry{},
		members: map[string]map[string]bool{}, current: map[objectKey]uint64{}}
}

// snapshot is all that the host needs, in one message.
func (w *world) snapshot() *feed.ServerMessage {
	msg := &feed.ServerMessage{Synced: true}
	for _, o := range w.objects {
		msg.Upserts = append(msg.Upserts, o)
	}
	for id := range w.entries {
		msg.Upserts = append(msg.Upserts, w.forwarding(id))
	}
	for id := range w.members {
		msg.Upserts = append(msg.Upserts, w.addressSet(id))
	}
	return msg
}

func (w *world) forwarding(id string) *feed.Object {
	return &feed.Object{Version: w.current[objectKey{feed.Kind_KIND_FORWARDING, id}], Body: &feed.Object_Forwarding{
		Forwarding: &feed.Forwarding{NetworkId: id, Entries: slices.Collect(maps.Values(w.entries[id]))}}}
}

func (w *world) addressSet(id string) *feed.Object {
	return &feed.Object{Version: w.current[objectKey{feed.Kind_KIND_ADDRESS_SET, id}], Body: &feed.Object_AddressSet{
		AddressSet: &feed.AddressSet{Id: id, Addresses: slices.Collect(maps.Keys(w.members[id]))}}}
}

// step changes the world at random and returns the message that says so.
func (w *world) step(t *rapid.T) *feed.ServerMessage {
	msg := new(feed.ServerMessage)
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		id := fmt.Sprintf("id%d", rapid.IntRange(0, 3).Draw(t, "id"))
		kind := feed.Kind(rapid.IntRange(1, 9).Draw(t, "kind"))
		key := objectKey{kind, id}
		w.version++
		_, there := w.current[key]
		action := rapid.SampledFrom([]string{"upsert", "delete", "delta", "delta"}).Draw(t, "action")
		if action == "delete" {
			if _, again := keysOf(msg)[key]; again {
				continue // one message says one thing of an object
			}
			delete(w.objects, key)
			delete(w.current, key)
			if kind == feed.Kind_KIND_FORWARDING {
				delete(w.entries, id)
			}
			if kind == feed.Kind_KIND_ADDRESS_SET {
				delete(w.members, id)
			}
			msg.Deletes = append(msg.Deletes, &feed.ObjectKey{Kind: kind, Id: id})
			continue
		}
		if _, again := keysOf(msg)[key]; again {
			continue
		}
		w.current[key] = w.version
		name := fmt.Sprintf("v%d", w.version)
		switch kind {
		case feed.Kind_KIND_PORT:
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_Port{Port: &feed.Port{Id: id, Name: name}}}
		case feed.Kind_KIND_NETWORK:
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_Network{Network: &feed.Network{Id: id, Name: name}}}
		case feed.Kind_KIND_SECURITY_GROUP:
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_SecurityGroup{SecurityGroup: &feed.SecurityGroup{Id: id, Name: name}}}
		case feed.Kind_KIND_ROUTER:
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_Router{Router: &feed.Router{Id: id, Name: name}}}
		case feed.Kind_KIND_QOS_POLICY:
			limits := []*feed.BandwidthLimit{{Direction: "egress", MaxKbps: int64(w.version)}}
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_QosPolicy{QosPolicy: &feed.QoSPolicy{Id: id, BandwidthLimits: limits}}}
		case feed.Kind_KIND_TRUNK:
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_Trunk{Trunk: &feed.Trunk{Id: id, PortId: name}}}
		case feed.Kind_KIND_LOG:
			w.objects[key] = &feed.Object{Version: w.version, Body: &feed.Object_Log{Log: &feed.Log{Id: id, PortIds: []string{name}}}}
		case feed.Kind_KIND_FORWARDING:
			entry := &feed.ForwardingEntry{PortId: fmt.Sprintf("p%d", rapid.IntRange(0, 5).Draw(t, "port")), MacAddress: name}
			gone := fmt.Sprintf("p%d", rapid.IntRange(6, 9).Draw(t, "gone"))
			if action == "delta" && there {
				w.entries[id][entry.PortId] = entry
				delete(w.entries[id], gone)
				msg.ForwardingDeltas = append(msg.ForwardingDeltas, &feed.ForwardingDelta{NetworkId: id, Version: w.version,
					Upserts: []*feed.ForwardingEntry{entry}, DeletePortIds: []string{gone}})
				continue
			}
			w.entries[id] = map[string]*feed.ForwardingEntry{entry.PortId: entry, gone: {PortId: gone}}
			msg.Upserts = append(msg.Upserts, w.forwarding(id))
			continue
		case feed.Kind_KIND_ADDRESS_SET:
			address := fmt.Sprintf("10.0.0.%d", rapid.IntRange(0, 9).Draw(t, "address"))
			if action == "delta" && there {
				d := &feed.AddressSetDelta{Id: id, Version: w.version}
				if w.members[id][address] {
					delete(w.members[id], address)
					d.Deletes = []string{address}
				} else {
					w.members[id][address] = true
					d.Adds = []string{address}
				}
				msg.AddressSetDeltas = append(msg.AddressSetDeltas, d)
				continue
			}
			w.members[id] = map[string]bool{address: true}
			msg.Upserts = append(msg.Upserts, w.addressSet(id))
			continue
		}
		msg.Upserts = append(msg.Upserts, w.objects[key])
	}
	return msg
}

func keysOf(msg *feed.ServerMessage) map[objectKey]struct{} {
	keys := map[objectKey]struct{}{}
	for _, o := range msg.Upserts {
		keys[keyOf(o)] = struct{}{}
	}
	for _, k := range msg.Deletes {
		keys[objectKey{k.Kind, k.Id}] = struct{}{}
	}
	for _, d := range msg.ForwardingDeltas {
		keys[objectKey{feed.Kind_KIND_FORWARDING, d.NetworkId}] = struct{}{}
	}
	for _, d := range msg.AddressSetDeltas {
		keys[objectKey{feed.Kind_KIND_ADDRESS_SET, d.Id}] = struct{}{}
	}
	return keys
}

// resume is what a server sends to an agent that holds have.
func (w *world) resume(have []*feed.Held) *feed.ServerMessage {
	held := map[objectKey]uint64{}
	msg := &feed.ServerMessage{Synced: true}
	for _, h := range have {
		held[objectKey{h.Kind, h.Id}] = h.Version
		if _, ok := w.current[objectKey{h.Kind, h.Id}]; !ok {
			msg.Deletes = append(msg.Deletes, &feed.ObjectKey{Kind: h.Kind, Id: h.Id})
		}
	}
	for _, o := range w.snapshot().Upserts {
		if version, ok := held[keyOf(o)]; !ok || version != o.Version {
			msg.Upserts = append(msg.Upserts, o)
		}
	}
	return msg
}

func diffStates(a, b *State) string { return cmp.Diff(a, b, protocmp.Transform()) }

// clone copies a State so deeply that no later change can reach it.
func clone(t *rapid.T, s *State) *State {
	data, err := encodeState(&feed.Hello{Host: "h"}, messages(s, map[objectKey]uint64{}, 3))
	if err != nil {
		t.Fatal(err)
	}
	list, err := decodeState(data, "h")
	if err != nil {
		t.Fatal(err)
	}
	d := newDesired(func(*Changes) {})
	// Versions are all zero here, and equal versions of an object that is held are skipped: each occurs once.
	if err := d.load(list); err != nil {
		t.Fatal(err)
	}
	return d.state()
}

// unnamed lists objects that differ between two States and that changes do not name.
func unnamed(from, to *State, c *Changes) (missing []string) {
	if c.All {
		return nil
	}
	check(&missing, "port", from.Ports, to.Ports, c.Ports)
	check(&missing, "network", from.Networks, to.Networks, c.Networks)
	check(&missing, "security group", from.SecurityGroups, to.SecurityGroups, c.SecurityGroups)
	check(&missing, "router", from.Routers, to.Routers, c.Routers)
	check(&missing, "QoS policy", from.QoSPolicies, to.QoSPolicies, c.QoSPolicies)
	check(&missing, "trunk", from.Trunks, to.Trunks, c.Trunks)
	check(&missing, "log", from.Logs, to.Logs, c.Logs)
	for id := range either(from.Forwarding, to.Forwarding) {
		a, b, change := from.Forwarding[id], to.Forwarding[id], c.Forwarding[id]
		if change.Whole {
			continue
		}
		if a == nil || b == nil {
			missing = append(missing, "forwarding "+id)
			continue
		}
		check(&missing, "forwarding "+id, a.Entries, b.Entries, change.Ports)
	}
	for id := range either(from.AddressSets, to.AddressSets) {
		a, b, change := from.AddressSets[id], to.AddressSets[id], c.AddressSets[id]
		if change.Whole {
			continue
		}
		if a == nil || b == nil {
			missing = append(missing, "address set "+id)
			continue
		}
		check(&missing, "address set "+id, a.Addresses, b.Addresses, change.Addresses)
	}
	return missing
}

func check[V any](missing *[]string, what string, from, to map[string]V, named map[string]struct{}) {
	for id := range either(from, to) {
		a, inA := from[id]
		b, inB := to[id]
		if _, ok := named[id]; !ok && (inA != inB || !cmp.Equal(a, b, protocmp.Transform())) {
			*missing = append(*missing, what+" "+id)
		}
	}
}

func either[V any](a, b map[string]V) map[string]struct{} {
	keys := map[string]struct{}{}
	for k := range a {
		keys[k] = struct{}{}
	}
	for k := range b {
		keys[k] = struct{}{}
	}
	return keys
}

// Whatever is sent, and whenever streams break and features look, the State is
// that of a fresh snapshot, no State ever changes after it was handed out, and
// Changes name all that differs from what the feature saw last.
func TestStateFollowsFeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		d := newDesired(func(*Changes) {})
		features := []*subscriber{d.subscribe(), d.subscribe()}
		last := []*State{{}, {}}
		type handedOut struct{ given, copied *State }
		var all []handedOut

		apply := func(msg *feed.ServerMessage) {
			if err := d.apply(msg); err != nil {
				t.Fatal(err)
			}
		}
		d.beginSync()
		if len(features) > 0 && d.state() != nil {
			t.Fatal("a state before the first sync")
		}
		apply(w.snapshot())
		attached := true
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"message", "message", "message", "take", "take", "break", "attach"}).Draw(t, "event") {
			case "message":
				msg := w.step(t)
				if attached {
					apply(msg)
				}
			case "break":
				attached = false
			case "attach":
				before := d.state()
				resume := w.resume(d.beginSync())
				// Half of it comes, then perhaps the stream breaks again.
				apply(&feed.ServerMessage{Upserts: resume.Upserts})
				if diff := diffStates(before, d.state()); diff != "" {
					t.Fatalf("state changed before synced:\n%s", diff)
				}
				attached = rapid.Bool().Draw(t, "whole")
				if attached {
					apply(&feed.ServerMessage{Deletes: resume.Deletes, Synced: true})
				}
			case "take":
				i := rapid.IntRange(0, len(features)-1).Draw(t, "feature")
				state, changes := d.take(features[i])
				if missing := unnamed(last[i], state, &changes); len(missing) > 0 {
					t.Fatalf("changed but not named: %v", missing)
				}
				last[i] = state
				all = append(all, handedOut{state, clone(t, state)})
			}
			if attached {
				fresh := newDesired(func(*Changes) {})
				fresh.beginSync()
				if err := fresh.apply(w.snapshot()); err != nil {
					t.Fatal(err)
				}
				if diff := diffStates(fresh.state(), d.state()); diff != "" {
					t.Fatalf("state is not that of a fresh snapshot (-snapshot +state):\n%s", diff)
				}
			}
		}
		for _, s := range all {
			if diff := diffStates(s.copied, s.given); diff != "" {
				t.Fatalf("a state changed after it was handed out:\n%s", diff)
			}
		}
	})
}

func TestDeltaForUnknownObjectAsksForANewStream(t *testing.T) {
	d := newDesired(func(*Changes) {})
	d.beginSync()
	err := d.apply(&feed.ServerMessage{AddressSetDeltas: []*feed.AddressSetDelta{{Id: "s", Version: 2, Adds: []string{"10.0.0.1"}}}, Synced: true})
	if err == nil || d.state() != nil {
		t.Fatalf("error %v, state %v; want an error and no state", err, d.state())
	}
	if have := d.beginSync(); len(have) != 0 {
		t.Fatalf("holds %v", have)
	}
}

func TestUnknownKindOfObjectIsLeftOut(t *testing.T) {
	d := newDesired(func(*Changes) {})
	d.beginSync()
	err := d.apply(&feed.ServerMessage{Synced: true, Upserts: []*feed.Object{
		{Version: 1}, {Version: 2, Body: &feed.Object_Port{Port: &feed.Port{Id: "p"}}}}})
	if err == nil {
		t.Error("no error")
	}
	if s := d.state(); s == nil || len(s.Ports) != 1 {
		t.Fatalf("state %v, want port p", s)
	}
}

// BenchmarkOneAddressOfTenThousand is a delta to a set that a feature has seen:
// the set is copied.
func BenchmarkOneAddressOfTenThousand(b *testing.B) {
	d := newDesired(func(*Changes) {})
	sub := d.subscribe()
	set := &feed.AddressSet{Id: "s"}
	for i := range 10000 {
		set.Addresses = append(set.Addresses, fmt.Sprintf("10.0.%d.%d", i/256, i%256))
	}
	d.beginSync()
	d.apply(&feed.ServerMessage{Synced: true, Upserts: []*feed.Object{{Version: 1, Body: &feed.Object_AddressSet{AddressSet: set}}}})
	for i := range b.N {
		d.take(sub)
		delta := &feed.AddressSetDelta{Id: "s", Version: uint64(i + 2), Adds: []string{"10.1.0.1"}}
		if i%2 == 1 {
			delta.Adds, delta.Deletes = nil, delta.Adds
		}
		if err := d.apply(&feed.ServerMessage{AddressSetDeltas: []*feed.AddressSetDelta{delta}}); err != nil {
			b.Fatal(err)
		}
	}
}
