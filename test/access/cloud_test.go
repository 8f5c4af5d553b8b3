package access

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"isospin/internal/identity/keystone/keystonetest"
	"isospin/test/servertest"
)

// cloud is a server whose callers Keystone knows; a caller's name is its token.
type cloud struct {
	*servertest.Server
	t     *testing.T
	count int
	// shared are ids of objects that many tests use, by kind.
	shared map[string]string
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	k := keystonetest.Start(t)
	for _, c := range callers {
		if c.ProjectID != "" {
			k.Add(c.name, keystonetest.Token{UserID: c.UserID, ProjectID: c.ProjectID, Roles: c.Roles})
		}
	}
	// Of the other project, with a role that none of the callers has.
	k.Add("manager2", keystonetest.Token{UserID: "m2", ProjectID: "p2", Roles: []string{"manager", "member", "reader"}})
	c := &cloud{t: t, Server: servertest.Start(t, servertest.Networks+k.Config()), shared: map[string]string{}}
	c.Host("h1", servertest.OpenVSwitch("192.0.2.1")).Attach(t)
	c.Host("h2", servertest.OpenVSwitch("192.0.2.2")).Attach(t)
	for _, project := range []string{"p1", "p2", "admin"} {
		var doc struct{ Quota map[string]any }
		if err := c.must("admin", "GET", "/quotas/"+project, "").Decode(&doc); err != nil {
			t.Fatal(err)
		}
		unlimited := map[string]int{}
		for name := range doc.Quota {
			if name != "project_id" && name != "tenant_id" {
				unlimited[name] = -1
			}
		}
		raw, err := json.Marshal(map[string]any{"quota": unlimited})
		if err != nil {
			t.Fatal(err)
		}
		c.must("admin", "PUT", "/quotas/"+project, string(raw))
	}
	return c
}

// call is a request by a caller.
func (c *cloud) call(caller, method, path, body string) *servertest.Answer {
	c.t.Helper()
	token := caller
	if caller == "nobody" {
		token = ""
	}
	a, err := c.Do(method, path, body, "X-Auth-Token: "+token)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// must is call for what succeeds.
func (c *cloud) must(caller, method, path, body string) *servertest.Answer {
	c.t.Helper()
	a := c.call(caller, method, path, body)
	if a.Status >= 300 {
		c.t.Fatalf("%s %s %s by %s: %s", method, path, body, caller, a)
	}
	return a
}

// member reads a member of the object that an answer holds.
func (c *cloud) member(a *servertest.Answer, name string) string {
	c.t.Helper()
	var doc map[string]map[string]any
	if err := a.Decode(&doc); err != nil {
		c.t.Fatalf("%v: %s", err, a)
	}
	for _, o := range doc {
		return fmt.Sprint(o[name])
	}
	return ""
}

// post makes an object as an administrator and returns its id.
func (c *cloud) post(path, format string, args ...any) string {
	c.t.Helper()
	return c.member(c.must("admin", "POST", path, fmt.Sprintf(format, args...)), "id")
}

var placeholder = regexp.MustCompile(`\$\w+|#`)

// expand replaces $kind by the id of a new object of the project, and # by a
// number that was not there before.
func (c *cloud) expand(project, text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(what string) string {
		if what == "#" {
			c.count++
			return fmt.Sprint(c.count)
		}
		return c.make(project, what[1:])
	})
}

// make makes an object of the project and returns its id. Kinds are names of
// resources, and what is below.
func (c *cloud) make(project, kind string) string {
	c.t.Helper()
	switch kind {
	case "external": // for all
		if c.shared[kind] == "" {
			scope := c.post("/address-scopes", `{"address_scope": {"name": "s", "ip_version": 6, "shared": true}}`)
			c.shared["pool"] = c.post("/subnetpools", `{"subnetpool": {"name": "p", "shared": true, "address_scope_id": %q, "prefixes": ["2001:db8::/32"], "default_prefixlen": 64}}`, scope)
			n := c.post("/networks", `{"network": {"router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1"}}`)
			c.post("/subnets", `{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "203.0.0.0/16", "enable_dhcp": false}}`, n)
			c.post("/subnets", `{"subnet": {"network_id": %q, "ip_version": 6, "subnetpool_id": %q, "cidr": "2001:db8::/64", "enable_dhcp": false}}`, n, c.shared["pool"])
			c.shared[kind] = n
		}
		return c.shared[kind]
	case "addressed": // a network with IPv4 addresses
		n := c.make(project, "network")
		c.post("/subnets", `{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "project_id": %q}}`, n, project)
		return n
	case "vlan_network":
		return c.post("/networks", c.expand(project, `{"network": {"project_id": %q, "provider:network_type": "vlan", "provider:physical_network": "physnet2", "provider:segmentation_id": #}}`), project)
	case "instance_port":
		n := c.make(project, "network")
		return c.post("/ports", `{"port": {"project_id": %q, "network_id": %q, "device_owner": "compute:nova", "device_id": "vm", "binding:host_id": "h1"}}`, project, n)
	case "routed_port":
		_, port := c.routed(project)
		return port
	case "agent":
		var doc struct{ Agents []struct{ ID string } }
		if err := c.must("admin", "GET", "/agents", "").Decode(&doc); err != nil || len(doc.Agents) == 0 {
			c.t.Fatal("there is no agent: ", err)
		}
		return doc.Agents[0].ID
	}
	r := c.Core.Registry.Named(kind)
	if r == nil {
		c.t.Fatalf("there is no resource %s", kind)
	}
	_, id := c.object(project, r.URL())
	return id
}

// routed makes a router with a gateway, and a port that it reaches.
func (c *cloud) routed(project string) (router, port string) {
	c.t.Helper()
	external := c.make(project, "external")
	router = c.post("/routers", `{"router": {"project_id": %q, "external_gateway_info": {"network_id": %q}, "enable_ndp_proxy": true}}`, project, external)
	n := c.make(project, "network")
	v4 := c.post("/subnets", `{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "project_id": %q}}`, n, project)
	v6 := c.post("/subnets", `{"subnet": {"network_id": %q, "ip_version": 6, "subnetpool_id": %q, "project_id": %q}}`, n, c.shared["pool"], project)
	for _, s := range []string{v4, v6} {
		c.must("admin", "PUT", "/routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, s))
	}
	return router, c.post("/ports", `{"port": {"project_id": %q, "network_id": %q, "fixed_ips": [{"ip_address": %q}, {"subnet_id": %q}]}}`, project, n, routedAddress, v6)
}

// routedAddress is the IPv4 address of the port that routed makes.
const routedAddress = "10.0.0.77"

// path puts the parent's id into a resource's URL.
func path(url, parent string) string {
	before, rest, below := strings.Cut(url, "{")
	if !below {
		return url
	}
	_, after, _ := strings.Cut(rest, "}")
	return before + parent + after
}
