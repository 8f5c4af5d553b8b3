package servertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	message "isospin/api/feed"
	"isospin/api/feed/feedconnect"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// LastSequence is the number of the last committed event.
func (s *Server) LastSequence(t testing.TB) (last int64) {
	t.Helper()
	if err := s.Store.View(context.Background(), func(tx *store.Tx) (err error) {
		last, err = tx.LastSequence()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return last
}

// OpenVSwitch is the function of a host that binds ports, with tunnels and physnet1.
func OpenVSwitch(tunnelIP string) *message.Function {
	return &message.Function{AgentType: "Open vSwitch agent", Binary: "neutron-openvswitch-agent", Topic: "N/A", AvailabilityZone: "nova",
		Configurations: fmt.Sprintf(`{"tunneling_ip": %q, "tunnel_types": ["vxlan", "gre", "geneve"], "bridge_mappings": {"physnet1": "br-ex"}, "integration_bridge": "br-int", "datapath_type": "system"}`, tunnelIP)}
}

// Host is an agent's end of the feed: it holds what it was told, in the
// plainest way, and goes on from there when it attaches again.
type Host struct {
	Name      string
	Functions []*message.Function
	// Started is when the host says that its agent was started, in Unix seconds; 0: it does not say.
	Started int64

	server    *Server
	transport *http.Transport

	mu       sync.Mutex
	objects  map[feed.Key]*message.Object
	admin    map[string]bool
	sequence int64
	synced   bool
	messages int
	faults   []error

	stream *connect.BidiStreamForClient[message.AgentMessage, message.ServerMessage]
	end    context.CancelFunc
	conn   net.Conn
	done   chan struct{}
}

// Host returns a host that is not attached yet.
func (s *Server) Host(name string, functions ...*message.Function) *Host {
	return &Host{Name: name, Functions: functions, server: s, objects: map[feed.Key]*message.Object{}}
}

// Attach opens the stream, telling what the host holds, and waits until it has all that it needs.
func (h *Host) Attach(t testing.TB) {
	t.Helper()
	if err := h.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Detach)
	Eventually(t, "host "+h.Name+" has its view", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.synced
	})
}

// Open opens the stream and returns at once.
func (h *Host) Open() error {
	h.transport = &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	h.transport.Protocols.SetUnencryptedHTTP2(true)
	h.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", h.server.Feed)
		if err == nil {
			h.mu.Lock()
			h.conn = conn
			h.mu.Unlock()
		}
		return conn, err
	}
	ctx, end := context.WithCancel(context.Background())
	h.end, h.done = end, make(chan struct{})
	h.stream = feedconnect.NewFeedClient(&http.Client{Transport: h.transport}, "http://feed").Attach(ctx)
	hello := &message.Hello{Host: h.Name, Functions: h.Functions, Started: h.Started}
	h.mu.Lock()
	h.synced = false
	for key, o := range h.objects {
		hello.Have = append(hello.Have, &message.Held{Kind: key.Kind, Id: key.ID, Version: o.Version})
	}
	h.mu.Unlock()
	if err := h.stream.Send(&message.AgentMessage{Body: &message.AgentMessage_Hello{Hello: hello}}); err != nil {
		end()
		close(h.done)
		return err
	}
	stream, done := h.stream, h.done
	go func() {
		defer close(done)
		for {
			m, err := stream.Receive()
			if err != nil {
				return
			}
			h.apply(m)
		}
	}()
	return nil
}

// Move makes a detached host attach to another server from then on, with what it
// holds. The other's database may be another one, whose numbers begin anew.
func (h *Host) Move(s *Server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.server, h.sequence = s, 0
}

// Detach ends the stream; what the host holds stays.
func (h *Host) Detach() {
	if h.end == nil {
		return
	}
	h.end()
	// The end of the context alone does not end a stream whose request is still open.
	h.mu.Lock()
	if h.conn != nil {
		h.conn.Close()
	}
	h.mu.Unlock()
	<-h.done
	h.transport.CloseIdleConnections()
	h.end = nil
}

// Ended is closed when the stream has ended.
func (h *Host) Ended() <-chan struct{} { return h.done }

// Report tells the server what became of objects.
func (h *Host) Report(applied ...*message.Applied) error {
	if h.end == nil {
		return errors.New("host " + h.Name + " is not attached")
	}
	return h.stream.Send(&message.AgentMessage{Body: &message.AgentMessage_Report{Report: &message.Report{Applied: applied}}})
}

// Heartbeat tells that the host lives; functions are those whose configuration has changed.
func (h *Host) Heartbeat(functions ...*message.Function) error {
	return h.stream.Send(&message.AgentMessage{Body: &message.AgentMessage_Heartbeat{Heartbeat: &message.Heartbeat{Functions: functions}}})
}

// Objects returns what the host holds.
func (h *Host) Objects() map[feed.Key]*message.Object {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.objects)
}

// Port returns a port that the host holds, nil when it does not.
func (h *Host) Port(id string) *message.Port {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.objects[feed.Key{Kind: message.Kind_KIND_PORT, ID: id}].GetPort()
}

// Sequence is that of the last message; messages counts them.
func (h *Host) Sequence() (sequence int64, messages int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sequence, h.messages
}

// Faults are the messages that made no sense, such as a delta for what is not held.
func (h *Host) Faults() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.faults...)
}

func (h *Host) apply(m *message.ServerMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fault := func(format string, args ...any) {
		h.faults = append(h.faults, fmt.Errorf("host %s, message at %d: %s", h.Name, m.Sequence, fmt.Sprintf(format, args...)))
	}
	if m.Sequence < h.sequence {
		fault("the sequence goes back from %d", h.sequence)
	}
	h.sequence = m.Sequence
	h.messages++
	for _, o := range m.Upserts {
		kind, id := o.KindAndID()
		h.objects[feed.Key{Kind: kind, ID: id}] = o
	}
	for _, k := range m.Deletes {
		key := feed.Key{Kind: k.Kind, ID: k.Id}
		if h.objects[key] == nil {
			fault("deletes %v, which is not held", key)
		}
		delete(h.objects, key)
	}
	for _, d := range m.ForwardingDeltas {
		key := feed.Key{Kind: message.Kind_KIND_FORWARDING, ID: d.NetworkId}
		o := h.objects[key]
		if o == nil {
			fault("changes %v, which is not held", key)
			continue
		}
		entries := map[string]*message.ForwardingEntry{}
		for _, e := range o.GetForwarding().Entries {
			entries[e.PortId] = e
		}
		for _, id := range d.DeletePortIds {
			delete(entries, id)
		}
		for _, e := range d.Upserts {
			entries[e.PortId] = e
		}
		f := &message.Forwarding{NetworkId: d.NetworkId}
		for _, id := range sorted(entries) {
			f.Entries = append(f.Entries, entries[id])
		}
		h.objects[key] = &message.Object{Version: d.Version, Body: &message.Object_Forwarding{Forwarding: f}}
	}
	for _, d := range m.AddressSetDeltas {
		key := feed.Key{Kind: message.Kind_KIND_ADDRESS_SET, ID: d.Id}
		o := h.objects[key]
		if o == nil {
			fault("changes %v, which is not held", key)
			continue
		}
		set := map[string]struct{}{}
		for _, a := range o.GetAddressSet().Addresses {
			set[a] = struct{}{}
		}
		for _, a := range d.Deletes {
			delete(set, a)
		}
		for _, a := range d.Adds {
			set[a] = struct{}{}
		}
		h.objects[key] = &message.Object{Version: d.Version, Body: &message.Object_AddressSet{AddressSet: &message.AddressSet{Id: d.Id, Addresses: sorted(set)}}}
	}
	if len(m.AdminStateUp) > 0 {
		if h.admin == nil {
			h.admin = map[string]bool{}
		}
		maps.Copy(h.admin, m.AdminStateUp)
	}
	h.synced = h.synced || m.Synced
}

// Differs tells how what the host holds differs from what the hub says it must hold; empty: not at all.
func (h *Host) Differs() string {
	want, have := h.server.Hub.Snapshot(h.Name), h.Objects()
	for key, o := range want {
		switch mine := have[key]; {
		case mine == nil:
			return fmt.Sprintf("host %s lacks %v", h.Name, key)
		case mine.Version != o.Version:
			return fmt.Sprintf("host %s has version %x of %v, the hub %x:\nhost %v\nhub  %v", h.Name, mine.Version, key, o.Version, mine, o)
		case !proto.Equal(mine, o):
			return fmt.Sprintf("host %s has, of one version, another %v:\nhost %v\nhub  %v", h.Name, key, mine, o)
		}
	}
	for key := range have {
		if want[key] == nil {
			return fmt.Sprintf("host %s still has %v", h.Name, key)
		}
	}
	return ""
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
