package conntrackhelper_test

import (
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

func last[T any](_ T, err error) error { return err }

func TestHelpers(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[DEFAULT]\nallowed_conntrack_helpers = tftp:udp,{'ftp': 'tcp'},sip:udp,sip:tcp\n"})
	k.Host("host1", exttest.HostOptions{Physical: []string{"public"}})
	project := k.As("project1")
	external := k.Admin().Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	k.Admin().Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24", "enable_dhcp": false}`, external)
	r := project.Create("router", `{"external_gateway_info": {"network_id": %q}}`, external)
	if r.JSON("conntrack_helpers") != "[]" {
		t.Errorf("router is %v", r)
	}
	in := project.In(r.ID())
	h := in.Create("conntrack_helper", `{"protocol": "tcp", "port": "21", "helper": "ftp"}`)
	if len(h) != 4 || h.JSON("port") != "21" || h.Text("protocol") != "tcp" || h.Text("helper") != "ftp" {
		t.Errorf("helper is %v", h)
	}
	told := func() []*message.ConntrackHelper {
		k.Settled()
		return k.View("host1", message.Kind_KIND_ROUTER)[r.ID()].GetRouter().GetConntrackHelpers()
	}
	if got := project.Get("router", r.ID()).JSON("conntrack_helpers"); got != `[{"helper":"ftp","port":21,"protocol":"tcp"}]` {
		t.Errorf("in the router: %s", got)
	}
	if list := told(); len(list) != 1 || list[0].Port != 21 || list[0].Helper != "ftp" {
		t.Errorf("host is told %v", list)
	}
	in.Update("conntrack_helper", h.ID(), `{"port": 2121}`)
	if list := told(); len(list) != 1 || list[0].Port != 2121 {
		t.Errorf("host is told %v", list)
	}
	k.Refused(last(in.TryCreate("conntrack_helper", `{"protocol": "tcp", "port": 1, "helper": "irc"}`)), fault.Invalid, "ConntrackHelperNotAllowed", "Conntrack Helper irc is not allowed.")
	k.Refused(last(in.TryCreate("conntrack_helper", `{"protocol": "dccp", "port": 1, "helper": "sip"}`)), fault.Invalid, "InvalidProtocolForHelper", "Conntrack Helper sip does not support: dccp. Supported protocols are: udp, tcp")
	k.Refused(last(in.TryCreate("conntrack_helper", `{"protocol": "tcp", "port": 2121, "helper": "ftp"}`)), fault.Invalid, "BadRequest", "")
	k.Refused(last(in.TryGet("conntrack_helper", r.ID())), fault.NotFound, "ConntrackHelperNotFound", "Conntrack Helper "+r.ID()+" could not be found.")
	k.Refused(last(k.As("project2").In(r.ID()).TryGet("conntrack_helper", h.ID())), fault.NotFound, "RouterNotFound", "")
	in.Delete("conntrack_helper", h.ID())
	if list := told(); len(list) != 0 {
		t.Errorf("host is told %v", list)
	}
	in.Create("conntrack_helper", `{"protocol": "udp", "port": 69, "helper": "tftp"}`)
	project.Delete("router", r.ID())
	if rows := k.Rows(1, "SELECT id FROM conntrack_helper"); len(rows) != 0 {
		t.Errorf("rows are left: %v", rows)
	}
}
