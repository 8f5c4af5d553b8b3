package feed_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// cloud is what the random changes are made to. Each list has the ids of one
// kind of object; parents has what those are below of.
type cloud struct {
	*exttest.Core
	c       *exttest.Client
	r       *rand.Rand
	t       *testing.T
	ids     map[string][]string
	parents map[string]string
	done    map[string]int
	refused map[string]error
	last    string
}

func (w *cloud) any(kind string) string {
	if len(w.ids[kind]) == 0 {
		return ""
	}
	return pick(w.r, w.ids[kind])
}

// maybe is one of them or, one time in three, null.
func (w *cloud) maybe(kind string) string {
	id := w.any(kind)
	if id == "" || w.r.IntN(3) == 0 {
		return "null"
	}
	return strconv.Quote(id)
}

// note counts what was carried out. Clients are refused often, by random
// requests; the server never fails.
func (w *cloud) note(what string, err error) bool {
	w.last = fmt.Sprintf("%s: %v", what, err)
	if err == nil {
		w.done[what]++
		return true
	}
	w.refused[what] = err
	if !fault.IsKind(err, fault.Internal) && errors.As(err, new(*fault.Error)) {
		return false
	}
	w.t.Errorf("%s: %v", what, err)
	return false
}

func (w *cloud) create(kind, body string, args ...any) { w.createIn("", kind, body, args...) }

func (w *cloud) createIn(parent, kind, body string, args ...any) {
	o, err := w.c.In(parent).TryCreate(kind, body, args...)
	if w.note("create "+kind, err) {
		id := o.ID()
		if kind == "port_association" {
			id = o.Text("fixed_port_id")
		}
		w.ids[kind] = append(w.ids[kind], id)
		w.parents[id+kind] = parent
	}
}

func (w *cloud) update(kind, body string, args ...any) {
	if id := w.any(kind); id != "" {
		_, err := w.c.In(w.parents[id+kind]).TryUpdate(kind, id, body, args...)
		w.note("update "+kind, err)
	}
}

// remove deletes one of a kind, but not the last.
func (w *cloud) remove(kind string) {
	if len(w.ids[kind]) < 2 {
		return
	}
	id := w.any(kind)
	if w.note("delete "+kind, w.c.In(w.parents[id+kind]).TryDelete(kind, id)) {
		w.ids[kind] = slices.DeleteFunc(w.ids[kind], func(have string) bool { return have == id })
	}
}

func (w *cloud) act(kind, action, body string, args ...any) {
	if id := w.any(kind); id != "" {
		_, err := w.c.TryAct(kind, id, action, body, args...)
		w.note(action, err)
	}
}

func (w *cloud) host() string { return pick(w.r, []string{"h1", "h1", "h2", "h2", "h3", ""}) }

// gateway gives a router a gateway, or takes it away.
func (w *cloud) gateway() {
	info := "null"
	if w.r.IntN(5) > 0 {
		info = fmt.Sprintf(`{"network_id": %q, "enable_snat": %v, "qos_policy_id": %s}`, w.any("external"), w.r.IntN(2) == 0, w.maybe("policy"))
	}
	_, err := w.c.TryUpdate("router", w.any("router"), `{"external_gateway_info": %s}`, info)
	w.note("gateway", err)
}

// step makes one random change.
func (w *cloud) step() {
	n := w.r.IntN
	ops := []func(){
		func() {
			w.create("port", `{"network_id": %q, "binding:host_id": %q, "qos_policy_id": %s, "device_owner": "compute:nova", "device_id": "vm"}`, w.any("network"), w.host(), w.maybe("policy"))
		},
		func() {
			w.create("port", `{"network_id": %q, "binding:host_id": %q, "security_groups": [%q]}`, w.any("network"), w.host(), w.any("security_group"))
		},
		func() { w.update("port", `{"binding:host_id": %q}`, w.host()) },
		func() { w.update("port", `{"security_groups": [%q]}`, w.any("security_group")) },
		func() { w.update("port", `{"security_groups": []}`) },
		func() { w.update("port", `{"qos_policy_id": %s}`, w.maybe("policy")) },
		func() { w.update("port", `{"admin_state_up": %v, "name": "n%d"}`, n(2) == 0, n(3)) },
		func() {
			w.update("port", `{"hints": %s}`, pick(w.r, []string{"null", `{"openvswitch": {"other_config": {"tx-steering": "hash"}}}`}))
		},
		func() { w.update("port", `{"allowed_address_pairs": [{"ip_address": "198.51.100.%d"}]}`, n(3)) },
		func() { w.remove("port") },
		func() {
			w.update("network", `{"mtu": %d, "qos_policy_id": %s, "dns_domain": "d%d."}`, 1300+n(3), w.maybe("policy"), n(2))
		},
		func() {
			w.update("subnet", `{"dns_nameservers": ["192.0.2.%d"], "enable_dhcp": %v}`, n(3), n(3) > 0)
		},
		func() {
			w.create("security_group_rule", `{"security_group_id": %q, "remote_group_id": %q, "direction": "ingress", "protocol": "tcp", "port_range_min": %d, "port_range_max": 100}`, w.any("security_group"), w.any("security_group"), 1+n(50))
		},
		func() {
			w.create("security_group_rule", `{"security_group_id": %q, "remote_address_group_id": %q, "direction": "egress", "protocol": "udp", "port_range_min": %d, "port_range_max": 100}`, w.any("security_group"), w.any("address_group"), 1+n(50))
		},
		func() { w.remove("security_group_rule") },
		func() { w.update("security_group", `{"name": "g%d"}`, n(3)) },
		func() { w.act("address_group", "add_addresses", `{"addresses": ["203.0.113.%d/32"]}`, 128+n(8)) },
		func() { w.act("address_group", "remove_addresses", `{"addresses": ["203.0.113.%d/32"]}`, 128+n(8)) },
		func() {
			w.createIn(w.any("policy"), "bandwidth_limit_rule", `{"max_kbps": %d, "direction": %q}`, 100+n(5), pick(w.r, []string{"ingress", "egress"}))
		},
		func() { w.createIn(w.any("policy"), "dscp_marking_rule", `{"dscp_mark": %d}`, 2*n(3)) },
		func() { w.createIn(w.any("policy"), "packet_rate_limit_rule", `{"max_kpps": %d}`, 1+n(5)) },
		func() { w.update("bandwidth_limit_rule", `{"max_kbps": %d}`, 100+n(5)) },
		func() { w.remove("bandwidth_limit_rule") },
		func() { w.remove("dscp_marking_rule") },
		w.gateway, w.gateway,
		func() { w.update("router", `{"admin_state_up": %v, "name": "r%d"}`, n(3) > 0, n(3)) },
		func() { w.update("router", `{"enable_ndp_proxy": %v}`, n(4) > 0) },
		func() {
			w.update("router", `{"routes": [{"destination": "198.18.%d.0/24", "nexthop": "10.0.%d.9"}]}`, n(3), 1+n(3))
		},
		func() { w.update("router", `{"routes": []}`) },
		func() { w.act("router", "add_router_interface", `{"subnet_id": %q}`, w.any("subnet")) },
		func() { w.act("router", "add_router_interface", `{"subnet_id": %q}`, w.any("subnet")) },
		func() { w.act("router", "remove_router_interface", `{"subnet_id": %q}`, w.any("subnet")) },
		func() {
			w.create("floatingip", `{"floating_network_id": %q, "qos_policy_id": %s}`, w.any("external"), w.maybe("policy"))
		},
		func() { w.update("floatingip", `{"port_id": %s}`, w.maybe("port")) },
		func() { w.update("floatingip", `{"qos_policy_id": %s}`, w.maybe("policy")) },
		func() { w.remove("floatingip") },
		w.forward, w.forward, w.proxy, w.proxy,
		func() { w.update("port_forwarding", `{"external_port": %d}`, 1000+n(50)) },
		func() { w.remove("port_forwarding") },
		func() {
			w.createIn(w.any("router"), "conntrack_helper", `{"protocol": %q, "port": %d, "helper": %q}`, "udp", 60+n(20), "tftp")
		},
		func() { w.update("conntrack_helper", `{"port": %d}`, 60+n(20)) },
		func() { w.remove("conntrack_helper") },
		func() { w.remove("ndp_proxy") },
		func() { w.create("metering_label", `{"name": "l%d", "shared": %v}`, n(9), n(3) == 0) },
		func() {
			w.create("metering_label_rule", `{"metering_label_id": %q, "direction": "egress", "remote_ip_prefix": "198.18.%d.0/24"}`, w.any("metering_label"), n(99))
		},
		func() { w.remove("metering_label_rule") },
		func() { w.remove("metering_label") },
		w.trunk,
		func() {
			w.act("trunk", "add_subports", `{"sub_ports": [{"port_id": %q, "segmentation_type": "vlan", "segmentation_id": %d}]}`, w.any("port"), 1+n(9))
		},
		func() { w.act("trunk", "remove_subports", `{"sub_ports": [{"port_id": %q}]}`, w.any("port")) },
		func() { w.update("trunk", `{"admin_state_up": %v}`, n(3) > 0) },
		func() { w.remove("trunk") },
		func() {
			w.create("log", `{"resource_type": "security_group", "resource_id": %s, "target_id": %s, "event": %q}`, w.maybe("security_group"), w.maybe("port"), pick(w.r, []string{"ALL", "DROP", "ACCEPT"}))
		},
		func() { w.update("log", `{"enabled": %v}`, n(3) > 0) },
		func() { w.remove("log") },
		func() { w.create("local_ip", `{"network_id": %q}`, w.any("network")) },
		func() { w.createIn(w.any("local_ip"), "port_association", `{"fixed_port_id": %q}`, w.any("port")) },
		func() { w.remove("port_association") },
		func() { w.remove("local_ip") },
		w.report,
	}
	pick(w.r, ops)()
}

// addresses of some port, one of each family.
func (w *cloud) addresses() (port, v4, v6 string) {
	id := w.any("port")
	if id == "" {
		return "", "", ""
	}
	var shown struct {
		Fixed []struct {
			Address string `json:"ip_address"`
		} `json:"fixed_ips"`
	}
	o, err := w.c.TryGet("port", id)
	if err != nil || json.Unmarshal([]byte(`{"fixed_ips": `+o.JSON("fixed_ips")+`}`), &shown) != nil {
		return "", "", ""
	}
	for _, f := range shown.Fixed {
		if strings.Contains(f.Address, ":") {
			v6 = f.Address
		} else {
			v4 = f.Address
		}
	}
	return id, v4, v6
}

// trunk makes one on a new port, which is then bound.
func (w *cloud) trunk() {
	w.create("port", `{"network_id": %q}`, w.any("network"))
	ports := w.ids["port"]
	if len(ports) == 0 {
		return
	}
	parent := ports[len(ports)-1]
	w.create("trunk", `{"port_id": %q, "sub_ports": [{"port_id": %q, "segmentation_type": "vlan", "segmentation_id": %d}]}`, parent, w.any("port"), 1+w.r.IntN(9))
	w.create("trunk", `{"port_id": %q}`, parent)
	_, err := w.c.TryUpdate("port", parent, `{"binding:host_id": %q}`, w.host())
	w.note("bind parent", err)
}

func (w *cloud) forward() {
	port, v4, _ := w.addresses()
	w.createIn(w.any("floatingip"), "port_forwarding", `{"internal_port_id": %q, "internal_ip_address": %q, "protocol": "tcp", "internal_port": %d, "external_port": %d}`, port, v4, 1+w.r.IntN(20), 1000+w.r.IntN(50))
}

func (w *cloud) proxy() {
	port, _, _ := w.addresses()
	w.create("ndp_proxy", `{"router_id": %q, "port_id": %q}`, w.any("router"), port)
}

// report says that a host has applied all that it holds.
func (w *cloud) report() {
	for _, host := range []string{"h1", "h2"} {
		var applied []*message.Applied
		for _, o := range w.View(host, message.Kind_KIND_PORT) {
			for _, by := range []string{"Open vSwitch agent", "DHCP agent"} {
				applied = append(applied, &message.Applied{Kind: message.Kind_KIND_PORT, Id: o.GetPort().Id, Revision: o.GetPort().Revision, AgentType: by, State: message.State_STATE_ACTIVE})
			}
		}
		for _, o := range w.View(host, message.Kind_KIND_ROUTER) {
			applied = append(applied, &message.Applied{Kind: message.Kind_KIND_ROUTER, Id: o.GetRouter().Id, Revision: o.GetRouter().Revision, AgentType: "L3 agent", State: message.State_STATE_ACTIVE})
		}
		w.Report(host, applied...)
	}
	w.done["report"]++
}

// TestViews: after each of many random changes of everything that hosts are
// told of, what a host was told by changes alone is what it must hold; and a
// server that starts now on the same database says the same of it. Ports in
// memory are as they are stored.
func TestViews(t *testing.T) {
	steps := 600
	if testing.Short() {
		steps = 200
	}
	seed := rand.Uint64()
	if text := os.Getenv("ISOSPIN_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ISOSPIN_TEST_SEED=%d", seed)
	k := exttest.New(t, exttest.Options{Config: "[QUOTAS]\nquota_floatingip = -1\nquota_router = -1\nquota_security_group_rule = -1\nquota_trunk = -1\n"})
	hosts := []string{"h1", "h2", "h3"}
	streams := map[string]*exttest.Stream{}
	for _, h := range hosts {
		k.Host(h, exttest.HostOptions{Physical: []string{"public"}})
		streams[h] = k.Attach(h)
	}
	w := &cloud{Core: k, c: k.Admin(), r: rand.New(rand.NewPCG(seed, 1)), t: t, ids: map[string][]string{}, parents: map[string]string{}, done: map[string]int{}, refused: map[string]error{}}
	scope := w.c.Create("address_scope", `{"name": "s", "ip_version": 6}`).ID()
	pool := w.c.Create("subnetpool", `{"name": "p", "address_scope_id": %q, "prefixes": ["2001:db8::/48"], "default_prefixlen": 64}`, scope).ID()
	external := w.c.Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	w.c.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/25", "enable_dhcp": false}`, external)
	w.c.Create("subnet", `{"network_id": %q, "ip_version": 6, "subnetpool_id": %q, "cidr": "2001:db8::/64", "enable_dhcp": false}`, external, pool)
	w.ids["external"] = []string{external}
	for i := range 3 {
		n := w.c.Create("network", `{"name": "n%d"}`, i).ID()
		w.ids["network"] = append(w.ids["network"], n)
		for _, body := range []string{`"ip_version": 4, "cidr": "10.0.%d.0/24"`, `"ip_version": 6, "subnetpool_id": "` + pool + `", "cidr": "2001:db8:0:%d::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"`} {
			w.ids["subnet"] = append(w.ids["subnet"], w.c.Create("subnet", `{"network_id": %q, `+fmt.Sprintf(body, i+1)+`}`, n).ID())
		}
		w.ids["security_group"] = append(w.ids["security_group"], w.c.Create("security_group", `{"name": "g%d"}`, i).ID())
		if i < 2 {
			w.create("router", `{"name": "r%d", "external_gateway_info": {"network_id": %q}}`, i, external)
			w.create("policy", `{"name": "p%d"}`, i)
			w.act("router", "add_router_interface", `{"subnet_id": %q}`, w.ids["subnet"][2*i])
			w.act("router", "add_router_interface", `{"subnet_id": %q}`, w.ids["subnet"][2*i+1])
			w.create("address_group", `{"addresses": ["203.0.113.200/32"]}`)
		}
	}
	seen := map[message.Kind]bool{}
	nested := map[string]bool{}
	lacks := func() (list []string) {
		for kind, name := range message.Kind_name {
			if kind != 0 && !seen[message.Kind(kind)] {
				list = append(list, name)
			}
		}
		for what, was := range nested {
			if !was {
				list = append(list, what)
			}
		}
		return list
	}
	// On and on, until hosts were told of everything at least once.
	for step := 0; step < steps || step < 10*steps && len(lacks()) > 0; step++ {
		w.step()
		for _, h := range hosts {
			streams[h].Agrees()
		}
		for _, h := range hosts {
			for key, o := range k.Hub.Snapshot(h) {
				seen[key.Kind] = true
				if r := o.GetRouter(); r != nil {
					for what, n := range map[string]int{"floating IP": len(r.FloatingIps), "port forwarding": len(r.PortForwardings), "conntrack helper": len(r.ConntrackHelpers),
						"NDP proxy": len(r.NdpProxies), "metering label": len(r.MeteringLabels), "gateway with a policy": len(r.Gateway.GetQosPolicyId()), "route": len(r.Routes)} {
						nested[what] = nested[what] || n > 0
					}
				}
				nested["local IP"] = nested["local IP"] || len(o.GetPort().GetLocalIps()) > 0
				nested["subport"] = nested["subport"] || len(o.GetTrunk().GetSubPorts()) > 0
			}
		}
		if t.Failed() {
			t.Fatalf("after step %d, %s", step, w.last)
		}
		if step%10 == 9 { // its ports are compared with what is stored
			k.Settled()
			w.c.List("port")
		}
		if step%100 != 99 {
			continue
		}
		fresh := k.Restarted()
		for _, h := range hosts {
			have, want := k.Hub.Snapshot(h), fresh.Snapshot(h)
			for key, o := range want {
				if mine := have[key]; mine == nil || !proto.Equal(mine, o) {
					t.Errorf("step %d, host %s, %v:\nby changes:  %v\nmade afresh: %v", step, h, key, mine, o)
				}
			}
			if len(have) != len(want) {
				t.Errorf("step %d, host %s: %d objects by changes, %d made afresh", step, h, len(have), len(want))
			}
		}
	}
	if list := lacks(); len(list) > 0 {
		t.Errorf("no host was ever told of a %s", strings.Join(list, ", "))
	}
	if t.Failed() {
		t.Logf("done: %v", w.done)
		for what, err := range w.refused {
			if w.done[what] == 0 {
				t.Logf("never done: %s: %v", what, err)
			}
		}
	}
}
