package availabilityzone_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/resource"
)

func zones(list []exttest.Object) string {
	text := []string{}
	for _, z := range list {
		text = append(text, fmt.Sprintf("%s %s %s", z.Text("name"), z.Text("resource"), z.Text("state")))
	}
	return fmt.Sprintf("%q", text)
}

func TestZones(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	project := k.As("project1")
	if z := zones(project.List("availability_zone")); z != `[]` {
		t.Errorf("without agents: %s", z)
	}
	east := k.Host("host1", exttest.HostOptions{Zone: "east"})
	k.Host("host2", exttest.HostOptions{Zone: "east"})
	west := k.Host("host3", exttest.HostOptions{Zone: "west", Agents: []string{"DHCP agent", "Open vSwitch agent"}})
	k.Host("host4", exttest.HostOptions{})
	if z := zones(project.List("availability_zone")); z != `["east network available" "east router available" "west network available"]` {
		t.Errorf("zones are %s", z)
	}
	k.Admin().Update("agent", west["DHCP agent"], `{"admin_state_up": false}`)
	k.Admin().Update("agent", east["L3 agent"], `{"admin_state_up": false}`)
	if z := zones(project.List("availability_zone")); z != `["east network available" "east router available" "west network unavailable"]` {
		t.Errorf("zones are %s", z)
	}
	for filter, want := range map[[2]string]string{
		{"name", "west"}:         `["west network unavailable"]`,
		{"resource", "router"}:   `["east router available"]`,
		{"state", "unavailable"}: `["west network unavailable"]`,
		{"name", "north"}:        `[]`,
	} {
		if z := zones(project.List("availability_zone", filter[0], filter[1])); z != want {
			t.Errorf("with %v: %s", filter, z)
		}
	}
	k.Refused(k.Admin().TryDelete("availability_zone", "east"), fault.NotImplemented, "HTTPNotImplemented", "")
	_, err := project.TryGet("availability_zone", "east")
	k.Refused(err, fault.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone east could not be found.")
}

func TestZonesOfNetworks(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	project := k.As("project1")
	east := k.Host("host1", exttest.HostOptions{Zone: "east"})
	k.Host("host2", exttest.HostOptions{Zone: "west"})
	k.Host("host3", exttest.HostOptions{Zone: "west"})
	k.Host("host4", exttest.HostOptions{Zone: "north", Agents: []string{"L3 agent"}})

	n := project.Create("network", `{"availability_zone_hints": ["west", "east"]}`)
	if n.JSON("availability_zone_hints") != `["west","east"]` || n.JSON("availability_zones") != `[]` {
		t.Errorf("network is %v", n)
	}
	if rows := k.Rows(1, "SELECT availability_zone_hints FROM network WHERE id = ?", n.ID()); fmt.Sprint(rows) != `[[["west","east"]]]` {
		t.Errorf("rows are %v", rows)
	}
	_, err := project.TryCreate("network", `{"availability_zone_hints": ["east", "north"]}`)
	k.Refused(err, fault.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone north could not be found.")
	_, err = project.TryUpdate("network", n.ID(), `{"availability_zone_hints": []}`)
	k.Refused(err, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute availability_zone_hints")

	shown := func(want string) {
		t.Helper()
		k.Settled()
		if z := project.Get("network", n.ID()).JSON("availability_zones"); z != want {
			t.Errorf("zones are %s, want %s", z, want)
		}
	}
	port := func(host string) string {
		return k.Admin().Create("port", `{"network_id": %q, "tenant_id": "project1", "binding:host_id": %q}`, n.ID(), host).ID()
	}
	first, second := port("host3"), port("host2")
	shown(`["west"]`)
	third := port("host1")
	shown(`["east","west"]`)
	project.Delete("port", first)
	shown(`["east","west"]`)
	project.Delete("port", second)
	shown(`["east"]`)
	k.Host("host1", exttest.HostOptions{Zone: "south"})
	shown(`["south"]`)
	// Hints stay as they were given, and a network whose zone has gone can still be changed.
	if u := project.Update("network", n.ID(), `{"name": "n"}`); u.JSON("availability_zones") != `["south"]` || u.JSON("availability_zone_hints") != `["west","east"]` {
		t.Errorf("network is %v", u)
	}
	// What is shown is not stored.
	if rows := k.Rows(1, "SELECT slots FROM network WHERE id = ?", n.ID()); strings.Contains(fmt.Sprint(rows), "availability_zones") {
		t.Errorf("slots are %v", rows)
	}
	k.Admin().Delete("agent", east["DHCP agent"])
	shown(`[]`)
	project.Delete("port", third)
	shown(`[]`)

	// Hints are a sort key, with pages.
	project.Create("network", `{"name": "a", "availability_zone_hints": ["west"]}`)
	project.Create("network", `{"name": "b"}`)
	service, marker := k.Registry.Named("network").Service, ""
	var order []string
	for range 3 {
		page, err := service.List(project.Context(), &resource.Query{Sort: []resource.SortKey{{Attribute: "availability_zone_hints"}}, Limit: 1, Marker: marker})
		if err != nil || len(page) != 1 {
			t.Fatal(page, err)
		}
		var o exttest.Object
		if err := json.Unmarshal(service.Encode(nil, page[0], nil), &o); err != nil {
			t.Fatal(err)
		}
		marker = o.ID()
		order = append(order, o.Text("name"))
	}
	if fmt.Sprint(order) != "[b n a]" {
		t.Errorf("order is %v", order)
	}
}

// Routers are on hosts of their zones, or wait for one.
func TestZonesOfRouters(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	project := k.As("project1")
	k.Host("host1", exttest.HostOptions{Zone: "east"})
	west := k.Host("host2", exttest.HostOptions{Zone: "west"})
	k.Host("host3", exttest.HostOptions{Zone: "net", Agents: []string{"DHCP agent"}})
	n := project.Create("network", `{}`).ID()
	s := project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, n).ID()

	_, err := project.TryCreate("router", `{"availability_zone_hints": ["net"]}`)
	k.Refused(err, fault.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone net could not be found.")
	for range 3 { // more than chance
		r := project.Create("router", `{"availability_zone_hints": ["west"]}`)
		if r.JSON("availability_zone_hints") != `["west"]` || r.JSON("availability_zones") != `[]` {
			t.Errorf("router is %v", r)
		}
		project.Act("router", r.ID(), "add_router_interface", `{"subnet_id": %q}`, s)
		if z := project.Get("router", r.ID()).JSON("availability_zones"); z != `["west"]` {
			t.Errorf("zones are %s", z)
		}
		project.Act("router", r.ID(), "remove_router_interface", `{"subnet_id": %q}`, s)
	}
	r := project.Create("router", `{"availability_zone_hints": ["west"]}`).ID()
	k.Admin().Delete("agent", west["L3 agent"])
	project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, s)
	if z := project.Get("router", r).JSON("availability_zones"); z != `[]` {
		t.Errorf("a router that must be in the west is in %s", z)
	}
	k.Host("host4", exttest.HostOptions{Zone: "west"})
	if z := project.Get("router", r).JSON("availability_zones"); z != `["west"]` {
		t.Errorf("zones are %s", z)
	}
}

// Without hints, routers are where the configuration says.
func TestDefaultZones(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[DEFAULT]\ndefault_availability_zones = west\n"})
	project := k.As("project1")
	k.Host("host1", exttest.HostOptions{Zone: "east"})
	k.Host("host2", exttest.HostOptions{})
	k.Host("host3", exttest.HostOptions{Zone: "west"})
	n := project.Create("network", `{}`).ID()
	s := project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, n).ID()
	r := project.Create("router", `{}`).ID()
	project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, s)
	if o := project.Get("router", r); o.JSON("availability_zones") != `["west"]` || o.JSON("availability_zone_hints") != `[]` {
		t.Errorf("router is %v", o)
	}
}
