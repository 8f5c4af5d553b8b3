package access

import (
	"net/http"
	"strings"
	"testing"
)

// references are requests that name objects: $own.kind is one of the caller's
// project, $kind one of p1.
var references = []string{
	`POST /ports {"port": {"network_id": "$addressed"}}`,
	`POST /ports {"port": {"network_id": "$own.addressed", "security_groups": ["$security_group"]}}`,
	`POST /ports {"port": {"network_id": "$own.addressed", "qos_policy_id": "$policy"}}`,
	`PUT /ports/$own.port {"port": {"security_groups": ["$security_group"]}}`,
	`PUT /ports/$own.port {"port": {"qos_policy_id": "$policy"}}`,
	`PUT /ports/$own.port {"port": {"fixed_ips": [{"subnet_id": "$subnet"}]}}`,
	`POST /subnets {"subnet": {"network_id": "$network", "ip_version": 4, "cidr": "10.0.0.0/24"}}`,
	`POST /subnets {"subnet": {"network_id": "$own.network", "ip_version": 4, "subnetpool_id": "$subnetpool", "prefixlen": 24}}`,
	`POST /networks {"network": {"qos_policy_id": "$policy"}}`,
	`PUT /networks/$own.network {"network": {"qos_policy_id": "$policy"}}`,
	`POST /subnetpools {"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8"], "address_scope_id": "$address_scope"}}`,
	`PUT /subnetpools/$own.subnetpool {"subnetpool": {"address_scope_id": "$address_scope"}}`,
	`PUT /subnetpools/$own.subnetpool/onboard_network_subnets {"network_id": "$addressed"}`,
	`POST /routers {"router": {"external_gateway_info": {"network_id": "$network"}}}`,
	`PUT /routers/$own.router {"router": {"external_gateway_info": {"network_id": "$network"}}}`,
	`PUT /routers/$own.router/add_external_gateways {"router": {"external_gateways": [{"network_id": "$network"}]}}`,
	`PUT /routers/$own.router/add_router_interface {"subnet_id": "$subnet"}`,
	`PUT /routers/$own.router/add_router_interface {"port_id": "$port"}`,
	`POST /floatingips {"floatingip": {"floating_network_id": "$network"}}`,
	`POST /floatingips {"floatingip": {"floating_network_id": "$external", "port_id": "$routed_port"}}`,
	`POST /floatingips {"floatingip": {"floating_network_id": "$external", "qos_policy_id": "$policy"}}`,
	`PUT /floatingips/$own.floatingip {"floatingip": {"port_id": "$routed_port"}}`,
	`PUT /floatingips/$own.floatingip {"floatingip": {"qos_policy_id": "$policy"}}`,
	`POST /floatingips/$own.floatingip/port_forwardings {"port_forwarding": {"internal_port_id": "$routed_port", "internal_ip_address": "10.0.0.77", "internal_port": 1, "external_port": 1, "protocol": "tcp"}}`,
	`POST /ndp-proxies {"ndp_proxy": {"router_id": "$router", "port_id": "$own.port"}}`,
	`POST /ndp-proxies {"ndp_proxy": {"router_id": "$own.router", "port_id": "$port"}}`,
	`POST /security-group-rules {"security_group_rule": {"security_group_id": "$security_group", "direction": "ingress", "ethertype": "IPv4"}}`,
	`POST /security-group-rules {"security_group_rule": {"security_group_id": "$own.security_group", "direction": "ingress", "ethertype": "IPv4", "remote_group_id": "$security_group"}}`,
	`POST /security-group-rules {"security_group_rule": {"security_group_id": "$own.security_group", "direction": "ingress", "ethertype": "IPv4", "remote_address_group_id": "$address_group"}}`,
	`POST /trunks {"trunk": {"port_id": "$port"}}`,
	`POST /trunks {"trunk": {"port_id": "$own.port", "sub_ports": [{"port_id": "$port", "segmentation_type": "vlan", "segmentation_id": 7}]}}`,
	`PUT /trunks/$own.trunk/add_subports {"sub_ports": [{"port_id": "$port", "segmentation_type": "vlan", "segmentation_id": 7}]}`,
	`POST /local-ips {"local_ip": {"network_id": "$addressed"}}`,
	`POST /local-ips {"local_ip": {"local_port_id": "$port"}}`,
	`POST /local-ips/$own.local_ip/port_associations {"port_association": {"fixed_port_id": "$port"}}`,
	`POST /local-ips/$local_ip/port_associations {"port_association": {"fixed_port_id": "$own.port"}}`,
	`POST /routers/$router/conntrack_helpers {"conntrack_helper": {"protocol": "udp", "port": 69, "helper": "tftp"}}`,
	`POST /rbac-policies {"rbac_policy": {"object_type": "network", "object_id": "$network", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}}`,
	`POST /rbac-policies {"rbac_policy": {"object_type": "security_group", "object_id": "$security_group", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}}`,
	`POST /rbac-policies {"rbac_policy": {"object_type": "qos_policy", "object_id": "$policy", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}}`,
	`POST /rbac-policies {"rbac_policy": {"object_type": "address_group", "object_id": "$address_group", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}}`,
	`POST /rbac-policies {"rbac_policy": {"object_type": "address_scope", "object_id": "$address_scope", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}}`,
	`POST /rbac-policies {"rbac_policy": {"object_type": "subnetpool", "object_id": "$subnetpool", "action": "access_as_shared", "target_tenant": "9a5f2c6e-0000-4000-8000-000000000009"}}`,
	`manager POST /log/logs {"log": {"resource_type": "security_group", "resource_id": "$security_group"}}`,
	`manager POST /log/logs {"log": {"resource_type": "security_group", "target_id": "$port"}}`,
	`manager POST /metering/metering-label-rules {"metering_label_rule": {"metering_label_id": "$metering_label", "direction": "ingress", "remote_ip_prefix": "10.0.0.0/24"}}`,
	`manager POST /qos/policies/$policy/bandwidth_limit_rules {"bandwidth_limit_rule": {"max_kbps": 1000}}`,
}

// ownRefused are requests that fail for the objects' own project as well, for other reasons.
var ownRefused = map[string]string{
	`POST /routers {"router": {"external_gateway_info": {"network_id": "$network"}}}`:                                "it is not external",
	`PUT /routers/$own.router {"router": {"external_gateway_info": {"network_id": "$network"}}}`:                     "it is not external",
	`PUT /routers/$own.router/add_external_gateways {"router": {"external_gateways": [{"network_id": "$network"}]}}`: "it is not external",
	`POST /floatingips {"floatingip": {"floating_network_id": "$network"}}`:                                          "it is not external",
	`PUT /ports/$own.port {"port": {"fixed_ips": [{"subnet_id": "$subnet"}]}}`:                                       "it is of another network",
	`POST /ndp-proxies {"ndp_proxy": {"router_id": "$router", "port_id": "$own.port"}}`:                              "it has no gateway",
	`POST /ndp-proxies {"ndp_proxy": {"router_id": "$own.router", "port_id": "$port"}}`:                              "it has no gateway",
}

// TestForeign: nobody reaches objects of another project, that it cannot see,
// by naming them in its own. The rules of policy often do not look there: a
// floating IP is created by the rule on floating IPs, whatever port it names.
func TestForeign(t *testing.T) {
	j := newJudge(t)
	refused := 0
	for _, r := range references {
		role, rest, _ := strings.Cut(r, " ")
		callers := map[string]string{"member": "p1", "other": "p2"}
		if role == "manager" {
			callers = map[string]string{"manager": "p1", "manager2": "p2"}
		} else {
			rest = r
		}
		for caller, project := range callers {
			text := j.own(project, rest)
			method, rest, _ := strings.Cut(j.expand("p1", text), " ")
			at, body, _ := strings.Cut(rest, " ")
			a := j.call(caller, method, at, body)
			switch {
			case project == "p1" && ownRefused[r] == "" && a.Status/100 != 2:
				t.Errorf("%s by %s: %s: the request proves nothing", r, caller, a)
			case project == "p1":
			case a.Status != http.StatusNotFound && a.Status != http.StatusForbidden && a.Status != http.StatusBadRequest && a.Status != http.StatusConflict:
				t.Errorf("%s by another project: %s", r, a)
			default:
				refused++
			}
		}
	}
	t.Logf("%d of %d references to another project's objects are refused", refused, len(references))
}

// own replaces $own.kind by the id of a new object of the project.
func (j *judge) own(project, text string) string {
	for {
		before, after, ok := strings.Cut(text, "$own.")
		if !ok {
			return text
		}
		n := strings.IndexAny(after, `"/ `)
		text = before + j.make(project, after[:n]) + after[n:]
	}
}
