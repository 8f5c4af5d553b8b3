package server_test

import "testing"

// Who may ask for what of a router's gateways, kinds and routes.
func TestRouterAccess(t *testing.T) {
	c := newCloud(t, "")
	outside := c.create("admin", "/networks", `{"network":{"router:external":true}}`)
	c.create("admin", "/subnets", `{"subnet":{"network_id":"`+outside+`","ip_version":4,"cidr":"203.0.113.0/24","enable_dhcp":false}}`)
	r := c.create("member1", "/routers", `{"router":{}}`)
	at := "/routers/" + r
	c.expect("member1", "GET "+at, "", 200, `"external_gateways":`, `"enable_default_route_ecmp":`, `not "distributed"`, `not "ha"`)
	c.expect("admin", "GET "+at, "", 200, `"distributed":false`, `"ha":false`)
	for _, body := range []string{`{"router":{"ha":true}}`, `{"router":{"distributed":true}}`, `{"router":{"enable_default_route_ecmp":true}}`} {
		c.expect("member1", "POST /routers", body, 403, refused)
		c.expect("member1", "PUT "+at, body, 403, refused)
	}
	c.expect("member1", "PUT "+at, `{"router":{"external_gateway_info":{"network_id":"`+outside+`","enable_snat":false}}}`, 403, "rule:update_router:external_gateway_info:enable_snat")
	plain, chosen := `{"router":{"external_gateways":[{"network_id":"`+outside+`"}]}}`, `{"router":{"external_gateways":[{"network_id":"`+outside+`","external_fixed_ips":[{"ip_address":"203.0.113.9"}]}]}}`
	c.expect("member1", "PUT "+at+"/add_external_gateways", chosen, 403, "rule:add_external_gateways:external_gateways:external_fixed_ips")
	c.expect("reader1", "PUT "+at+"/add_external_gateways", plain, 403, refused)
	c.expect("member2", "PUT "+at+"/add_external_gateways", plain, 404)
	c.expect("member1", "PUT "+at+"/add_external_gateways", plain, 200, `"external_gateways":[{`, `not "ha"`)
	c.expect("member1", "PUT "+at+"/update_external_gateways", chosen, 403, refused)
	c.expect("admin", "PUT "+at+"/update_external_gateways", chosen, 200, "203.0.113.9", `"ha":false`)
	c.expect("member1", "PUT "+at+"/remove_external_gateways", plain, 200, `"external_gateways":[]`)
	c.expect("reader1", "PUT "+at+"/add_extraroutes", `{"router":{"routes":[]}}`, 403, refused)
	c.expect("member2", "PUT "+at+"/remove_extraroutes", `{"router":{"routes":[]}}`, 404)
	c.expect("member1", "PUT "+at+"/add_extraroutes", `{"router":{"routes":[]}}`, 200, `"routes":[]`)
	c.count("member1", "/floatingip-pools", 1)
	c.expect("admin", "GET "+at+"/l3-agents", "", 200, `"agents":[]`)
	c.expect("member1", "GET "+at+"/l3-agents", "", 403)
}
