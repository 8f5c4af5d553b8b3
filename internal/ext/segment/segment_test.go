package segment_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const twoPhysical = `
[ml2_type_vlan]
network_vlan_ranges = physnet1:100:199,physnet2:300:301
`

func newCore(t *testing.T) *exttest.Core { return exttest.New(t, exttest.Options{Config: twoPhysical}) }

func TestSegments(t *testing.T) {
	k := newCore(t)
	admin := k.Admin()
	n := admin.Create("network", `{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 110}`)
	if n["l2_adjacency"] != true {
		t.Errorf("l2_adjacency of a new network is %v", n["l2_adjacency"])
	}
	first := admin.List("segment", "network_id", n.ID())
	if len(first) != 1 || first[0].JSON("segmentation_id") != "110" || first[0].Text("physical_network") != "physnet1" || first[0]["name"] != nil || first[0].Text("created_at") == "" {
		t.Fatalf("segments of a network are %v", first)
	}
	before := admin.Get("network", n.ID())["revision_number"].(float64)
	g := admin.Create("segment", `{"network_id": %q, "network_type": "vlan", "physical_network": "physnet2", "name": "rack2", "description": "d"}`, n.ID())
	if id := g["segmentation_id"].(float64); id != 300 && id != 301 {
		t.Errorf("segmentation id is %v, not of the range", id)
	}
	after := admin.Get("network", n.ID())
	if after["revision_number"].(float64) <= before {
		t.Error("a new segment gave its network no revision")
	}
	if segments, _ := after["segments"].([]any); len(segments) != 2 {
		t.Errorf("the network shows %v", after)
	}
	g = admin.Update("segment", g.ID(), `{"name": "other", "description": "e"}`)
	if g.Text("name") != "other" || g.Text("description") != "e" || g.Text("physical_network") != "physnet2" || g["revision_number"].(float64) == 0 {
		t.Errorf("after an update: %v", g)
	}
	if l := admin.List("segment", "physical_network", "physnet2"); len(l) != 1 {
		t.Errorf("on physnet2: %v", l)
	}
	_, err := admin.TryUpdate("segment", g.ID(), `{"network_type": "flat"}`)
	k.Refused(err, fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute network_type")
	_, err = admin.TryCreate("segment", `{"network_id": %q, "network_type": "vlan", "physical_network": "physnet1", "segmentation_id": 110}`, n.ID())
	k.Refused(err, fault.Conflict, "VlanIdInUse", "Unable to create the network. The VLAN 110 on physical network physnet1 is in use.")
	_, err = admin.TryCreate("segment", `{"network_id": %q, "network_type": "banana"}`, n.ID())
	k.Refused(err, fault.Invalid, "InvalidInput", "Invalid input for operation: network_type value 'banana' not supported.")
	_, err = admin.TryCreate("segment", `{"network_id": %q, "network_type": "vlan", "physical_network": "physnet1", "segmentation_id": 0}`, n.ID())
	k.Refused(err, fault.Invalid, "InvalidInput", "")
	_, err = admin.TryCreate("segment", `{"network_id": "00000000-0000-4000-8000-000000000000", "network_type": "vlan"}`)
	k.Refused(err, fault.NotFound, "NetworkNotFound", "")
	// The MTU of the network is that of all its segments.
	_, err = admin.TryCreate("segment", `{"network_id": %q, "network_type": "vxlan"}`, n.ID())
	k.Refused(err, fault.Invalid, "InvalidInput", "Invalid input for operation: Requested MTU is too big, maximum is 1450.")

	s := admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.1.0/24", "segment_id": %q}`, n.ID(), first[0].ID())
	k.Refused(admin.TryDelete("segment", first[0].ID()), fault.Conflict, "SegmentInUse",
		fmt.Sprintf("Segment '%s' cannot be deleted: The segment is still associated with subnet(s) %s.", first[0].ID(), s.ID()))
	admin.Delete("segment", g.ID())
	_, err = admin.TryGet("segment", g.ID())
	k.Refused(err, fault.NotFound, "SegmentNotFound", "Segment "+g.ID()+" could not be found.")
	// Its id is free again, and the network has one segment as before.
	for _, id := range []int{300, 301} {
		admin.Create("network", `{"provider:network_type": "vlan", "provider:physical_network": "physnet2", "provider:segmentation_id": %d}`, id)
	}
	if n := admin.Get("network", n.ID()); n["l2_adjacency"] != false || n.JSON("provider:segmentation_id") != "110" {
		t.Errorf("the network shows %v", n)
	}
	admin.Delete("network", n.ID())
	if l := admin.List("segment", "network_id", n.ID()); len(l) != 0 {
		t.Errorf("left of a network: %v", l)
	}
	k.Host("host1", exttest.HostOptions{Physical: []string{"physnet1"}})
	n = admin.Create("network", `{"provider:network_type": "vlan", "provider:physical_network": "physnet1"}`)
	p := admin.Create("port", `{"network_id": %q, "binding:host_id": "host1"}`, n.ID())
	only := admin.List("segment", "network_id", n.ID())[0].ID()
	k.Refused(admin.TryDelete("segment", only), fault.Conflict, "SegmentInUse", fmt.Sprintf("Segment '%s' cannot be deleted: The segment is still associated with port(s) %s.", only, p.ID()))
}

// routed is a network with two segments and their subnets; host1 is on the first, host2 on the second.
type routed struct {
	network, first, second, subnet1, subnet2 string
}

func newRouted(k *exttest.Core) routed {
	admin := k.Admin()
	k.Host("host1", exttest.HostOptions{Physical: []string{"physnet1"}})
	k.Host("host2", exttest.HostOptions{Physical: []string{"physnet2"}})
	k.Host("host3", exttest.HostOptions{})
	var r routed
	r.network = admin.Create("network", `{"provider:network_type": "vlan", "provider:physical_network": "physnet1"}`).ID()
	r.first = admin.List("segment", "network_id", r.network)[0].ID()
	r.second = admin.Create("segment", `{"network_id": %q, "network_type": "vlan", "physical_network": "physnet2"}`, r.network).ID()
	r.subnet1 = admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.1.0/24", "segment_id": %q}`, r.network, r.first).ID()
	r.subnet2 = admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.2.0/24", "segment_id": %q}`, r.network, r.second).ID()
	return r
}

// subnets of a port's addresses.
func subnets(p exttest.Object) string {
	var ids []string
	list, _ := p["fixed_ips"].([]any)
	for _, f := range list {
		ids = append(ids, f.(map[string]any)["subnet_id"].(string))
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func TestSubnetsOfSegments(t *testing.T) {
	k := newCore(t)
	admin, r := k.Admin(), newRouted(k)
	plain := admin.Create("network", `{"provider:network_type": "vlan", "provider:physical_network": "physnet1"}`).ID()
	only := admin.List("segment", "network_id", plain)[0].ID()

	_, err := admin.TryCreate("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.3.0/24"}`, r.network)
	k.Refused(err, fault.Invalid, "SubnetsNotAllAssociatedWithSegments", fmt.Sprintf("All of the subnets on network '%s' must either all be associated with segments or all not associated with any segment.", r.network))
	_, err = admin.TryCreate("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.3.0/24", "segment_id": %q}`, r.network, only)
	k.Refused(err, fault.Invalid, "NetworkIdsDontMatch", fmt.Sprintf("The subnet's network id, '%s', doesn't match the network_id of segment '%s'", r.network, only))
	_, err = admin.TryCreate("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.3.0/24", "segment_id": "00000000-0000-4000-8000-000000000000"}`, r.network)
	k.Refused(err, fault.NotFound, "SegmentNotFound", "Segment 00000000-0000-4000-8000-000000000000 could not be found.")
	_, err = admin.TryUpdate("subnet", r.subnet1, `{"segment_id": null}`)
	k.Refused(err, fault.Invalid, "SubnetsNotAllAssociatedWithSegments", "")
	if l := admin.List("subnet", "segment_id", r.second); len(l) != 1 || l[0].ID() != r.subnet2 {
		t.Errorf("subnets of the second segment: %v", l)
	}

	// An ordinary network becomes a routed one, once.
	s := admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.9.0.0/24"}`, plain)
	if s["segment_id"] != nil {
		t.Errorf("segment_id is %v", s["segment_id"])
	}
	more := admin.Create("segment", `{"network_id": %q, "network_type": "vlan", "physical_network": "physnet2"}`, plain).ID()
	_, err = admin.TryUpdate("subnet", s.ID(), `{"segment_id": %q}`, only)
	k.Refused(err, fault.Invalid, "NoUpdateSubnetWhenMultipleSegmentsOnNetwork", "")
	admin.Delete("segment", more)
	_, err = admin.TryUpdate("subnet", s.ID(), `{"segment_id": %q}`, r.first)
	k.Refused(err, fault.Invalid, "NetworkIdsDontMatch", "")
	if s = admin.Update("subnet", s.ID(), `{"segment_id": %q}`, only); s.Text("segment_id") != only {
		t.Errorf("segment_id is %v", s["segment_id"])
	}
	_, err = admin.TryUpdate("subnet", s.ID(), `{"segment_id": null}`)
	k.Refused(err, fault.Invalid, "SubnetSegmentAssociationChangeNotAllowed", "A subnet that is already associated with a segment cannot have its segment association changed.")
	if n := admin.Get("network", plain); n["l2_adjacency"] != false {
		t.Error("a routed network shows l2_adjacency")
	}
}

func TestPeerRoutes(t *testing.T) {
	k := newCore(t)
	admin, r := k.Admin(), newRouted(k)
	check := func(id, want string) {
		t.Helper()
		if routes := admin.Get("subnet", id).JSON("host_routes"); routes != want {
			t.Errorf("host routes are %s, want %s", routes, want)
		}
	}
	check(r.subnet1, `[{"destination":"10.0.2.0/24","nexthop":"10.0.1.1"}]`)
	check(r.subnet2, `[{"destination":"10.0.1.0/24","nexthop":"10.0.2.1"}]`)
	// Neither another one of the segment, nor one of the other family, is a peer.
	same := admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.3.0/24", "segment_id": %q, "host_routes": [{"destination": "10.0.0.0/16", "nexthop": "10.0.3.9"}]}`, r.network, r.first).ID()
	check(same, `[{"destination":"10.0.0.0/16","nexthop":"10.0.3.9"}]`)
	admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8::/64", "segment_id": %q}`, r.network, r.first)
	check(r.subnet1, `[{"destination":"10.0.2.0/24","nexthop":"10.0.1.1"}]`)
	check(r.subnet2, `[{"destination":"10.0.1.0/24","nexthop":"10.0.2.1"},{"destination":"10.0.3.0/24","nexthop":"10.0.2.1"}]`)
	admin.Update("subnet", r.subnet1, `{"gateway_ip": "10.0.1.254", "allocation_pools": [{"start": "10.0.1.2", "end": "10.0.1.200"}]}`)
	check(r.subnet1, `[{"destination":"10.0.2.0/24","nexthop":"10.0.1.254"}]`)
	admin.Update("subnet", r.subnet1, `{"host_routes": []}`)
	check(r.subnet1, `[{"destination":"10.0.2.0/24","nexthop":"10.0.1.254"}]`)
	admin.Delete("subnet", same)
	check(r.subnet2, `[{"destination":"10.0.1.0/24","nexthop":"10.0.2.1"}]`)
	admin.Delete("subnet", r.subnet2)
	check(r.subnet1, `[]`)
	admin.Delete("network", r.network)
}

func TestAddressesOfRoutedNetworks(t *testing.T) {
	k := newCore(t)
	admin, r := k.Admin(), newRouted(k)
	allocation := func(p exttest.Object, want string) {
		t.Helper()
		if p.Text("ip_allocation") != want {
			t.Errorf("ip_allocation is %q, want %q", p.Text("ip_allocation"), want)
		}
	}

	// Nova makes the port, and says later where it is.
	p := admin.Create("port", `{"network_id": %q}`, r.network)
	allocation(p, "deferred")
	if subnets(p) != "" {
		t.Errorf("addresses before the host is known: %v", p["fixed_ips"])
	}
	if l := admin.List("port", "ip_allocation", "deferred"); len(l) != 1 || l[0].ID() != p.ID() {
		t.Errorf("deferred are %v", l)
	}
	_, err := admin.TryUpdate("port", p.ID(), `{"binding:host_id": "host3"}`)
	k.Refused(err, fault.Conflict, "HostNotConnectedToAnySegment", fmt.Sprintf("Host host3 is not connected to any segments on routed provider network '%s'.  It should be connected to one.", r.network))
	p = admin.Update("port", p.ID(), `{"binding:host_id": "host2", "device_owner": "compute:nova"}`)
	if subnets(p) != r.subnet2 || p.Text("binding:vif_type") != "ovs" {
		t.Errorf("on host2: %v %v", p["fixed_ips"], p["binding:vif_type"])
	}
	_, err = admin.TryUpdate("port", p.ID(), `{"binding:host_id": "host1"}`)
	k.Refused(err, fault.Conflict, "HostNotCompatibleWithFixedIps", fmt.Sprintf("Host host1 is not connected to a segment where the existing fixed_ips on port %s will function given the routed network topology.", p.ID()))
	if p = admin.Update("port", p.ID(), `{"binding:host_id": "host1", "fixed_ips": [{"subnet_id": %q}]}`, r.subnet1); subnets(p) != r.subnet1 || p.Text("binding:vif_type") != "ovs" {
		t.Errorf("moved with other addresses: %v %v", p["fixed_ips"], p["binding:vif_type"])
	}

	immediate := admin.Create("port", `{"network_id": %q, "binding:host_id": "host1"}`, r.network)
	allocation(immediate, "immediate")
	if subnets(immediate) != r.subnet1 {
		t.Errorf("on host1: %v", immediate["fixed_ips"])
	}
	_, err = admin.TryCreate("port", `{"network_id": %q, "binding:host_id": "host1", "fixed_ips": [{"subnet_id": %q}]}`, r.network, r.subnet2)
	k.Refused(err, fault.Invalid, "InvalidInput", "")
	_, err = admin.TryCreate("port", `{"network_id": %q, "fixed_ips": [{"subnet_id": %q}, {"ip_address": "10.0.2.77"}]}`, r.network, r.subnet1)
	k.Refused(err, fault.Invalid, "FixedIpsSubnetsNotOnSameSegment", "Cannot allocate addresses from different segments.")
	allocation(admin.Create("port", `{"network_id": %q, "fixed_ips": []}`, r.network), "none")
	fixed := admin.Create("port", `{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.2.77"}]}`, r.network)
	allocation(fixed, "immediate")
	_, err = admin.TryUpdate("port", fixed.ID(), `{"binding:host_id": "host1"}`)
	k.Refused(err, fault.Conflict, "HostNotCompatibleWithFixedIps", "")
	admin.Update("port", fixed.ID(), `{"binding:host_id": "host2"}`)
	// What is not routed is as ever.
	n := admin.Create("network", `{}`).ID()
	admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.7.0.0/24"}`, n)
	allocation(admin.Create("port", `{"network_id": %q}`, n), "immediate")
}

// Ports that make their own addresses do so on their segment only.
func TestAutomaticAddresses(t *testing.T) {
	k := newCore(t)
	admin, r := k.Admin(), newRouted(k)
	p := admin.Create("port", `{"network_id": %q, "binding:host_id": "host1"}`, r.network)
	later := admin.Create("port", `{"network_id": %q}`, r.network)
	six := func(cidr, segment string) string {
		return admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": %q, "segment_id": %q, "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}`, r.network, cidr, segment).ID()
	}
	one, two := six("2001:db8:1::/64", r.first), six("2001:db8:2::/64", r.second)
	both := func(a, b string) string {
		l := []string{a, b}
		slices.Sort(l)
		return strings.Join(l, " ")
	}
	if p = admin.Get("port", p.ID()); subnets(p) != both(r.subnet1, one) {
		t.Errorf("of the port on host1: %v", p["fixed_ips"])
	}
	if later = admin.Update("port", later.ID(), `{"binding:host_id": "host2"}`); subnets(later) != both(r.subnet2, two) {
		t.Errorf("of the port on host2: %v", later["fixed_ips"])
	}
	if p = admin.Update("port", later.ID(), `{"fixed_ips": [{"subnet_id": %q}]}`, two); subnets(p) != two {
		t.Errorf("with one address: %v", p["fixed_ips"])
	}
	k.Refused(admin.TryDelete("subnet", two), fault.Conflict, "SubnetInUse", "")
	admin.Delete("subnet", one)
}

// Each host has its own segment, the subnets there, and DHCP's addresses there.
func TestHostsHaveTheirSegment(t *testing.T) {
	k := newCore(t)
	admin, r := k.Admin(), newRouted(k)
	for _, host := range []string{"host1", "host2"} {
		admin.Create("port", `{"network_id": %q, "binding:host_id": %q, "device_owner": "compute:nova"}`, r.network, host)
	}
	for host, want := range map[string]struct{ physical, segment, subnet, peer, gateway string }{
		"host1": {"physnet1", r.first, r.subnet1, "10.0.2.0/24", "10.0.1.1"},
		"host2": {"physnet2", r.second, r.subnet2, "10.0.1.0/24", "10.0.2.1"},
	} {
		n := k.View(host, message.Kind_KIND_NETWORK)[r.network].GetNetwork()
		if n.GetSegment().GetId() != want.segment || n.GetSegment().GetPhysicalNetwork() != want.physical {
			t.Errorf("%s has segment %v", host, n.GetSegment())
		}
		if len(n.GetSubnets()) != 1 || n.Subnets[0].Id != want.subnet || len(n.Subnets[0].HostRoutes) != 1 || n.Subnets[0].HostRoutes[0].Destination != want.peer || n.Subnets[0].HostRoutes[0].Nexthop != want.gateway {
			t.Errorf("%s has subnets %v", host, n.GetSubnets())
		}
		if f := n.GetDhcpPort().GetFixedIps(); len(f) != 1 || f[0].SubnetId != want.subnet {
			t.Errorf("%s has DHCP at %v", host, f)
		}
	}
	if l := admin.List("port", "device_owner", "network:dhcp"); len(l) != 1 || len(strings.Fields(subnets(l[0]))) != 2 || l[0].Text("ip_allocation") != "immediate" {
		t.Errorf("DHCP ports are %v", l)
	}
	// A host that is connected to both uses one of them.
	k.Host("host4", exttest.HostOptions{Physical: []string{"physnet1", "physnet2"}})
	pinned := admin.Create("port", `{"network_id": %q, "binding:host_id": "host4", "fixed_ips": [{"subnet_id": %q}]}`, r.network, r.subnet2)
	if free := admin.Create("port", `{"network_id": %q, "binding:host_id": "host4"}`, r.network); subnets(free) != subnets(pinned) {
		t.Errorf("ports of one host are on two segments: %v and %v", pinned["fixed_ips"], free["fixed_ips"])
	}
	if n := k.View("host4", message.Kind_KIND_NETWORK)[r.network].GetNetwork(); n.GetSegment().GetId() != r.second {
		t.Errorf("host4 has segment %v", n.GetSegment())
	}
}
