package securitygroup_test

import (
	"fmt"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/test/servertest"
)

// TestCost: what a host is told of a group is in proportion to what has
// changed, however many members the group has.
func TestCost(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	s.Host("h1", servertest.OpenVSwitch("192.0.2.1")).Attach(t)
	s.Host("h2", servertest.OpenVSwitch("192.0.2.2")).Attach(t)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/16", "enable_dhcp": false}}`, network))
	port := func(host, address string) string {
		return fmt.Sprintf(`{"network_id": %q, "binding:host_id": %q, "fixed_ips": [{"ip_address": %q}]}`, network, host, address)
	}
	var many []string
	for i := range 200 {
		many = append(many, port("h2", fmt.Sprintf("10.0.1.%d", i)))
	}
	s.Must(t, 201, "POST", "/ports", `{"ports": [`+strings.Join(many, ",")+`]}`)
	mine := s.Must(t, 201, "POST", "/ports", `{"port": `+port("h1", "10.0.0.5")+`}`)["id"].(string)
	s.Settle(t)

	stream, first := s.Hub.Open("h1", nil) // in place of the host's own
	defer stream.Close()
	var set string
	for _, o := range first.Upserts {
		if a := o.GetAddressSet(); a != nil {
			if set = a.Id; len(a.Addresses) != 201 {
				t.Errorf("the set has %d addresses", len(a.Addresses))
			}
		}
	}
	for _, c := range []struct {
		what, method, path, body string
		// want: what is told of the set, and the kinds of whole objects.
		want string
	}{
		{"another joins", "POST", "/ports", `{"port": ` + port("h2", "10.0.0.6") + `}`, "adds 1"},
		{"the host's own changes its name", "PUT", "/ports/" + mine, `{"port": {"name": "x"}}`, "port"},
		{"the host's own changes its address", "PUT", "/ports/" + mine, `{"port": {"fixed_ips": [{"ip_address": "10.0.0.7"}]}}`, "port, adds 1, deletes 1"},
		{"the host's own goes down", "PUT", "/ports/" + mine, `{"port": {"admin_state_up": false}}`, "port"},
		{"the group has a new name", "PUT", "/security-groups/" + set, `{"security_group": {"description": "x"}}`, ""},
		{"the host's own leaves the group", "PUT", "/ports/" + mine, `{"port": {"security_groups": []}}`, "port, without set"},
		{"and comes back", "PUT", "/ports/" + mine, fmt.Sprintf(`{"port": {"security_groups": [%q]}}`, set), "port, group, set of 202"},
	} {
		a, err := s.Do(c.method, c.path, c.body)
		if err != nil || a.Status > 201 {
			t.Fatalf("%s: %v, %s", c.what, err, a)
		}
		s.Settle(t)
		if have := told(stream.Due()); have != c.want {
			t.Errorf("%s: told is %q, want %q", c.what, have, c.want)
		}
	}
}

func told(m *message.ServerMessage) string {
	var words []string
	kinds := map[string]bool{}
	for _, o := range m.GetUpserts() {
		switch b := o.Body.(type) {
		case *message.Object_Port:
			kinds["port"] = true
		case *message.Object_SecurityGroup:
			kinds["group"] = true
		case *message.Object_AddressSet:
			kinds[fmt.Sprintf("set of %d", len(b.AddressSet.Addresses))] = true
		case *message.Object_Network, *message.Object_Forwarding:
			kinds["network"] = true
		}
	}
	for _, k := range []string{"network", "port", "group"} {
		if kinds[k] {
			words = append(words, k)
			delete(kinds, k)
		}
	}
	for k := range kinds {
		words = append(words, k)
	}
	for _, d := range m.GetAddressSetDeltas() {
		words = append(words, fmt.Sprintf("adds %d", len(d.Adds)))
		if len(d.Deletes) > 0 {
			words = append(words, fmt.Sprintf("deletes %d", len(d.Deletes)))
		}
	}
	for _, d := range m.GetDeletes() {
		if d.Kind == message.Kind_KIND_ADDRESS_SET {
			words = append(words, "without set")
		}
	}
	return strings.Join(words, ", ")
}
