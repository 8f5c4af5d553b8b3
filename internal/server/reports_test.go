package server_test

import (
	"testing"

	message "isospin/api/feed"
	"isospin/internal/feed"
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
