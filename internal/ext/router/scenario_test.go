package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/store"
)

// text is an object's JSON form with ids replaced by names, given in pairs as strings.NewReplacer has them.
func text(t testing.TB, v any, names ...string) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(names...).Replace(string(raw))
}

func words(list ...any) string { return strings.TrimSuffix(fmt.Sprintln(list...), "\n") }

func equal(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// What a request makes: the object, the rows, the events.
func TestRouterLife(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	at := w.LastSequence()
	r := w.admin.Create("router", `{"name": "r", "tenant_id": "project1", "external_gateway_info": {"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.20"}]}}`, w.external)
	gateway := w.admin.List("port", "device_id", r.ID())[0]
	names := []string{r.ID(), "ROUTER", gateway.ID(), "GATEWAY", w.external, "EXTERNAL", w.public, "PUBLIC", w.private, "PRIVATE", w.subnet, "SUBNET", r.Text("created_at"), "THEN"}
	equal(t, "router", text(t, r, names...), `{"admin_state_up":true,"availability_zone_hints":[],"availability_zones":[],"conntrack_helpers":[],"created_at":"THEN","description":"","distributed":false,"enable_default_route_bfd":false,"enable_default_route_ecmp":false,"enable_ndp_proxy":false,"enable_snat":true,`+
		`"external_gateway_info":{"enable_snat":true,"external_fixed_ips":[{"ip_address":"203.0.113.20","subnet_id":"PUBLIC"}],"network_id":"EXTERNAL"},`+
		`"external_gateways":[{"external_fixed_ips":[{"ip_address":"203.0.113.20","subnet_id":"PUBLIC"}],"network_id":"EXTERNAL"}],"flavor_id":null,"ha":false,`+
		`"id":"ROUTER","name":"r","project_id":"project1","revision_number":1,"routes":[],"status":"ACTIVE","tags":[],"tenant_id":"project1","updated_at":"THEN"}`)
	equal(t, "gateway port", words(gateway["device_owner"], gateway["tenant_id"], gateway["binding:host_id"], gateway["binding:vif_type"], gateway["port_security_enabled"], gateway.JSON("security_groups")),
		"network:router_gateway  host1 ovs false []")
	equal(t, "events", fmt.Sprint(w.Events(at, map[string]string{r.ID(): "ROUTER", gateway.ID(): "GATEWAY"})), "[create port GATEWAY create router ROUTER]")
	equal(t, "binding", fmt.Sprint(w.Rows(2, "SELECT router_id, host FROM router_binding")), fmt.Sprintf("[[%s host1]]", r.ID()))

	at = w.LastSequence()
	i := w.project.Act("router", r.ID(), "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	names = append(names, i.Text("port_id"), "INTERFACE")
	equal(t, "interface", text(t, i, names...), `{"id":"ROUTER","network_id":"PRIVATE","port_id":"INTERFACE","project_id":"project1","subnet_id":"SUBNET","subnet_ids":["SUBNET"],"tenant_id":"project1"}`)
	events := w.Events(at, map[string]string{r.ID(): "ROUTER", i.Text("port_id"): "INTERFACE"})
	if n := len(events); n != 3 || events[n-1] != "update router ROUTER" || !slices.Contains(events, "create port INTERFACE") { // the third: the network's DHCP port
		t.Errorf("events: %v", events)
	}
	equal(t, "rows", fmt.Sprint(w.Rows(2, "SELECT router_id, port_id FROM router_port")), fmt.Sprintf("[[%s %s]]", r.ID(), i.Text("port_id")))
	if n := w.project.Get("router", r.ID())["revision_number"]; n != 2.0 {
		t.Errorf("an interface is a new revision of the router; it is %v", n)
	}

	// A project sees neither the gateway's port, nor another project's router.
	if list := w.project.List("port", "device_owner", "network:router_gateway"); len(list) > 0 {
		t.Errorf("the project sees %v", list)
	}
	if list := w.As("project2").List("router"); len(list) > 0 {
		t.Errorf("another project sees %v", list)
	}
	if list := w.project.List("router", "name", "r"); len(list) != 1 || list[0].ID() != r.ID() {
		t.Errorf("by name: %v", list)
	}

	routes := `[{"destination":"10.5.0.0/16","nexthop":"10.0.0.5"},{"destination":"0.0.0.0/0","nexthop":"203.0.113.2"}]`
	equal(t, "routes", w.project.Update("router", r.ID(), `{"routes": %s}`, routes).JSON("routes"), routes)
	equal(t, "routes after another update", w.project.Update("router", r.ID(), `{"name": "s"}`).JSON("routes"), routes)
	equal(t, "no routes", w.project.Update("router", r.ID(), `{"routes": null}`).JSON("routes"), "[]")

	j := w.project.Act("router", r.ID(), "remove_router_interface", `{"port_id": %q, "subnet_id": %q}`, i.Text("port_id"), w.subnet)
	equal(t, "removed interface", text(t, j), text(t, i))
	at = w.LastSequence()
	w.project.Delete("router", r.ID())
	equal(t, "events", fmt.Sprint(w.Events(at, map[string]string{r.ID(): "ROUTER", gateway.ID(): "GATEWAY"})), "[delete port GATEWAY delete router ROUTER]")
	equal(t, "rows left", fmt.Sprint(w.Rows(1, "SELECT router_id FROM router_binding UNION SELECT router_id FROM router_port")), "[]")
}

func TestGateway(t *testing.T) {
	w := newWorld(t)
	r := w.project.Create("router", `{}`)
	equal(t, "none", r.JSON("external_gateway_info"), "null")
	set := func(c *exttest.Client, body string, args ...any) exttest.Object {
		t.Helper()
		o := c.Update("router", r.ID(), `{"external_gateway_info": `+body+`}`, args...)
		equal(t, "shown and stored", o.JSON("external_gateway_info"), c.Get("router", r.ID()).JSON("external_gateway_info"))
		g, _ := o["external_gateway_info"].(map[string]any)
		return g
	}
	ports := func() []exttest.Object { return w.admin.List("port", "device_owner", "network:router_gateway") }

	g := set(w.project, `{"network_id": %q}`, w.external)
	address := text(t, g["external_fixed_ips"])
	if g["enable_snat"] != true || len(g["external_fixed_ips"].([]any)) != 1 {
		t.Errorf("gateway is %v", g)
	}
	first := ports()[0].ID()

	// SNAT returns to its default with each gateway that does not name it; the address stays.
	g = set(w.admin, `{"network_id": %q, "enable_snat": "false"}`, w.external)
	if g["enable_snat"] != false || text(t, g["external_fixed_ips"]) != address {
		t.Errorf("gateway is %v", g)
	}
	if o := w.project.Update("router", r.ID(), `{"name": "x"}`); o["external_gateway_info"].(map[string]any)["enable_snat"] != false {
		t.Errorf("router is %v", o)
	}
	if g = set(w.admin, `{"network_id": %q}`, w.external); g["enable_snat"] != true {
		t.Errorf("gateway is %v", g)
	}

	// Other addresses, on the same port.
	g = set(w.admin, `{"network_id": %q, "external_fixed_ips": [{"subnet_id": %q, "ip_address": "203.0.113.77"}]}`, w.external, w.public)
	equal(t, "addresses", text(t, g["external_fixed_ips"], w.public, "PUBLIC"), `[{"ip_address":"203.0.113.77","subnet_id":"PUBLIC"}]`)
	if list := ports(); len(list) != 1 || list[0].ID() != first {
		t.Errorf("gateway ports: %v", list)
	}
	g = set(w.admin, `{"network_id": %q, "external_fixed_ips": [{"subnet_id": %q}]}`, w.external, w.public)
	equal(t, "an address of the subnet is kept", text(t, g["external_fixed_ips"], w.public, "PUBLIC"), `[{"ip_address":"203.0.113.77","subnet_id":"PUBLIC"}]`)

	// Another network: another port. Without subnets it has no address, until there is one.
	other := w.admin.Create("network", `{"router:external": true}`).ID()
	g = set(w.project, `{"network_id": %q}`, other)
	if text(t, g["external_fixed_ips"]) != "[]" || len(ports()) != 1 || ports()[0].ID() == first {
		t.Errorf("gateway is %v", g)
	}
	n := w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "198.51.100.0/30", "enable_dhcp": false}`, other).ID()
	want := `[{"ip_address":"198.51.100.2","subnet_id":"` + n + `"}]`
	equal(t, "after the subnet", text(t, w.project.Get("router", r.ID())["external_gateway_info"].(map[string]any)["external_fixed_ips"]), want)
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "198.51.100.8/29"}`, other)
	equal(t, "it has one already", text(t, w.project.Get("router", r.ID())["external_gateway_info"].(map[string]any)["external_fixed_ips"]), want)
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:9::/64", "enable_dhcp": false}`, other)
	if list := w.project.Get("router", r.ID())["external_gateway_info"].(map[string]any)["external_fixed_ips"].([]any); len(list) != 2 {
		t.Errorf("after the IPv6 subnet: %v", list)
	}

	if g = set(w.project, `{}`); g != nil || len(ports()) != 0 {
		t.Errorf("gateway is %v, ports %v", g, ports())
	}
	w.admin.Update("network", w.external, `{"router:external": false}`)
}

func TestSNATDefault(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[DEFAULT]\nenable_snat_by_default = false\n"})
	n := k.Admin().Create("network", `{"router:external": true}`).ID()
	r := k.Admin().Create("router", `{"external_gateway_info": {"network_id": %q}}`, n)
	if r["external_gateway_info"].(map[string]any)["enable_snat"] != false {
		t.Errorf("router is %v", r)
	}
}

func TestInterfaces(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r := w.project.Create("router", `{}`).ID()

	// A user's port, which goes with the interface.
	p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.9"}]}`, w.private).ID()
	i := w.project.Act("router", r, "add_router_interface", `{"port_id": %q}`, p)
	o := w.admin.Get("port", p)
	equal(t, "port", words(i.Text("port_id") == p, o["device_id"] == r, o["device_owner"], o["binding:host_id"], o["binding:vif_type"]), "true true network:router_interface host1 ovs")
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, w.subnet)
	_, err := w.project.TryGet("port", p)
	w.Refused(err, fault.NotFound, "PortNotFound", "")

	// All IPv6 prefixes of a network are on one port; one of several is taken off it.
	n6, a := w.another(`{"ip_version": 6, "cidr": "2001:db8:a::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}`)
	b := w.project.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:b::/64"}`, n6).ID()
	ia := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, a)
	ib := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, b)
	if ia.Text("port_id") != ib.Text("port_id") {
		t.Errorf("two ports: %v, %v", ia, ib)
	}
	equal(t, "addresses", text(t, w.project.Get("port", ia.Text("port_id"))["fixed_ips"], a, "A", b, "B"), `[{"ip_address":"2001:db8:a::1","subnet_id":"A"},{"ip_address":"2001:db8:b::1","subnet_id":"B"}]`)
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, a)
	equal(t, "addresses", text(t, w.project.Get("port", ia.Text("port_id"))["fixed_ips"], b, "B"), `[{"ip_address":"2001:db8:b::1","subnet_id":"B"}]`)
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, b)

	// Another project's subnet, for those that it is shared with by name, and administrators.
	_, n := w.shared("project1")
	w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, n)
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, n)
	w.admin.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, n)
	if p := w.admin.List("port", "device_id", r)[0]; p.Text("tenant_id") != "project1" {
		t.Errorf("the port is %s's", p.Text("tenant_id"))
	}
}

func TestFloatingIPLife(t *testing.T) {
	w := newWorld(t)
	r := w.attached()
	at := w.LastSequence()
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "subnet_id": %q, "description": "d"}`, w.external, w.public)
	holder := w.admin.List("port", "device_owner", "network:floatingip")[0]
	names := []string{f.ID(), "FLOATING", f.Text("floating_ip_address"), "ADDRESS", r, "ROUTER", w.external, "EXTERNAL", w.private, "PRIVATE"}
	equal(t, "floating IP", text(t, f, append(names, f.Text("created_at"), "THEN")...), `{"created_at":"THEN","description":"d","dns_domain":"","dns_name":"","fixed_ip_address":null,"floating_ip_address":"ADDRESS","floating_network_id":"EXTERNAL",`+
		`"id":"FLOATING","port_details":null,"port_forwardings":[],"port_id":null,"project_id":"project1","qos_network_policy_id":null,"qos_policy_id":null,"revision_number":0,"router_id":null,"status":"DOWN","tags":[],"tenant_id":"project1","updated_at":"THEN"}`)
	equal(t, "events", fmt.Sprint(w.Events(at, map[string]string{f.ID(): "FLOATING", holder.ID(): "HOLDER"})), "[create port HOLDER create floatingip FLOATING]")
	equal(t, "holder", words(holder["device_id"] == f.ID(), holder["status"], holder["tenant_id"], holder["binding:vif_type"]), "true N/A  unbound")

	p := w.project.Create("port", `{"network_id": %q, "name": "vm", "mac_address": "fa:16:3e:00:00:01", "fixed_ips": [{"ip_address": "10.0.0.5"}, {"ip_address": "10.0.0.6"}]}`, w.private).ID()
	at = w.LastSequence()
	f = w.project.Update("floatingip", f.ID(), `{"port_id": %q, "fixed_ip_address": "10.0.0.6"}`, p)
	equal(t, "association", text(t, []any{f["port_id"], f["fixed_ip_address"], f["router_id"], f["status"], f["port_details"]}, append(names, p, "PORT")...),
		`["PORT","10.0.0.6","ROUTER","DOWN",{"admin_state_up":true,"device_id":"","device_owner":"","mac_address":"fa:16:3e:00:00:01","name":"vm","network_id":"PRIVATE","status":"DOWN"}]`)
	equal(t, "events", fmt.Sprint(w.Events(at, map[string]string{f.ID(): "FLOATING", r: "ROUTER"})), "[update floatingip FLOATING update router ROUTER]")
	equal(t, "stored", text(t, w.project.Get("floatingip", f.ID())), text(t, f))
	revision := w.project.Get("router", r)["revision_number"]

	// What does not name the port leaves the association alone.
	at = w.LastSequence()
	f = w.project.Update("floatingip", f.ID(), `{"description": "e"}`)
	equal(t, "after another update", words(f["fixed_ip_address"], f["router_id"] == r, f["description"]), "10.0.0.6 true e")
	equal(t, "events", fmt.Sprint(w.Events(at, map[string]string{f.ID(): "FLOATING"})), "[update floatingip FLOATING]")
	// The other address may have one of its own.
	w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q, "fixed_ip_address": "10.0.0.5"}`, w.external, p)

	for filter, value := range map[string]string{"port_id": p, "router_id": r, "floating_network_id": w.external, "status": "DOWN", "tenant_id": "project1"} {
		if list := w.project.List("floatingip", filter, value); len(list) != 2 {
			t.Errorf("by %s: %v", filter, list)
		}
	}
	for filter, value := range map[string]string{"floating_ip_address": f.Text("floating_ip_address"), "fixed_ip_address": "10.0.0.6"} {
		if list := w.project.List("floatingip", filter, value); len(list) != 1 || list[0].ID() != f.ID() {
			t.Errorf("by %s: %v", filter, list)
		}
	}
	if now := w.project.Get("router", r)["revision_number"]; now != revision {
		t.Errorf("floating IPs are no revision of the router: %v, was %v", now, revision)
	}

	// The port goes; the floating IPs stay.
	w.project.Delete("port", p)
	f = w.project.Get("floatingip", f.ID())
	equal(t, "after the port", text(t, []any{f["port_id"], f["fixed_ip_address"], f["router_id"], f["status"], f["port_details"]}), `[null,null,null,"DOWN",null]`)

	at = w.LastSequence()
	w.project.Delete("floatingip", f.ID())
	equal(t, "events", fmt.Sprint(w.Events(at, map[string]string{f.ID(): "FLOATING", holder.ID(): "HOLDER"})), "[delete floatingip FLOATING delete port HOLDER]")
}

// The router that is the subnet's gateway goes before others.
func TestFloatingIPChoosesRouter(t *testing.T) {
	w := newWorld(t)
	side := w.router().ID()
	w.project.Act("router", side, "add_router_interface", `{"port_id": %q}`, w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.254"}]}`, w.private).ID())
	first := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port())
	if first.Text("router_id") != side {
		t.Errorf("router is %v", first["router_id"])
	}
	main := w.attached()
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port())
	if f.Text("router_id") != main {
		t.Errorf("router is %v, not the subnet's gateway %s", f["router_id"], main)
	}
	// A later update finds the way anew.
	if first = w.project.Update("floatingip", first.ID(), `{"description": ""}`); first.Text("router_id") != main {
		t.Errorf("router is %v", first["router_id"])
	}
}

// Of many associations of one port at once, one wins.
func TestFloatingIPRace(t *testing.T) {
	w := newWorld(t)
	w.attached()
	p := w.port()
	const n = 16
	var ids [n]string
	for i := range ids {
		ids[i] = w.project.Create("floatingip", `{"floating_network_id": %q}`, w.external).ID()
	}
	var errs [n]error
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range ids {
		group.Add(1)
		go func() {
			defer group.Done()
			<-start
			_, errs[i] = w.project.TryUpdate("floatingip", ids[i], `{"port_id": %q}`, p)
		}()
	}
	close(start)
	group.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		w.Refused(err, fault.Conflict, "FloatingIPPortAlreadyAssociated", "")
	}
	if list := w.project.List("floatingip", "port_id", p); won != 1 || len(list) != 1 {
		t.Errorf("%d won, and %d have the port", won, len(list))
	}
	// It is the key that decides, not what was read before.
	err := w.Store.Tx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE floatingip SET port_id = ?, fixed_ip_address = (SELECT fixed_ip_address FROM floatingip WHERE port_id = ?)", p, p)
		return err
	})
	if !store.Duplicate(err, "floatingip", "fixed_ip_address") {
		t.Errorf("the table takes a second association: %v", err)
	}
}

func TestTags(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"router", "floatingip"} {
		o := w.project.Create(name, "%s", map[string]string{"router": `{}`, "floatingip": `{"floating_network_id": "` + w.external + `"}`}[name])
		tagger := w.Registry.Named(name).Service.(interface {
			SetTags(context.Context, string, func([]string) ([]string, error)) ([]string, error)
		})
		if _, err := tagger.SetTags(w.project.Context(), o.ID(), func([]string) ([]string, error) { return []string{"b", "a"}, nil }); err != nil {
			t.Fatal(err)
		}
		equal(t, name, w.project.Get(name, o.ID()).JSON("tags"), `["a","b"]`)
	}
}

// The attributes are those of the API's definition.
func TestContract(t *testing.T) {
	w := newWorld(t)
	for _, alias := range []string{"router", "ext-gw-mode", "extraroute", "fip-port-details"} {
		raw, err := os.ReadFile("../../resource/testdata/contract/" + alias + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var definition struct {
			Name      string
			Updated   string
			Resources map[string]struct {
				Attributes map[string]struct {
					AllowPost        bool   `json:"allow_post"`
					AllowPut         bool   `json:"allow_put"`
					IsVisible        bool   `json:"is_visible"`
					RequiredByPolicy bool   `json:"required_by_policy"`
					EnforcePolicy    bool   `json:"enforce_policy"`
					IsFilter         bool   `json:"is_filter"`
					IsSortKey        bool   `json:"is_sort_key"`
					PrimaryKey       bool   `json:"primary_key"`
					HasDefault       bool   `json:"has_default"`
					Default          any    `json:"default"`
					ConvertTo        string `json:"convert_to"`
					Validate         map[string]any
				}
			}
		}
		if err := json.Unmarshal(raw, &definition); err != nil {
			t.Fatal(err)
		}
		e, ok := w.Registry.Extension(alias)
		if !ok || e.Name != definition.Name || e.Updated != definition.Updated {
			t.Errorf("extension %s is %+v", alias, e)
		}
		for collection, r := range definition.Resources {
			have := w.Registry.Lookup("/" + collection)
			for name, want := range r.Attributes {
				if name == "external_gateway_info" {
					continue // qos-gateway-ip has it whole
				}
				a := have.Attribute(name)
				if a == nil {
					t.Errorf("%s has no %s", collection, name)
					continue
				}
				flags := ""
				for i, set := range []bool{want.AllowPost, want.AllowPut, want.IsVisible, want.RequiredByPolicy, want.EnforcePolicy, want.IsFilter, want.IsSortKey, want.PrimaryKey} {
					if is := a.Flags&(1<<i) != 0; is != set {
						flags += fmt.Sprintf(" flag %d is %v", i, is)
					}
				}
				if required := want.AllowPost && !want.HasDefault && name != "tenant_id"; flags != "" || a.Required != required || a.Convert != want.ConvertTo {
					t.Errorf("%s.%s:%s required %v, convert %q", collection, name, flags, a.Required, a.Convert)
				}
				equal(t, collection+"."+name+" validation", text(t, a.Validate, "{}", "null"), text(t, want.Validate, "{}", "null"))
				if want.HasDefault && want.Default != "@ATTR_NOT_SPECIFIED" && a.Flags&1 != 0 {
					equal(t, collection+"."+name+" default", text(t, a.Default), text(t, want.Default))
				}
			}
		}
	}
}
