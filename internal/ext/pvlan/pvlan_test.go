package pvlan_test

import (
	"fmt"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/config"
	"isospin/internal/core/port"
	"isospin/internal/driver/mech"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// mixing is a mechanism driver that lets ports of a network reach each other;
// isolating says that it does not.
type (
	mixing    struct{}
	isolating struct{ mixing }
)

func init() {
	mech.Register("mixing", func(*config.Config) (port.Mechanism, error) { return mixing{}, nil })
	mech.Register("isolating", func(*config.Config) (port.Mechanism, error) { return isolating{}, nil })
}

func (mixing) Name() string          { return "mixing" }
func (isolating) PrivateVLANs() bool { return true }
func (mixing) Bind(r port.BindRequest) (port.Binding, bool) {
	return port.Binding{SegmentID: r.Segments[0].ID, VIFType: "test"}, true
}

const conf = "[ml2]\nmechanism_drivers = isolating\n"

// When a driver cannot do it, there is no such extension.
func TestOnlyWithDriversThatCan(t *testing.T) {
	for drivers, want := range map[string]bool{"openvswitch": true, "isolating,openvswitch": true, "openvswitch,mixing": false, "mixing": false} {
		w := exttest.New(t, exttest.Options{Config: "[ml2]\nmechanism_drivers = " + drivers + "\n"})
		if _, there := w.Registry.Extension("pvlan"); there != want {
			t.Errorf("with %s, pvlan is advertised: %v", drivers, there)
		}
	}
}

func TestTypes(t *testing.T) {
	w := exttest.New(t, exttest.Options{Config: conf})
	a := w.Admin()
	n := a.Create("network", `{"name": "n", "pvlan": true}`)
	if n["pvlan"] != true {
		t.Fatalf("network %v", n)
	}
	show := func(p exttest.Object) string { return p.JSON("pvlan_type") + " " + p.JSON("pvlan_community") }
	is := func(p exttest.Object, want string) string {
		t.Helper()
		if got := show(p); got != want {
			t.Errorf("port is %s, want %s", got, want)
		}
		return p.ID()
	}
	first := is(a.Create("port", `{"network_id": %q}`, n.ID()), `"promiscuous" null`)
	alone := is(a.Create("port", `{"network_id": %q, "pvlan_type": "isolated", "binding:host_id": "h"}`, n.ID()), `"isolated" null`)
	blue := is(a.Create("port", `{"network_id": %q, "pvlan_type": "community", "pvlan_community": "blue"}`, n.ID()), `"community" "blue"`)
	is(a.Update("port", blue, `{"name": "x"}`), `"community" "blue"`)
	is(a.Update("port", blue, `{"pvlan_community": "red"}`), `"community" "red"`)
	if list := a.List("port", "pvlan_type", "isolated"); len(list) != 1 || list[0].ID() != alone {
		t.Errorf("isolated ports: %v", list)
	}
	if m := w.View("h", message.Kind_KIND_PORT)[alone].GetPort(); m.GetPvlanType() != "isolated" {
		t.Errorf("the host is told %q", m.GetPvlanType())
	}
	if m := w.View("h", message.Kind_KIND_NETWORK)[n.ID()].GetNetwork(); !m.GetPvlan() {
		t.Error("the host is not told that the network keeps ports apart")
	}
	// Other hosts are told what they have to keep apart, and all addresses that it sends from.
	pair := a.Create("port", `{"network_id": %q, "pvlan_type": "community", "pvlan_community": "blue", "binding:host_id": "other",
		"allowed_address_pairs": [{"ip_address": "10.0.0.9", "mac_address": "00:00:5e:00:01:07"}, {"ip_address": "10.0.0.8"}]}`, n.ID()).ID()
	entries := func() string {
		t.Helper()
		text := ""
		for _, e := range w.View("h", message.Kind_KIND_FORWARDING)[n.ID()].GetForwarding().GetEntries() {
			if e.PortId == pair {
				text += fmt.Sprintf("%s/%s %v", e.PvlanType, e.PvlanCommunity, e.FurtherMacAddresses)
			}
		}
		return text
	}
	if got := entries(); got != "community/blue [00:00:5e:00:01:07]" {
		t.Errorf("the other host is told %q", got)
	}
	a.Update("port", pair, `{"pvlan_type": "isolated"}`)
	if got := entries(); got != "isolated/ [00:00:5e:00:01:07]" {
		t.Errorf("after the change, the other host is told %q", got)
	}
	a.Delete("port", pair)
	_, err := a.TryUpdate("port", first, `{"pvlan_community": "blue"}`)
	w.Refused(err, fault.Invalid, "PVLANCannotSetCommunityName", `PVLAN community name cannot be set if port type is not "community" for this port: `+first+".")
	_, err = a.TryUpdate("port", first, `{"pvlan_type": "community"}`)
	w.Refused(err, fault.Invalid, "PVLANCommunityNameRequired", `Community name is required for ports with PVLAN type "community": `+first+".")
	_, err = a.TryUpdate("port", first, `{"port_security_enabled": false, "security_groups": []}`)
	w.Refused(err, fault.Invalid, "PVLANPortSecurityDisabled", "Port security is disabled for port "+first+", cannot set PVLAN.")
	is(a.Update("port", blue, `{"pvlan_type": "isolated"}`), `"isolated" null`)

	a.Update("network", n.ID(), `{"pvlan": false}`)
	for _, id := range []string{first, alone, blue} {
		is(a.Get("port", id), "null null")
	}
	if rows := w.Rows(1, "SELECT COUNT(*) FROM port_pvlan"); fmt.Sprint(rows) != "[[0]]" {
		t.Errorf("%v rows are left", rows)
	}
	_, err = a.TryUpdate("port", first, `{"pvlan_type": "isolated"}`)
	w.Refused(err, fault.Invalid, "PVLANNotEnabledOnNetwork", "PVLAN is not enabled on network "+n.ID()+".")
	a.Update("network", n.ID(), `{"pvlan": true}`)
	is(a.Get("port", alone), `"promiscuous" null`)
	a.Delete("port", alone)
	if rows := w.Rows(1, "SELECT COUNT(*) FROM port_pvlan"); fmt.Sprint(rows) != "[[2]]" {
		t.Errorf("%v rows are left", rows)
	}
	_, err = a.TryCreate("network", `{"pvlan": true, "port_security_enabled": false}`)
	if !fault.Is(err, "PVLANNetworkPortSecurityDisabled") {
		t.Errorf("a network without port security: %v", err)
	}
}
