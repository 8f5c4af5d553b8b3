package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isospin/internal/identity/keystone/keystonetest"
	"isospin/test/servertest"
)

// cloud is a server whose callers Keystone knows.
type cloud struct {
	t        *testing.T
	server   *servertest.Server
	keystone *keystonetest.Keystone
}

// The callers; each one's name is its token.
var tokens = map[string]keystonetest.Token{
	"admin":    {UserID: "root", ProjectID: "admin", Roles: []string{"admin", "manager", "member", "reader"}},
	"manager1": {UserID: "m1", ProjectID: "p1", Roles: []string{"manager", "member", "reader"}},
	"member1":  {UserID: "u1", ProjectID: "p1", Roles: []string{"member", "reader"}},
	"reader1":  {UserID: "r1", ProjectID: "p1", Roles: []string{"reader"}},
	"member2":  {UserID: "u2", ProjectID: "p2", Roles: []string{"member", "reader"}},
	"service":  {UserID: "nova", ProjectID: "service", Roles: []string{"service"}},
	"system":   {UserID: "root", System: true, Roles: []string{"admin", "manager", "member", "reader"}},
	"unscoped": {UserID: "u1"},
}

func newCloud(t *testing.T, text string) *cloud {
	t.Helper()
	k := keystonetest.Start(t)
	for name, token := range tokens {
		k.Add(name, token)
	}
	return &cloud{t: t, keystone: k, server: servertest.Start(t, servertest.Networks+k.Config()+text)}
}

// call sends "METHOD /path" and a body as the holder of a token.
func (c *cloud) call(token, what, body string) (status int, text string, header http.Header) {
	c.t.Helper()
	method, path, _ := strings.Cut(what, " ")
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.server.URL+"/v2.0"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.StatusCode, string(raw), answer.Header
}

// expect checks the status of a call and what its answer contains.
func (c *cloud) expect(token, what, body string, status int, contains ...string) string {
	c.t.Helper()
	got, text, _ := c.call(token, what, body)
	for _, want := range contains {
		if absent, ok := strings.CutPrefix(want, "not "); ok && strings.Contains(text, absent) || !ok && !strings.Contains(text, want) {
			c.t.Errorf("%s by %s: %s; want %s", what, token, text, want)
		}
	}
	if got != status {
		c.t.Errorf("%s %s by %s: %d %s; want %d", what, body, token, got, text, status)
	}
	return text
}

// create makes an object and returns its id.
func (c *cloud) create(token, path, body string) string {
	c.t.Helper()
	var members map[string]struct{ ID string }
	text := c.expect(token, "POST "+path, body, http.StatusCreated)
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	for _, o := range members {
		return o.ID
	}
	return ""
}

func (c *cloud) count(token, path string, want int) {
	c.t.Helper()
	_, text, _ := c.call(token, "GET "+path, "")
	var lists map[string][]any
	if err := json.Unmarshal([]byte(text), &lists); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	for _, l := range lists {
		if len(l) != want {
			c.t.Errorf("GET %s by %s: %d objects; want %d: %s", path, token, len(l), want, text)
		}
	}
}

const (
	notFound = "The resource could not be found."
	refused  = "is disallowed by policy"
)

func TestKeystone(t *testing.T) {
	c := newCloud(t, "")
	for _, token := range []string{"", "unknown"} {
		status, text, header := c.call(token, "GET /networks", "")
		if status != 401 || header.Get("WWW-Authenticate") != fmt.Sprintf("Keystone uri=%q", c.keystone.URL) || !strings.Contains(text, "requires authentication") {
			t.Errorf("token %q: %d %s %v", token, status, text, header)
		}
	}
	c.expect("member1", "GET /networks", "", 200)
	c.keystone.Answer(500)
	c.expect("member1", "GET /networks", "", 200) // remembered
	c.expect("member2", "GET /networks", "", 503, "The Keystone service is temporarily unavailable.")
	c.keystone.Answer(0)
	c.expect("member2", "GET /networks", "", 200)
	c.expect("unscoped", "GET /networks", "", 200, `{"networks":[]}`)
	c.expect("unscoped", "POST /networks", `{"network":{}}`, 400, "requires that project_id is specified")
	c.expect("system", "POST /networks", `{"network":{"tenant_id":"p1"}}`, 403, "create_network requires a scope of ['project'], request was made with system scope.")
}

func TestProjects(t *testing.T) {
	c := newCloud(t, "")
	own := c.create("member1", "/networks", `{"network":{"name":"own"}}`)
	c.create("member1", "/subnets", `{"subnet":{"network_id":"`+own+`","ip_version":4,"cidr":"10.0.0.0/24"}}`)
	port := c.create("member1", "/ports", `{"port":{"network_id":"`+own+`"}}`)

	// Their own.
	for _, who := range []string{"member1", "reader1", "manager1", "admin", "service"} {
		c.count(who, "/networks", 1)
		c.count(who, "/subnets", 1)
		c.count(who, "/ports", 1)
		c.expect(who, "GET /networks/"+own, "", 200, own)
		c.expect(who, "GET /ports/"+port, "", 200, port)
	}
	// Not seen: not there.
	for _, path := range []string{"/networks", "/subnets", "/ports"} {
		c.count("member2", path, 0)
	}
	c.expect("member2", "GET /networks/"+own, "", 404, "could not be found")
	c.expect("member2", "PUT /networks/"+own, `{"network":{"name":"x"}}`, 404, "could not be found")
	c.expect("member2", "DELETE /networks/"+own, "", 404, "could not be found")
	c.expect("member2", "DELETE /ports/"+port, "", 404, "could not be found")
	c.expect("member2", "PUT /ports/"+port+"/tags/x", "", 404, "could not be found")
	c.expect("member2", "POST /ports", `{"port":{"network_id":"`+own+`"}}`, 403, "rule:create_port is disallowed by policy")
	c.expect("member2", "POST /subnets", `{"subnet":{"network_id":"`+own+`","ip_version":4,"cidr":"10.0.1.0/24"}}`, 403, "rule:create_subnet is disallowed by policy")
	c.expect("member2", "POST /ports", `{"port":{"network_id":"00000000-0000-0000-0000-000000000000"}}`, 404, "Network 00000000-0000-0000-0000-000000000000 could not be found.")
	// Seen, but not theirs to change.
	c.expect("reader1", "POST /networks", `{"network":{}}`, 403, "rule:create_network is disallowed by policy")
	c.expect("reader1", "PUT /networks/"+own, `{"network":{"name":"x"}}`, 403, "rule:update_network is disallowed by policy", "PolicyNotAuthorized")
	c.expect("reader1", "DELETE /networks/"+own, "", 403, "rule:delete_network is disallowed by policy")
	c.expect("reader1", "PUT /networks/"+own+"/tags/x", "", 403, "rule:update_network:tags is disallowed by policy")
	c.expect("reader1", "GET /networks/"+own+"/tags", "", 200)
	c.expect("reader1", "PUT /ports/00000000-0000-0000-0000-000000000000", `{"port":{"name":"x"}}`, 404)
	// Some attributes are for administrators and services.
	c.expect("member1", "PUT /networks/"+own, `{"network":{"shared":true}}`, 403, "(rule:update_network and rule:update_network:shared) is disallowed by policy")
	c.expect("member1", "POST /networks", `{"network":{"provider:network_type":"flat","provider:physical_network":"x"}}`, 403, "rule:create_network:provider:network_type")
	c.expect("member1", "GET /networks/"+own, "", 200, "not provider:", `"project_id":"p1"`, `"shared":false`)
	c.expect("member1", "GET /networks", "", 200, "not provider:")
	c.expect("member1", "GET /networks?fields=provider:network_type&fields=id", "", 200, `{"networks":[{"id":"`+own+`"}]}`)
	c.expect("member1", "PUT /networks/"+own, `{"network":{"name":"own"}}`, 200, "not provider:")
	c.expect("admin", "GET /networks/"+own, "", 200, `"provider:network_type":"vxlan"`)
	c.expect("member1", "GET /ports/"+port, "", 200, "not binding:host_id", "not binding:vif_type", `"binding:vnic_type":"normal"`)
	c.expect("service", "GET /ports/"+port, "", 200, `"binding:host_id":""`)
	c.expect("admin", "PUT /ports/"+port, `{"port":{"binding:profile":{"a":1}}}`, 403, "rule:update_port:binding:profile")
	c.expect("service", "PUT /ports/"+port, `{"port":{"binding:profile":{"a":1}}}`, 200)
	// Nothing is made for others but by administrators.
	c.expect("member1", "POST /networks", `{"network":{"project_id":"p2"}}`, 400, "Specifying 'project_id' other than the authenticated project")
	c.create("admin", "/networks", `{"network":{"project_id":"p2"}}`)
	c.count("member2", "/networks", 1)
	c.count("member1", "/networks", 1)
}

func TestSharedNetworks(t *testing.T) {
	c := newCloud(t, "")
	shared := c.create("admin", "/networks", `{"network":{"project_id":"p1","shared":true}}`)
	c.create("member1", "/subnets", `{"subnet":{"network_id":"`+shared+`","ip_version":4,"cidr":"10.0.0.0/24"}}`)
	first := c.create("member1", "/ports", `{"port":{"network_id":"`+shared+`"}}`)
	// Others see and use it, but not change it.
	c.expect("member2", "GET /networks/"+shared, "", 200, `"shared":true`)
	c.count("member2", "/networks", 1)
	c.count("member2", "/subnets", 1)
	c.expect("member2", "PUT /networks/"+shared, `{"network":{"name":"x"}}`, 403, refused)
	c.expect("member2", "POST /subnets", `{"subnet":{"network_id":"`+shared+`","ip_version":4,"cidr":"10.0.1.0/24"}}`, 403, refused)
	c.expect("member2", "POST /ports", `{"port":{"network_id":"`+shared+`","fixed_ips":[{"ip_address":"10.0.0.77"}]}}`, 403, "rule:create_port:fixed_ips:ip_address")
	c.expect("member2", "POST /ports", `{"port":{"network_id":"`+shared+`","port_security_enabled":false}}`, 403, "rule:create_port:port_security_enabled")
	c.expect("member2", "POST /ports", `{"port":{"network_id":"`+shared+`","device_owner":"network:dhcp"}}`, 403, "rule:create_port:device_owner")
	second := c.create("member2", "/ports", `{"port":{"network_id":"`+shared+`"}}`)
	// They do not see others' ports on it; the network's owner sees all.
	c.count("member2", "/ports", 1)
	c.expect("member2", "GET /ports/"+first, "", 404)
	c.count("member1", "/ports", 2)
	c.expect("member1", "GET /ports/"+second, "", 200)
	c.expect("member1", "PUT /ports/"+second, `{"port":{"name":"x"}}`, 403, refused)
	c.expect("member1", "DELETE /ports/"+second, "", 204)
	// External networks and their subnets are seen by all, their ports by none.
	outside := c.create("admin", "/networks", `{"network":{"router:external":true}}`)
	c.create("admin", "/subnets", `{"subnet":{"network_id":"`+outside+`","ip_version":4,"cidr":"203.0.113.0/24"}}`)
	c.expect("member2", "GET /networks/"+outside, "", 200, `"router:external":true`, `"shared":false`)
	c.count("member2", "/subnets?network_id="+outside, 1)
	c.count("admin", "/subnets?network_id="+outside, 1)
	c.expect("member2", "POST /ports", `{"port":{"network_id":"`+outside+`"}}`, 403, refused)
}

func TestSecurityGroups(t *testing.T) {
	c := newCloud(t, "")
	c.count("member1", "/security-groups", 1)
	group := c.create("member1", "/security-groups", `{"security_group":{"name":"web"}}`)
	body := `{"security_group_rule":{"security_group_id":"` + group + `","direction":"ingress","protocol":"tcp","port_range_min":80,"port_range_max":80}}`
	rule := c.create("member1", "/security-group-rules", body)
	c.expect("reader1", "GET /security-groups/"+group, "", 200, "web")
	c.expect("reader1", "GET /security-group-rules/"+rule, "", 200)
	c.expect("reader1", "DELETE /security-group-rules/"+rule, "", 403, refused)
	c.expect("reader1", "POST /security-group-rules", strings.ReplaceAll(body, ":80", ":81"), 403, refused)
	c.expect("member2", "GET /security-groups/"+group, "", 404)
	c.expect("member2", "GET /security-group-rules/"+rule, "", 404)
	c.expect("member2", "DELETE /security-group-rules/"+rule, "", 404)
	c.expect("member2", "POST /security-group-rules", strings.ReplaceAll(body, ":80", ":81"), 403, "rule:create_security_group_rule is disallowed by policy")
	c.expect("member2", "DELETE /security-groups/"+group, "", 404)
	c.count("member2", "/security-groups", 1)
	c.count("admin", "/security-groups", 4)
	c.expect("member1", "PUT /security-group-rules/"+rule, `{"security_group_rule":{"description":"x"}}`, 501)
	c.expect("reader1", "PUT /security-group-rules/"+rule, `{"security_group_rule":{"description":"x"}}`, 403, refused)
	c.expect("member2", "PUT /security-group-rules/"+rule, `{"security_group_rule":{"description":"x"}}`, 404)
	c.expect("member1", "DELETE /security-group-rules/"+rule, "", 204)
}

func TestAgentsAndQuotas(t *testing.T) {
	c := newCloud(t, "")
	c.count("member1", "/agents", 0)
	c.expect("member1", "GET /agents/00000000-0000-0000-0000-000000000000", "", 404)
	c.expect("reader1", "GET /quotas/p1", "", 200, `"network":`)
	c.expect("reader1", "GET /quotas/p1/default", "", 200)
	c.expect("member1", "GET /quotas/p2", "", 403, "rule:get_quota is disallowed by policy")
	c.expect("member1", "GET /quotas/p1/details", "", 200, `"used":`)
	c.expect("manager1", "GET /quotas/p2/details", "", 403, "Only admin is authorized to access quotas for another project.")
	c.expect("manager1", "GET /quotas", "", 403, refused)
	c.expect("manager1", "PUT /quotas/p1", `{"quota":{"network":99}}`, 403, "rule:update_quota is disallowed by policy")
	c.expect("manager1", "DELETE /quotas/p1", "", 403, refused)
	c.expect("admin", "PUT /quotas/p1", `{"quota":{"network":99}}`, 200)
	c.expect("admin", "GET /quotas", "", 200, `"project_id":"p1"`)
}

func TestPolicyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\"get_network:name\": \"rule:admin_only\"\n\"create_network:name\": \"!\"\n")
	c := newCloud(t, "[oslo_policy]\npolicy_file = "+file+"\n")
	network := c.create("member1", "/networks", `{"network":{"name":"secret"}}`)
	c.expect("member1", "GET /networks/"+network, "", 200, "not secret")
	c.expect("admin", "GET /networks/"+network, "", 200, "secret")
	write("\"delete_network\": \"!\"\n")
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, text, _ := c.call("member1", "GET /networks/"+network, "")
		if strings.Contains(text, "secret") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the changed file has no effect")
		}
		time.Sleep(20 * time.Millisecond) // there is nothing to wait for but the clock
	}
	c.expect("admin", "DELETE /networks/"+network, "", 403, refused)
}
