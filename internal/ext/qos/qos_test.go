package qos_test

import (
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/store"
)

const unknown = "00000000-0000-4000-8000-000000000000"

// Rules come and go below their policy: the policy shows them, has a new
// revision for each change, and the row and event of each are there.
func TestRules(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin := k.Admin()
	p := admin.Create("policy", `{"name": "gold", "description": "fast", "tenant_id": "project1"}`)
	if p.JSON("rules") != "[]" || p["shared"] != false || p["is_default"] != false || p.JSON("revision_number") != "0" || p.JSON("tags") != "[]" || p.Text("project_id") != "project1" {
		t.Fatalf("policy is %v", p)
	}
	in := admin.In(p.ID())
	before := k.LastSequence()
	limit := in.Create("bandwidth_limit_rule", `{"max_kbps": "20000"}`)
	if got := limit.JSON("max_kbps") + limit.JSON("max_burst_kbps") + limit.Text("direction"); got != "200000egress" || len(limit) != 4 {
		t.Fatalf("rule is %v", limit)
	}
	names := map[string]string{p.ID(): "gold", limit.ID(): "limit"}
	if got := strings.Join(k.Events(before, names), "; "); got != "create bandwidth_limit_rule limit; update policy gold" {
		t.Fatalf("events: %s", got)
	}
	mark := in.Create("dscp_marking_rule", `{"dscp_mark": 26}`)
	packets := in.Create("packet_rate_limit_rule", `{"max_kpps": 3, "max_burst_kpps": 4, "direction": "ingress"}`)
	in.Update("bandwidth_limit_rule", limit.ID(), `{"max_burst_kbps": 500, "direction": "ingress"}`)
	want := `[{"direction":"ingress","id":"` + limit.ID() + `","max_burst_kbps":500,"max_kbps":20000,"qos_policy_id":"` + p.ID() + `","type":"bandwidth_limit"},` +
		`{"dscp_mark":26,"id":"` + mark.ID() + `","qos_policy_id":"` + p.ID() + `","type":"dscp_marking"},` +
		`{"direction":"ingress","id":"` + packets.ID() + `","max_burst_kpps":4,"max_kpps":3,"qos_policy_id":"` + p.ID() + `","type":"packet_rate_limit"}]`
	if got := admin.Get("policy", p.ID()); got.JSON("rules") != want || got.JSON("revision_number") != "4" {
		t.Fatalf("policy is %v,\nwant rules %s", got, want)
	}
	rows := k.Rows(4, "SELECT qos_policy_id, max_kbps, max_burst_kbps, direction FROM qos_bandwidth_limit_rule")
	if len(rows) != 1 || rows[0][0] != p.ID() || rows[0][1] != int64(20000) || rows[0][2] != int64(500) || rows[0][3] != "ingress" {
		t.Fatalf("rows: %v", rows)
	}
	// Without its policy.
	if a := admin.Update("alias_bandwidth_limit_rule", limit.ID(), `{"max_kbps": 7}`); a.JSON("max_kbps") != "7" || len(a) != 4 {
		t.Fatalf("alias is %v", a)
	}
	if a := admin.Get("alias_dscp_marking_rule", mark.ID()); a.JSON("dscp_mark") != "26" {
		t.Fatalf("alias is %v", a)
	}
	admin.Delete("alias_dscp_marking_rule", mark.ID())
	in.Delete("packet_rate_limit_rule", packets.ID())
	if got := admin.Get("policy", p.ID()); got.JSON("revision_number") != "7" || strings.Count(got.JSON("rules"), "type") != 1 {
		t.Fatalf("policy is %v", got)
	}
	other := admin.Create("policy", `{"name": "silver"}`)
	admin.In(other.ID()).Create("bandwidth_limit_rule", `{"max_kbps": 1}`)
	if list := in.List("bandwidth_limit_rule", "max_kbps", "7"); len(list) != 1 || list[0].ID() != limit.ID() {
		t.Fatalf("list is %v", list)
	}
	if list := in.List("bandwidth_limit_rule", "max_kbps", "1"); len(list) != 0 {
		t.Fatalf("rules of another policy are listed: %v", list)
	}
	admin.Delete("policy", p.ID())
	if rows := k.Rows(1, "SELECT id FROM qos_bandwidth_limit_rule"); len(rows) != 1 {
		t.Fatalf("rules outlive their policy: %v", rows)
	}
}

func TestErrors(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin := k.Admin()
	p := admin.Create("policy", `{"tenant_id": "project1", "is_default": true}`)
	in := admin.In(p.ID())
	limit := in.Create("bandwidth_limit_rule", `{"max_kbps": 1}`)
	in.Create("dscp_marking_rule", `{"dscp_mark": 0}`)
	packets := in.Create("packet_rate_limit_rule", `{"max_kpps": 1}`)
	other := in.Create("bandwidth_limit_rule", `{"max_kbps": 1, "direction": "ingress"}`)
	create := func(name, body string) error {
		_, err := in.TryCreate(name, body)
		return err
	}
	k.Refused(create("bandwidth_limit_rule", `{"max_kbps": 2}`), fault.Conflict, "QoSRulesConflict",
		"Rule bandwidth_limit conflicts with rule "+limit.ID()+" which already exists in QoS Policy "+p.ID()+".")
	k.Refused(create("packet_rate_limit_rule", `{"max_kpps": 2}`), fault.Conflict, "QoSRulesConflict",
		"Rule packet_rate_limit conflicts with rule "+packets.ID()+" which already exists in QoS Policy "+p.ID()+".")
	k.Refused(create("dscp_marking_rule", `{"dscp_mark": 8}`), fault.Conflict, "QoSRulesConflict", "")
	_, err := in.TryUpdate("bandwidth_limit_rule", other.ID(), `{"direction": "egress"}`)
	k.Refused(err, fault.Conflict, "QoSRulesConflict", "Rule bandwidth_limit conflicts with rule "+limit.ID()+" which already exists in QoS Policy "+p.ID()+".")
	k.Refused(create("bandwidth_limit_rule", `{}`), fault.Invalid, "HTTPBadRequest", "Failed to parse request. Required attribute 'max_kbps' not specified")
	k.Refused(create("bandwidth_limit_rule", `{"max_kbps": -1}`), fault.Invalid, "HTTPBadRequest", "")
	k.Refused(create("bandwidth_limit_rule", `{"max_kbps": 2147483648}`), fault.Invalid, "HTTPBadRequest", "")
	k.Refused(create("dscp_marking_rule", `{"dscp_mark": 1}`), fault.Invalid, "HTTPBadRequest", "")
	_, err = in.TryGet("bandwidth_limit_rule", unknown)
	k.Refused(err, fault.NotFound, "QosRuleNotFound", "QoS rule "+unknown+" for policy "+p.ID()+" could not be found.")
	_, err = admin.In(unknown).TryCreate("bandwidth_limit_rule", `{"max_kbps": 2}`)
	k.Refused(err, fault.NotFound, "QosPolicyNotFound", "QoS policy "+unknown+" could not be found.")
	_, err = admin.TryGet("alias_bandwidth_limit_rule", unknown)
	k.Refused(err, fault.NotFound, "QosRuleNotFound", "QoS rule "+unknown+" for policy  could not be found.")
	second := admin.Create("policy", `{"tenant_id": "project1"}`)
	_, err = admin.In(second.ID()).TryGet("bandwidth_limit_rule", limit.ID())
	k.Refused(err, fault.NotFound, "QosRuleNotFound", "")
	_, err = admin.TryCreate("policy", `{"tenant_id": "project1", "is_default": true}`)
	k.Refused(err, fault.Conflict, "QoSPolicyDefaultAlreadyExists", "A default QoS policy exists for project project1.")
	_, err = admin.TryUpdate("policy", second.ID(), `{"is_default": true}`)
	k.Refused(err, fault.Conflict, "QoSPolicyDefaultAlreadyExists", "A default QoS policy exists for project project1.")
	_, err = k.As("project2").TryGet("policy", p.ID())
	k.Refused(err, fault.NotFound, "QosPolicyNotFound", "QoS policy "+p.ID()+" could not be found.")
	_, err = k.As("project2").In(p.ID()).TryGet("bandwidth_limit_rule", limit.ID())
	k.Refused(err, fault.NotFound, "QosPolicyNotFound", "")
	_, err = k.As("project2").TryCreate("network", `{"qos_policy_id": %q}`, p.ID())
	k.Refused(err, fault.NotFound, "QosPolicyNotFound", "")
}

// A policy is in use by networks and ports; who may not see it cannot take it
// away; unsharing waits for its users.
func TestUse(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin, project := k.Admin(), k.As("project1")
	shared := admin.Create("policy", `{"shared": true}`)
	own := admin.Create("policy", `{"tenant_id": "project1"}`)
	if p := project.Get("policy", shared.ID()); p["shared"] != true {
		t.Fatalf("policy is %v", p)
	}
	if l := project.List("policy", "shared", "true"); len(l) != 1 || l[0].ID() != shared.ID() {
		t.Fatalf("shared policies: %v", l)
	}
	n := project.Create("network", `{"qos_policy_id": %q}`, shared.ID())
	port := project.Create("port", `{"network_id": %q, "qos_policy_id": %q}`, n.ID(), own.ID())
	if n.Text("qos_policy_id") != shared.ID() || port.Text("qos_policy_id") != own.ID() || port.Text("qos_network_policy_id") != shared.ID() {
		t.Fatalf("network is %v, port is %v", n, port)
	}
	k.Refused(admin.TryDelete("policy", shared.ID()), fault.Conflict, "QosPolicyInUse", "QoS Policy "+shared.ID()+" is used by network "+n.ID()+".")
	k.Refused(admin.TryDelete("policy", own.ID()), fault.Conflict, "QosPolicyInUse", "QoS Policy "+own.ID()+" is used by port "+port.ID()+".")
	_, err := admin.TryUpdate("policy", shared.ID(), `{"shared": false}`)
	k.Refused(err, fault.Conflict, "RbacPolicyInUse", "RBAC policy on object "+shared.ID()+" cannot be removed because other objects depend on it.\nDetails: project_id=*")
	// A policy that the project does not see.
	hidden := admin.Create("policy", `{}`)
	admin.Update("port", port.ID(), `{"qos_policy_id": %q}`, hidden.ID())
	_, err = project.TryUpdate("port", port.ID(), `{"qos_policy_id": null}`)
	k.Refused(err, fault.Forbidden, "PolicyRemoveAuthorizationError", "Failed to remove provided policy "+hidden.ID()+" because you are not authorized.")
	project.Update("port", port.ID(), `{"name": "renamed"}`)
	admin.Update("port", port.ID(), `{"qos_policy_id": null}`)
	project.Update("network", n.ID(), `{"qos_policy_id": null}`)
	if p := project.Get("port", port.ID()); p.JSON("qos_policy_id") != "null" || p.JSON("qos_network_policy_id") != "null" {
		t.Fatalf("port is %v", p)
	}
	mine := admin.Create("network", `{"qos_policy_id": %q}`, shared.ID()) // of the policy's own project, which counts as well
	_, err = admin.TryUpdate("policy", shared.ID(), `{"shared": false}`)
	k.Refused(err, fault.Conflict, "RbacPolicyInUse", "RBAC policy on object "+shared.ID()+" cannot be removed because other objects depend on it.\nDetails: project_id=*")
	admin.Delete("network", mine.ID())
	admin.Update("policy", shared.ID(), `{"shared": false}`)
	for _, p := range []exttest.Object{shared, own, hidden} {
		admin.Delete("policy", p.ID())
	}
	if rows := k.Rows(1, "SELECT qos_policy_id FROM qos_port_policy UNION SELECT qos_policy_id FROM qos_network_policy"); len(rows) != 0 {
		t.Fatalf("left: %v", rows)
	}
	// What refers to a policy goes without leaving it behind.
	last := admin.Create("policy", `{"tenant_id": "project1"}`)
	m := project.Create("network", `{"qos_policy_id": %q}`, last.ID())
	project.Delete("port", project.Create("port", `{"network_id": %q, "qos_policy_id": %q}`, m.ID(), last.ID()).ID())
	project.Delete("network", m.ID())
	admin.Delete("policy", last.ID())
}

// Networks that name no policy take their project's default; later ones do not change with it.
func TestDefault(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin := k.Admin()
	before := k.As("project1").Create("network", `{}`)
	p := admin.Create("policy", `{"tenant_id": "project1", "is_default": true}`)
	n := k.As("project1").Create("network", `{}`)
	if n.Text("qos_policy_id") != p.ID() {
		t.Fatalf("network is %v", n)
	}
	for _, other := range []exttest.Object{before, k.As("project2").Create("network", `{}`)} {
		if got := admin.Get("network", other.ID()); got.JSON("qos_policy_id") != "null" {
			t.Fatalf("network is %v", got)
		}
	}
	admin.Update("network", n.ID(), `{"qos_policy_id": null, "name": "free"}`)
	if got := admin.Get("network", n.ID()); got.JSON("qos_policy_id") != "null" {
		t.Fatalf("network is %v", got)
	}
}

func TestRuleTypes(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin := k.Admin()
	types := func(filter ...string) string {
		var names []string
		for _, o := range admin.List("rule_type", filter...) {
			if len(o) != 1 {
				t.Fatalf("rule type is %v", o)
			}
			names = append(names, o.Text("type"))
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	const all = "bandwidth_limit dscp_marking minimum_bandwidth minimum_packet_rate packet_rate_limit"
	if got := types() + "|" + types("all_supported", "true") + "|" + types("all_rules", "True"); got != all+"|"+all+"|"+all {
		t.Fatalf("types: %s", got)
	}
	const want = `[{"name":"openvswitch","supported_parameters":[` +
		`{"parameter_name":"max_kbps","parameter_type":"range","parameter_values":{"end":2147483647,"start":0}},` +
		`{"parameter_name":"max_burst_kbps","parameter_type":"range","parameter_values":{"end":2147483647,"start":0}},` +
		`{"parameter_name":"direction","parameter_type":"choices","parameter_values":["ingress","egress"]}]}]`
	if got := admin.Get("rule_type", "bandwidth_limit"); got.JSON("drivers") != want || got.Text("type") != "bandwidth_limit" {
		t.Fatalf("rule type is %v", got)
	}
	const minimum = `[{"name":"openvswitch","supported_parameters":[` +
		`{"parameter_name":"min_kpps","parameter_type":"range","parameter_values":{"end":2147483647,"start":0}},` +
		`{"parameter_name":"direction","parameter_type":"choices","parameter_values":["any","ingress","egress"]}]}]`
	if got := admin.Get("rule_type", "minimum_packet_rate"); got.JSON("drivers") != minimum {
		t.Fatalf("rule type is %v", got)
	}
	_, err := k.As("project1").TryGet("rule_type", "bandwidth_limit")
	k.Refused(err, fault.Forbidden, "NotAuthorized", "Not authorized.")
	_, err = admin.TryGet("rule_type", "speed")
	k.Refused(err, fault.NotFound, "HTTPNotFound", "")
}

// Hosts hold the policies that their ports and networks refer to, as long as they do.
func TestFeed(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("host1", exttest.HostOptions{})
	k.Host("host2", exttest.HostOptions{})
	admin := k.Admin()
	stream := k.Attach("host1")
	gold, silver := admin.Create("policy", `{}`), admin.Create("policy", `{}`)
	admin.In(gold.ID()).Create("bandwidth_limit_rule", `{"max_kbps": 20000, "max_burst_kbps": 100}`)
	n := admin.Create("network", `{"qos_policy_id": %q}`, silver.ID())
	held := func(host string) string {
		stream.Agrees()
		var names []string
		for id := range k.View(host, message.Kind_KIND_QOS_POLICY) {
			names = append(names, map[string]string{gold.ID(): "gold", silver.ID(): "silver"}[id])
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	expect := func(host, want string) {
		t.Helper()
		if got := held(host); got != want {
			t.Fatalf("%s holds %q, want %q", host, got, want)
		}
	}
	p := admin.Create("port", `{"network_id": %q, "qos_policy_id": %q, "binding:host_id": "host1"}`, n.ID(), gold.ID())
	other := admin.Create("port", `{"network_id": %q, "binding:host_id": "host2"}`, n.ID())
	expect("host1", "gold silver")
	expect("host2", "silver")
	if m := k.View("host1", message.Kind_KIND_PORT)[p.ID()].GetPort(); m.QosPolicyId != gold.ID() {
		t.Fatalf("port is %v", m)
	}
	if m := k.View("host2", message.Kind_KIND_NETWORK)[n.ID()].GetNetwork(); m.QosPolicyId != silver.ID() {
		t.Fatalf("network is %v", m)
	}
	m := k.View("host1", message.Kind_KIND_QOS_POLICY)[gold.ID()].GetQosPolicy()
	if len(m.BandwidthLimits) != 1 || m.BandwidthLimits[0].MaxKbps != 20000 || m.BandwidthLimits[0].MaxBurstKbps != 100 || m.BandwidthLimits[0].Direction != "egress" || m.DscpMark != nil {
		t.Fatalf("policy is %v", m)
	}
	admin.In(gold.ID()).Create("dscp_marking_rule", `{"dscp_mark": 0}`)
	expect("host1", "gold silver")
	if m := k.View("host1", message.Kind_KIND_QOS_POLICY)[gold.ID()].GetQosPolicy(); m.DscpMark == nil || *m.DscpMark != 0 {
		t.Fatalf("policy is %v", m)
	}
	admin.Update("port", p.ID(), `{"binding:host_id": "host2"}`)
	expect("host1", "")
	expect("host2", "gold silver")
	admin.Update("network", n.ID(), `{"qos_policy_id": null}`)
	expect("host2", "gold")
	admin.Update("port", other.ID(), `{"binding:host_id": "host1", "qos_policy_id": %q}`, gold.ID())
	expect("host1", "gold")
	admin.Update("network", n.ID(), `{"qos_policy_id": %q}`, gold.ID())
	admin.Update("port", other.ID(), `{"qos_policy_id": null}`)
	expect("host1", "gold")
	admin.Delete("port", other.ID())
	expect("host1", "")
	admin.Delete("port", p.ID())
	expect("host2", "")
}

// A bound port that is not on Open vSwitch cannot have rules.
func TestUnsupported(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	k.Host("host1", exttest.HostOptions{})
	admin := k.Admin()
	p := admin.Create("policy", `{}`)
	n := admin.Create("network", `{}`)
	bound := admin.Create("port", `{"network_id": %q, "binding:host_id": "host1", "qos_policy_id": %q}`, n.ID(), p.ID())
	admin.In(p.ID()).Create("bandwidth_limit_rule", `{"max_kbps": 1}`)
	if err := k.Store.Tx(admin.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE port SET vif_type = 'bridge' WHERE id = ?", bound.ID())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err := admin.In(p.ID()).TryCreate("dscp_marking_rule", `{"dscp_mark": 0}`)
	k.Refused(err, fault.Conflict, "QosRuleNotSupported", "Rule bandwidth_limit is not supported by port "+bound.ID())
	admin.Update("port", bound.ID(), `{"qos_policy_id": null}`)
	_, err = admin.TryUpdate("network", n.ID(), `{"qos_policy_id": %q}`, p.ID())
	k.Refused(err, fault.Conflict, "QosRuleNotSupported", "Rule bandwidth_limit is not supported by port "+bound.ID())
}
