package evpn_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/feed"
)

func last[T any](_ T, err error) error { return err }

const loaded = "[DEFAULT]\nservice_plugins = evpn\n[evpn]\nvni_range = 70:71\n"

// TestHosts: what hosts are told of a router's VNI and of its subnets, and what
// a server tells them that starts later.
func TestHosts(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: loaded})
	k.Host("host1", exttest.HostOptions{Physical: []string{"public"}})
	admin := k.Admin()
	network := admin.Create("network", `{}`).ID()
	one := admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:1::/64"}`, network).ID()
	two := admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:2::/64"}`, network).ID()
	four := admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, network).ID()
	r := admin.Create("router", `{"evpn_vni": 5}`).ID()
	plain := admin.Create("router", `{}`).ID()
	told := func(vni int32, subnets ...string) {
		t.Helper()
		m := k.View("host1", message.Kind_KIND_ROUTER)[r].GetRouter()
		slices.Sort(subnets)
		if m.GetEvpnVni() != vni || !slices.Equal(m.GetEvpnHostSubnetIds(), subnets) {
			t.Errorf("host is told %v, want VNI %d and %v", m, vni, subnets)
		}
		if later := k.Restarted().Snapshot("host1")[feed.Key{Kind: message.Kind_KIND_ROUTER, ID: r}].GetRouter(); !proto.Equal(later, m) {
			t.Errorf("a server that starts later tells %v, this one %v", later, m)
		}
	}
	admin.Act("router", r, "add_router_interface", `{"subnet_id": %q, "advertise_host": true}`, one)
	told(5, one)
	admin.Act("router", r, "add_router_interface", `{"subnet_id": %q, "advertise_host": "true"}`, two) // on the same port
	told(5, one, two)
	admin.Act("router", r, "add_router_interface", `{"subnet_id": %q, "advertise_host": false}`, four)
	told(5, one, two)
	admin.Update("router", r, `{"name": "r"}`)
	told(5, one, two)
	admin.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, one)
	told(5, two)
	admin.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, two)
	told(5)
	k.Refused(last(admin.TryAct("router", plain, "add_router_interface", `{"subnet_id": %q, "advertise_host": true}`, one)), fault.NotFound, "EVPNVNINotFound", "EVPN VNI not found for router "+plain+".")
	admin.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, four)
	admin.Delete("router", r)
	if rows := k.Rows(1, "SELECT vni FROM evpn_vni UNION SELECT COUNT(*) FROM evpn_host_subnet HAVING COUNT(*) > 0"); len(rows) > 0 {
		t.Errorf("of a router that is gone, there are %v", rows)
	}
	admin.Create("router", `{"evpn_vni": 5}`)
}

// TestChoice: each VNI is one router's, also those that the server chooses.
func TestChoice(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: loaded})
	admin := k.Admin()
	one, two := admin.Create("router", `{"evpn_vni": 0}`), admin.Create("router", `{"evpn_vni": 0}`)
	got := []string{one.JSON("evpn_vni"), two.JSON("evpn_vni")}
	slices.Sort(got)
	if !slices.Equal(got, []string{"70", "71"}) {
		t.Errorf("chosen were %v", got)
	}
	k.Refused(last(admin.TryCreate("router", `{"evpn_vni": 0}`)), fault.Conflict, "EVPNNoVniAvailable", "No EVPN VNI available in range [70, 71].")
	k.Refused(last(admin.TryCreate("router", `{"evpn_vni": 70}`)), fault.Conflict, "EVPNVNIInUse", "EVPN VNI 70 is already in use.")
	admin.Delete("router", one.ID())
	if again := admin.Create("router", `{"evpn_vni": 0}`); again.JSON("evpn_vni") != one.JSON("evpn_vni") {
		t.Errorf("free was %s, chosen is %s", one.JSON("evpn_vni"), again.JSON("evpn_vni"))
	}
}

// TestNotLoaded: without the plugin there is no extension, and hosts are told nothing.
func TestNotLoaded(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	if _, there := k.Registry.Extension("evpn"); there {
		t.Error("the extension is advertised")
	}
	if o := k.Admin().Create("router", `{}`); o["evpn_vni"] != nil {
		t.Errorf("router is %v", o)
	}
	if _, there := k.Admin().Create("router", `{}`)["evpn_vni"]; there {
		t.Error("routers have the attribute")
	}
}
