package rest_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/rest"
)

// recorder is an Enforcer that notes what it is asked, and refuses some actions.
type recorder struct {
	rest.AllowAll
	asked  []string
	refuse string
}

func (p *recorder) Enforce(ctx context.Context, action string, t *rest.Target) error {
	o, err := t.Object(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s %v", action, t.Params)
	if o != nil {
		text += " " + o.(*port).ID
	}
	p.asked = append(p.asked, text)
	if action == p.refuse {
		return fault.New(fault.Forbidden, "PolicyNotAuthorized", "rule:%s is disallowed by policy", action)
	}
	return nil
}

// Tags are found with the prefix of a collection and without it.
func TestTagsOfPrefixed(t *testing.T) {
	policies, s := newResource("policy", "policies", "policies")
	policies.Prefix, s.objects = "/qos", []*port{{Standard: resource.Standard{ID: "q1"}}}
	registry := resource.NewRegistry()
	registry.Add(policies)
	w := &world{handler: rest.New(rest.Options{Registry: registry, Authenticator: identity.NoAuth{}, Logger: slog.New(slog.DiscardHandler), Enforcer: rest.AllowAll{}})}
	check(t, w, "PUT /v2.0/policies/q1/tags/red", "201 null")
	check(t, w, "GET /v2.0/qos/policies/q1/tags", `200 {"tags":["red"]}`)
	check(t, w, "GET /v2.0/policies/q1", "404 HTTPNotFound: "+stock404)
}

// Objects of a sub-resource are found below their parent only, their actions
// have the parent's name in them, and policy is told the parent.
func TestSubresource(t *testing.T) {
	policies, _ := newResource("policy", "policies", "policies")
	policies.Prefix, policies.Older, policies.Taggable = "/qos", true, false
	limits, all := newResource("limit_rule", "limit_rules", "limit-rules")
	limits.Parent, limits.Older, limits.Taggable, limits.Standard = policies, true, false, false
	of := map[string]*service{}
	for _, parent := range []string{"q1", "q2"} {
		_, of[parent] = newResource("limit_rule", "limit_rules", "limit-rules")
		of[parent].objects = []*port{{Standard: resource.Standard{ID: "r-" + parent}, Network: "n"}}
	}
	limits.Within = func(parent string) resource.Service {
		if s := of[parent]; s != nil {
			return s
		}
		s := *all
		s.err = fault.New(fault.NotFound, "QosPolicyNotFound", "QoS policy %s could not be found.", parent)
		return &s
	}
	readOnly, s := newResource("rule_type", "rule_types", "rule-types")
	readOnly.Prefix, readOnly.Taggable, readOnly.Only = "/qos", false, []resource.Operation{resource.Show, resource.Update}
	s.objects = []*port{{Standard: resource.Standard{ID: "t1"}}}
	registry := resource.NewRegistry()
	for _, r := range []*resource.Resource{policies, limits, readOnly} {
		registry.Add(r)
	}
	if registry.Lookup("/qos/policies/{policy_id}/limit-rules") != limits {
		t.Error("the sub-resource is not found by its path")
	}
	asked := &recorder{}
	w := &world{handler: rest.New(rest.Options{Registry: registry, Authenticator: identity.NoAuth{}, Logger: slog.New(slog.DiscardHandler), Enforcer: asked})}
	for _, c := range [][3]string{
		{"GET /v2.0/qos/policies/q1/limit_rules?fields=id", `200 {"limit_rules":[{"id":"r-q1"}]}`},
		{"GET /v2.0/qos/policies/q1/limit-rules?fields=id&limit=1", `200 {"limit_rules":[{"id":"r-q1"}],"limit_rules_links":[` +
			`{"rel":"next","href":"http://api.example/v2.0/qos/policies/q1/limit-rules?fields=id&limit=1&marker=r-q1"},` +
			`{"rel":"previous","href":"http://api.example/v2.0/qos/policies/q1/limit-rules?fields=id&limit=1&marker=r-q1&page_reverse=True"}]}`},
		{"GET /v2.0/qos/policies/q1/limit_rules/r-q1?fields=id", `200 {"limit_rule":{"id":"r-q1"}}`, "get_policy_limit_rule map[policy_id:q1] r-q1"},
		{"GET /v2.0/qos/policies/q1/limit_rules/r-q2", "404 PortNotFound: Port r-q2 could not be found."},
		{"GET /v2.0/qos/policies/q3/limit_rules", "404 QosPolicyNotFound: QoS policy q3 could not be found."},
		{"POST /v2.0/qos/policies/q3/limit_rules\n\n" + `{"limit_rule":{"network_id":"n"}}`, "404 QosPolicyNotFound: QoS policy q3 could not be found.", "create_policy_limit_rule map[policy_id:q3]"},
		{"POST /v2.0/qos/policies/q1/limit_rules\n\n{}", "400 HTTPBadRequest: Resource body required"},
		{"DELETE /v2.0/qos/policies/q1/limit_rules/r-q1", "204", "delete_policy_limit_rule map[policy_id:q1] r-q1"},
		{"DELETE /v2.0/qos/policies/q1/limit_rules/r-q1", "404 PortNotFound: Port r-q1 could not be found."},
		{"GET /v2.0/qos/limit_rules", "404 HTTPNotFound: " + stock404},
		{"GET /v2.0/qos/rule-types", "404 HTTPNotFound: " + stock404},
		{"DELETE /v2.0/qos/rule-types/t1", "405 Allow: GET, PUT HTTPMethodNotAllowed: " + stock400},
	} {
		asked.asked = nil
		check(t, w, c[0], c[1])
		if got := strings.Join(asked.asked, "; "); got != c[2] {
			t.Errorf("%s: policy was asked %q, want %q", c[0], got, c[2])
		}
	}
	if r := w.do("PUT /v2.0/qos/policies/q2/limit_rules/r-q2\n\n" + `{"limit_rule":{"name":"x"}}`); r.Code != 200 || of["q2"].objects[0].Name != "x" {
		t.Errorf("update: %s", text(r))
	}
	asked.refuse = "delete_policy_limit_rule"
	check(t, w, "DELETE /v2.0/qos/policies/q2/limit_rules/r-q2", "403 PolicyNotAuthorized: rule:delete_policy_limit_rule is disallowed by policy")
	asked.refuse = "get_policy_limit_rule"
	check(t, w, "GET /v2.0/qos/policies/q2/limit_rules/r-q2", "404 HTTPNotFound: "+stock404)
}
