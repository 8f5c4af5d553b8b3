package server_test

import (
	"testing"
	"time"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store/storetest"
	"isospin/test/servertest"
)

// TestReportsOfOwnPorts: what a host says of a port on another host changes nothing.
func TestReportsOfOwnPorts(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	var hosts []*servertest.Host
	for _, name := range []string{"own", "other"} {
		h := s.Host(name, servertest.OpenVSwitch("198.51.100."+map[string]string{"own": "1", "other": "2"}[name]))
		h.Attach(t)
		hosts = append(hosts, h)
	}
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	port := func(host string) (string, *message.Port) {
		id := s.Must(t, 201, "POST", "/ports", `{"port": {"device_owner": "compute:nova", "binding:host_id": "`+host+`", "network_id": "`+network+`"}}`)["id"].(string)
		s.Settle(t)
		return id, s.Hub.Snapshot(host)[feed.Key{Kind: message.Kind_KIND_PORT, ID: id}].GetPort()
	}
	first, mine := port("own")
	second, theirs := port("other")
	active := func(id string, p *message.Port) *message.Applied {
		return &message.Applied{Kind: message.Kind_KIND_PORT, Id: id, Revision: p.GetRevision(), State: message.State_STATE_ACTIVE, AgentType: "Open vSwitch agent"}
	}
	status := func(id string) any { return s.Must(t, 200, "GET", "/ports/"+id, "")["status"] }
	// The last of the reports is taken after the first.
	if err := hosts[1].Report(active(first, mine), active(second, theirs)); err != nil {
		t.Fatal(err)
	}
	servertest.Eventually(t, "a host's report on its own port counts", func() bool { return status(second) == "ACTIVE" })
	if status(first) == "ACTIVE" {
		t.Error("another host's report counts")
	}
	if err := hosts[0].Report(active(first, mine)); err != nil {
		t.Fatal(err)
	}
	servertest.Eventually(t, "the host's own report counts", func() bool { return status(first) == "ACTIVE" })
}

// TestLateReports: what a host said to a server that was paused, and goes on when
// the host has long been at another, is not stored over what it has said there.
func TestLateReports(t *testing.T) {
	if storetest.Kind() == storetest.SQLite { // on which there is one server
		t.Setenv(storetest.Variable, storetest.PostgreSQL)
	}
	dir := t.TempDir()
	paused, other := servertest.StartIn(t, dir, servertest.Networks), servertest.StartIn(t, dir, servertest.Networks)
	host := func(s *servertest.Server) *servertest.Host {
		h := s.Host("moving", servertest.OpenVSwitch("198.51.100.1"))
		h.Started = 1700000000
		h.Attach(t)
		return h
	}
	before := host(paused)
	network := other.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	id := other.Must(t, 201, "POST", "/ports", `{"port": {"device_owner": "compute:nova", "binding:host_id": "moving", "network_id": "`+network+`"}}`)["id"].(string)
	other.Settle(t)
	paused.Settle(t)
	revision := other.Hub.Snapshot("moving")[feed.Key{Kind: message.Kind_KIND_PORT, ID: id}].GetPort().GetRevision()
	report := func(h *servertest.Host, state message.State) {
		t.Helper()
		if err := h.Report(&message.Applied{Kind: message.Kind_KIND_PORT, Id: id, Revision: revision, State: state, AgentType: "Open vSwitch agent"}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(status string) {
		t.Helper()
		servertest.Eventually(t, "the port is "+status, func() bool { return other.Must(t, 200, "GET", "/ports/"+id, "")["status"] == status })
	}
	ends := func(h *servertest.Host) {
		t.Helper()
		select {
		case <-h.Ended():
		case <-time.After(30 * time.Second):
			t.Fatal("the stream on which the late report came does not end")
		}
	}
	report(before, message.State_STATE_ACTIVE)
	is("ACTIVE")
	report(before, message.State_STATE_DOWN)
	is("DOWN")

	// The host comes to the other server; its words on the stream before are late.
	after := host(other)
	report(after, message.State_STATE_ACTIVE)
	is("ACTIVE")
	report(before, message.State_STATE_DOWN)
	ends(before)
	if status := other.Must(t, 200, "GET", "/ports/"+id, "")["status"]; status != "ACTIVE" {
		t.Errorf("after a late report the port is %s", status)
	}
	report(after, message.State_STATE_DOWN)
	is("DOWN")

	// And it comes back. A configuration that is late is none either.
	again := host(paused)
	late := servertest.OpenVSwitch("198.51.100.99")
	if err := after.Heartbeat(late); err != nil {
		t.Fatal(err)
	}
	ends(after)
	report(again, message.State_STATE_ACTIVE)
	is("ACTIVE")
	agents := other.Must(t, 200, "GET", "/agents?host=moving", "")["agents"].([]any)
	if ip := agents[0].(map[string]any)["configurations"].(map[string]any)["tunneling_ip"]; ip != "198.51.100.1" {
		t.Errorf("after a late heartbeat tunneling_ip is %v", ip)
	}
}

// TestStartedAt: an agent that stays up while the server is started again keeps
// the time of its start; one that is started again has another.
func TestStartedAt(t *testing.T) {
	dir := t.TempDir()
	s := servertest.StartIn(t, dir, servertest.Networks)
	h := s.Host("steady", servertest.OpenVSwitch("198.51.100.1"))
	h.Started = 1700000000
	h.Attach(t)
	check := func(want string) {
		t.Helper()
		agents := s.Must(t, 200, "GET", "/agents?host=steady", "")["agents"].([]any)
		if a := agents[0].(map[string]any); a["started_at"] != want || a["alive"] != true {
			t.Errorf("started_at is %v, want %s; alive is %v", a["started_at"], want, a["alive"])
		}
	}
	check("2023-11-14 22:13:20")
	h.Detach()
	s.Stop()
	s = servertest.StartIn(t, dir, servertest.Networks)
	h.Move(s)
	h.Attach(t)
	check("2023-11-14 22:13:20")
	h.Detach()
	h.Started += 60
	h.Attach(t)
	check("2023-11-14 22:14:20")
}
