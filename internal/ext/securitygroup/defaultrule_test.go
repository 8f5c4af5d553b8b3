package securitygroup_test

import (
	"fmt"
	"slices"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

// form is what a rule says, its remote group by name.
func form(r map[string]any, names map[string]string) string {
	text := fmt.Sprint(r["direction"], " ", r["ethertype"])
	for _, member := range []string{"protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id", "remote_address_group_id"} {
		if v := r[member]; v != nil {
			if n, ok := names[fmt.Sprint(v)]; ok {
				v = n
			}
			text += fmt.Sprint(" ", v)
		}
	}
	return text
}

func TestDefaultRules(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[quotas]\nquota_security_group_rule = 10\n"})
	admin := k.Admin()
	for _, c := range []struct {
		filter []string
		want   string
	}{
		{[]string{"used_in_default_sg", "true"}, "[egress IPv4 egress IPv6 ingress IPv4 PARENT ingress IPv6 PARENT]"},
		{[]string{"used_in_non_default_sg", "true"}, "[egress IPv4 egress IPv6]"},
		{[]string{"remote_group_id", "PARENT"}, "[ingress IPv4 PARENT ingress IPv6 PARENT]"},
	} {
		var have []string
		for _, r := range k.As("anybody").List("default_security_group_rule", c.filter...) {
			have = append(have, form(r, nil))
		}
		slices.Sort(have)
		if fmt.Sprint(have) != c.want {
			t.Errorf("shipped rules with %v are %v", c.filter, have)
		}
	}
	ag := admin.Create("address_group", `{"addresses": ["10.0.0.0/8"]}`).ID()
	shared := admin.Create("security_group", `{"name": "shared"}`).ID()
	names := map[string]string{ag: "ag", shared: "shared"}
	before := k.LastSequence()
	d := admin.Create("default_security_group_rule", `{"direction": "ingress", "protocol": "TCP", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.7/8",
		"used_in_default_sg": true, "used_in_non_default_sg": false, "description": "ssh"}`)
	if form(d, nil) != "ingress IPv4 tcp 22 22 10.0.0.7/8" || d.Text("description") != "ssh" || d["used_in_default_sg"] != true || d["used_in_non_default_sg"] != false || d["tenant_id"] != nil || d["revision_number"] != 0.0 {
		t.Errorf("default rule is %v", d)
	}
	if e := k.Events(before, map[string]string{d.ID(): "d"}); fmt.Sprint(e) != "[create default_security_group_rule d]" {
		t.Errorf("events are %q", e)
	}
	// The same rule for the other groups is another default rule.
	other := admin.Create("default_security_group_rule", `{"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.0/8", "used_in_default_sg": false, "used_in_non_default_sg": true}`)
	for _, used := range []string{`"used_in_default_sg": true, "used_in_non_default_sg": false`, `"used_in_default_sg": true, "used_in_non_default_sg": true`} {
		_, err := admin.TryCreate("default_security_group_rule", `{"direction": "ingress", "protocol": "6", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.0/8", %s}`, used)
		k.Refused(err, fault.Conflict, "DefaultSecurityGroupRuleExists", "")
	}
	named := admin.Create("default_security_group_rule", `{"direction": "ingress", "ethertype": "IPv6", "remote_address_group_id": %q, "used_in_default_sg": false, "used_in_non_default_sg": true}`, ag)
	admin.Create("default_security_group_rule", `{"direction": "ingress", "protocol": "any", "remote_group_id": %q, "used_in_default_sg": true, "used_in_non_default_sg": false}`, shared)

	// New groups have them, the project's default group made on the way.
	project := k.As("project1")
	g := project.Create("security_group", `{"name": "g"}`)
	names[g.ID()] = "g"
	rules := func(o exttest.Object) (list []string) {
		for _, r := range o["security_group_rules"].([]any) {
			list = append(list, form(r.(map[string]any), names))
		}
		slices.Sort(list)
		return list
	}
	if r := rules(project.Get("security_group", g.ID())); fmt.Sprintf("%q", r) != `["egress IPv4" "egress IPv6" "ingress IPv4 tcp 22 22 10.0.0.0/8" "ingress IPv6 ag"]` || fmt.Sprint(r) != fmt.Sprint(rules(g)) {
		t.Errorf("rules of a group are %q", r)
	}
	own := project.List("security_group", "name", "default")[0]
	names[own.ID()] = "itself"
	if r := rules(own); fmt.Sprintf("%q", r) != `["egress IPv4" "egress IPv6" "ingress IPv4 itself" "ingress IPv4 shared" "ingress IPv4 tcp 22 22 10.0.0.7/8" "ingress IPv6 itself"]` {
		t.Errorf("rules of a default group are %q", r)
	}
	// 6 + 4 rules are all that the quota allows.
	_, err := project.TryCreate("security_group", `{"name": "h"}`)
	k.Refused(err, fault.Conflict, "OverQuota", "Quota exceeded for resources: ['security_group_rule'].")

	// What a default rule names stays.
	k.Refused(admin.TryDelete("security_group", shared), fault.Conflict, "SecurityGroupInUse", "Security Group "+shared+" in use.")
	project.Delete("security_group", g.ID())
	k.Refused(admin.TryDelete("address_group", ag), fault.Conflict, "AddressGroupInUse", "")
	admin.Delete("default_security_group_rule", named.ID())
	admin.Delete("default_security_group_rule", other.ID())
	admin.Delete("address_group", ag)
	_, err = admin.TryGet("default_security_group_rule", named.ID())
	k.Refused(err, fault.NotFound, "DefaultSecurityGroupRuleNotFound", "Default Security Group rule "+named.ID()+" does not exist")

	for _, c := range []struct {
		body string
		kind fault.Kind
		typ  string
	}{
		{`{"direction": "ingress", "used_in_default_sg": true}`, fault.Invalid, "HTTPBadRequest"},
		{`{"direction": "ingress", "port_range_min": 5, "used_in_default_sg": true, "used_in_non_default_sg": true}`, fault.Invalid, "SecurityGroupProtocolRequiredWithPorts"},
		{`{"direction": "ingress", "remote_group_id": "PARENT", "remote_ip_prefix": "10.0.0.0/8", "used_in_default_sg": true, "used_in_non_default_sg": true}`, fault.Invalid, "SecurityGroupMultipleRemoteEntites"},
		{`{"direction": "ingress", "remote_group_id": "00000000-0000-4000-8000-000000000000", "used_in_default_sg": true, "used_in_non_default_sg": true}`, fault.NotFound, "SecurityGroupNotFound"},
		{`{"direction": "ingress", "remote_address_group_id": "00000000-0000-4000-8000-000000000000", "used_in_default_sg": true, "used_in_non_default_sg": true}`, fault.NotFound, "AddressGroupNotFound"},
	} {
		_, err := admin.TryCreate("default_security_group_rule", c.body)
		k.Refused(err, c.kind, c.typ, "")
	}
	_, err = admin.TryUpdate("default_security_group_rule", d.ID(), `{"description": "x"}`)
	k.Refused(err, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute description")
}
