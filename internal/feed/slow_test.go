package feed_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	message "isospin/api/feed"
	"isospin/api/feed/feedconnect"
	"isospin/internal/feed"
	"isospin/test/servertest"
)

func portOn(t *testing.T, s *servertest.Server, network, host, more string) string {
	t.Helper()
	return s.Must(t, 201, "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q, "binding:host_id": %q, "device_owner": "compute:nova"%s}}`, network, host, more))["id"].(string)
}

func networkOf(t *testing.T, s *servertest.Server, cidr string) string {
	t.Helper()
	n := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": %q}}`, n, cidr))
	return n
}

// TestQuietRestart: hosts that miss nothing are told nothing by a server that
// starts again: one message, which says so.
func TestQuietRestart(t *testing.T) {
	const hosts = 20
	dir := t.TempDir()
	s := servertest.StartIn(t, dir, servertest.Networks)
	var list []*servertest.Host
	for i := range hosts {
		h := s.Host(fmt.Sprint("h", i), servertest.OpenVSwitch(fmt.Sprintf("192.0.2.%d", i+1)))
		h.Attach(t)
		list = append(list, h)
	}
	network := networkOf(t, s, "10.0.0.0/24")
	for i := range hosts {
		portOn(t, s, network, fmt.Sprint("h", i), "")
	}
	s.Settle(t)
	for _, h := range list {
		servertest.Eventually(t, h.Name+" holds what it must", func() bool { return h.Differs() == "" })
		h.Detach()
	}
	s.Stop()
	again := servertest.StartIn(t, dir, servertest.Networks)
	for i, h := range list {
		held := map[feed.Key]*message.Object{}
		for key, o := range h.Objects() {
			held[key] = o
		}
		if len(held) < 4 {
			t.Fatalf("%s holds no more than %v", h.Name, held)
		}
		if i == 0 { // the other way round: what is not as it should be is told
			for key := range held {
				if key.Kind == message.Kind_KIND_PORT {
					held[key].Version++
				}
			}
		}
		have := make([]*message.Held, 0, len(held))
		for key, o := range held {
			have = append(have, &message.Held{Kind: key.Kind, Id: key.ID, Version: o.Version})
		}
		stream, m := again.Hub.Open(h.Name, have)
		want := 0
		if i == 0 {
			want = 1
		}
		if !m.Synced || len(m.Upserts) != want || len(m.Deletes)+len(m.ForwardingDeltas)+len(m.AddressSetDeltas) > 0 {
			t.Errorf("%s is told %v", h.Name, m)
		}
		if more := stream.Due(); more != nil {
			t.Errorf("%s is told more: %v", h.Name, more)
		}
		stream.Close()
	}
}

// TestSlowHost: a host that does not read keeps no other waiting. What it has
// missed it finds in one message, however often it has changed, and its memory
// in the server is bounded by what it needs.
func TestSlowHost(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	fast := s.Host("fast", servertest.OpenVSwitch("192.0.2.1"))
	fast.Attach(t)
	s.Host("slow", servertest.OpenVSwitch("192.0.2.2")).Attach(t) // to be known
	network := networkOf(t, s, "10.0.0.0/16")
	group := s.Must(t, 201, "POST", "/security-groups", `{"security_group": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/security-group-rules", fmt.Sprintf(`{"security_group_rule": {"security_group_id": %q, "remote_group_id": %q, "direction": "ingress"}}`, group, group))
	mine := portOn(t, s, network, "slow", fmt.Sprintf(`, "security_groups": [%q]`, group))
	s.Settle(t)
	slow, _ := s.Hub.Open("slow", nil) // takes over, and does not read
	defer slow.Close()
	var ports []string
	for i := range 40 {
		ports = append(ports, portOn(t, s, network, "fast", fmt.Sprintf(`, "name": "p%d", "security_groups": [%q]`, i, group)))
		servertest.Eventually(t, "the fast host has the port", func() bool { return fast.Port(ports[i]) != nil })
	}
	for i := range 20 {
		s.Must(t, 200, "PUT", "/ports/"+mine, fmt.Sprintf(`{"port": {"name": "changed%d"}}`, i))
		s.Must(t, 204, "DELETE", "/ports/"+ports[i], "")
	}
	s.Settle(t)
	m := slow.Due()
	if len(m.GetUpserts()) != 1 || m.Upserts[0].GetPort().GetName() != "changed19" {
		t.Errorf("the slow host is told the objects %v", m.GetUpserts())
	}
	if len(m.GetForwardingDeltas()) != 1 || len(m.ForwardingDeltas[0].Upserts) != 20 || len(m.GetAddressSetDeltas()) != 1 || len(m.AddressSetDeltas[0].Adds) != 20 {
		t.Errorf("the slow host is told of sets: %v, %v", m.GetForwardingDeltas(), m.GetAddressSetDeltas())
	}
	if more := slow.Due(); more != nil {
		t.Errorf("and then: %v", more)
	}
}

// TestManyElements: beyond a bound a host that does not read gets the whole set.
func TestManyElements(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	s.Host("slow", servertest.OpenVSwitch("192.0.2.2")).Attach(t)
	network := networkOf(t, s, "10.0.0.0/24")
	addresses := s.Must(t, 201, "POST", "/address-groups", `{"address_group": {"addresses": ["198.51.100.1/32"]}}`)["id"].(string)
	group := s.Must(t, 201, "POST", "/security-groups", `{"security_group": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/security-group-rules", fmt.Sprintf(`{"security_group_rule": {"security_group_id": %q, "remote_address_group_id": %q, "direction": "ingress"}}`, group, addresses))
	portOn(t, s, network, "slow", fmt.Sprintf(`, "security_groups": [%q]`, group))
	s.Settle(t)
	slow, _ := s.Hub.Open("slow", nil)
	defer slow.Close()
	for _, second := range []int{18, 19} {
		var list []string
		for i := range 2500 {
			list = append(list, fmt.Sprintf(`"198.%d.%d.%d/32"`, second, i/250, 1+i%250))
		}
		s.Must(t, 200, "PUT", "/address-groups/"+addresses+"/add_addresses", `{"addresses": [`+strings.Join(list, ",")+`]}`)
	}
	s.Settle(t)
	m := slow.Due()
	if len(m.GetAddressSetDeltas()) != 0 || len(m.GetUpserts()) != 1 || len(m.Upserts[0].GetAddressSet().GetAddresses()) != 5001 {
		t.Errorf("the slow host is told %d deltas and %d objects", len(m.GetAddressSetDeltas()), len(m.GetUpserts()))
	}
}

// TestStreamIsCut: a host whose agent does not take what it is told, though its
// connection is well, loses its stream; others are told meanwhile.
func TestStreamIsCut(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	fast := s.Host("fast", servertest.OpenVSwitch("192.0.2.1"))
	fast.Attach(t)
	s.Host("stuck", servertest.OpenVSwitch("192.0.2.2")).Attach(t) // to be known
	network := networkOf(t, s, "10.0.0.0/24")
	mine := portOn(t, s, network, "stuck", "")
	s.Settle(t)
	impatient := feed.NewServer(feed.ServerOptions{Hub: s.Hub, Store: s.Store, Agents: s.Core.Agents, Logger: slog.New(slog.DiscardHandler), Patience: 300 * time.Millisecond})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	mux := http.NewServeMux()
	mux.Handle(impatient.Handler())
	server := &http.Server{Handler: mux, Protocols: &protocols}
	go server.Serve(listener)
	defer server.Close()
	transport := &http.Transport{Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := feedconnect.NewFeedClient(&http.Client{Transport: transport}, "http://"+listener.Addr().String()).Attach(ctx)
	hello := &message.Hello{Host: "stuck", Functions: []*message.Function{servertest.OpenVSwitch("192.0.2.2")}}
	if err := stream.Send(&message.AgentMessage{Body: &message.AgentMessage_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Receive(); err != nil || !m.Synced {
		t.Fatalf("first message: %v, %v", m, err)
	}
	attached := func() bool { return slices.Contains(s.Hub.Attached(), "stuck") }
	if !attached() {
		t.Fatal("the host is not attached")
	}
	// From here on it reads nothing.
	options := strings.Repeat("x", 250)
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; attached(); i++ {
		if time.Now().After(deadline) {
			t.Fatal("the stream of the host that reads nothing is not cut")
		}
		var list []string
		for n := range 40 {
			list = append(list, fmt.Sprintf(`{"opt_name": "option-%d", "opt_value": "%s%d"}`, 60+n, options, i))
		}
		s.Must(t, 200, "PUT", "/ports/"+mine, `{"port": {"extra_dhcp_opts": [`+strings.Join(list, ",")+`]}}`)
		if i < 5 {
			p := portOn(t, s, network, "fast", "")
			servertest.Eventually(t, "the other host has its port", func() bool { return fast.Port(p) != nil })
		}
	}
}

// TestToldOnce: what many hosts are told of a set is one message; a host that
// has missed more of the set gets its own.
func TestToldOnce(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	fast := s.Host("fast", servertest.OpenVSwitch("192.0.2.1"))
	fast.Attach(t)
	here, elsewhere := networkOf(t, s, "10.0.0.0/24"), networkOf(t, s, "10.1.0.0/24")
	group := s.Must(t, 201, "POST", "/security-groups", `{"security_group": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/security-group-rules", fmt.Sprintf(`{"security_group_rule": {"security_group_id": %q, "remote_group_id": %q, "direction": "ingress"}}`, group, group))
	in := fmt.Sprintf(`, "security_groups": [%q]`, group)
	var hosts []*feed.Stream
	for i, name := range []string{"a", "b", "c"} {
		s.Host(name, servertest.OpenVSwitch(fmt.Sprintf("192.0.2.%d", 2+i))).Attach(t) // to be known
		portOn(t, s, here, name, in)
	}
	s.Settle(t)
	for _, name := range []string{"a", "b", "c"} {
		stream, _ := s.Hub.Open(name, nil)
		defer stream.Close()
		hosts = append(hosts, stream)
	}
	adds := func(m *message.ServerMessage) int {
		n := 0
		for _, d := range m.GetAddressSetDeltas() {
			n += len(d.Adds)
		}
		return n
	}
	portOn(t, s, elsewhere, "fast", in)
	s.Settle(t)
	a, b := hosts[0].Due(), hosts[1].Due()
	if a == nil || a != b || adds(a) != 1 {
		t.Fatalf("two hosts are told %v and %v", a, b)
	}
	portOn(t, s, elsewhere, "fast", in)
	s.Settle(t)
	a, b = hosts[0].Due(), hosts[1].Due()
	c := hosts[2].Due()
	if a == nil || a != b || adds(a) != 1 || adds(c) != 2 {
		t.Fatalf("then they are told %v and %v, and one that has missed the first %v", a, b, c)
	}
	if a.AddressSetDeltas[0].Version != c.AddressSetDeltas[0].Version {
		t.Errorf("the same set has versions %x and %x", a.AddressSetDeltas[0].Version, c.AddressSetDeltas[0].Version)
	}
	if more := hosts[2].Due(); more != nil {
		t.Errorf("and then: %v", more)
	}
}
