package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	message "isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/feed"
	"isospin/internal/server"
	"isospin/internal/store"
)

// stored is an object as the API shows it.
type stored struct {
	ID, Name, Description, Status string
	Revision                      int64  `json:"revision_number"`
	Host                          string `json:"binding:host_id"`
	VIF                           string `json:"binding:vif_type"`
	Owner                         string `json:"device_owner"`
	NetworkID                     string `json:"network_id"`
	MAC                           string `json:"mac_address"`
	Type                          string `json:"provider:network_type"`
	Segment                       *int64 `json:"provider:segmentation_id"`
	Subnets                       []string
	FixedIPs                      []struct {
		Subnet  string `json:"subnet_id"`
		Address string `json:"ip_address"`
	} `json:"fixed_ips"`
}

// Kinds that are compared with their events.
var compared = []string{"network", "subnet", "port", "router", "security_group", "security_group_rule"}

func (w *world) list(ctx context.Context, kind string) (map[string]stored, error) {
	path := map[string]string{"security_group": "/security-groups", "security_group_rule": "/security-group-rules"}[kind]
	if path == "" {
		path = "/" + plural(kind)
	}
	var got map[string][]stored
	if err := w.ask(ctx, w.replicas[0], http.MethodGet, path, nil, &got); err != nil {
		return nil, err
	}
	all := map[string]stored{}
	for _, o := range got[plural(kind)] {
		all[o.ID] = o
	}
	return all, nil
}

// portsActive: each port of an instance is wired on its host.
func (w *world) portsActive(ctx context.Context) error {
	ports, err := w.list(ctx, "port")
	if err != nil {
		return err
	}
	waiting := 0
	var one stored
	for _, p := range ports {
		if p.Host != "" && p.Owner == "compute:nova" && (p.Status != "ACTIVE" || p.VIF != "ovs") {
			waiting++
			one = p
		}
	}
	if waiting > 0 {
		return fmt.Errorf("%d of %d ports are not ACTIVE, %s of %s is %s (%s)", waiting, len(ports), one.ID, one.Host, one.Status, one.VIF)
	}
	return nil
}

// check compares everything that is known, and returns the number of changes.
func (w *world) check(ctx context.Context, clients []*client, followers []*follower, since int64) (int, error) {
	all := map[string]map[string]stored{}
	for _, kind := range compared {
		var err error
		if all[kind], err = w.list(ctx, kind); err != nil {
			return 0, err
		}
	}
	for _, c := range clients {
		w.checkObjects(c, all)
	}
	w.checkUnique(all)
	events, err := w.events(ctx)
	if err != nil {
		return 0, err
	}
	w.checkEvents(all, events)
	for _, f := range followers {
		w.checkFollower(f, events, since)
	}
	w.checkNotices(events)
	return len(events), w.checkHosts(ctx)
}

// checkObjects: what was acknowledged is there, what was not is there whole or not at all.
func (w *world) checkObjects(c *client, all map[string]map[string]stored) {
	names := map[string]map[string]stored{}
	for kind, objects := range all {
		names[kind] = map[string]stored{}
		for _, o := range objects {
			names[kind][o.Name] = o
		}
	}
	for _, o := range c.objects {
		have, there := all[o.kind][o.id]
		if o.parent != nil && (o.parent.deleted || o.parent.maybeDeleted) {
			continue
		}
		if !o.made {
			if o.name == "" { // rules have none
				continue
			}
			have, there = names[o.kind][o.name]
		}
		switch {
		case o.deleted && there:
			w.find("%s %s (%s) is there, its deletion was acknowledged", o.kind, have.ID, o.name)
		case o.made && !there && !o.deleted && !o.maybeDeleted:
			w.find("%s %s (%s) is lost, its creation was acknowledged", o.kind, o.id, o.name)
		case there && !slices.Contains(o.descriptions, have.Description):
			w.find("%s %s (%s) has the description %q; one of %q was written", o.kind, have.ID, o.name, have.Description, o.descriptions)
		}
		if there && o.kind == "port" && len(have.FixedIPs) == 0 && slices.Contains(w.networks, have.NetworkID) {
			w.find("port %s (%s) has no address", have.ID, o.name)
		}
		if there && o.kind == "network" && (have.Segment == nil || have.Type != "vxlan") {
			w.find("network %s (%s) has no segment", have.ID, o.name)
		}
		if !o.made && len(o.together) > 0 {
			n := 0
			for _, name := range o.together {
				if _, ok := names[o.kind][name]; ok {
					n++
				}
			}
			if n != 0 && n != len(o.together) {
				w.find("of %q, created by one request, there are %d", o.together, n)
			}
		}
	}
}

// checkUnique: no address, MAC address or segment is given twice.
func (w *world) checkUnique(all map[string]map[string]stored) {
	given := map[string]string{}
	give := func(id, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		if other, taken := given[what]; taken {
			w.find("%s is both %s's and %s's", what, other, id)
		}
		given[what] = id
	}
	for _, p := range all["port"] {
		give(p.ID, "MAC address %s of network %s", p.MAC, p.NetworkID)
		for _, f := range p.FixedIPs {
			give(p.ID, "address %s of subnet %s", f.Address, f.Subnet)
		}
	}
	for _, n := range all["network"] {
		if n.Segment != nil {
			give(n.ID, "segment %s %d", n.Type, *n.Segment)
		}
	}
}

func (w *world) events(ctx context.Context) ([]store.Event, error) {
	var events []store.Event
	for {
		var page []store.Event
		after := int64(0)
		if len(events) > 0 {
			after = events[len(events)-1].Sequence
		}
		if err := w.store.View(ctx, func(tx *store.Tx) (err error) {
			page, err = tx.Events(after, 1000)
			return err
		}); err != nil {
			return nil, err
		}
		events = append(events, page...)
		if len(page) < 1000 {
			return events, nil
		}
	}
}

// checkEvents: the changes make what is there, and nothing else.
func (w *world) checkEvents(all map[string]map[string]stored, events []store.Event) {
	for _, kind := range compared {
		made := map[string]int64{}
		for _, e := range events {
			if e.Kind != kind {
				continue
			}
			before, there := made[e.ID]
			switch {
			case e.Op == store.Created && there:
				w.find("event %d: %s %s comes that is there", e.Sequence, kind, e.ID)
			case e.Op != store.Created && !there && kind != "security_group" && kind != "security_group_rule":
				w.find("event %d: %s of %s %s that is not there", e.Sequence, e.Op, kind, e.ID)
			case there && e.Op == store.Updated && e.Revision < before:
				w.find("event %d: %s %s goes from revision %d to %d", e.Sequence, kind, e.ID, before, e.Revision)
			}
			made[e.ID] = e.Revision
			if e.Op == store.Deleted {
				delete(made, e.ID)
			}
		}
		for id, o := range all[kind] {
			if revision, ok := made[id]; !ok || revision != o.Revision {
				w.find("%s %s has revision %d, by the changes %d", kind, id, o.Revision, revision)
			}
		}
		for id := range made {
			if _, ok := all[kind][id]; !ok {
				w.find("%s %s is not there, by the changes it is", kind, id)
			}
		}
	}
}

// checkFollower: who follows the changes through one server got each once, in order.
func (w *world) checkFollower(f *follower, events []store.Event, since int64) {
	shown := map[string]bool{}
	for _, s := range f.seen {
		shown[s.kind] = true
	}
	var want []seen
	for _, e := range events {
		if e.Sequence > since && shown[e.Kind] {
			want = append(want, seen{e.Sequence, e.Kind, e.ID})
		}
	}
	if slices.Equal(f.seen, want) {
		return
	}
	for i := range max(len(want), len(f.seen)) {
		if i >= len(want) || i >= len(f.seen) || want[i] != f.seen[i] {
			at := func(list []seen) any {
				if i < len(list) {
					return list[i]
				}
				return "nothing"
			}
			w.find("a watch of %s saw %d changes of %d; the first that differs is %v, not %v", f.replica.name, len(f.seen), len(want), at(f.seen), at(want))
			return
		}
	}
}

// checkNotices: Nova knows the state of each port, in order; what it was told
// again is counted, and may be as much as there were faults.
func (w *world) checkNotices(events []store.Event) {
	want, status := map[string][]string{}, map[string]string{}
	for _, e := range events {
		if e.Kind != "port" {
			continue
		}
		var data struct {
			Status      string `json:"status"`
			DeviceOwner string `json:"device_owner"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil || data.DeviceOwner != "compute:nova" {
			continue
		}
		was := status[e.ID]
		switch {
		case e.Op == store.Deleted:
			want[e.ID] = append(want[e.ID], "network-vif-deleted")
		case was != "ACTIVE" && data.Status == "ACTIVE":
			want[e.ID] = append(want[e.ID], "network-vif-plugged")
		case was == "ACTIVE" && data.Status == "DOWN":
			want[e.ID] = append(want[e.ID], "network-vif-unplugged")
		}
		status[e.ID] = data.Status
	}
	got, next := map[string][]string{}, map[string]int{}
	again := map[int]bool{}
	for _, n := range w.nova.all() {
		if n.Name == "network-changed" {
			continue
		}
		got[n.Tag] = append(got[n.Tag], n.Name)
		// In order, but what is about a port that is deleted soon after may be left out.
		switch at, all := next[n.Tag], want[n.Tag]; {
		case at < len(all) && all[at] == n.Name:
			next[n.Tag]++
		case at < len(all) && n.Name == "network-vif-deleted":
			next[n.Tag] = len(all)
		default:
			again[n.request] = true
			w.nova.repeated++
		}
	}
	if len(again) > len(w.faults) {
		w.find("%d messages to Nova were repetitions, there were %d faults", len(again), len(w.faults))
	}
	for id, names := range want {
		last := names[len(names)-1]
		if n := len(got[id]); n == 0 || got[id][n-1] != last {
			w.find("Nova was told %q of port %s, not %q", got[id], id, names)
			continue
		}
		// What was left out was about a port that was deleted soon after.
		if last != "network-vif-deleted" && len(got[id]) < len(names) {
			w.find("Nova was told %q of port %s, not %q", got[id], id, names)
		}
	}
	for id := range got {
		if want[id] == nil {
			w.find("Nova was told %q of port %s, which was never there", got[id], id)
		}
	}
}

// checkHosts: each host holds what a server computes of the database that has followed no change.
func (w *world) checkHosts(ctx context.Context) error {
	text := fmt.Sprintf("[DEFAULT]\nauth_strategy = noauth\nbind_port = 0\n[database]\nconnection = %s\n[isospin]\nfeed_listen = unix:%s\n", w.database.direct(), filepath.Join(w.dir, "fresh.sock"))
	c, err := config.FromText(text)
	if err != nil {
		return err
	}
	var wrong []string
	deadline := time.Now().Add(w.o.Settle)
	for {
		fresh, err := server.New(ctx, server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		wrong = nil
		for i := range w.o.Hosts {
			host := fmt.Sprintf("%s%d", hostPrefix, i+1)
			wrong = append(wrong, differences(host, fresh.Hub.Snapshot(host), w.stateOf(host))...)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := fresh.Run(ended); err != nil {
			return err
		}
		if len(wrong) == 0 {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			break
		}
		pause(ctx, time.Second)
	}
	for _, text := range wrong[:min(len(wrong), 10)] {
		w.find("%s", text)
	}
	if len(wrong) > 10 {
		w.find("… and %d more differences of hosts", len(wrong)-10)
	}
	return nil
}

// differences between what a host must hold and what it does.
func differences(host string, want map[feed.Key]*message.Object, have *runtime.State) []string {
	if have == nil {
		return []string{host + " was told nothing"}
	}
	var list []string
	count := 0
	for key, o := range want {
		var there bool
		switch body := o.Body.(type) {
		case *message.Object_Port:
			there = same(have.Ports, key.ID, body.Port)
		case *message.Object_Network:
			there = same(have.Networks, key.ID, body.Network)
		case *message.Object_SecurityGroup:
			there = same(have.SecurityGroups, key.ID, body.SecurityGroup)
		case *message.Object_Router:
			there = same(have.Routers, key.ID, body.Router)
		case *message.Object_Forwarding:
			t := have.Forwarding[key.ID]
			there = t != nil && len(t.Entries) == len(body.Forwarding.Entries)
			for _, e := range body.Forwarding.Entries {
				there = there && same(t.Entries, e.PortId, e)
			}
		case *message.Object_AddressSet:
			s := have.AddressSets[key.ID]
			there = s != nil && len(s.Addresses) == len(body.AddressSet.Addresses)
			for _, a := range body.AddressSet.Addresses {
				if there {
					_, there = s.Addresses[a]
				}
			}
		default:
			continue
		}
		count++
		if !there {
			list = append(list, fmt.Sprintf("%s does not hold %v %s as it is", host, key.Kind, key.ID))
		}
	}
	held := len(have.Ports) + len(have.Networks) + len(have.SecurityGroups) + len(have.Routers) + len(have.Forwarding) + len(have.AddressSets)
	if held != count && len(list) == 0 {
		list = append(list, fmt.Sprintf("%s holds %d objects, not %d", host, held, count))
	}
	return list
}

func same[M proto.Message](have map[string]M, id string, want M) bool {
	m, ok := have[id]
	return ok && proto.Equal(m, want)
}
