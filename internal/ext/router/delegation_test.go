package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
)

const delegatable = `{"network_id": %q, "ip_version": 6, "subnetpool_id": "prefix_delegation", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}`

// delegatedTo reports what a router of a host was delegated for a subnet; empty: nothing any longer.
func (w *world) delegatedTo(host, router string, revision int64, subnet, prefix string) {
	w.t.Helper()
	w.Report(host, &message.Applied{Kind: message.Kind_KIND_ROUTER, Id: router, Revision: revision, AgentType: "L3 agent", State: message.State_STATE_ACTIVE,
		Delegations: []*message.PrefixDelegation{{SubnetId: subnet, Prefix: prefix}}})
}

// asks tells for which subnets a host's router asks for prefixes, and which they have.
func (w *world) asks(host, router string, names *strings.Replacer) string {
	w.t.Helper()
	var list []string
	for _, i := range w.told(host, router).GetInterfaces() {
		for _, d := range i.Delegations {
			list = append(list, names.Replace(d.SubnetId)+"="+d.Prefix)
		}
		for _, a := range i.Addresses {
			list = append(list, "address "+a)
		}
		for _, n := range i.Subnets {
			list = append(list, "subnet "+n.Cidr+" "+n.GatewayIp)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// A prefix that a host reports is the subnet's: gateway, pools and ports follow it.
func TestDelegatedPrefix(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	w.host("host2")
	net := w.project.Create("network", `{"name": "n"}`).ID()
	n := w.project.Create("subnet", delegatable, net).ID()
	beside := w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.1.0.0/24"}`, net).ID()
	vm := w.admin.Create("port", `{"network_id": %q, "tenant_id": "project1", "mac_address": "fa:16:3e:00:00:01", "binding:host_id": "host1", "device_owner": "compute:nova", "fixed_ips": [{"ip_address": "10.1.0.5"}, {"subnet_id": %q}]}`, net, n).ID()
	r := w.router().ID()
	i := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, n).Text("port_id")
	names := strings.NewReplacer(n, "N", vm, "VM", i, "I", r, "R", net, "NET")
	host := w.hostOf(r)
	other := map[string]string{"host1": "host2", "host2": "host1"}[host]
	fixed := func(id string) string {
		return strings.NewReplacer(n, "N", beside, "BESIDE").Replace(w.admin.Get("port", id).JSON("fixed_ips"))
	}
	cidr := func() string { return w.project.Get("subnet", n).Text("cidr") }

	equal(t, "addresses before", fixed(vm), `[{"ip_address":"10.1.0.5","subnet_id":"BESIDE"},{"ip_address":"::f816:3eff:fe00:1","subnet_id":"N"}]`)
	equal(t, "what the host is told before", w.asks(host, r, names), "N=")
	told := w.View("host1", message.Kind_KIND_PORT)[vm].GetPort()
	if len(told.GetFixedIps()) != 1 || told.FixedIps[0].IpAddress != "10.1.0.5" {
		t.Errorf("a host is told of addresses without a prefix: %v", told.GetFixedIps())
	}

	// Not the router's host, another generation of the router, another subnet, no prefix at all.
	revision := w.told(host, r).Revision
	w.delegatedTo(other, r, revision, n, "2001:db8:1::/64")
	w.delegatedTo(host, r, revision-1, n, "2001:db8:1::/64")
	w.delegatedTo(host, r, revision, beside, "2001:db8:1::/64")
	for _, bad := range []string{"nonsense", "10.2.0.0/64", "2001:db8:1::/56", "ff02::/64", "fe80::/64", "0.0.0.0/0"} {
		w.delegatedTo(host, r, revision, n, bad)
	}
	equal(t, "prefix of reports that do not count", cidr(), "::/64")

	at := w.LastSequence()
	w.delegatedTo(host, r, revision, n, "2001:db8:1::/64")
	s := w.project.Get("subnet", n)
	equal(t, "subnet", fmt.Sprint(s.Text("cidr"), " ", s.Text("gateway_ip"), " ", s.JSON("allocation_pools")),
		`2001:db8:1::/64 2001:db8:1::1 [{"end":"2001:db8:1:0:ffff:ffff:ffff:ffff","start":"2001:db8:1::2"}]`)
	equal(t, "instance", fixed(vm), `[{"ip_address":"10.1.0.5","subnet_id":"BESIDE"},{"ip_address":"2001:db8:1:0:f816:3eff:fe00:1","subnet_id":"N"}]`)
	equal(t, "interface", fixed(i), `[{"ip_address":"2001:db8:1::1","subnet_id":"N"}]`)
	events := w.Events(at, map[string]string{n: "N", vm: "VM", i: "I", net: "NET"})
	for _, want := range []string{"update subnet N", "update port VM", "update port I", "update network NET"} {
		if !slices.Contains(events, want) {
			t.Errorf("no event %q: %v", want, events)
		}
	}
	equal(t, "what the host is told", w.asks(host, r, names), "N=2001:db8:1::/64, address 2001:db8:1::1/64, subnet 2001:db8:1::/64 2001:db8:1::1")
	if told := w.View("host1", message.Kind_KIND_PORT)[vm].GetPort(); len(told.GetFixedIps()) != 2 {
		t.Errorf("host1 is told of addresses %v", told.GetFixedIps())
	}

	// The same again is nothing new; another prefix is.
	at = w.LastSequence()
	w.delegatedTo(host, r, revision, n, "2001:db8:1::/64")
	if e := w.Events(at, nil); len(e) > 0 {
		t.Errorf("the same prefix again: %v", e)
	}
	w.delegatedTo(host, r, revision, n, "2001:db8:2::/64")
	equal(t, "renumbered", fixed(vm), `[{"ip_address":"10.1.0.5","subnet_id":"BESIDE"},{"ip_address":"2001:db8:2:0:f816:3eff:fe00:1","subnet_id":"N"}]`)

	// New ports are in the prefix from the beginning.
	p := w.project.Create("port", `{"network_id": %q, "mac_address": "fa:16:3e:00:00:02"}`, net)
	if !strings.Contains(p.JSON("fixed_ips"), "2001:db8:2:0:f816:3eff:fe00:2") {
		t.Errorf("a new port has %s", p.JSON("fixed_ips"))
	}

	// The lease ends.
	w.delegatedTo(host, r, revision, n, "")
	equal(t, "prefix after the lease", cidr(), "::/64")
	equal(t, "instance after the lease", fixed(vm), `[{"ip_address":"10.1.0.5","subnet_id":"BESIDE"},{"ip_address":"::f816:3eff:fe00:1","subnet_id":"N"}]`)
	equal(t, "interface after the lease", fixed(i), `[{"ip_address":"::1","subnet_id":"N"}]`)

	// A prefix that another subnet of the network has is not taken, and harms nothing else.
	second := w.project.Create("subnet", delegatable, net).ID()
	w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, second)
	revision = w.told(host, r).Revision
	w.Report(host, &message.Applied{Kind: message.Kind_KIND_ROUTER, Id: r, Revision: revision, AgentType: "L3 agent", State: message.State_STATE_ACTIVE,
		Delegations: []*message.PrefixDelegation{{SubnetId: n, Prefix: "2001:db8:3::/64"}, {SubnetId: second, Prefix: "2001:db8:3::/64"}}})
	equal(t, "both", cidr()+" "+w.project.Get("subnet", second).Text("cidr"), "2001:db8:3::/64 ::/64")
	w.delegatedTo(host, r, revision, second, "2001:db8:4::/64")
	equal(t, "both at last", cidr()+" "+w.project.Get("subnet", second).Text("cidr"), "2001:db8:3::/64 2001:db8:4::/64")
}

// The prefix goes with the interface and with the gateway over which it was asked for.
func TestDelegationEnds(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	net := w.project.Create("network", `{"name": "n"}`).ID()
	a, b := w.project.Create("subnet", delegatable, net).ID(), w.project.Create("subnet", delegatable, net).ID()
	r := w.router().ID()
	for _, n := range []string{a, b} {
		w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, n)
	}
	names := strings.NewReplacer(a, "A", b, "B")
	prefixes := func() string {
		return w.project.Get("subnet", a).Text("cidr") + " " + w.project.Get("subnet", b).Text("cidr")
	}
	lease := func() {
		revision := w.told("host1", r).Revision
		w.delegatedTo("host1", r, revision, a, "2001:db8:a::/64")
		w.delegatedTo("host1", r, revision, b, "2001:db8:b::/64")
	}
	lease()
	equal(t, "prefixes", prefixes(), "2001:db8:a::/64 2001:db8:b::/64")

	// One of two subnets on a port.
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, a)
	equal(t, "without one subnet", prefixes(), "::/64 2001:db8:b::/64")
	equal(t, "what is asked for", w.asks("host1", r, names), "B=2001:db8:b::/64, address 2001:db8:b::1/64, subnet 2001:db8:b::/64 2001:db8:b::1")
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, b)
	equal(t, "without interface", prefixes(), "::/64 ::/64")

	for _, n := range []string{a, b} {
		w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, n)
	}
	late := w.told("host1", r).Revision
	lease()
	w.project.Update("router", r, `{"external_gateway_info": {}}`)
	equal(t, "without gateway", prefixes(), "::/64 ::/64")
	w.delegatedTo("host1", r, late, a, "2001:db8:a::/64") // was on its way
	equal(t, "after a late report", prefixes(), "::/64 ::/64")

	// Of two routers on a subnet the one with the gateway's address asks, then the other one.
	w.project.Update("router", r, `{"external_gateway_info": {"network_id": %q}}`, w.external)
	second := w.router().ID()
	p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"subnet_id": %q}]}`, net, a).ID()
	w.project.Act("router", second, "add_router_interface", `{"port_id": %q}`, p)
	lease()
	w.delegatedTo("host1", second, w.told("host1", second).Revision, a, "2001:db8:c::/64")
	equal(t, "with two routers", prefixes(), "2001:db8:a::/64 2001:db8:b::/64")
	if asked := w.asks("host1", second, names); strings.Contains(asked, "A=") {
		t.Errorf("both routers ask: %s", asked)
	}
	w.project.Act("router", r, "remove_router_interface", `{"subnet_id": %q}`, a)
	if asked := w.asks("host1", second, names); !strings.Contains(asked, "A=") {
		t.Errorf("nobody asks: %s", asked)
	}
	w.delegatedTo("host1", second, w.told("host1", second).Revision, a, "2001:db8:c::/64")
	equal(t, "of the second router", prefixes(), "2001:db8:c::/64 2001:db8:b::/64")
	if got := w.admin.Get("port", p).JSON("fixed_ips"); !strings.Contains(got, `"2001:db8:c::1"`) {
		t.Errorf("the second router has %s", got)
	}
}
