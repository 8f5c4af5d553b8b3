package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"isospin/test/servertest"
)

// The document that the server makes of itself is valid OpenAPI 3.1, names
// every collection, and is true of the objects that are shown.
func TestOpenAPI(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	populate(t, s)
	status, raw := get(t, s.URL+"/v2.0/openapi.json")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, raw)
	}
	loader := openapi3.NewLoader()
	document, err := loader.LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	operations := 0
	for path, item := range document.Paths.Map() {
		for method, o := range item.Operations() {
			operations++
			if method == http.MethodGet && !strings.Contains(path, "{") {
				checkList(t, s.URL, path, o)
			}
		}
	}
	for _, r := range s.Core.Registry.Resources() {
		if document.Paths.Find("/v2.0"+r.URL()) == nil && document.Paths.Find("/v2.0"+r.URL()+"/{id}") == nil {
			t.Errorf("%s is not in the document", r.URL())
		}
	}
	t.Logf("%d operations on %d paths", operations, document.Paths.Len())
}

// populate makes an object of most collections.
func populate(t *testing.T, s *servertest.Server) {
	t.Helper()
	id := func(path, body string) string {
		return s.Must(t, http.StatusCreated, "POST", path, body)["id"].(string)
	}
	outside := id("/networks", `{"network": {"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}}`)
	id("/subnets", `{"subnet": {"network_id": "`+outside+`", "ip_version": 4, "cidr": "203.0.113.0/24"}}`)
	inside := id("/networks", `{"network": {"name": "inside"}}`)
	subnet := id("/subnets", `{"subnet": {"network_id": "`+inside+`", "ip_version": 4, "cidr": "10.0.0.0/24", "host_routes": [{"destination": "10.1.0.0/16", "nexthop": "10.0.0.9"}]}}`)
	id("/ports", `{"port": {"network_id": "`+inside+`", "allowed_address_pairs": [{"ip_address": "10.0.0.77"}], "tags": ["a"]}}`)
	router := id("/routers", `{"router": {"external_gateway_info": {"network_id": "`+outside+`"}}}`)
	s.Must(t, http.StatusOK, "PUT", "/routers/"+router+"/add_router_interface", `{"subnet_id": "`+subnet+`"}`)
	id("/floatingips", `{"floatingip": {"floating_network_id": "`+outside+`"}}`)
	id("/address-groups", `{"address_group": {"addresses": ["10.0.0.0/8"]}}`)
	id("/address-scopes", `{"address_scope": {"name": "s", "ip_version": 4}}`)
	id("/subnetpools", `{"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8"]}}`)
	policy := id("/qos/policies", `{"policy": {"name": "q"}}`)
	id("/qos/policies/"+policy+"/bandwidth_limit_rules", `{"bandwidth_limit_rule": {"max_kbps": 1000}}`)
}

// checkList compares what a collection shows with what the document says it does.
func checkList(t *testing.T, url, path string, o *openapi3.Operation) {
	t.Helper()
	status, raw := get(t, url+path)
	if status != http.StatusOK {
		t.Errorf("GET %s: %d %s", path, status, raw)
		return
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Errorf("GET %s: %v", path, err)
		return
	}
	content := o.Responses.Value("200").Value.Content.Get("application/json")
	if content == nil || content.Schema == nil {
		return
	}
	if err := content.Schema.Value.VisitJSON(v); err != nil {
		t.Errorf("GET %s: %v", path, err)
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var raw json.RawMessage
	if err := json.NewDecoder(answer.Body).Decode(&raw); err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return answer.StatusCode, raw
}
