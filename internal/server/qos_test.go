package server_test

import (
	"encoding/json"
	"testing"
)

// Rules of QoS policies are for those who own the policy, by their policy and
// without; other projects use what is shared, and do not see its rules alone.
func TestQoSPolicies(t *testing.T) {
	c := newCloud(t, "")
	id := func(text, of string) string {
		var doc map[string]struct{ ID string }
		if err := json.Unmarshal([]byte(text), &doc); err != nil || doc[of].ID == "" {
			t.Fatalf("%s: %v", text, err)
		}
		return doc[of].ID
	}
	c.expect("member1", "POST /qos/policies", `{"policy": {"name": "gold"}}`, 403)
	policy := id(c.expect("manager1", "POST /qos/policies", `{"policy": {"name": "gold"}}`, 201), "policy")
	rules := "/qos/policies/" + policy + "/bandwidth_limit_rules"
	const limit = `{"bandwidth_limit_rule": {"max_kbps": 1000}}`
	c.expect("member1", "POST "+rules, limit, 403, "rule:create_policy_bandwidth_limit_rule is disallowed by policy")
	rule := id(c.expect("manager1", "POST "+rules, limit, 201), "bandwidth_limit_rule")
	c.expect("reader1", "GET "+rules, "", 200, rule)
	c.expect("reader1", "GET "+rules+"/"+rule, "", 200, `"max_kbps":1000`)
	c.expect("reader1", "GET /qos/alias-bandwidth-limit-rules/"+rule, "", 200, `{"alias_bandwidth_limit_rule":{"id"`)
	c.expect("member1", "PUT /qos/alias-bandwidth-limit-rules/"+rule, `{"alias_bandwidth_limit_rule": {"max_kbps": 5}}`, 403)
	c.expect("manager1", "PUT /qos/alias-bandwidth-limit-rules/"+rule, `{"alias_bandwidth_limit_rule": {"max_kbps": 5}}`, 200, `"max_kbps":5`)
	c.expect("member1", "DELETE "+rules+"/"+rule, "", 403)
	c.expect("member2", "GET /qos/policies/"+policy, "", 404, "QosPolicyNotFound")
	c.expect("member2", "GET "+rules, "", 404, "QosPolicyNotFound")
	c.expect("member2", "GET /qos/alias-bandwidth-limit-rules/"+rule, "", 404)
	c.expect("member2", "POST /networks", `{"network": {"qos_policy_id": "`+policy+`"}}`, 404, "QosPolicyNotFound")
	c.expect("admin", "PUT /qos/policies/"+policy, `{"policy": {"shared": true}}`, 200, `"shared":true`)
	c.expect("member2", "GET /qos/policies", "", 200, policy)
	c.expect("member2", "GET "+rules, "", 200, `{"bandwidth_limit_rules":[]}`)
	c.expect("member2", "GET "+rules+"/"+rule, "", 404)
	c.expect("member2", "POST /networks", `{"network": {"qos_policy_id": "`+policy+`"}}`, 201, policy)
	c.expect("admin", "DELETE /qos/policies/"+policy, "", 409, "QosPolicyInUse", "is used by network")
	c.expect("reader1", "GET /qos/rule-types", "", 200, `{"rule_types":[{"type":"bandwidth_limit"}`)
	c.expect("admin", "GET /qos/rule-types/dscp_marking", "", 200, `"parameter_type":"choices"`)
	c.expect("member1", "GET /qos/rule-types/dscp_marking", "", 403)
	c.expect("admin", "POST /qos/rule-types", `{"rule_type": {}}`, 405)
	c.expect("admin", "GET /qos/alias-bandwidth-limit-rules", "", 404)
}
