package simulate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// key names one object of the feed.
type key struct {
	kind feed.Kind
	id   string
}

// item is what a host remembers of an object.
type item struct {
	version  uint64
	revision int64
	down     bool // administratively
	// dhcp is a network's DHCP port, which every host of the network has.
	dhcp *dhcpPort
}

type dhcpPort struct {
	id       string
	revision int64
	down     bool
}

// host is one of a fleet.
type host struct {
	fleet     *Fleet
	number    int
	name      string
	functions []*feed.Function

	mu   sync.Mutex
	have map[key]item
	// due are reports that are not yet sent on this stream.
	due  []*feed.Applied
	wake chan struct{} // cap 1; something is due
}

type clientStream = connect.BidiStreamForClient[feed.AgentMessage, feed.ServerMessage]

// follow keeps the host attached until ctx ends.
func (h *host) follow(ctx context.Context) {
	servers := h.fleet.options.Servers
	order := rand.Perm(len(servers))
	for attempt, failures := 0, 0; ctx.Err() == nil; attempt++ {
		begin := time.Now()
		synced, err := h.attach(ctx, servers[order[attempt%len(order)]])
		if ctx.Err() != nil {
			return
		}
		if synced && time.Since(begin) > h.fleet.options.ReconnectMax {
			failures = 0
		}
		pause := h.fleet.pause(failures)
		failures++
		h.fleet.options.Logger.Debug("not attached to the server", "host", h.name, "error", err, "retry_in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// attach opens a stream and serves it until it breaks.
func (h *host) attach(ctx context.Context, server string) (synced bool, err error) {
	client, closeIdle, err := runtime.NewClient(server, func() (*tls.Config, error) {
		if h.fleet.options.Certificates == nil {
			return nil, errors.New("https needs certificates")
		}
		return h.fleet.options.Certificates(h.name)
	})
	if err != nil {
		return false, err
	}
	defer closeIdle()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := client.Attach(ctx)
	hello := &feed.Hello{Host: h.name, Functions: h.functions, BinaryVersion: "simulated", Started: h.fleet.started.Unix()}
	h.mu.Lock()
	h.due = nil
	for k, it := range h.have {
		hello.Have = append(hello.Have, &feed.Held{Kind: k.kind, Id: k.id, Version: it.version})
		h.due = it.reports(h.due, k) // all that is known, on a new stream
	}
	h.mu.Unlock()
	signal(h.wake)
	received := make(chan error, 1)
	go func() {
		defer cancel()
		received <- h.receive(stream, &synced)
	}()
	sendErr := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Hello{Hello: hello}})
	if sendErr == nil {
		sendErr = h.send(ctx, stream)
	}
	cancel()
	err = <-received
	if synced {
		h.fleet.synced.Add(-1)
	}
	if sendErr != nil && !errors.Is(sendErr, context.Canceled) {
		err = errors.Join(sendErr, err)
	}
	return synced, err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// receive takes messages until the stream ends.
func (h *host) receive(stream *clientStream, synced *bool) error {
	defer stream.CloseResponse()
	f := h.fleet
	for first := true; ; first = false {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		if first {
			f.counted[countAttaches].Add(1)
		}
		f.counted[countMessages].Add(1)
		f.counted[countBytes].Add(int64(proto.Size(m)))
		f.counted[countObjects].Add(int64(len(m.Upserts) + len(m.Deletes)))
		if err := h.apply(m); err != nil {
			return err
		}
		if f.options.Told != nil {
			f.options.Told(h.number, m)
		}
		if m.Synced && !*synced {
			*synced = true
			f.synced.Add(1)
		}
	}
}

// apply remembers what a message says.
func (h *host) apply(m *feed.ServerMessage) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := len(h.due)
	for _, o := range m.Upserts {
		k, it := remembered(o)
		if k.id == "" {
			return fmt.Errorf("an object of unknown kind, version %x", o.Version)
		}
		h.have[k] = it
		h.due = it.reports(h.due, k)
	}
	for _, d := range m.Deletes {
		delete(h.have, key{d.Kind, d.Id})
	}
	elements := 0
	set := func(kind feed.Kind, id string, version uint64, n int) error {
		k := key{kind, id}
		it, ok := h.have[k]
		if !ok {
			return fmt.Errorf("a delta for %v %s, which is not held", kind, id)
		}
		it.version = version
		h.have[k] = it
		elements += n
		return nil
	}
	for _, d := range m.ForwardingDeltas {
		if err := set(feed.Kind_KIND_FORWARDING, d.NetworkId, d.Version, len(d.Upserts)+len(d.DeletePortIds)); err != nil {
			return err
		}
	}
	for _, d := range m.AddressSetDeltas {
		if err := set(feed.Kind_KIND_ADDRESS_SET, d.Id, d.Version, len(d.Adds)+len(d.Deletes)); err != nil {
			return err
		}
	}
	h.fleet.counted[countElements].Add(int64(elements))
	if len(h.due) > before {
		signal(h.wake)
	}
	return nil
}

// remembered is what a host keeps of an object.
func remembered(o *feed.Object) (key, item) {
	kind, id := o.KindAndID()
	it := item{version: o.Version}
	switch b := o.Body.(type) {
	case *feed.Object_Port:
		it.revision, it.down = b.Port.Revision, !b.Port.AdminStateUp
	case *feed.Object_Network:
		if p := b.Network.DhcpPort; p != nil {
			it.dhcp = &dhcpPort{p.Id, p.Revision, !p.AdminStateUp}
		}
	case *feed.Object_Router:
		it.revision = b.Router.Revision
	case *feed.Object_Trunk:
		it.revision = b.Trunk.Revision
	}
	return key{kind, id}, it
}

// reports adds what a host says of an object that it has applied.
func (it item) reports(to []*feed.Applied, k key) []*feed.Applied {
	report := func(kind feed.Kind, id, agentType string, revision int64, down bool) {
		state := feed.State_STATE_ACTIVE
		if down {
			state = feed.State_STATE_DOWN
		}
		to = append(to, &feed.Applied{Kind: kind, Id: id, Revision: revision, AgentType: agentType, State: state})
	}
	switch k.kind {
	case feed.Kind_KIND_PORT:
		report(k.kind, k.id, switchAgent, it.revision, it.down)
		report(k.kind, k.id, dhcpAgent, it.revision, false)
	case feed.Kind_KIND_NETWORK:
		if it.dhcp != nil {
			report(feed.Kind_KIND_PORT, it.dhcp.id, switchAgent, it.dhcp.revision, it.dhcp.down)
		}
	case feed.Kind_KIND_TRUNK:
		report(k.kind, k.id, switchAgent, it.revision, false)
	case feed.Kind_KIND_ROUTER:
		report(k.kind, k.id, l3Agent, it.revision, false)
	}
	return to
}

// send reports and beats until ctx or the stream ends.
func (h *host) send(ctx context.Context, stream *clientStream) error {
	defer stream.CloseRequest()
	// Hosts that came together do not beat together.
	interval := h.fleet.options.ReportInterval
	heartbeat := time.NewTimer(rand.N(interval) + 1)
	defer heartbeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-heartbeat.C:
			heartbeat.Reset(interval)
			if err := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Heartbeat{Heartbeat: &feed.Heartbeat{}}}); err != nil {
				return err
			}
		case <-h.wake:
			h.mu.Lock()
			due := h.due
			h.due = nil
			h.mu.Unlock()
			if len(due) == 0 {
				continue
			}
			if err := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Report{Report: &feed.Report{Applied: due}}}); err != nil {
				return err
			}
		}
	}
}
