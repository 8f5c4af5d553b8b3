package vlantransparent_test

import (
	"fmt"
	"testing"

	"isospin/internal/config"
	"isospin/internal/core/port"
	"isospin/internal/driver/mech"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// carrying is a mechanism driver that says it carries tags.
type carrying struct{}

func init() {
	mech.Register("carrying", func(*config.Config) (port.Mechanism, error) { return carrying{}, nil })
}

// plain is one that knows of no tags.
type plain struct{}

func init() {
	mech.Register("plain", func(*config.Config) (port.Mechanism, error) { return plain{}, nil })
}

func (plain) Name() string                               { return "plain" }
func (plain) Bind(port.BindRequest) (port.Binding, bool) { return port.Binding{}, false }

func (carrying) Name() string                               { return "carrying" }
func (carrying) VLANTransparent(string) bool                { return true }
func (carrying) QinQ(string) bool                           { return true }
func (carrying) Bind(port.BindRequest) (port.Binding, bool) { return port.Binding{}, false }

const conf = "[DEFAULT]\nvlan_transparent = true\nvlan_qinq = true\n"

func TestServed(t *testing.T) {
	for text, want := range map[string]bool{
		"": true,
		"[ml2]\nmechanism_drivers = openvswitch,plain\n":           false,
		conf + "[ml2]\nmechanism_drivers = plain\n":                true,
		"[DEFAULT]\nvlan_transparent = false\nvlan_qinq = false\n": false,
	} {
		w := exttest.New(t, exttest.Options{Config: text})
		for _, alias := range []string{"vlan-transparent", "qinq"} {
			if _, there := w.Registry.Extension(alias); there != want {
				t.Errorf("%s is advertised: %v; with %q", alias, there, text)
			}
		}
	}
}

// Open vSwitch hosts carry tags where they lead into no other network.
func TestOpenVSwitch(t *testing.T) {
	w := exttest.New(t, exttest.Options{Config: "[ml2]\ntype_drivers = local,flat,vlan,vxlan\n[ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:1:9\n[ml2_type_vxlan]\nvni_ranges = 1:9\n"})
	a := w.Admin()
	for _, test := range []struct {
		attribute, kind string
		want            bool
	}{
		{"vlan_transparent", `"local"`, true}, {"vlan_transparent", `"vxlan"`, true},
		{"vlan_transparent", `"vlan", "provider:physical_network": "physnet1"`, true},
		{"vlan_transparent", `"flat", "provider:physical_network": "physnet1"`, false},
		{"qinq", `"vlan", "provider:physical_network": "physnet1"`, true}, {"qinq", `"vxlan"`, false}, {"qinq", `"local"`, false},
	} {
		_, err := a.TryCreate("network", `{%q: true, "provider:network_type": %s}`, test.attribute, test.kind)
		switch {
		case test.want && err != nil:
			t.Errorf("%s of a network of type %s: %v", test.attribute, test.kind, err)
		case !test.want && test.attribute == "qinq":
			w.Refused(err, fault.Invalid, "VlanQinqDriverError", "Backend does not support VLAN QinQ.")
		case !test.want:
			w.Refused(err, fault.Invalid, "VlanTransparencyDriverError", "Backend does not support VLAN Transparency.")
		}
	}
	if rows := w.Rows(1, "SELECT COUNT(*) FROM network_tagging"); fmt.Sprint(rows) != "[[4]]" {
		t.Errorf("%v rows", rows)
	}
}

func TestDriverRefuses(t *testing.T) {
	w := exttest.New(t, exttest.Options{Config: conf + "[ml2]\nmechanism_drivers = openvswitch,plain\n"})
	a := w.Admin()
	_, err := a.TryCreate("network", `{"vlan_transparent": true}`)
	w.Refused(err, fault.Invalid, "VlanTransparencyDriverError", "Backend does not support VLAN Transparency.")
	_, err = a.TryCreate("network", `{"qinq": true}`)
	w.Refused(err, fault.Invalid, "VlanQinqDriverError", "Backend does not support VLAN QinQ.")
	if n := a.Create("network", `{"vlan_transparent": false}`); n["vlan_transparent"] != false || n["qinq"] != nil {
		t.Errorf("network %v", n)
	}
}

func TestNetworks(t *testing.T) {
	w := exttest.New(t, exttest.Options{Config: conf + "[ml2]\nmechanism_drivers = carrying\n"})
	a := w.Admin()
	one := a.Create("network", `{"vlan_transparent": true, "qinq": false}`)
	two := a.Create("network", `{"qinq": true}`)
	if one["vlan_transparent"] != true || one["qinq"] != false || two["vlan_transparent"] != nil || two["qinq"] != true {
		t.Errorf("networks %v, %v", one, two)
	}
	_, err := a.TryCreate("network", `{"vlan_transparent": true, "qinq": true}`)
	w.Refused(err, fault.Invalid, "BadRequest", "Bad network request: Attributes 'vlan_transparent' and 'qinq' can not be set to True for the same network..")
	if list := a.List("network", "qinq", "true"); len(list) != 1 || list[0].ID() != two.ID() {
		t.Errorf("networks with qinq: %v", list)
	}
	if list := a.List("network", "vlan_transparent", "false"); len(list) != 0 {
		t.Errorf("networks that are not transparent: %v", list)
	}
	a.Update("network", one.ID(), `{"name": "x"}`)
	_, err = a.TryUpdate("network", one.ID(), `{"qinq": true}`)
	w.Refused(err, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute qinq")
	a.Delete("network", one.ID())
	if rows := w.Rows(1, "SELECT COUNT(*) FROM network_tagging"); fmt.Sprint(rows) != "[[1]]" {
		t.Errorf("%v rows are left", rows)
	}
}
