package feed_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
	"isospin/test/servertest"
)

// another is a hub of another server on the same database, as it is when it has started.
func another(t *testing.T, s *servertest.Server) *feed.Hub {
	t.Helper()
	h := feed.New(feed.Options{Store: s.Store, Logger: slog.New(slog.DiscardHandler)})
	h.ProjectCore(feed.Services{Networks: s.Core.Networks, Subnets: s.Core.Subnets, Ports: s.Core.Ports, Agents: s.Core.Agents})
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// follows runs the hub until the returned function ends it.
func follows(t *testing.T, h *feed.Hub) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.Run(ctx) })
	end := func() { cancel(); running.Wait() }
	t.Cleanup(end)
	if err := h.Current(t.Context()); err != nil {
		t.Fatal(err)
	}
	return end
}

func equalViews(t *testing.T, what string, have, want map[feed.Key]*message.Object) {
	t.Helper()
	for key, o := range want {
		if !proto.Equal(have[key], o) {
			t.Errorf("%s: %v is\n%v\nnot\n%v", what, key, have[key], o)
		}
	}
	for key := range have {
		if want[key] == nil {
			t.Errorf("%s: %v is too much", what, key)
		}
	}
}

// takes applies a stream's messages to what a host holds, up to synced and then all that are due.
func takes(t *testing.T, stream *feed.Stream, held map[feed.Key]uint64) {
	t.Helper()
	for m := stream.Due(); m != nil; m = stream.Due() {
		for _, o := range m.Upserts {
			held[keyOf(t, o)] = o.Version
		}
		for _, key := range m.Deletes {
			delete(held, feed.Key{Kind: key.Kind, ID: key.Id})
		}
		for _, d := range m.ForwardingDeltas {
			held[feed.Key{Kind: message.Kind_KIND_FORWARDING, ID: d.NetworkId}] = d.Version
		}
	}
}

func keyOf(t *testing.T, o *message.Object) feed.Key {
	t.Helper()
	switch body := o.Body.(type) {
	case *message.Object_Port:
		return feed.Key{Kind: message.Kind_KIND_PORT, ID: body.Port.Id}
	case *message.Object_Network:
		return feed.Key{Kind: message.Kind_KIND_NETWORK, ID: body.Network.Id}
	case *message.Object_Forwarding:
		return feed.Key{Kind: message.Kind_KIND_FORWARDING, ID: body.Forwarding.NetworkId}
	}
	t.Fatalf("a host is told of %v", o)
	return feed.Key{}
}

// TestMissed: a server that was away for so long that changes were trimmed
// reads everything anew; a host that it serves is told what differs.
func TestMissed(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	for i := range 2 {
		s.Host(fmt.Sprintf("h%d", i), servertest.OpenVSwitch(fmt.Sprintf("198.51.100.%d", i+1))).Attach(t)
	}
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/subnets", `{"subnet": {"ip_version": 4, "cidr": "192.0.2.0/24", "network_id": "`+network+`"}}`)
	port := func(host string) string {
		return s.Must(t, 201, "POST", "/ports", `{"port": {"device_owner": "compute:nova", "binding:host_id": "`+host+`", "network_id": "`+network+`"}}`)["id"].(string)
	}
	goes, changes := port("h0"), port("h0")
	port("h1")
	h := another(t, s)
	var skipped []int64
	h.OnSkip(func(sequence int64) { skipped = append(skipped, sequence) })
	var observed []store.Event
	h.Observe(func(events []store.Event) { observed = append(observed, events...) })
	stream, first := h.Open("h0", nil)
	defer stream.Close()
	held := map[feed.Key]uint64{}
	for _, o := range first.GetUpserts() {
		held[keyOf(t, o)] = o.Version
	}
	takes(t, stream, held)

	s.Must(t, 204, "DELETE", "/ports/"+goes, "")
	s.Must(t, 200, "PUT", "/ports/"+changes, `{"port": {"admin_state_up": false}}`)
	port("h0")
	port("h1")
	if err := s.Store.Tx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.TrimEvents(time.Now().Add(time.Hour).UnixMilli(), 1000)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	follows(t, h)
	last := s.LastSequence(t)
	if len(skipped) != 1 || h.Sequence() < last || skipped[0] > last {
		t.Errorf("skipped to %v, now at %d; the last event is %d", skipped, h.Sequence(), last)
	}
	for _, e := range observed {
		if e.Sequence <= skipped[0] {
			t.Errorf("observers got event %d after what was skipped to", e.Sequence)
		}
	}
	fresh := another(t, s)
	for _, host := range []string{"h0", "h1"} {
		equalViews(t, host, h.Snapshot(host), fresh.Snapshot(host))
	}
	takes(t, stream, held)
	want := fresh.Snapshot("h0")
	for key, version := range held {
		if want[key].GetVersion() != version {
			t.Errorf("the host holds version %d of %v, not %d", version, key, want[key].GetVersion())
		}
	}
	if len(held) != len(want) {
		t.Errorf("the host holds %d objects, not %d", len(held), len(want))
	}
	port("h0")
	if err := h.Current(t.Context()); err != nil || h.Sequence() < s.LastSequence(t) {
		t.Errorf("afterwards: %v, at %d", err, h.Sequence())
	}
}

// TestLost: a database that forgot its latest commits and gave their numbers
// again is noticed, and what is there now counts.
func TestLost(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	s.Host("h0", servertest.OpenVSwitch("198.51.100.1")).Attach(t)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/subnets", `{"subnet": {"ip_version": 4, "cidr": "192.0.2.0/24", "network_id": "`+network+`"}}`)
	port := func(name string) string {
		return s.Must(t, 201, "POST", "/ports", `{"port": {"name": "`+name+`", "device_owner": "compute:nova", "binding:host_id": "h0", "network_id": "`+network+`"}}`)["id"].(string)
	}
	lost, other := port("before"), port("before")
	h := another(t, s)
	end := follows(t, h)
	s.Must(t, 200, "PUT", "/ports/"+lost, `{"port": {"name": "after"}}`)
	if err := h.Current(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := func(id string) string {
		return h.Snapshot("h0")[feed.Key{Kind: message.Kind_KIND_PORT, ID: id}].GetPort().GetName()
	}
	if name(lost) != "after" {
		t.Fatalf("the port is called %q", name(lost))
	}
	end()
	at := h.Sequence()
	if err := s.Store.Tx(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec("UPDATE port SET name = ? WHERE id = ?", "before", lost); err != nil {
			return err
		}
		_, err := tx.Exec("DELETE FROM event WHERE seq = ?", at)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.Must(t, 200, "PUT", "/ports/"+other, `{"port": {"name": "another"}}`)
	follows(t, h)
	if name(lost) != "before" || name(other) != "another" {
		t.Errorf("the ports are called %q and %q", name(lost), name(other))
	}
	equalViews(t, "h0", h.Snapshot("h0"), another(t, s).Snapshot("h0"))
}
