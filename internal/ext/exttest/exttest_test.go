package exttest_test

import (
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// A port is made, bound to a host, in that host's view, and ACTIVE once the host has said so.
func TestPortOfAHost(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("host1", exttest.HostOptions{})
	project := k.As("project1")
	n := project.Create("network", `{"name": "net"}`)
	project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "enable_dhcp": false}`, n.ID())
	p := k.Admin().Create("port", `{"network_id": %q, "binding:host_id": "host1", "tenant_id": "project1"}`, n.ID())
	if p.Text("binding:vif_type") != "ovs" || p.Text("status") != "DOWN" {
		t.Fatalf("port is %v", p)
	}
	o := k.View("host1", message.Kind_KIND_PORT)[p.ID()]
	if o == nil {
		t.Fatal("the port is not in its host's view")
	}
	k.Report("host1", &message.Applied{Kind: message.Kind_KIND_PORT, Id: p.ID(), Revision: o.GetPort().Revision, AgentType: "Open vSwitch agent", State: message.State_STATE_ACTIVE})
	if s := project.Get("port", p.ID()).Text("status"); s != "ACTIVE" {
		t.Fatalf("status is %s", s)
	}
	_, err := k.As("project2").TryGet("port", p.ID())
	k.Refused(err, fault.NotFound, "PortNotFound", "Port "+p.ID()+" could not be found.")
}
