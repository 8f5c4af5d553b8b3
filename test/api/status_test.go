package api

import (
	"fmt"
	"testing"

	message "isospin/api/feed"
	"isospin/test/servertest"
)

// TestReports: a host's word counts for its own ports as they are now. Reports
// on another host's port, on a former binding, on a revision that is yet to
// come and on what is gone change nothing.
func TestReports(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	h1, h2 := s.Host("h1", servertest.OpenVSwitch("192.0.2.1")), s.Host("h2", servertest.OpenVSwitch("192.0.2.2"))
	h1.Attach(t)
	h2.Attach(t)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	port := s.Must(t, 201, "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q, "binding:host_id": "h1"}}`, network))["id"].(string)
	revision := func(h *servertest.Host) int64 {
		t.Helper()
		s.Settle(t)
		servertest.Eventually(t, h.Name+" has the port", func() bool { return h.Port(port) != nil && h.Differs() == "" })
		return h.Port(port).Revision
	}
	report := func(h *servertest.Host, id string, revision int64, state message.State) {
		t.Helper()
		if err := h.Report(&message.Applied{Kind: message.Kind_KIND_PORT, Id: id, Revision: revision, AgentType: "Open vSwitch agent", State: state}); err != nil {
			t.Fatal(err)
		}
	}
	// A report of a fence port, known to be carried out after all that came before it on its stream.
	fences := 0
	after := func(h *servertest.Host) {
		t.Helper()
		fences++
		id := s.Must(t, 201, "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q, "binding:host_id": %q}}`, network, h.Name))["id"].(string)
		s.Settle(t)
		servertest.Eventually(t, h.Name+" has the fence", func() bool { return h.Port(id) != nil })
		report(h, id, h.Port(id).Revision, message.State_STATE_ACTIVE)
		servertest.Eventually(t, "the fence is active", func() bool { return s.Must(t, 200, "GET", "/ports/"+id, "")["status"] == "ACTIVE" })
	}
	status := func(want string) {
		t.Helper()
		if have := s.Must(t, 200, "GET", "/ports/"+port, "")["status"]; have != want {
			t.Errorf("status %v, want %s", have, want)
		}
	}

	first := revision(h1)
	report(h2, port, first, message.State_STATE_ACTIVE)
	after(h2)
	status("DOWN")
	report(h1, port, first+1, message.State_STATE_ACTIVE)
	report(h1, "00000000-0000-4000-8000-000000000000", 1, message.State_STATE_ACTIVE)
	report(h1, port, first, message.State_STATE_UNSPECIFIED)
	after(h1)
	status("DOWN")
	report(h1, port, first, message.State_STATE_ACTIVE)
	after(h1)
	status("ACTIVE")

	// A change that does not touch the binding leaves the earlier report in force, and later ones welcome.
	s.Must(t, 200, "PUT", "/ports/"+port, `{"port": {"security_groups": []}}`)
	status("ACTIVE")
	report(h1, port, first, message.State_STATE_ACTIVE)
	after(h1)
	status("ACTIVE")

	// There and back again: what was reported of the first binding says nothing of the third.
	s.Must(t, 200, "PUT", "/ports/"+port, `{"port": {"binding:host_id": "h2"}}`)
	status("DOWN")
	report(h1, port, first, message.State_STATE_ACTIVE)
	after(h1)
	status("DOWN")
	second := revision(h2)
	s.Must(t, 200, "PUT", "/ports/"+port, `{"port": {"binding:host_id": "h1"}}`)
	report(h2, port, second, message.State_STATE_ACTIVE)
	report(h1, port, first, message.State_STATE_ACTIVE)
	after(h2)
	after(h1)
	status("DOWN")
	report(h1, port, revision(h1), message.State_STATE_ACTIVE)
	after(h1)
	status("ACTIVE")

	s.Must(t, 204, "DELETE", "/ports/"+port, "")
	report(h1, port, second+5, message.State_STATE_ACTIVE)
	after(h1)
}
