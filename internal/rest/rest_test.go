package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

const (
	stock400 = "The server could not comply with the request since it is either malformed or otherwise incorrect."
	stock404 = "The resource could not be found."
	stock500 = "Request Failed: internal server error while processing your request."
)

func TestDiscovery(t *testing.T) {
	w := newWorld()
	for _, c := range [][2]string{
		{"GET /", `200 {"versions":[{"id":"v2.0","links":[{"rel":"self","href":"http://api.example/v2.0/"}],"status":"CURRENT"}]}`},
		{"GET /\nX-Forwarded-Proto: https", `200 {"versions":[{"id":"v2.0","links":[{"rel":"self","href":"https://api.example/v2.0/"}],"status":"CURRENT"}]}`},
		{"POST /", "405 Allow: GET HTTPMethodNotAllowed: " + stock400},
		{"GET /v2.0", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/", `200 {"resources":[{"name":"port","collection":"ports","links":[{"rel":"self","href":"http://api.example/v2.0/ports"}]}]}`},
		{"GET /v3/ports", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/nothing", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/ports/p1/nothing", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0//ports", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/ports/%ff", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/ports/%00", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/extensions", `200 {"extensions":[` +
			`{"alias":"empty-string-filtering","name":"Empty String Filtering Extension","description":"Allow filtering by attributes with empty string value","updated":"","links":[]},` +
			`{"alias":"filter-validation","name":"Filter parameters validation","description":"","updated":"2018-03-21T10:00:00-00:00","links":[]}]}`},
		{"GET /v2.0/extensions.json", w.do("GET /v2.0/extensions").Result().Status[:3] + " " + w.do("GET /v2.0/extensions").Body.String()},
		{"GET /v2.0/extensions/filter-validation", `200 {"extension":{"alias":"filter-validation","name":"Filter parameters validation","description":"","updated":"2018-03-21T10:00:00-00:00","links":[]}}`},
		{"GET /v2.0/extensions/foo", "404 HTTPNotFound: Extension with alias foo does not exist"},
		{"POST /v2.0/extensions", "404 HTTPNotFound: Resource not found."},
		{"DELETE /v2.0/extensions/foo", "404 HTTPNotFound: Resource not found."},
		{"GET /healthcheck", "200 OK"},
		{"HEAD /v2.0/ports", "405 Allow: GET, POST HTTPMethodNotAllowed: " + stock400},
		{"PATCH /v2.0/ports", "405 Allow: GET, POST HTTPMethodNotAllowed: " + stock400},
		{"OPTIONS /v2.0/ports/p1", "405 Allow: DELETE, GET, PUT HTTPMethodNotAllowed: " + stock400},
		{"DELETE /v2.0/ports/", "405 Allow: GET, POST HTTPMethodNotAllowed: " + stock400},
	} {
		check(t, w, c[0], c[1])
	}
	w = newWorld(func(o *rest.Options) { o.LinkPrefix = "https://cloud.example/network/" })
	check(t, w, "GET /", `200 {"versions":[{"id":"v2.0","links":[{"rel":"self","href":"https://cloud.example/network/v2.0/"}],"status":"CURRENT"}]}`)
}

func TestAuthentication(t *testing.T) {
	w := newWorld(func(o *rest.Options) {
		o.Authenticator = unauthenticated{}
		o.AuthenticateURI = "http://keystone.example:5000"
	})
	refused := `401 Www-Authenticate: Keystone uri="http://keystone.example:5000" ` +
		`{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`
	check(t, w, "GET /v2.0/ports", refused)
	check(t, w, "GET /v2.0/", refused)
	check(t, w, "GET /v2.0/nothing", refused)
	check(t, w, "GET /v2.0", refused)
	check(t, w, "GET /healthcheck", "200 OK")
	if got := w.do("GET /").Code; got != http.StatusOK {
		t.Errorf("versions without a token: %d", got)
	}
}

const (
	p1 = `{"id":"p1","tenant_id":"demo","project_id":"demo","name":"one","admin_state_up":true,"network_id":"n1","fixed_ips":[],"binding:host_id":"","port_security_enabled":true,` +
		`"description":"","tags":["blue"],"revision_number":4,"created_at":"","updated_at":""}`
	p2 = `{"id":"p2","tenant_id":"demo","project_id":"demo","name":"two","admin_state_up":false,"network_id":"n1","fixed_ips":[],"binding:host_id":"","port_security_enabled":true,` +
		`"description":"","tags":[],"revision_number":0,"created_at":"","updated_at":""}`
)

func TestShowAndList(t *testing.T) {
	w := newWorld()
	for _, c := range [][2]string{
		{"GET /v2.0/ports/p1", `200 {"port":` + p1 + `}`},
		{"GET /v2.0/ports/p1.json", `200 {"port":` + p1 + `}`},
		{"GET /v2.0/ports/p9", "404 PortNotFound: Port p9 could not be found."},
		{"GET /v2.0/ports/p1?fields=id&fields=project_id&fields=none&fields=", `200 {"port":{"id":"p1","project_id":"demo"}}`},
		{"GET /v2.0/ports/p1?fields=secret", `200 {"port":{}}`},
		{"GET /v2.0/ports", `200 {"ports":[` + p1 + `,` + p2 + `]}`},
		{"GET /v2.0/ports/?fields=name", `200 {"ports":[{"name":"one"},{"name":"two"}]}`},
		{"GET /v2.0/security_groups?fields=id", `200 {"security_groups":[{"id":"g1"}]}`},
		{"GET /v2.0/security-groups.json?fields=id", `200 {"security_groups":[{"id":"g1"}]}`},
	} {
		check(t, w, c[0], c[1])
	}
	w.ports.objects = nil
	check(t, w, "GET /v2.0/ports", `200 {"ports":[]}`)
	check(t, w, "GET /v2.0/ports?limit=5", `200 {"ports":[],"ports_links":[{"rel":"previous","href":"http://api.example/v2.0/ports?limit=5&page_reverse=True"}]}`)
}

func TestCreate(t *testing.T) {
	w := newWorld()
	created := func(id, name string) string {
		return `{"id":"` + id + `","tenant_id":"fake_project_id","project_id":"fake_project_id","name":"` + name + `","admin_state_up":true,"network_id":"n1","fixed_ips":[],` +
			`"binding:host_id":"","port_security_enabled":true,"description":"","tags":[],"revision_number":0,"created_at":"","updated_at":""}`
	}
	for _, c := range [][2]string{
		{"POST /v2.0/ports\nContent-Type: application/json; charset=UTF-8\n\n" + `{"port": {"network_id": "n1", "name": "x"}}`, `201 {"port":` + created("new-3", "x") + `}`},
		{"POST /v2.0/ports\n\n" + `{"ports": [{"network_id": "n1", "name": "a"}, {"port": {"network_id": "n1", "name": "b"}}]}`,
			`201 {"ports":[` + created("new-4", "a") + `,` + created("new-5", "b") + `]}`},
		{"POST /v2.0/ports\n\n" + `{"ports": [{"network_id": "n1"}]}`, `201 {"ports":[` + created("new-6", "") + `]}`},
		{"POST /v2.0/ports\n\n" + `{"ports": []}`, "400 HTTPBadRequest: Resources required"},
		{"POST /v2.0/ports\n\n" + `{"ports": null}`, "400 HTTPBadRequest: Resources required"},
		{"POST /v2.0/ports\n\n" + `{"ports": [null]}`, "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"ports": ["x"]}`, "400 HTTPBadRequest: Object 'port' contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"ports": {"a": 1}}`, "400 HTTPBadRequest: Object 'port' contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"ports": 7}`, "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"ports": [{"port": null}]}`, "400 HTTPBadRequest: Unable to find 'port' in request body"},
		{"POST /v2.0/ports\n\n" + `{"port": [1]}`, "400 HTTPBadRequest: Object 'port' contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"port": null}`, "400 HTTPBadRequest: Unable to find 'port' in request body"},
		{"POST /v2.0/ports\n\n" + `{"network": {}}`, "400 HTTPBadRequest: Unable to find 'port' in request body"},
		{"POST /v2.0/ports\n\n{}", "400 HTTPBadRequest: Unable to find 'port' in request body"},
		{"POST /v2.0/ports", "400 HTTPBadRequest: Unable to find 'port' in request body"},
		{"POST /v2.0/ports\n\n{", "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n[]", "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + `"port"`, "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1"}} {}`, "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1", "name": "a\u0000b"}}`, "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n{\"port\": {\"network_id\": \"n1\", \"name\": \"\xff\"}}", "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + strings.Repeat(`{"port":`, 10000), "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/ports\n\n" + strings.Repeat(" ", 114689), "413 HTTPRequestEntityTooLarge: Request is too large."},
		{"POST /v2.0/ports\nContent-Type: text/xml\n\n<port/>", "400 HTTPBadRequest: Unsupported Content-Type"},
		{"POST /v2.0/ports\n\n" + `{"port": {}}`, "400 HTTPBadRequest: Failed to parse request. Required attribute 'network_id' not specified"},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1", "what": 1}}`, "400 HTTPBadRequest: Unrecognized attribute(s) 'what'"},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1", "id": "x"}}`, "400 HTTPBadRequest: Attribute 'id' not allowed in POST"},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1", "admin_state_up": "maybe"}}`, "400 InvalidInput: Invalid input for operation: 'maybe' cannot be converted to boolean."},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1", "tenant_id": {}, "project_id": []}}`, "400 HTTPBadRequest: 'project_id' and 'tenant_id' do not match"},
		{"POST /v2.0/ports\n\n" + `{"port": {"network_id": "n1", "tenant_id": {}, "project_id": {}}}`, "400 HTTPBadRequest: Invalid input for tenant_id. Reason: '{}' is not a valid string."},
		// The later of two equal keys wins, and the copy of a NUL in text is no NUL.
		{"POST /v2.0/ports\n\n" + `{"port": {}, "port": {"network_id": "n1", "name": "\\u0000"}}`, `201 {"port":` + created("new-7", `\\u0000`) + `}`},

		// The older request path words it otherwise.
		{"POST /v2.0/security-groups\n\n{", "400 MalformedRequestBody: Malformed request body: Cannot understand JSON."},
		{"POST /v2.0/security-groups", "400 HTTPBadRequest: Resource body required"},
		{"POST /v2.0/security-groups\n\n{}", "400 HTTPBadRequest: Resource body required"},
		{"POST /v2.0/security-groups\n\n[1]", "400 HTTPBadRequest: Body contains invalid data"},
		{"POST /v2.0/security-groups\n\n" + `{"port": 1}`, "400 HTTPBadRequest: Unable to find 'security_group' in request body"},
		{"POST /v2.0/security-groups\n\n" + `{"security_groups": [{}]}`, "400 HTTPBadRequest: Bulk operation not supported"},
	} {
		check(t, w, c[0], c[1])
	}
}

func TestUpdateAndDelete(t *testing.T) {
	w := newWorld()
	for _, c := range [][2]string{
		{"PUT /v2.0/ports/p2\n\n" + `{"port": {"name": "II"}}`, `200 {"port":` + strings.Replace(p2, `"two"`, `"II"`, 1) + `}`},
		{"PUT /v2.0/ports/p9\n\n" + `{"port": {"name": "II"}}`, "404 PortNotFound: Port p9 could not be found."},
		{"PUT /v2.0/ports/p1\n\n" + `{"port": {"network_id": "n1"}}`, "400 HTTPBadRequest: Cannot update read-only attribute network_id"},
		{"PUT /v2.0/ports/p1\n\n" + `{"ports": [{"name": "x"}]}`, "400 HTTPBadRequest: Bulk operation not supported"},
		{"PUT /v2.0/ports/p1", "400 HTTPBadRequest: Unable to find 'port' in request body"},
		{"PUT /v2.0/security-groups/g1", "400 HTTPBadRequest: Resource body required"},
		{"PUT /v2.0/security-groups/g1\n\n" + `["x"]`, "400 BadRequest: Bad body request: Invalid format: ['x']."},
		{"PUT /v2.0/ports/p1\nIf-Match: revision_number=4\n\n" + `{"port": {}}`, `200 {"port":` + p1 + `}`},
		{"PUT /v2.0/ports/p1\nIf-Match: \"revision_number=5\"\n\n" + `{"port": {}}`, "412 RevisionNumberConstraintFailed: Constrained to 5, but current revision is 4"},
		{"PUT /v2.0/ports/p1\nIf-Match: \"other\", W/\"revision_number=5\"\n\n" + `{"port": {}}`, `200 {"port":` + p1 + `}`},
		{"PUT /v2.0/ports/p1\nIf-Match: \"revision_number=4\", \"revision_number=4\"\n\n" + `{"port": {}}`,
			"400 BadRequest: Bad if-match request: Multiple revision_number etags are not supported.."},
		{"PUT /v2.0/ports/p1\nIf-Match: revision_number=x\n\n" + `{"port": {}}`,
			"400 BadRequest: Bad if-match request: Revision number etag must be in the format of revision_number=<int>."},
		{"DELETE /v2.0/ports/p1\nIf-Match: revision_number=\n", "400 BadRequest: Bad if-match request: Revision number etag must be in the format of revision_number=<int>."},
		{"DELETE /v2.0/security-groups/g1\nIf-Match: revision_number=1", "400 BadRequest: Bad security_group request: Revision matching not supported for this resource."},
		{"DELETE /v2.0/ports/p1\n\n{}", "400 HTTPBadRequest: Request body is not supported in DELETE."},
		{"DELETE /v2.0/ports/p1", "204"},
		{"DELETE /v2.0/ports/p1", "404 PortNotFound: Port p1 could not be found."},
	} {
		check(t, w, c[0], c[1])
	}
}

func TestTags(t *testing.T) {
	w := newWorld()
	for _, c := range [][2]string{
		{"GET /v2.0/ports/p1/tags", `200 {"tags":["blue"]}`},
		{"GET /v2.0/ports/p2/tags", `200 {"tags":[]}`},
		{"GET /v2.0/ports/p9/tags", "404 TagResourceNotFound: Resource ports p9 could not be found."},
		{"PUT /v2.0/ports/p1/tags\n\n" + `{"tags": ["red", "a,b"]}`, `200 {"tags":["red","a,b"]}`},
		{"PUT /v2.0/ports/p1/tags\n\n" + `{"tags": ["red", "red"]}`, "400 InvalidInput: Invalid input for operation: Duplicate items in the list: 'red'."},
		{"PUT /v2.0/ports/p1/tags\n\n" + `["red"]`, "400 InvalidInput: Invalid input for operation: Invalid tags body."},
		{"PUT /v2.0/ports/p1/tags", "400 InvalidInput: Invalid input for operation: Invalid tags body."},
		{"PUT /v2.0/ports/p1/tags\n\n{", "400 MalformedRequestBody: Malformed request body: Cannot understand JSON."},
		{"POST /v2.0/ports/p1/tags\n\n" + `{"tags": ["red", "green"]}`, `200 {"tags":["red","a,b","green"]}`},
		{"GET /v2.0/ports/p1/tags/red", "204"},
		{"GET /v2.0/ports/p1/tags/blue", "404 TagNotFound: Tag blue could not be found."},
		{"PUT /v2.0/ports/p1/tags/x%2Fy.json", "201 null"},
		{"PUT /v2.0/ports/p1/tags/x%2Fy.json", "201 null"},
		{"GET /v2.0/ports/p1/tags", `200 {"tags":["red","a,b","green","x/y.json"]}`},
		{"DELETE /v2.0/ports/p1/tags/red", "204"},
		{"DELETE /v2.0/ports/p1/tags/red", "404 TagNotFound: Tag red could not be found."},
		{"PUT /v2.0/ports/p1/tags/" + strings.Repeat("t", 256), "400 InvalidInput: Invalid input for operation: '" + strings.Repeat("t", 256) + "' exceeds maximum length of 255."},
		{"DELETE /v2.0/ports/p1/tags", "204"},
		{"GET /v2.0/ports/p1/tags", `200 {"tags":[]}`},
		{"GET /v2.0/security-groups/g1/tags", "404 HTTPNotFound: " + stock404},
	} {
		check(t, w, c[0], c[1])
	}
}

func TestActionsAndRoutes(t *testing.T) {
	w := newWorld()
	for _, c := range [][2]string{
		{"PUT /v2.0/security-groups/g1/add_rule\n\n" + `{"n": 1}`, `200 {"body":{"n":1},"id":"g1"}`},
		{"PUT /v2.0/security-groups/g1/add_rule", `200 {"body":null,"id":"g1"}`},
		{"PUT /v2.0/security-groups/g1/add_rule\n\n{", "400 MalformedRequestBody: Malformed request body: Cannot understand JSON."},
		{"GET /v2.0/security-groups/g1/get_rules", `200 {"rules":["a<b"]}`},
		{"GET /v2.0/security-groups/g1/add_rule", "405 Allow: PUT HTTPMethodNotAllowed: " + stock400},
		{"GET /v2.0/quotas/tenant", `200 {"tenant":{"tenant_id":"fake_project_id"}}`},
		{"GET /v2.0/quotas/tenant/details", `200 {"query":{},"quota":"tenant"}`}, // a parameter where the fixed segment leads nowhere
		{"DELETE /v2.0/quotas/tenant", "204"},
		{"GET /v2.0/quotas/x/details.json?a=1&a=2", `200 {"query":{"a":["1","2"]},"quota":"x"}`},
		{"PUT /v2.0/quotas/x\n\n" + `{"quota": {"port": 123456789012345678901234567890}}`, `200 {"quota":{"port":123456789012345678901234567890}}`},
		{"DELETE /v2.0/quotas/x\n\n{}", "400 HTTPBadRequest: Request body is not supported in DELETE."},
		{"GET /v2.0/quotas", "404 HTTPNotFound: " + stock404},
		{"POST /v2.0/agents/a1/dhcp_networks\n\n{}", "201 null"},
	} {
		check(t, w, c[0], c[1])
	}
}

// TestFaults shows the one map from errors to answers.
func TestFaults(t *testing.T) {
	w := newWorld()
	for _, c := range []struct {
		err  error
		want string
	}{
		{fault.New(fault.Conflict, "OverQuota", "Quota exceeded for resources: ['port']."), "409 OverQuota: Quota exceeded for resources: ['port']."},
		{fmt.Errorf("list: %w", fault.New(fault.Forbidden, "PolicyNotAuthorized", "no")), "403 PolicyNotAuthorized: no"},
		{fault.New(fault.Unavailable, "NoNetworkAvailable", "none left"), "503 Retry-After: 1 NoNetworkAvailable: none left"},
		{fault.New(fault.NotImplemented, "NotImplementedError", "no driver"), `501 {"NotImplementedError":{"type":"NotImplementedError","message":"no driver","detail":""}}`},
		{fault.New(fault.NotImplemented, "HTTPNotImplemented", "POST requests are not supported on this resource."), "501 HTTPNotImplemented: POST requests are not supported on this resource."},
		{fault.New(fault.Internal, "Secret", "password"), "500 HTTPInternalServerError: " + stock500},
		{errors.New("password"), "500 HTTPInternalServerError: " + stock500},
		{fmt.Errorf("tx: %w", errAway), "503 Retry-After: 1 ServiceUnavailable: The service is unavailable."},
		{fmt.Errorf("tx: %w", context.DeadlineExceeded), "503 Retry-After: 1 ServiceUnavailable: The service is unavailable."},
		{fault.New(fault.Invalid, "InvalidInput", "%s", strings.Repeat("x", 10000)), "400 InvalidInput: " + strings.Repeat("x", 8192) + "..."},
	} {
		w.ports.err = c.err
		check(t, w, "GET /v2.0/ports", c.want)
	}
	w.ports.panics = true
	check(t, w, "GET /v2.0/ports", "500 HTTPInternalServerError: "+stock500)
}

func TestAccessLogAndMetrics(t *testing.T) {
	var log bytes.Buffer
	metrics := prometheus.NewRegistry()
	w := newWorld(func(o *rest.Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		o.Metrics = metrics
	})
	w.ports.err = errors.New("the cause")
	id := w.do("GET /v2.0/ports/p1\nX-Openstack-Request-Id: req-00000000-1111-2222-3333-444444444444").Header().Get("X-Openstack-Request-Id")
	var failed, access map[string]any
	lines := json.NewDecoder(&log)
	if err := errors.Join(lines.Decode(&failed), lines.Decode(&access)); err != nil {
		t.Fatal(err)
	}
	if failed["error"] != "the cause" || failed["request_id"] != id || failed["level"] != "ERROR" {
		t.Errorf("failure: %v", failed)
	}
	if access["method"] != "GET" || access["path"] != "/v2.0/ports/p1" || access["status"] != 500.0 || access["request_id"] != id ||
		access["project"] != "fake_project_id" || access["global_request_id"] != "req-00000000-1111-2222-3333-444444444444" {
		t.Errorf("access: %v", access)
	}
	w.do("GET /v2.0/nothing/here")
	w.do("BREW /v2.0/ports")
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var series []string
	for _, m := range families[0].GetMetric() {
		s := ""
		for _, l := range m.GetLabel() {
			s += l.GetValue() + " "
		}
		series = append(series, s)
	}
	if got, want := fmt.Sprint(series), "[GET none 404  GET port 500  other none 405 ]"; got != want {
		t.Errorf("%s: got %s, want %s", families[0].GetName(), got, want)
	}
}

// refusing is a policy that refuses some actions and hides some things.
type refusing struct {
	rest.AllowAll
	actions map[string]bool
	read    *rest.Target
}

func (p *refusing) Enforce(ctx context.Context, action string, target *rest.Target) error {
	p.read = target
	if p.actions[action] {
		return fault.New(fault.Forbidden, "PolicyNotAuthorized", "rule:%s is disallowed by policy", action)
	}
	return nil
}

func (p *refusing) Visible(_ context.Context, _ *resource.Resource, objects []resource.Object) []resource.Object {
	return objects[1:]
}

func (p *refusing) Fields(_ context.Context, _ *resource.Resource, _ resource.Object, fields map[string]bool) map[string]bool {
	if fields == nil {
		return map[string]bool{"id": true, "name": true}
	}
	delete(fields, "binding:host_id")
	return fields
}

func TestPolicy(t *testing.T) {
	policy := &refusing{}
	w := newWorld(func(o *rest.Options) { o.Enforcer = policy })
	refuse := func(actions ...string) {
		policy.actions = map[string]bool{}
		for _, a := range actions {
			policy.actions[a] = true
		}
	}
	check(t, w, "GET /v2.0/ports?limit=2", `200 {"ports":[{"id":"p2","name":"two"}],"ports_links":[`+
		`{"rel":"next","href":"http://api.example/v2.0/ports?limit=2&marker=p2"},{"rel":"previous","href":"http://api.example/v2.0/ports?limit=2&marker=p1&page_reverse=True"}]}`)
	check(t, w, "GET /v2.0/ports/p1?fields=id&fields=binding:host_id", `200 {"port":{"id":"p1"}}`)
	check(t, w, "PUT /v2.0/ports/p1\n\n"+`{"port":{"name":"x"}}`, `200 {"port":{"id":"p1","name":"x"}}`)
	if o, err := policy.read.Object(t.Context()); err != nil || o != resource.Object(w.ports.objects[0]) || !policy.read.Body.Has("name") {
		t.Errorf("target of an update: %v, %v", o, err)
	}
	refuse("get_port", "get_security_group")
	check(t, w, "GET /v2.0/ports/p1", `404 {"type":"HTTPNotFound","message":"The resource could not be found.","detail":""}`)
	check(t, w, "GET /v2.0/security-groups/g1", "404 HTTPNotFound: "+stock404)
	refuse("create_port", "update_port", "delete_port", "add_rule", "update_port:tags", "create_dhcp-network")
	check(t, w, "POST /v2.0/ports\n\n"+`{"port":{"network_id":"n"}}`, "403 PolicyNotAuthorized: rule:create_port is disallowed by policy")
	check(t, w, "PUT /v2.0/ports/p1\n\n"+`{"port":{}}`, "403 PolicyNotAuthorized: rule:update_port is disallowed by policy")
	check(t, w, "DELETE /v2.0/ports/p1", "403 PolicyNotAuthorized: rule:delete_port is disallowed by policy")
	check(t, w, "PUT /v2.0/security-groups/g1/add_rule", "403 PolicyNotAuthorized: rule:add_rule is disallowed by policy")
	check(t, w, "PUT /v2.0/ports/p1/tags/x", "403 PolicyNotAuthorized: rule:update_port:tags is disallowed by policy")
	check(t, w, "POST /v2.0/agents/a/dhcp-networks\n\n{}", "403 PolicyNotAuthorized: rule:create_dhcp-network is disallowed by policy")
	refuse("update_port", "delete_port", "get_port", "add_rule", "get_security_group")
	check(t, w, "PUT /v2.0/ports/p1\n\n"+`{"port":{}}`, "404 HTTPNotFound: "+stock404)
	check(t, w, "DELETE /v2.0/ports/p1", "404 HTTPNotFound: "+stock404)
	check(t, w, "PUT /v2.0/security-groups/g1/add_rule", "404 HTTPNotFound: "+stock404)
}

// plain is a caller without rights beyond its project.
type plain struct{}

func (plain) Authenticate(*http.Request) (*identity.Context, error) {
	return &identity.Context{ProjectID: "mine"}, nil
}

func TestProjectOfOthers(t *testing.T) {
	w := newWorld(func(o *rest.Options) { o.Authenticator = plain{} })
	check(t, w, "POST /v2.0/ports\n\n"+`{"port":{"network_id":"n","project_id":"other"}}`,
		"400 HTTPBadRequest: Specifying 'project_id' other than the authenticated project in request is not allowed for the current user.")
	if got := w.do("POST /v2.0/ports\n\n" + `{"port":{"network_id":"n","project_id":"mine"}}`).Code; got != http.StatusCreated {
		t.Errorf("own project: %d", got)
	}
}
