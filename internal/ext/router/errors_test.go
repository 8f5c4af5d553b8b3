package router_test

import (
	"context"
	"strings"
	"testing"

	"isospin/internal/core/rbac"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/store"
)

const absent = "00000000-0000-4000-8000-000000000000"

func last[T any](_ T, err error) error { return err }

// attached is a router with a gateway and an interface on the private subnet.
func (w *world) attached() string {
	w.t.Helper()
	r := w.router().ID()
	w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet)
	return r
}

// associated is a floating IP for a new port, behind a new router.
func (w *world) associated() (router, port, floating string) {
	w.t.Helper()
	router, port = w.attached(), w.port()
	return router, port, w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, port).ID()
}

// another is a further network of the project with one subnet.
func (w *world) another(subnet string) (network, id string) {
	w.t.Helper()
	network = w.project.Create("network", `{}`).ID()
	return network, w.project.Create("subnet", "%s", strings.Replace(subnet, "{", `{"network_id": "`+network+`", `, 1)).ID()
}

// shared is another project's network with a subnet, open to a target: a project or *.
func (w *world) shared(target string) (network, id string) {
	w.t.Helper()
	other := w.As("project2")
	network = other.Create("network", `{}`).ID()
	id = other.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.9.0.0/24", "allocation_pools": [{"start": "10.9.0.10", "end": "10.9.0.20"}]}`, network).ID()
	if err := w.Store.Tx(context.Background(), func(tx *store.Tx) error {
		return rbac.Grant(context.Background(), tx, "network", network, "project2", rbac.AccessAsShared, target)
	}); err != nil {
		w.t.Fatal(err)
	}
	return network, id
}

// refusal is a call that must be refused. names in want are replaced by the ids that do returns.
type refusal struct {
	name string
	// do makes what is needed and the call; it returns the error and names of ids in pairs.
	do   func(w *world) ([]string, error)
	kind fault.Kind
	typ  string
	want string
}

func refuse(t *testing.T, cases []refusal) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			names, err := c.do(w)
			names = append(names, "EXTERNAL", w.external, "PUBLIC", w.public, "PRIVATE", w.private, "SUBNET", w.subnet, "ABSENT", absent)
			w.Refused(err, c.kind, c.typ, strings.NewReplacer(names...).Replace(c.want))
		})
	}
}

func TestRouterRefusals(t *testing.T) {
	update := func(w *world, r, body string, args ...any) error {
		return last(w.project.TryUpdate("router", r, body, args...))
	}
	plug := func(w *world, r, body string, args ...any) error {
		return last(w.project.TryAct("router", r, "add_router_interface", body, args...))
	}
	unplug := func(w *world, r, body string, args ...any) error {
		return last(w.project.TryAct("router", r, "remove_router_interface", body, args...))
	}
	refuse(t, []refusal{
		{"absent", func(w *world) ([]string, error) {
			return nil, last(w.project.TryGet("router", absent))
		}, fault.NotFound, "RouterNotFound", "Router ABSENT could not be found"},
		{"another project's", func(w *world) ([]string, error) {
			r := w.router().ID()
			return []string{"ROUTER", r}, last(w.As("project2").TryUpdate("router", r, `{"name": "x"}`))
		}, fault.NotFound, "RouterNotFound", "Router ROUTER could not be found"},
		{"interface of another project's", func(w *world) ([]string, error) {
			r := w.router().ID()
			return []string{"ROUTER", r}, last(w.As("project2").TryAct("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet))
		}, fault.NotFound, "RouterNotFound", "Router ROUTER could not be found"},
		{"gateway on no external network", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("router", `{"external_gateway_info": {"network_id": %q}}`, w.private))
		}, fault.Invalid, "BadRequest", "Bad router request: Network PRIVATE is not an external network."},
		{"gateway on no network", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("router", `{"external_gateway_info": {"network_id": %q}}`, absent))
		}, fault.NotFound, "NetworkNotFound", "Network ABSENT could not be found."},
		{"gateway without network", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("router", `{"external_gateway_info": {"enable_snat": true}}`))
		}, fault.Invalid, "HTTPBadRequest", ""},
		{"gateway with an unknown member", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("router", `{"external_gateway_info": {"network_id": %q, "colour": null}}`, w.external))
		}, fault.Invalid, "HTTPBadRequest", "Invalid input for external_gateway_info. Reason: Unexpected keys supplied: colour."},
		{"attribute of an extension that is not loaded", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("router", `{"service_type_id": null}`))
		}, fault.Invalid, "HTTPBadRequest", "Unrecognized attribute(s) 'service_type_id'"},
		{"gateway with the address of the subnet's gateway", func(w *world) ([]string, error) {
			return nil, last(w.admin.TryCreate("router", `{"external_gateway_info": {"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.1"}]}}`, w.external))
		}, fault.Invalid, "BadRequest", "Bad router request: External IP 203.0.113.1 is the same as the gateway IP."},
		{"gateway with an address of elsewhere", func(w *world) ([]string, error) {
			return nil, last(w.admin.TryCreate("router", `{"external_gateway_info": {"network_id": %q, "external_fixed_ips": [{"ip_address": "192.0.2.1"}]}}`, w.external))
		}, fault.Invalid, "InvalidIpForNetwork", "IP address 192.0.2.1 is not a valid IP for any of the subnets on the specified network."},
		{"gateway with a taken address", func(w *world) ([]string, error) {
			w.admin.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "203.0.113.50"}]}`, w.external)
			return nil, last(w.admin.TryCreate("router", `{"external_gateway_info": {"network_id": %q, "external_fixed_ips": [{"ip_address": "203.0.113.50"}]}}`, w.external))
		}, fault.Conflict, "IpAddressAlreadyAllocated", "IP address 203.0.113.50 already allocated in subnet PUBLIC"},
		{"gateway cleared in use", func(w *world) ([]string, error) {
			r, _, _ := w.associated()
			return []string{"ROUTER", r}, update(w, r, `{"external_gateway_info": null}`)
		}, fault.Conflict, "RouterExternalGatewayInUseByFloatingIp", "Gateway cannot be updated for router ROUTER, since a gateway to external network EXTERNAL is required by one or more floating IPs."},
		{"gateway changed in use", func(w *world) ([]string, error) {
			r, _, _ := w.associated()
			other := w.admin.Create("network", `{"router:external": true}`).ID()
			return []string{"ROUTER", r}, update(w, r, `{"external_gateway_info": {"network_id": %q}}`, other)
		}, fault.Conflict, "RouterExternalGatewayInUseByFloatingIp", "Gateway cannot be updated for router ROUTER, since a gateway to external network EXTERNAL is required by one or more floating IPs."},
		{"gateway that overlaps with the inside", func(w *world) ([]string, error) {
			_, inner := w.another(`{"ip_version": 4, "cidr": "203.0.113.0/28"}`)
			r := w.project.Create("router", `{}`).ID()
			w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, inner)
			return []string{"INNER", inner}, update(w, r, `{"external_gateway_info": {"network_id": %q}}`, w.external)
		}, fault.Invalid, "BadRequest", "Bad router request: Cidr 203.0.113.0/24 of subnet PUBLIC overlaps with cidr 203.0.113.0/28 of subnet INNER."},
		{"inside that overlaps with the gateway", func(w *world) ([]string, error) {
			_, inner := w.another(`{"ip_version": 4, "cidr": "203.0.113.0/28"}`)
			return []string{"INNER", inner}, plug(w, w.router().ID(), `{"subnet_id": %q}`, inner)
		}, fault.Invalid, "BadRequest", "Bad router request: Cidr 203.0.113.0/28 of subnet INNER overlaps with cidr 203.0.113.0/24 of subnet PUBLIC."},

		{"interface of nothing", func(w *world) ([]string, error) {
			return nil, plug(w, w.router().ID(), `{}`)
		}, fault.Invalid, "BadRequest", "Bad router request: Either subnet_id or port_id must be specified."},
		{"interface of both", func(w *world) ([]string, error) {
			return nil, plug(w, w.router().ID(), `{"subnet_id": %q, "port_id": %q}`, w.subnet, absent)
		}, fault.Invalid, "BadRequest", "Bad router request: Cannot specify both subnet-id and port-id."},
		{"interface of a number", func(w *world) ([]string, error) {
			return nil, plug(w, w.router().ID(), `{"subnet_id": 7}`)
		}, fault.Invalid, "BadRequest", "Bad router request: '7' is not a valid UUID."},
		{"interface on no subnet", func(w *world) ([]string, error) {
			return nil, plug(w, w.router().ID(), `{"subnet_id": %q}`, absent)
		}, fault.NotFound, "SubnetNotFound", "Subnet ABSENT could not be found."},
		{"interface of no port", func(w *world) ([]string, error) {
			return nil, plug(w, w.router().ID(), `{"port_id": %q}`, absent)
		}, fault.NotFound, "PortNotFound", "Port ABSENT could not be found."},
		{"interface on a subnet without gateway", func(w *world) ([]string, error) {
			_, n := w.another(`{"ip_version": 4, "cidr": "10.1.0.0/24", "gateway_ip": null}`)
			return nil, plug(w, w.router().ID(), `{"subnet_id": %q}`, n)
		}, fault.Invalid, "BadRequest", "Bad router request: Subnet for router interface must have a gateway IP."},
		{"interface on a subnet that is shared with everybody", func(w *world) ([]string, error) {
			_, n := w.shared("*")
			return []string{"SHARED", n}, plug(w, w.router().ID(), `{"subnet_id": %q}`, n)
		}, fault.Invalid, "BadRequest", "Bad router request: Cannot add interface to router because subnet SHARED is not owned by project making the request."},
		{"interface outside of the pool of another project's subnet", func(w *world) ([]string, error) {
			network, n := w.shared("project1")
			p := w.admin.Create("port", `{"network_id": %q, "tenant_id": "project1", "fixed_ips": [{"ip_address": "10.9.0.99"}]}`, network).ID()
			return []string{"SHARED", n, "PORT", p}, plug(w, w.router().ID(), `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad router request: Cannot add interface to router because specified port PORT has an IP address out of the allocation pool of subnet SHARED, which is not owned by the project making the request."},
		{"interface of a port in use", func(w *world) ([]string, error) {
			p := w.project.Create("port", `{"network_id": %q, "device_id": "vm"}`, w.private).ID()
			return []string{"PORT", p}, plug(w, w.router().ID(), `{"port_id": %q}`, p)
		}, fault.Conflict, "PortInUse", "Unable to complete operation on port PORT for network PRIVATE. Port already has an attached device vm."},
		{"interface of a port without address", func(w *world) ([]string, error) {
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": []}`, w.private).ID()
			return nil, plug(w, w.router().ID(), `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad router request: Router port must have at least one fixed IP."},
		{"interface of a port on two IPv4 subnets", func(w *world) ([]string, error) {
			second := w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.1.0/24"}`, w.private).ID()
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"subnet_id": %q}, {"subnet_id": %q}]}`, w.private, w.subnet, second).ID()
			return nil, plug(w, w.router().ID(), `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad router request: Cannot have multiple IPv4 subnets on router port."},
		{"interface of another project's port", func(w *world) ([]string, error) {
			p := w.admin.Create("port", `{"network_id": %q, "tenant_id": "project2"}`, w.private).ID()
			r := w.router().ID()
			return []string{"ROUTER", r}, plug(w, r, `{"port_id": %q}`, p)
		}, fault.Conflict, "DeviceIDNotOwnedByTenant", "The following device_id ROUTER is not owned by your project or matches another project router."},
		{"the same subnet twice", func(w *world) ([]string, error) {
			return nil, plug(w, w.attached(), `{"subnet_id": %q}`, w.subnet)
		}, fault.Invalid, "BadRequest", "Bad router request: Router already has a port on subnet SUBNET."},
		{"the same subnet twice, by port", func(w *world) ([]string, error) {
			return nil, plug(w, w.attached(), `{"port_id": %q}`, w.port())
		}, fault.Invalid, "BadRequest", "Bad router request: Router already has a port on subnet SUBNET."},
		{"overlapping subnets", func(w *world) ([]string, error) {
			_, n := w.another(`{"ip_version": 4, "cidr": "10.0.0.128/25"}`)
			return []string{"OTHER", n}, plug(w, w.attached(), `{"subnet_id": %q}`, n)
		}, fault.Invalid, "BadRequest", "Bad router request: Cidr 10.0.0.128/25 of subnet OTHER overlaps with cidr 10.0.0.0/24 of subnet SUBNET."},
		{"gateway address taken", func(w *world) ([]string, error) {
			w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.1"}]}`, w.private)
			return nil, plug(w, w.router().ID(), `{"subnet_id": %q}`, w.subnet)
		}, fault.Conflict, "IpAddressAlreadyAllocated", "IP address 10.0.0.1 already allocated in subnet SUBNET"},
		{"subnet with another router's advertisements", func(w *world) ([]string, error) {
			_, n := w.another(`{"ip_version": 6, "cidr": "2001:db8:1::/64", "ipv6_address_mode": "slaac"}`)
			return []string{"OTHER", n}, plug(w, w.router().ID(), `{"subnet_id": %q}`, n)
		}, fault.Invalid, "BadRequest", "Bad router request: IPv6 subnet OTHER configured to receive RAs from an external router cannot be added to Neutron Router.."},

		{"removal of nothing", func(w *world) ([]string, error) {
			return nil, unplug(w, w.attached(), `{}`)
		}, fault.Invalid, "BadRequest", "Bad router request: Either subnet_id or port_id must be specified."},
		{"removal of what is not there, by port", func(w *world) ([]string, error) {
			r, p := w.attached(), w.port()
			return []string{"ROUTER", r, "PORT", p}, unplug(w, r, `{"port_id": %q}`, p)
		}, fault.NotFound, "RouterInterfaceNotFound", "Router ROUTER does not have an interface with id PORT"},
		{"removal of the gateway as an interface", func(w *world) ([]string, error) {
			r := w.attached()
			p := w.admin.List("port", "device_owner", "network:router_gateway")[0].ID()
			return []string{"ROUTER", r, "PORT", p}, unplug(w, r, `{"port_id": %q}`, p)
		}, fault.NotFound, "RouterInterfaceNotFound", "Router ROUTER does not have an interface with id PORT"},
		{"removal of what is not there, by subnet", func(w *world) ([]string, error) {
			r := w.router().ID()
			return []string{"ROUTER", r}, unplug(w, r, `{"subnet_id": %q}`, w.subnet)
		}, fault.NotFound, "RouterInterfaceNotFoundForSubnet", "Router ROUTER has no interface on subnet SUBNET"},
		{"removal with port and subnet that do not belong together", func(w *world) ([]string, error) {
			r := w.router().ID()
			p := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
			return []string{"PORT", p}, unplug(w, r, `{"port_id": %q, "subnet_id": %q}`, p, absent)
		}, fault.Invalid, "SubnetMismatchForPort", "Subnet on port PORT does not match the requested subnet ABSENT."},
		{"removal needed by a floating IP", func(w *world) ([]string, error) {
			r, _, _ := w.associated()
			return []string{"ROUTER", r}, unplug(w, r, `{"subnet_id": %q}`, w.subnet)
		}, fault.Conflict, "RouterInterfaceInUseByFloatingIP", "Router interface for subnet SUBNET on router ROUTER cannot be deleted, as it is required by one or more floating IPs."},
		{"removal needed by a route", func(w *world) ([]string, error) {
			r := w.attached()
			w.project.Update("router", r, `{"routes": [{"destination": "10.5.0.0/16", "nexthop": "10.0.0.5"}]}`)
			return []string{"ROUTER", r}, unplug(w, r, `{"subnet_id": %q}`, w.subnet)
		}, fault.Conflict, "RouterInterfaceInUseByRoute", "Router interface for subnet SUBNET on router ROUTER cannot be deleted, as it is required by one or more routes."},

		{"deletion with interfaces", func(w *world) ([]string, error) {
			r := w.router().ID()
			p := w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
			return []string{"ROUTER", r, "PORT", p}, w.project.TryDelete("router", r)
		}, fault.Conflict, "RouterInUse", "Router ROUTER has ports still attached: PORT"},

		{"routes on create", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("router", `{"routes": []}`))
		}, fault.Invalid, "HTTPBadRequest", "Attribute 'routes' not allowed in POST"},
		{"route via nowhere", func(w *world) ([]string, error) {
			return nil, update(w, w.attached(), `{"routes": [{"destination": "10.5.0.0/16", "nexthop": "10.77.0.1"}]}`)
		}, fault.Invalid, "InvalidRoutes", "Invalid format for routes: [{'destination': '10.5.0.0/16', 'nexthop': '10.77.0.1'}], the nexthop is not connected with router"},
		{"route via the router itself", func(w *world) ([]string, error) {
			return nil, update(w, w.attached(), `{"routes": [{"destination": "10.5.0.0/16", "nexthop": "10.0.0.1"}]}`)
		}, fault.Invalid, "InvalidRoutes", "Invalid format for routes: [{'destination': '10.5.0.0/16', 'nexthop': '10.0.0.1'}], the nexthop is used by router"},
		{"route of two IP versions", func(w *world) ([]string, error) {
			return nil, update(w, w.attached(), `{"routes": [{"destination": "2001:db8:5::/64", "nexthop": "10.0.0.5"}]}`)
		}, fault.Invalid, "InvalidRoutes", "Invalid format for routes: [{'destination': '2001:db8:5::/64', 'nexthop': '10.0.0.5'}], the destination and the nexthop are not of one IP version"},
		{"route twice", func(w *world) ([]string, error) {
			return nil, update(w, w.attached(), `{"routes": [{"destination": "10.5.0.0/16", "nexthop": "10.0.0.5"}, {"destination": "10.5.0.0/16", "nexthop": "10.0.0.5"}]}`)
		}, fault.Invalid, "HTTPBadRequest", ""},
		{"more routes than the quota", func(w *world) ([]string, error) {
			w.admin.Call("PUT", "/quotas/{project_id}", []string{"project1"}, `{"quota": {"router_route": 1}}`)
			return nil, update(w, w.attached(), `{"routes": [{"destination": "10.5.0.0/16", "nexthop": "10.0.0.5"}, {"destination": "10.6.0.0/16", "nexthop": "10.0.0.5"}]}`)
		}, fault.Conflict, "OverQuota", "Quota exceeded for resources: ['router_route']."},
		{"more routers than the quota", func(w *world) ([]string, error) {
			w.admin.Call("PUT", "/quotas/{project_id}", []string{"project1"}, `{"quota": {"router": 0}}`)
			return nil, last(w.project.TryCreate("router", `{}`))
		}, fault.Conflict, "OverQuota", "Quota exceeded for resources: ['router']."},

		{"external network with a gateway made internal", func(w *world) ([]string, error) {
			w.router()
			return nil, last(w.admin.TryUpdate("network", w.external, `{"router:external": false}`))
		}, fault.Conflict, "ExternalNetworkInUse", "External network EXTERNAL cannot be updated to be made non-external, since it has existing gateway ports."},
		{"deletion of an interface as a port", func(w *world) ([]string, error) {
			p := w.project.Act("router", w.router().ID(), "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
			return []string{"PORT", p}, w.project.TryDelete("port", p)
		}, fault.Conflict, "ServicePortInUse", "Port PORT cannot be deleted directly via the port API: has device owner network:router_interface."},
		{"deletion of a gateway as a port", func(w *world) ([]string, error) {
			w.router()
			p := w.admin.List("port", "device_owner", "network:router_gateway")[0].ID()
			return []string{"PORT", p}, w.admin.TryDelete("port", p)
		}, fault.Conflict, "ServicePortInUse", "Port PORT cannot be deleted directly via the port API: has device owner network:router_gateway."},
		{"deletion of a subnet with an interface", func(w *world) ([]string, error) {
			w.attached()
			return nil, w.project.TryDelete("subnet", w.subnet)
		}, fault.Conflict, "SubnetInUse", ""},
		{"deletion of the external network", func(w *world) ([]string, error) {
			w.router()
			return nil, w.admin.TryDelete("network", w.external)
		}, fault.Conflict, "NetworkInUse", ""},
		{"move of the subnet's gateway", func(w *world) ([]string, error) {
			p := w.project.Act("router", w.router().ID(), "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
			return []string{"PORT", p}, last(w.project.TryUpdate("subnet", w.subnet, `{"gateway_ip": null}`))
		}, fault.Conflict, "GatewayIpInUse", "Current gateway ip 10.0.0.1 already in use by port PORT. Unable to update."},
		{"other address of an interface", func(w *world) ([]string, error) {
			p := w.project.Act("router", w.router().ID(), "add_router_interface", `{"subnet_id": %q}`, w.subnet).Text("port_id")
			return []string{"PORT", p}, last(w.project.TryUpdate("port", p, `{"fixed_ips": [{"ip_address": "10.0.0.2"}]}`))
		}, fault.Invalid, "IPAddressChangeNotAllowed", "IP updates for port PORT are not allowed"},
		{"port that looks like one of another project's router", func(w *world) ([]string, error) {
			r := w.As("project2").Create("router", `{}`).ID()
			return []string{"ROUTER", r}, last(w.project.TryCreate("port", `{"network_id": %q, "device_owner": "network:router_interface", "device_id": %q}`, w.private, r))
		}, fault.Conflict, "DeviceIDNotOwnedByTenant", "The following device_id ROUTER is not owned by your project or matches another project router."},
		{"port that begins to look like one of another project's router", func(w *world) ([]string, error) {
			r := w.As("project2").Create("router", `{}`).ID()
			return []string{"ROUTER", r}, last(w.project.TryUpdate("port", w.port(), `{"device_owner": "network:router_interface", "device_id": %q}`, r))
		}, fault.Conflict, "DeviceIDNotOwnedByTenant", "The following device_id ROUTER is not owned by your project or matches another project router."},
	})
}

func TestFloatingIPRefusals(t *testing.T) {
	create := func(w *world, body string, args ...any) error {
		return last(w.project.TryCreate("floatingip", strings.Replace(body, "{", `{"floating_network_id": "`+w.external+`"`+map[bool]string{true: "", false: ", "}[body == "{}"], 1), args...))
	}
	refuse(t, []refusal{
		{"absent", func(w *world) ([]string, error) {
			return nil, last(w.project.TryGet("floatingip", absent))
		}, fault.NotFound, "FloatingIPNotFound", "Floating IP ABSENT could not be found"},
		{"without network", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("floatingip", `{}`))
		}, fault.Invalid, "HTTPBadRequest", "Failed to parse request. Required attribute 'floating_network_id' not specified"},
		{"on no external network", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("floatingip", `{"floating_network_id": %q}`, w.private))
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Network PRIVATE is not a valid external network."},
		{"on no network", func(w *world) ([]string, error) {
			return nil, last(w.project.TryCreate("floatingip", `{"floating_network_id": %q}`, absent))
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Network ABSENT is not a valid external network."},
		{"on a network without IPv4", func(w *world) ([]string, error) {
			n := w.admin.Create("network", `{"router:external": true}`).ID()
			w.admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8::/64"}`, n)
			return []string{"NETWORK", n}, last(w.project.TryCreate("floatingip", `{"floating_network_id": %q}`, n))
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Network NETWORK does not contain any IPv4 subnet."},
		{"of an IPv6 subnet", func(w *world) ([]string, error) {
			n := w.admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8::/64"}`, w.external).ID()
			return nil, create(w, `{"subnet_id": %q}`, n)
		}, fault.Invalid, "ExternalIpAddressExhausted", "Unable to find any IP address on external network EXTERNAL."},
		{"taken address", func(w *world) ([]string, error) {
			w.admin.Create("floatingip", `{"floating_network_id": %q, "floating_ip_address": "203.0.113.50"}`, w.external)
			return nil, create(w, `{"floating_ip_address": "203.0.113.50"}`)
		}, fault.Conflict, "IpAddressAlreadyAllocated", "IP address 203.0.113.50 already allocated in subnet PUBLIC"},
		{"address of elsewhere", func(w *world) ([]string, error) {
			return nil, create(w, `{"floating_ip_address": "192.0.2.5"}`)
		}, fault.Invalid, "InvalidIpForNetwork", "IP address 192.0.2.5 is not a valid IP for any of the subnets on the specified network."},
		{"no address left", func(w *world) ([]string, error) {
			w.admin.Update("subnet", w.public, `{"allocation_pools": [{"start": "203.0.113.10", "end": "203.0.113.10"}]}`)
			w.project.Create("floatingip", `{"floating_network_id": %q}`, w.external)
			return nil, create(w, `{}`)
		}, fault.Conflict, "IpAddressGenerationFailure", "No more IP addresses available on network EXTERNAL."},
		{"more than the quota", func(w *world) ([]string, error) {
			w.admin.Call("PUT", "/quotas/{project_id}", []string{"project1"}, `{"quota": {"floatingip": 0}}`)
			return nil, create(w, `{}`)
		}, fault.Conflict, "OverQuota", "Quota exceeded for resources: ['floatingip']."},

		{"fixed address without port", func(w *world) ([]string, error) {
			return nil, create(w, `{"fixed_ip_address": "10.0.0.5"}`)
		}, fault.Invalid, "BadRequest", "Bad floatingip request: fixed_ip_address cannot be specified without a port_id."},
		{"fixed address without port, later", func(w *world) ([]string, error) {
			_, _, f := w.associated()
			return nil, last(w.project.TryUpdate("floatingip", f, `{"fixed_ip_address": "10.0.0.5"}`))
		}, fault.Invalid, "BadRequest", "Bad floatingip request: fixed_ip_address cannot be specified without a port_id."},
		{"no port", func(w *world) ([]string, error) {
			return nil, create(w, `{"port_id": %q}`, absent)
		}, fault.NotFound, "PortNotFound", "Port ABSENT could not be found."},
		{"another project's port", func(w *world) ([]string, error) {
			p := w.admin.Create("port", `{"network_id": %q, "tenant_id": "project2"}`, w.private).ID()
			return []string{"PORT", p}, create(w, `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Cannot process floating IP association with Port PORT, since that port is owned by a different project."},
		{"DHCP port", func(w *world) ([]string, error) {
			p := w.project.Create("port", `{"network_id": %q, "device_owner": "network:dhcp"}`, w.private).ID()
			return nil, create(w, `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Port %(id)s is unable to be assigned a floating IP."},
		{"IPv6 address", func(w *world) ([]string, error) {
			return nil, create(w, `{"port_id": %q, "fixed_ip_address": "2001:db8::5"}`, w.port())
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Cannot process floating IP association with 2001:db8::5, since that is not an IPv4 address."},
		{"address that the port has not", func(w *world) ([]string, error) {
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.private).ID()
			return []string{"PORT", p}, create(w, `{"port_id": %q, "fixed_ip_address": "10.0.0.6"}`, p)
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Port PORT does not have fixed ip 10.0.0.6."},
		{"port without address", func(w *world) ([]string, error) {
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": []}`, w.private).ID()
			return []string{"PORT", p}, create(w, `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Cannot add floating IP to port PORT that has no fixed IPv4 addresses."},
		{"port with several addresses", func(w *world) ([]string, error) {
			w.attached()
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}, {"ip_address": "10.0.0.6"}]}`, w.private).ID()
			return []string{"PORT", p}, create(w, `{"port_id": %q}`, p)
		}, fault.Invalid, "BadRequest", "Bad floatingip request: Port PORT has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP."},
		{"no router", func(w *world) ([]string, error) {
			p := w.port()
			return []string{"PORT", p}, create(w, `{"port_id": %q}`, p)
		}, fault.NotFound, "ExternalGatewayForFloatingIPNotFound", "External network EXTERNAL is not reachable from subnet SUBNET.  Therefore, cannot associate Port PORT with a Floating IP."},
		{"router without gateway", func(w *world) ([]string, error) {
			r := w.project.Create("router", `{}`).ID()
			w.project.Act("router", r, "add_router_interface", `{"subnet_id": %q}`, w.subnet)
			p := w.port()
			return []string{"PORT", p}, create(w, `{"port_id": %q}`, p)
		}, fault.NotFound, "ExternalGatewayForFloatingIPNotFound", "External network EXTERNAL is not reachable from subnet SUBNET.  Therefore, cannot associate Port PORT with a Floating IP."},
		{"second one for an address", func(w *world) ([]string, error) {
			f := w.admin.Create("floatingip", `{"floating_network_id": %q, "floating_ip_address": "203.0.113.60", "tenant_id": "project1"}`, w.external).ID()
			w.attached()
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.private).ID()
			w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, p)
			return []string{"PORT", p, "FLOATING", f}, last(w.project.TryUpdate("floatingip", f, `{"port_id": %q}`, p))
		}, fault.Conflict, "FloatingIPPortAlreadyAssociated", "Cannot associate floating IP 203.0.113.60 (FLOATING) with port PORT using fixed IP 10.0.0.5, as that fixed IP already has a floating IP on external network EXTERNAL."},
		{"second one for an address, on create", func(w *world) ([]string, error) {
			_, p, _ := w.associated()
			return nil, create(w, `{"port_id": %q}`, p)
		}, fault.Conflict, "FloatingIPPortAlreadyAssociated", ""},
		{"other network", func(w *world) ([]string, error) {
			_, _, f := w.associated()
			return nil, last(w.project.TryUpdate("floatingip", f, `{"floating_network_id": %q}`, w.external))
		}, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute floating_network_id"},

		{"deletion of its port", func(w *world) ([]string, error) {
			w.project.Create("floatingip", `{"floating_network_id": %q}`, w.external)
			p := w.admin.List("port", "device_owner", "network:floatingip")[0]
			if p.Text("status") != "N/A" || p.Text("tenant_id") != "" {
				w.t.Errorf("the hidden port is %v", p)
			}
			return []string{"PORT", p.ID()}, w.admin.TryDelete("port", p.ID())
		}, fault.Conflict, "ServicePortInUse", "Port PORT cannot be deleted directly via the port API: has device owner network:floatingip."},
		{"deletion of a port with another project's", func(w *world) ([]string, error) {
			w.attached()
			p := w.port()
			w.admin.Create("floatingip", `{"floating_network_id": %q, "port_id": %q, "tenant_id": "project2"}`, w.external, p)
			return []string{"PORT", p}, w.project.TryDelete("port", p)
		}, fault.Conflict, "FipAssociated", "Unable to complete the operation on port PORT because the port still has an associated floating IP."},
		{"address taken off the port", func(w *world) ([]string, error) {
			w.attached()
			p := w.project.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.5"}]}`, w.private).ID()
			w.project.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, p)
			return []string{"PORT", p}, last(w.project.TryUpdate("port", p, `{"fixed_ips": [{"ip_address": "10.0.0.77"}]}`))
		}, fault.Invalid, "BadRequest", "Bad port request: Cannot update the fixed_ips of the port PORT, because its original fixed_ip has been associated to a floating ip."},
	})
}

func TestSchedulerRefusals(t *testing.T) {
	const add, one = "/agents/{agent_id}/l3-routers", "/agents/{agent_id}/l3-routers/{router_id}"
	refuse(t, []refusal{
		{"routers of no agent", func(w *world) ([]string, error) {
			return nil, last(w.admin.TryCall("GET", add, []string{absent}, ""))
		}, fault.NotFound, "AgentNotFound", "Agent ABSENT could not be found."},
		{"agents of no router", func(w *world) ([]string, error) {
			return nil, last(w.admin.TryCall("GET", "/routers/{router_id}/l3-agents", []string{absent}, ""))
		}, fault.NotFound, "RouterNotFound", "Router ABSENT could not be found"},
		{"no router", func(w *world) ([]string, error) {
			a := w.host("host1")["L3 agent"]
			return nil, last(w.admin.TryCall("POST", add, []string{a}, `{"router_id": %q}`, absent))
		}, fault.NotFound, "RouterNotFound", "Router ABSENT could not be found"},
		{"no id", func(w *world) ([]string, error) {
			a := w.host("host1")["L3 agent"]
			return nil, last(w.admin.TryCall("POST", add, []string{a}, `{}`))
		}, fault.Invalid, "HTTPBadRequest", "Invalid input for router_id. Reason: 'None' is not a valid UUID."},
		{"no L3 agent", func(w *world) ([]string, error) {
			a := w.host("host1")["DHCP agent"]
			return []string{"AGENT", a}, last(w.admin.TryCall("POST", add, []string{a}, `{"router_id": %q}`, w.project.Create("router", `{}`).ID()))
		}, fault.NotFound, "InvalidL3Agent", "Agent AGENT is not a L3 Agent or has been disabled"},
		{"disabled agent", func(w *world) ([]string, error) {
			a := w.host("host1")["L3 agent"]
			w.admin.Update("agent", a, `{"admin_state_up": false}`)
			return []string{"AGENT", a}, last(w.admin.TryCall("POST", add, []string{a}, `{"router_id": %q}`, w.project.Create("router", `{}`).ID()))
		}, fault.NotFound, "InvalidL3Agent", "Agent AGENT is not a L3 Agent or has been disabled"},
		{"elsewhere already", func(w *world) ([]string, error) {
			a, b := w.host("host1")["L3 agent"], w.host("host2")["L3 agent"]
			r := w.router().ID()
			return []string{"AGENT", a, "ROUTER", r}, last(w.admin.TryCall("POST", add, []string{b}, `{"router_id": %q}`, r))
		}, fault.Conflict, "RouterHostedByL3Agent", "The router ROUTER has been already hosted by the L3 Agent AGENT."},
		{"removal from where it is not", func(w *world) ([]string, error) {
			a := w.host("host1")["L3 agent"]
			r := w.project.Create("router", `{}`).ID()
			return []string{"AGENT", a, "ROUTER", r}, last(w.admin.TryCall("DELETE", one, []string{a, r}, ""))
		}, fault.Conflict, "RouterNotHostedByL3Agent", "The router ROUTER is not hosted by the L3 Agent AGENT."},
	})
}

// A refused call leaves nothing behind.
func TestRefusalUndoes(t *testing.T) {
	w := newWorld(t)
	w.host("host1")
	r := w.attached()
	p := w.port()
	before := w.admin.Get("port", p)
	ports := len(w.admin.List("port"))
	at := w.LastSequence()
	for _, call := range []func() (exttest.Object, error){
		func() (exttest.Object, error) {
			return w.project.TryAct("router", r, "add_router_interface", `{"port_id": %q}`, p)
		},
		func() (exttest.Object, error) {
			return w.project.TryCreate("floatingip", `{"floating_network_id": %q, "port_id": %q}`, w.external, absent)
		},
		func() (exttest.Object, error) {
			return w.admin.TryCreate("router", `{"external_gateway_info": {"network_id": %q, "external_fixed_ips": [{"subnet_id": %q, "ip_address": "192.0.2.1"}]}}`, w.external, w.public)
		},
	} {
		if _, err := call(); err == nil {
			t.Fatal("not refused")
		}
	}
	if after := w.admin.Get("port", p); after["revision_number"] != before["revision_number"] || after.Text("device_id") != "" {
		t.Errorf("the port has become %v", after)
	}
	if n := len(w.admin.List("port")); n != ports {
		t.Errorf("there are %d ports, were %d", n, ports)
	}
	if events := w.Events(at, nil); len(events) > 0 {
		t.Errorf("events: %v", events)
	}
}
