package access

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"isospin/internal/resource"
	"isospin/test/servertest"
)

// fixture says how objects of a resource come to be.
type fixture struct {
	// create makes what the object needs, of the project, and returns the id of
	// its parent and the members of the body; nil: clients create none.
	create func(c *cloud, project string) (parent, body string)
	// key is the member of the body that names the object below its parent;
	// empty: the answer's id does.
	key string
	// find is the id of an object when clients create none.
	find func(c *cloud, project string) string
	// change is the body of an update.
	change string
	// by creates objects; empty: an administrator.
	by string
	// answers to those who may, where these are not success, by operation.
	answers map[resource.Operation]int
	// only names who alone is answered, whatever the rules; others get a 403.
	only map[resource.Operation]string
	// missing says why an operation is not called.
	missing map[resource.Operation]string
}

// plain is a fixture of an object without a parent.
func plain(body string) func(*cloud, string) (string, string) {
	return func(c *cloud, project string) (string, string) { return "", c.expand(project, body) }
}

// below is a fixture of an object with a parent.
func below(kind, body string) func(*cloud, string) (string, string) {
	return func(c *cloud, project string) (string, string) {
		return c.make(project, kind), c.expand(project, body)
	}
}

// fixtures by URL. Who adds a resource adds a line.
func fixtures() map[string]fixture {
	return map[string]fixture{
		"/networks":           {create: plain(`{"name": "n"}`), change: `{"name": "m"}`},
		"/subnets":            {create: plain(`{"network_id": "$network", "ip_version": 4, "cidr": "10.0.0.0/24"}`), change: `{"name": "m"}`},
		"/ports":              {create: plain(`{"network_id": "$addressed"}`), change: `{"name": "m"}`},
		"/subnetpools":        {create: plain(`{"name": "p", "prefixes": ["10.0.0.0/16", "10.2.0.0/16"]}`), change: `{"name": "m"}`},
		"/address-scopes":     {create: plain(`{"name": "s", "ip_version": 4}`), change: `{"name": "m"}`},
		"/routers":            {create: plain(`{"name": "r"}`), change: `{"name": "m"}`},
		"/floatingips":        {create: plain(`{"floating_network_id": "$external"}`), change: `{"description": "m"}`},
		"/floatingip-pools":   {},
		"/security-groups":    {create: plain(`{"name": "g"}`), change: `{"name": "m"}`},
		"/address-groups":     {create: plain(`{"name": "g"}`), change: `{"name": "m"}`},
		"/segments":           {create: plain(`{"network_id": "$vlan_network", "network_type": "vlan", "physical_network": "physnet1"}`), change: `{"name": "m"}`},
		"/trunks":             {create: plain(`{"port_id": "$port"}`), change: `{"name": "m"}`},
		"/local-ips":          {create: plain(`{"network_id": "$addressed"}`), change: `{"name": "m"}`},
		"/qos/policies":       {create: plain(`{"name": "q"}`), change: `{"name": "m"}`},
		"/flavors":            {create: plain(`{"name": "f#", "service_type": "L3_ROUTER_NAT"}`), change: `{"description": "m"}`},
		"/service_profiles":   {create: plain(`{"metainfo": "m#"}`), change: `{"description": "m"}`},
		"/service-providers":  {},
		"/availability_zones": {},
		"/rbac-policies": {create: plain(`{"object_type": "network", "object_id": "$network", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}`),
			change: `{"target_tenant": "9a5f2c6e-0000-4000-8000-000000000008"}`},
		"/security-group-rules": {create: plain(`{"security_group_id": "$security_group", "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": #, "port_range_max": 65535}`),
			change: `{"description": "m"}`, answers: map[resource.Operation]int{resource.Update: http.StatusNotImplemented}},
		"/default-security-group-rules": {create: plain(`{"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": #, "port_range_max": 65535, "used_in_default_sg": false, "used_in_non_default_sg": false}`),
			missing: map[resource.Operation]string{resource.Update: "nothing of one can be changed: that is a 400"}},
		"/security-groups-default-statefulness": {create: plain(`{"stateful": true}`), change: `{"stateful": false}`},
		"/network-segment-ranges":               {create: segmentRange, change: `{"name": "m"}`},
		"/metering/metering-labels":             {create: plain(`{"name": "l"}`)},
		"/metering/metering-label-rules":        {create: plain(`{"metering_label_id": "$metering_label", "direction": "ingress", "remote_ip_prefix": "10.0.0.0/24"}`)},
		"/network-ip-availabilities":            {find: func(c *cloud, project string) string { return c.make(project, "network") }},
		"/qos/rule-types": {find: func(*cloud, string) string { return "bandwidth_limit" },
			only: map[resource.Operation]string{resource.Show: "admin"}},
		"/agents": {find: func(c *cloud, project string) string { return c.make(project, "agent") }, change: `{"description": "m"}`,
			missing: map[resource.Operation]string{resource.Delete: "the hosts are at work"}},
		"/ports/{port_id}/bindings":             {create: below("instance_port", `{"host": "h2"}`), key: "host", change: `{"vnic_type": "normal"}`, by: "service"},
		"/flavors/{flavor_id}/service_profiles": {create: below("flavor", `{"id": "$service_profile"}`), key: "id"},
		"/local-ips/{local_ip_id}/port_associations": {create: func(c *cloud, project string) (string, string) {
			n := c.make(project, "addressed")
			return c.post("/local-ips", `{"local_ip": {"project_id": %q, "network_id": %q}}`, project, n),
				fmt.Sprintf(`{"fixed_port_id": %q}`, c.post("/ports", `{"port": {"project_id": %q, "network_id": %q}}`, project, n))
		}, key: "fixed_port_id"},
		"/routers/{router_id}/conntrack_helpers": {create: below("router", `{"protocol": "udp", "port": 69, "helper": "tftp"}`), change: `{"port": 70}`},
		"/ndp-proxies": {create: func(c *cloud, project string) (string, string) {
			router, port := c.routed(project)
			return "", fmt.Sprintf(`{"router_id": %q, "port_id": %q}`, router, port)
		}, change: `{"name": "m"}`},
		"/floatingips/{floatingip_id}/port_forwardings": {create: func(c *cloud, project string) (string, string) {
			_, port := c.routed(project)
			return c.make(project, "floatingip"), fmt.Sprintf(`{"internal_port_id": %q, "internal_ip_address": %q, "internal_port": 80, "external_port": 8080, "protocol": "tcp"}`, port, routedAddress)
		}, change: `{"description": "m"}`},
		"/qos/policies/{policy_id}/bandwidth_limit_rules":     {create: below("policy", `{"max_kbps": 1000}`), change: `{"max_kbps": 2000}`},
		"/qos/policies/{policy_id}/packet_rate_limit_rules":   {create: below("policy", `{"max_kpps": 1000}`), change: `{"max_kpps": 2000}`},
		"/qos/policies/{policy_id}/dscp_marking_rules":        {create: below("policy", `{"dscp_mark": 8}`), change: `{"dscp_mark": 10}`},
		"/qos/policies/{policy_id}/minimum_bandwidth_rules":   {create: below("policy", `{"min_kbps": 100}`), change: `{"min_kbps": 200}`},
		"/qos/policies/{policy_id}/minimum_packet_rate_rules": {create: below("policy", `{"min_kpps": 100}`), change: `{"min_kpps": 200}`},
		"/log/logs":                            {create: plain(`{"resource_type": "security_group", "event": "ALL", "name": "l"}`), change: `{"name": "m"}`},
		"/log/loggable-resources":              {},
		"/qos/alias-bandwidth-limit-rules":     {find: ruleOf("bandwidth_limit_rule", `{"max_kbps": 1000}`), change: `{"max_kbps": 2000}`},
		"/qos/alias-packet-rate-limit-rules":   {find: ruleOf("packet_rate_limit_rule", `{"max_kpps": 1000}`), change: `{"max_kpps": 2000}`},
		"/qos/alias-dscp-marking-rules":        {find: ruleOf("dscp_marking_rule", `{"dscp_mark": 8}`), change: `{"dscp_mark": 10}`},
		"/qos/alias-minimum-bandwidth-rules":   {find: ruleOf("minimum_bandwidth_rule", `{"min_kbps": 100}`), change: `{"min_kbps": 200}`},
		"/qos/alias-minimum-packet-rate-rules": {find: ruleOf("minimum_packet_rate_rule", `{"min_kpps": 100}`), change: `{"min_kpps": 200}`},
	}
}

func segmentRange(c *cloud, project string) (string, string) {
	c.count++
	first := 200000 + 10*c.count
	return "", fmt.Sprintf(`{"name": "r", "shared": false, "network_type": "vxlan", "minimum": %d, "maximum": %d}`, first, first+5)
}

// ruleOf makes a rule of a QoS policy.
func ruleOf(name, body string) func(*cloud, string) string {
	return func(c *cloud, project string) string {
		return c.post("/qos/policies/"+c.make(project, "policy")+"/"+name+"s", `{%q: %s}`, name, body)
	}
}

// calls on objects: the bodies of member actions, by resource and action.
func calls() map[string]func(c *cloud, project, id string) string {
	return map[string]func(c *cloud, project, id string) string{
		"router.add_router_interface": text(`{"subnet_id": "$subnet"}`),
		"router.remove_router_interface": func(c *cloud, project, id string) string {
			body := fmt.Sprintf(`{"subnet_id": %q}`, c.make(project, "subnet"))
			c.must("admin", "PUT", "/routers/"+id+"/add_router_interface", body)
			return body
		},
		"router.add_extraroutes":             text(`{"router": {"routes": []}}`),
		"router.remove_extraroutes":          text(`{"router": {"routes": []}}`),
		"router.add_external_gateways":       text(`{"router": {"external_gateways": [{"network_id": "$external"}]}}`),
		"router.update_external_gateways":    text(`{"router": {"external_gateways": [{"network_id": "$external"}]}}`),
		"router.remove_external_gateways":    text(`{"router": {"external_gateways": []}}`),
		"address_group.add_addresses":        text(`{"addresses": ["10.9.#.0/24"]}`),
		"address_group.remove_addresses":     text(`{"addresses": []}`),
		"subnetpool.add_prefixes":            text(`{"prefixes": ["10.3.0.0/16"]}`),
		"subnetpool.remove_prefixes":         text(`{"prefixes": ["10.2.0.0/16"]}`),
		"subnetpool.onboard_network_subnets": text(`{"network_id": "$addressed"}`),
		"trunk.add_subports":                 text(`{"sub_ports": [{"port_id": "$port", "segmentation_type": "vlan", "segmentation_id": #}]}`),
		"trunk.remove_subports":              text(`{"sub_ports": []}`),
		"trunk.get_subports":                 text(``),
	}
}

func text(body string) func(*cloud, string, string) string {
	return func(c *cloud, project, _ string) string { return c.expand(project, body) }
}

// object makes an object of the resource at a URL, and returns the path of its
// collection and its id.
func (c *cloud) object(project, url string) (collection, id string) {
	c.t.Helper()
	f, ok := fixtures()[url]
	r := c.Core.Registry.Lookup(url)
	if !ok || r == nil {
		c.t.Fatalf("%s: there is no fixture, or no resource", url)
	}
	if f.create == nil {
		return url, f.find(c, project)
	}
	parent, body := f.create(c, project)
	collection = path(url, parent)
	by := f.by
	if by == "" {
		by = "admin"
	}
	a := c.must(by, http.MethodPost, collection, document(r, body, project))
	return collection, c.named(&f, body, a)
}

// named is the id of an object that was created with those members.
func (c *cloud) named(f *fixture, members string, a *servertest.Answer) string {
	c.t.Helper()
	if f.key == "" {
		return c.member(a, "id")
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(members), &body); err != nil {
		c.t.Fatalf("%s: %v", members, err)
	}
	return fmt.Sprint(body[f.key])
}

// document is a create body with those members; project empty: the caller's.
func document(r *resource.Resource, members, project string) string {
	if a := r.Attribute("tenant_id"); project != "" && a != nil && a.Flags.Has(resource.Post) {
		comma := ", "
		if strings.TrimSpace(members) == "{}" {
			comma = ""
		}
		members = fmt.Sprintf(`{"project_id": %q%s%s`, project, comma, strings.TrimPrefix(members, "{"))
	}
	return fmt.Sprintf(`{%q: %s}`, r.Name, members)
}
