package securitygroup_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/feed"
	"isospin/test/servertest"
)

func addresses(o exttest.Object) string {
	if g, ok := o["address_group"].(map[string]any); ok {
		o = g
	}
	return o.JSON("addresses")
}

func TestAddressGroup(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	project, other := k.As("project1"), k.As("project2")
	before := k.LastSequence()
	g := project.Create("address_group", `{"name": "offices", "addresses": ["192.0.2.7/32", "10.1.2.3/8", "2001:DB8::/32"]}`)
	names := map[string]string{g.ID(): "offices"}
	if addresses(g) != `["10.0.0.0/8","192.0.2.7/32","2001:db8::/32"]` || g.Text("tenant_id") != "project1" || g.Text("description") != "" || g["shared"] != nil {
		t.Fatalf("group is %v", g)
	}
	if empty := project.Create("address_group", `{}`); addresses(empty) != `[]` || empty.Text("name") != "" {
		t.Errorf("group is %v", empty)
	}
	changed := project.Act("address_group", g.ID(), "add_addresses", `{"addresses": ["198.51.100.1", "198.51.100.1/32"]}`)
	if addresses(changed) != `["10.0.0.0/8","192.0.2.7/32","198.51.100.1/32","2001:db8::/32"]` {
		t.Errorf("group is %v", changed)
	}
	changed = project.Act("address_group", g.ID(), "remove_addresses", `{"addresses": ["10.0.0.0/8", "2001:db8:0::/32"]}`)
	if addresses(changed) != `["192.0.2.7/32","198.51.100.1/32"]` {
		t.Errorf("group is %v", changed)
	}
	long := strings.Repeat("d", 1024)
	if u := project.Update("address_group", g.ID(), `{"name": "o", "description": %q}`, long); u.Text("name") != "o" || u.Text("description") != long || addresses(u) != addresses(changed) || u["revision_number"] != 3.0 {
		t.Errorf("group is %v", u)
	}
	if rows := k.Rows(1, "SELECT address FROM address_group_address WHERE address_group_id = ? ORDER BY address", g.ID()); fmt.Sprint(rows) != "[[192.0.2.7/32] [198.51.100.1/32]]" {
		t.Errorf("rows are %v", rows)
	}
	project.Act("address_group", g.ID(), "add_addresses", `{"addresses": []}`) // changes nothing
	if e := k.Events(before, names); slices.Compare(slices.DeleteFunc(e, func(s string) bool { return !strings.HasSuffix(s, "offices") }),
		[]string{"create address_group offices", "update address_group offices", "update address_group offices", "update address_group offices"}) != 0 {
		t.Errorf("events are %q", e)
	}
	if l := other.List("address_group"); len(l) != 0 {
		t.Errorf("another project sees %v", l)
	}
	if l := project.List("address_group", "name", "o"); len(l) != 1 || l[0].ID() != g.ID() {
		t.Errorf("list is %v", l)
	}

	refused := func(action, body string, kind fault.Kind, typ, text string) {
		t.Helper()
		_, err := project.TryAct("address_group", g.ID(), action, body)
		k.Refused(err, kind, typ, text)
	}
	refused("add_addresses", `{"addresses": ["203.0.113.1/32", "192.0.2.7"]}`, fault.Invalid, "AddressesAlreadyExist", "Addresses ['192.0.2.7/32'] already exist in the address group "+g.ID()+".")
	refused("remove_addresses", `{"addresses": ["192.0.2.7/32", "203.0.113.1/32"]}`, fault.NotFound, "AddressesNotFound", "Addresses ['203.0.113.1/32'] not found in the address group "+g.ID()+".")
	if a := addresses(project.Get("address_group", g.ID())); a != `["192.0.2.7/32","198.51.100.1/32"]` {
		t.Errorf("what was refused has changed the group: %s", a)
	}
	refused("add_addresses", `{"addresses": ["office"]}`, fault.Invalid, "HTTPBadRequest", "Invalid input for addresses. Reason: 'office' is not a valid IP subnet.")
	refused("add_addresses", `{"addresses": "10.0.0.0/8"}`, fault.Invalid, "HTTPBadRequest", "Invalid input for addresses. Reason: '10.0.0.0/8' is not a list.")
	refused("add_addresses", `{}`, fault.Invalid, "HTTPBadRequest", "Failed to parse request. Required attribute 'addresses' not specified")
	_, err := other.TryAct("address_group", g.ID(), "add_addresses", `{"addresses": ["10.9.0.0/16"]}`)
	k.Refused(err, fault.NotFound, "AddressGroupNotFound", "Address group "+g.ID()+" could not be found.")
	_, err = project.TryUpdate("address_group", g.ID(), `{"addresses": []}`)
	k.Refused(err, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute addresses")
	_, err = project.TryCreate("address_group", `{"addresses": ["10.0.0.0/33"]}`)
	k.Refused(err, fault.Invalid, "HTTPBadRequest", "Invalid input for addresses. Reason: '10.0.0.0/33' is not a valid IP subnet.")
}

func TestRuleNamesAddressGroup(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	project, other := k.As("project1"), k.As("project2")
	sg := project.Create("security_group", `{"name": "sg"}`).ID()
	g := project.Create("address_group", `{"addresses": ["10.0.0.0/8"]}`).ID()
	const body = `{"security_group_id": %q, "direction": "ingress", "protocol": "tcp", "remote_address_group_id": %q}`
	r := project.Create("security_group_rule", body, sg, g)
	if r.Text("remote_address_group_id") != g || r["remote_group_id"] != nil || r["remote_ip_prefix"] != nil {
		t.Errorf("rule is %v", r)
	}
	if l := project.List("security_group_rule", "remote_address_group_id", g); len(l) != 1 || l[0].ID() != r.ID() {
		t.Errorf("list is %v", l)
	}
	_, err := project.TryCreate("security_group_rule", body, sg, g)
	k.Refused(err, fault.Conflict, "SecurityGroupRuleExists", "Security group rule already exists. Rule id is "+r.ID()+".")
	project.Create("security_group_rule", body, sg, project.Create("address_group", `{}`).ID()) // another group is another rule
	_, err = project.TryCreate("security_group_rule", `{"security_group_id": %q, "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8", "remote_address_group_id": %q}`, sg, g)
	k.Refused(err, fault.Invalid, "SecurityGroupMultipleRemoteEntites", "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.")
	theirs := other.Create("security_group", `{"name": "sg"}`).ID()
	_, err = other.TryCreate("security_group_rule", body, theirs, g)
	k.Refused(err, fault.NotFound, "AddressGroupNotFound", "Address group "+g+" could not be found.")
	k.Refused(project.TryDelete("address_group", g), fault.Conflict, "AddressGroupInUse", "Address group "+g+" is in use on one or more security group rules.")
	project.Delete("security_group_rule", r.ID())
	project.Delete("address_group", g)
	if rows := k.Rows(1, "SELECT COUNT(*) FROM address_group_address"); fmt.Sprint(rows) != "[[0]]" {
		t.Errorf("%v addresses are left", rows)
	}
}

// A host with a port whose group names an address group has its addresses as a
// set, learns of single addresses, and forgets the set with the last rule.
func TestAddressSetOfAddressGroup(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	h1, h2 := s.Host("h1", servertest.OpenVSwitch("192.0.2.1")), s.Host("h2", servertest.OpenVSwitch("192.0.2.2"))
	h1.Attach(t)
	h2.Attach(t)
	create := func(collection, kind, body string, args ...any) string {
		t.Helper()
		return s.Must(t, 201, "POST", "/"+collection, fmt.Sprintf(`{%q: %s}`, kind, fmt.Sprintf(body, args...)))["id"].(string)
	}
	g := create("address-groups", "address_group", `{"addresses": ["10.0.0.0/8", "192.0.2.7/32", "10.1.2.3/8"]}`)
	sg := create("security-groups", "security_group", `{"name": "sg"}`)
	r := create("security-group-rules", "security_group_rule", `{"security_group_id": %q, "direction": "ingress", "remote_address_group_id": %q}`, sg, g)
	n := create("networks", "network", `{"name": "n"}`)
	create("ports", "port", `{"network_id": %q, "binding:host_id": "h1", "security_groups": [%q]}`, n, sg)

	key := feed.Key{Kind: message.Kind_KIND_ADDRESS_SET, ID: g}
	holds := func(want string) {
		t.Helper()
		servertest.Eventually(t, "h1 has the set "+want, func() bool {
			o := h1.Objects()[key]
			if o == nil {
				return want == "null"
			}
			raw, _ := json.Marshal(o.GetAddressSet().Addresses)
			return string(raw) == want
		})
		s.Settle(t)
		if d := h1.Differs() + h2.Differs(); d != "" {
			t.Fatal(d)
		}
		if h2.Objects()[key] != nil {
			t.Fatal("h2 has a set that it does not need")
		}
	}
	holds(`["10.0.0.0/8","192.0.2.7"]`)
	for _, o := range h1.Objects()[feed.Key{Kind: message.Kind_KIND_SECURITY_GROUP, ID: sg}].GetSecurityGroup().Rules {
		if o.Id == r && o.RemoteAddressSetId != g {
			t.Errorf("rule is %v", o)
		}
	}
	s.Must(t, 200, "PUT", "/address-groups/"+g+"/add_addresses", `{"addresses": ["2001:db8::/32", "192.0.2.8"]}`)
	holds(`["10.0.0.0/8","192.0.2.7","192.0.2.8","2001:db8::/32"]`)
	// 10.1.2.3/8 is the same network as 10.0.0.0/8.
	s.Must(t, 200, "PUT", "/address-groups/"+g+"/remove_addresses", `{"addresses": ["10.1.2.3/8", "192.0.2.7/32"]}`)
	holds(`["192.0.2.8","2001:db8::/32"]`)
	_, messages := h1.Sequence()
	s.Must(t, 200, "PUT", "/address-groups/"+g, `{"address_group": {"name": "of no interest to hosts"}}`)
	s.Settle(t)
	if _, now := h1.Sequence(); now != messages {
		t.Errorf("a name came to the host")
	}
	s.Must(t, 204, "DELETE", "/security-group-rules/"+r, "")
	holds("null")
	if err := h1.Faults(); err != nil {
		t.Error(err)
	}
}
