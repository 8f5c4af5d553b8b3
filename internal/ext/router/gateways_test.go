package router_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/store"
)

// gateways writes external_gateways as "NETWORK address,address; …".
func gateways(o exttest.Object, names ...string) string {
	var list []string
	all, _ := o["external_gateways"].([]any)
	for _, g := range all {
		g := g.(map[string]any)
		var addresses []string
		for _, f := range g["external_fixed_ips"].([]any) {
			addresses = append(addresses, f.(map[string]any)["ip_address"].(string))
		}
		list = append(list, g["network_id"].(string)+" "+strings.Join(addresses, ","))
	}
	return strings.NewReplacer(names...).Replace(strings.Join(list, "; "))
}

// secondExternal is another external network, 198.51.100.0/24.
func (w *world) secondExternal() (network, subnet string) {
	w.t.Helper()
	network = w.admin.Create("network", `{"name": "second", "router:external": true}`).ID()
	subnet = w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "198.51.100.0/24", "enable_dhcp": false}`, network).ID()
	return network, subnet
}

func TestSeveralGateways(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	second, _ := w.secondExternal()
	names := []string{w.external, "E", second, "F"}
	id := w.project.Create("router", `{}`).ID()
	do := func(action, list string, args ...any) exttest.Object {
		t.Helper()
		o := w.admin.Act("router", id, action, `{"router": {"external_gateways": `+list+`}}`, args...)
		shown := w.admin.Get("router", id)
		equal(t, "shown and stored", o.JSON("external_gateways")+o.JSON("external_gateway_info"), shown.JSON("external_gateways")+shown.JSON("external_gateway_info"))
		return o
	}
	look := func(what string, o exttest.Object, want string) {
		t.Helper()
		equal(t, what, gateways(o, names...), want)
		info, _ := o["external_gateway_info"].(map[string]any)
		first, _, _ := strings.Cut(want, " ")
		if got := strings.NewReplacer(names...).Replace(fmt.Sprint(info["network_id"])); want != "" && got != first {
			t.Errorf("%s: external_gateway_info is on %s", what, got)
		} else if want == "" && info != nil {
			t.Errorf("%s: external_gateway_info is %v", what, info)
		}
	}
	equal(t, "none", w.project.Get("router", id).JSON("external_gateways"), "[]")
	const e1, e2, f1 = `{"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.20"}]}`, `{"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.21"}]}`, `{"network_id": %q, "external_fixed_ips": [{"ip_address": "198.51.100.20"}]}`
	at := w.LastSequence()
	look("added to none", do("add_external_gateways", "["+e1+","+f1+"]", w.external, second), "E 203.0.113.20; F 198.51.100.20")
	if e := w.Events(at, map[string]string{id: "R"}); len(e) != 3 || e[2] != "update router R" {
		t.Errorf("events: %v", e)
	}
	look("added", do("add_external_gateways", "["+e2+"]", w.external), "E 203.0.113.20; F 198.51.100.20; E 203.0.113.21")
	equal(t, "rows", fmt.Sprint(w.Rows(1, "SELECT position FROM router_gateway_port WHERE router_id = ? ORDER BY position", id)), "[[0] [1] [2]]")

	// The host is told all; the first is the one of old.
	m := w.told("host1", id)
	if m.Gateway.Addresses[0] != "203.0.113.20/24" || len(m.FurtherGateways) != 2 || m.FurtherGateways[0].Addresses[0] != "198.51.100.20/24" || m.FurtherGateways[0].GatewayIps[0] != "198.51.100.1" || m.EnableDefaultRouteEcmp {
		t.Errorf("the host is told %v", m)
	}
	stream := w.Attach("host1")
	w.admin.Update("router", id, `{"enable_default_route_ecmp": true, "enable_default_route_bfd": true}`)
	w.admin.Update("router", id, `{"enable_default_route_ecmp": null, "enable_default_route_bfd": null}`)
	if m := w.told("host1", id); !m.EnableDefaultRouteEcmp || !m.EnableDefaultRouteBfd {
		t.Errorf("the host is told %v", m)
	}

	// Updates keep the ports of what they name.
	ports := func() string {
		var list []string
		for _, row := range w.Rows(1, "SELECT port_id FROM router_gateway_port WHERE router_id = ? ORDER BY port_id", id) {
			list = append(list, row[0].(string))
		}
		return strings.Join(list, " ")
	}
	before := ports()
	look("another first", do("update_external_gateways", "["+f1+","+e1+","+e2+"]", second, w.external, w.external), "F 198.51.100.20; E 203.0.113.20; E 203.0.113.21")
	equal(t, "ports", ports(), before)
	look("other addresses", do("update_external_gateways", `[{"network_id": %q}, {"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.21"}, {"ip_address": "203.0.113.22"}]}]`, second, w.external), "F 198.51.100.20; E 203.0.113.21,203.0.113.22")
	stream.Agrees()

	// What floating IPs need stays; of two on one network either may go.
	w.project.Act("router", id, "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port())
	equal(t, "router of the floating IP", f.Text("router_id"), id)
	if m := w.told("host1", id); len(m.FloatingIps) != 1 {
		t.Errorf("the host is told %v", m)
	}
	_, err := w.admin.TryAct("router", id, "remove_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, w.external)
	w.Refused(err, fault.Conflict, "RouterExternalGatewayInUseByFloatingIp", "Gateway cannot be updated for router "+id+", since a gateway to external network "+w.external+" is required by one or more floating IPs.")
	do("add_external_gateways", "["+e1+"]", w.external)
	_, err = w.admin.TryAct("router", id, "remove_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, w.external)
	w.Refused(err, fault.Unmapped, "UnableToMatchGateways", "Unable to match a requested gateway port to existing gateway ports for router "+id)
	look("removed", do("remove_external_gateways", `[`+e2+`]`, w.external), "F 198.51.100.20; E 203.0.113.20")
	w.project.Delete("floatingip", f.ID())

	// Without its first gateway, the next one is.
	look("first removed", do("remove_external_gateways", `[{"network_id": %q}]`, second), "E 203.0.113.20")
	do("add_external_gateways", "["+f1+"]", second)
	w.project.Update("router", id, `{"external_gateway_info": null}`)
	look("first taken away", w.admin.Get("router", id), "F 198.51.100.20")
	do("add_external_gateways", "["+e1+"]", w.external)
	third := w.admin.Create("network", `{"router:external": true}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "192.0.2.0/24", "enable_dhcp": false}`, third)
	names = append(names, third, "G")
	o := w.project.Update("router", id, `{"external_gateway_info": {"network_id": %q}}`, third)
	if got := gateways(o, names...); !strings.HasPrefix(got, "G ") || !strings.HasSuffix(got, "; E 203.0.113.20") {
		t.Errorf("first replaced: %s", got)
	}
	look("all removed", do("update_external_gateways", "[]"), "")
	stream.Agrees()
	_, err = w.admin.TryAct("router", id, "remove_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, second)
	w.Refused(err, fault.Unmapped, "UnableToRemoveGateways", "Unable to remove extra gateways from a router "+id)

	// A router goes with all its gateways.
	do("add_external_gateways", "["+e1+","+f1+"]", w.external, second)
	w.project.Act("router", id, "remove_router_interface", `{"subnet_id": %q}`, w.subnet)
	w.project.Delete("router", id)
	if left := w.admin.List("port", "device_owner", "network:router_gateway"); len(left) != 0 {
		t.Errorf("ports %v are left", left)
	}
}

func TestGatewayRefusals(t *testing.T) {
	act := func(w *world, r, action, body string, args ...any) error {
		return last(w.admin.TryAct("router", r, action, body, args...))
	}
	refuse(t, []refusal{
		{"no router in the body", func(w *world) ([]string, error) {
			return nil, act(w, w.router().ID(), "add_external_gateways", `{}`)
		}, fault.Invalid, "HTTPBadRequest", "Unable to find 'router' in request body"},
		{"no network", func(w *world) ([]string, error) {
			return nil, act(w, w.router().ID(), "add_external_gateways", `{"router": {"external_gateways": [{"enable_snat": true}]}}`)
		}, fault.Invalid, "HTTPBadRequest", ""},
		{"not a list", func(w *world) ([]string, error) {
			return nil, act(w, w.router().ID(), "update_external_gateways", `{"router": {"external_gateways": 7}}`)
		}, fault.Invalid, "HTTPBadRequest", ""},
		{"not external", func(w *world) ([]string, error) {
			return nil, act(w, w.router().ID(), "add_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, w.private)
		}, fault.Invalid, "BadRequest", "Bad router request: Network PRIVATE is not an external network."},
		{"the subnet's gateway", func(w *world) ([]string, error) {
			return nil, act(w, w.router().ID(), "add_external_gateways", `{"router": {"external_gateways": [{"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.1"}]}]}}`, w.external)
		}, fault.Invalid, "BadRequest", "Bad router request: External IP 203.0.113.1 is the same as the gateway IP."},
		{"overlap of two external networks", func(w *world) ([]string, error) {
			n := w.admin.Create("network", `{"router:external": true}`).ID()
			s := w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/25"}`, n).ID()
			return []string{"OTHER", s}, act(w, w.router().ID(), "add_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, n)
		}, fault.Invalid, "BadRequest", "Bad router request: Cidr 203.0.113.0/25 of subnet OTHER overlaps with cidr 203.0.113.0/24 of subnet PUBLIC."},
		{"removal of one on another network", func(w *world) ([]string, error) {
			n, _ := w.secondExternal()
			r := w.router().ID()
			return []string{"ROUTER", r}, act(w, r, "remove_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, n)
		}, fault.Unmapped, "UnableToMatchGateways", "Unable to match a requested gateway port to existing gateway ports for router ROUTER"},
		{"removal by another address", func(w *world) ([]string, error) {
			r := w.router().ID()
			return []string{"ROUTER", r}, act(w, r, "remove_external_gateways", `{"router": {"external_gateways": [{"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.200"}]}]}}`, w.external)
		}, fault.Unmapped, "UnableToMatchGateways", "Unable to match a requested gateway port to existing gateway ports for router ROUTER"},
		{"read-only", func(w *world) ([]string, error) {
			return nil, last(w.admin.TryCreate("router", `{"external_gateways": []}`))
		}, fault.Invalid, "HTTPBadRequest", "Attribute 'external_gateways' not allowed in POST"},
		{"enable_snat is read-only", func(w *world) ([]string, error) {
			return nil, last(w.admin.TryUpdate("router", w.router().ID(), `{"enable_snat": false}`))
		}, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute enable_snat"},
		{"deletion of a further gateway's port", func(w *world) ([]string, error) {
			r := w.router().ID()
			w.admin.Act("router", r, "add_external_gateways", `{"router": {"external_gateways": [{"network_id": %q}]}}`, w.external)
			id := w.Rows(1, "SELECT port_id FROM router_gateway_port WHERE position = 1")[0][0].(string)
			return []string{"PORT", id}, w.admin.TryDelete("port", id)
		}, fault.Conflict, "ServicePortInUse", "Port PORT cannot be deleted directly via the port API: has device owner network:router_gateway."},
		{"routes that are none", func(w *world) ([]string, error) {
			return nil, act(w, w.attached(), "add_extraroutes", `{"router": {"routes": [{"destination": "10.9.0.0/16"}]}}`)
		}, fault.Invalid, "HTTPBadRequest", ""},
		{"a route to nowhere", func(w *world) ([]string, error) {
			return nil, act(w, w.attached(), "add_extraroutes", `{"router": {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.77.0.1"}]}}`)
		}, fault.Invalid, "InvalidRoutes", "Invalid format for routes: [{'destination': '10.9.0.0/16', 'nexthop': '10.77.0.1'}], the nexthop is not connected with router"},
		{"too many routes", func(w *world) ([]string, error) {
			w.admin.Call("PUT", "/quotas/{project_id}", []string{"project1"}, `{"quota": {"router_route": 1}}`)
			return nil, act(w, w.attached(), "add_extraroutes", `{"router": {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}, {"destination": "10.8.0.0/16", "nexthop": "10.0.0.9"}]}}`)
		}, fault.Conflict, "OverQuota", "Quota exceeded for resources: ['router_route']."},
	})
}

func TestRoutesOneByOne(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	id := w.attached()
	do := func(action, routes string, want int) exttest.Object {
		t.Helper()
		o := w.project.Act("router", id, action, `{"router": {"routes": %s}}`, routes)
		if n := len(o["routes"].([]any)); n != want {
			t.Errorf("%s %s: %v", action, routes, o["routes"])
		}
		return o
	}
	const a, b, a2 = `{"destination": "10.5.0.0/16", "nexthop": "10.0.0.5"}`, `{"destination": "10.6.0.0/16", "nexthop": "10.0.0.6"}`, `{"destination": "10.5.0.0/16", "nexthop": "10.0.0.7"}`
	before := w.project.Get("router", id)["revision_number"].(float64)
	do("add_extraroutes", "["+a+"]", 1)
	do("add_extraroutes", "["+a+","+b+","+b+"]", 2)
	o := do("add_extraroutes", "["+a2+"]", 3)
	if o["revision_number"] != before+3 {
		t.Errorf("revision is %v after %v", o["revision_number"], before)
	}
	if m := w.told("host1", id); len(m.Routes) != 3 {
		t.Errorf("the host is told %v", m)
	}
	do("remove_extraroutes", `[{"destination": "10.66.0.0/16", "nexthop": "10.0.0.6"}]`, 3)
	do("remove_extraroutes", "["+a+"]", 2)
	do("remove_extraroutes", "["+a+","+b+","+a2+"]", 0)
	do("add_extraroutes", "null", 0)
	equal(t, "nothing said", w.project.Act("router", id, "add_extraroutes", `{"router": {}}`).JSON("routes"), "[]")
}

func TestFloatingIPPools(t *testing.T) {
	w := newWorld(t)
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8:e::/64"}`, w.external)
	hidden := w.admin.Create("network", `{}`).ID()
	s := w.admin.Create("subnet", `{"network_id": %q, "name": "pool", "ip_version": 4, "cidr": "192.0.2.0/24"}`, hidden).ID()
	w.admin.Create("rbac_policy", `{"object_type": "network", "object_id": %q, "action": "access_as_external", "target_tenant": "22222222-2222-4222-8222-222222222222"}`, hidden)
	list := w.project.List("floatingip_pool")
	if len(list) != 1 || text(t, list[0], w.external, "EXTERNAL", w.public, "PUBLIC") != `{"cidr":"203.0.113.0/24","network_id":"EXTERNAL","project_id":"project1","subnet_id":"PUBLIC","subnet_name":"","tenant_id":"project1"}` {
		t.Errorf("pools of a project: %v", list)
	}
	if list := w.As("22222222-2222-4222-8222-222222222222").List("floatingip_pool"); len(list) != 2 || !slices.ContainsFunc(list, func(o exttest.Object) bool { return o.Text("subnet_id") == s && o.Text("subnet_name") == "pool" }) {
		t.Errorf("pools of one that has another network: %v", list)
	}
	if list := w.admin.List("floatingip_pool"); len(list) != 2 {
		t.Errorf("pools of an administrator: %v", list)
	}
}

// Floating IPs that stand for nothing go when their network turns internal.
func TestFloatingIPsOfNetworkThatTurnsInternal(t *testing.T) {
	w := newWorld(t)
	f := w.project.Create("floatingip", `{"floating_network_id": %q}`, w.external).ID()
	w.admin.Update("network", w.external, `{"name": "x"}`)
	w.project.Get("floatingip", f)
	w.admin.Update("network", w.external, `{"router:external": false}`)
	if _, err := w.project.TryGet("floatingip", f); !fault.IsKind(err, fault.NotFound) {
		t.Errorf("floating IP: %v", err)
	}
	if left := w.admin.List("port", "network_id", w.external); len(left) != 0 {
		t.Errorf("ports %v are left", left)
	}
}

func TestKinds(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r := w.admin.Create("router", `{"tenant_id": "project1"}`)
	equal(t, "defaults", words(r["distributed"], r["ha"], r["enable_default_route_ecmp"], r["enable_snat"], r.JSON("flavor_id")), "false false false true null")
	equal(t, "null is the default", w.admin.Create("router", `{"distributed": null, "ha": null}`).JSON("ha"), "false")
	id := r.ID()
	p := w.project.Act("router", id, "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
	owner := func(want string) {
		t.Helper()
		equal(t, "owner of the interface", w.project.Get("port", p).Text("device_owner"), want)
	}
	owner("network:router_interface")
	_, err := w.admin.TryUpdate("router", id, `{"distributed": true}`)
	w.Refused(err, fault.Invalid, "BadRequest", "Bad router request: Cannot change the 'distributed' attribute of active routers. Please set router admin_state_up to False prior to upgrade.")
	_, err = w.admin.TryUpdate("router", id, `{"ha": true, "admin_state_up": false}`)
	w.Refused(err, fault.Invalid, "BadRequest", "Bad router request: Cannot change HA attribute of active routers. Please set router admin_state_up to False prior to upgrade.")
	w.admin.Update("router", id, `{"distributed": false, "ha": false, "name": "same"}`)
	w.admin.Update("router", id, `{"admin_state_up": false}`)
	w.admin.Update("router", id, `{"distributed": true}`)
	owner("network:router_interface_distributed")
	w.admin.Update("router", id, `{"distributed": false, "ha": true, "admin_state_up": true}`)
	owner("network:ha_router_replicated_interface")
	equal(t, "after another update", words(w.admin.Update("router", id, `{"ha": null, "name": "x"}`)["ha"]), "true")

	// A router of each kind serves floating IPs, and its interface is the router's alone.
	w.admin.Update("router", id, `{"external_gateway_info": {"network_id": %q}}`, w.external)
	f := w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, w.port())
	equal(t, "router of the floating IP", f.Text("router_id"), id)
	w.Refused(w.project.TryDelete("port", p), fault.Conflict, "ServicePortInUse", "")
	agents := w.admin.Call("GET", "/routers/{router_id}/l3-agents", []string{id}, "")["agents"].([]any)
	if len(agents) != 1 || agents[0].(map[string]any)["ha_state"] != "active" {
		t.Errorf("agents: %v", agents)
	}
	if m := w.told("host1", id); !m.Ha || m.Distributed {
		t.Errorf("the host is told %v", m)
	}
}

func TestHANetwork(t *testing.T) {
	w := newWorld(t)
	find := func() []exttest.Object { return w.admin.List("network", "name", "HA network tenant project1") }
	a := w.admin.Create("router", `{"ha": true, "tenant_id": "project1"}`).ID()
	b := w.admin.Create("router", `{"ha": true, "tenant_id": "project1"}`).ID()
	list := find()
	if len(list) != 1 || list[0].Text("tenant_id") != "" || list[0]["provider:segmentation_id"] == nil {
		t.Fatalf("HA networks: %v", list)
	}
	n := w.admin.List("subnet", "network_id", list[0].ID())
	if len(n) != 1 {
		t.Fatalf("its subnets: %v", n)
	}
	equal(t, "its subnet", words(n[0]["name"], n[0]["cidr"], n[0]["enable_dhcp"], n[0]["gateway_ip"], n[0]["tenant_id"]), "HA subnet tenant project1 169.254.192.0/18 false <nil> ")
	if seen := w.project.List("network", "name", "HA network tenant project1"); len(seen) != 0 {
		t.Errorf("the project sees %v", seen)
	}
	w.admin.Delete("router", a)
	if again := find(); len(again) != 1 || again[0].JSON("provider:segmentation_id") != list[0].JSON("provider:segmentation_id") {
		t.Errorf("after one router: %v", again)
	}
	w.admin.Update("router", b, `{"admin_state_up": false}`)
	w.admin.Update("router", b, `{"ha": false}`)
	if left := find(); len(left) != 0 {
		t.Errorf("after the last: %v", left)
	}
	w.admin.Update("router", b, `{"ha": true}`)
	w.admin.Delete("router", b)
	if left := find(); len(left) != 0 {
		t.Errorf("after the last: %v", left)
	}

	// A project's own.
	own := w.project.Create("network", `{"ha": true}`)
	if _, shown := own["ha"]; shown {
		t.Errorf("network is %v", own)
	}
	_, err := w.project.TryCreate("network", `{"ha": true}`)
	w.Refused(err, fault.Conflict, "DuplicatedHANetwork", "Project project1 already has a HA network.")
	c := w.admin.Create("router", `{"ha": true, "tenant_id": "project1"}`).ID()
	if made := find(); len(made) != 0 {
		t.Errorf("a second one: %v", made)
	}
	w.admin.Delete("router", c)
	w.project.Delete("network", own.ID())
	w.project.Create("network", `{"ha": true}`)
}

func TestDefaultsOfConfiguration(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[DEFAULT]\nrouter_distributed = true\nl3_ha = true\nl3_ha_net_cidr = 169.254.0.0/24\nenable_default_route_ecmp = true\n"})
	r := k.Admin().Create("router", `{}`)
	equal(t, "router", words(r["distributed"], r["ha"], r["enable_default_route_ecmp"]), "true true true")
	equal(t, "subnets", k.Admin().List("subnet")[0].Text("cidr"), "169.254.0.0/24")
	k = exttest.New(t, exttest.Options{Config: "[DEFAULT]\nenable_dvr = false\nrouter_distributed = true\n"})
	r = k.Admin().Create("router", `{}`)
	if _, ok := r["distributed"]; ok {
		t.Errorf("router is %v", r)
	}
	if _, ok := k.Registry.Extension("dvr"); ok {
		t.Error("dvr is listed")
	}
}

func TestRouterFlavors(t *testing.T) {
	w := newWorld(t)
	flavor := func(driver string) string {
		t.Helper()
		f := w.admin.Create("flavor", `{"name": %q, "service_type": "L3_ROUTER_NAT"}`, driver).ID()
		p := w.admin.Create("service_profile", `{"driver": "neutron.services.l3_router.service_providers.%s"}`, driver).ID()
		c := w.admin.In(f)
		must(t, w.Store.Tx(context.Background(), func(tx *store.Tx) error {
			_, err := tx.Exec("INSERT INTO flavor_service_profile (flavor_id, service_profile_id) VALUES (?, ?)", f, p)
			return err
		}))
		_ = c
		return f
	}
	ha, single := flavor("ha.HaDriver"), flavor("single_node.SingleNodeDriver")
	r := w.admin.Create("router", `{"flavor_id": %q, "admin_state_up": false}`, ha)
	equal(t, "router", words(r["ha"], r["distributed"], r["flavor_id"] == ha), "true false true")
	_, err := w.admin.TryUpdate("router", r.ID(), `{"ha": false}`)
	w.Refused(err, fault.Invalid, "InvalidInput", "Invalid input for operation: Changing the 'ha' and 'distributed' attributes on a router associated with a flavor is not supported.")
	_, err = w.admin.TryCreate("router", `{"flavor_id": %q, "ha": true}`, single)
	w.Refused(err, fault.Invalid, "InvalidInput", "Invalid input for operation: Provider single_node does not support ha=True.")
	_, err = w.admin.TryCreate("router", `{"flavor_id": %q}`, absent)
	w.Refused(err, fault.NotFound, "FlavorNotFound", "Flavor "+absent+" could not be found.")
	_, err = w.admin.TryUpdate("router", r.ID(), `{"flavor_id": %q}`, single)
	w.Refused(err, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute flavor_id")
	w.Refused(w.admin.TryDelete("flavor", ha), fault.Conflict, "FlavorInUse", "Flavor "+ha+" is used by some service instance.")
	w.admin.Delete("router", r.ID())
	w.admin.Delete("flavor", ha)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A router with ha leaves a host that is not heard of, others stay.
func TestFailover(t *testing.T) {
	w := &world{Core: exttest.New(t, exttest.Options{Config: "[DEFAULT]\nagent_down_time = 2\n"}), t: t}
	w.admin, w.project = w.Admin(), w.As("project1")
	w.private = w.project.Create("network", `{}`).ID()
	w.subnet = w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.private).ID()
	w.host("host1")
	ha := w.admin.Create("router", `{"ha": true, "tenant_id": "project1"}`).ID()
	w.project.Act("router", ha, "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	plain := w.project.Create("router", `{}`).ID()
	_, n := w.another(`{"ip_version": 4, "cidr": "10.1.0.0/24"}`)
	w.project.Act("router", plain, "add_router_interface", `{"subnet_id": %q}`, n)
	equal(t, "hosts", w.hostOf(ha)+" "+w.hostOf(plain), "host1 host1")

	// Only host2 goes on reporting.
	for deadline := time.Now().Add(exttest.Deadline); w.hostOf(ha) != "host2"; {
		w.host("host2")
		if time.Now().After(deadline) {
			t.Fatalf("the router is on %s", w.hostOf(ha))
		}
		<-time.After(100 * time.Millisecond)
	}
	equal(t, "ports", w.portsOn(ha), "host2/ovs")
	if m := w.told("host2", ha); m == nil || len(m.Interfaces) != 1 {
		t.Errorf("the new host is told %v", m)
	}
	if o := w.View("host1", message.Kind_KIND_ROUTER); o[ha] != nil || o[plain] == nil {
		t.Errorf("the host that is not heard of is told %v", o)
	}
	equal(t, "the router without ha", w.hostOf(plain), "host1")
}
