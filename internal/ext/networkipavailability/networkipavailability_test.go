package networkipavailability_test

import (
	"fmt"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

func TestNetworkIPAvailability(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin, project := k.Admin(), k.As("project1")
	n := project.Create("network", `{"name": "n"}`).ID()
	empty := admin.Create("network", `{"name": "empty"}`).ID()
	s4 := project.Create("subnet", `{"network_id": %q, "name": "four", "ip_version": 4, "cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.10", "end": "10.0.0.19"}, {"start": "10.0.0.30", "end": "10.0.0.34"}]}`, n).ID()
	s6 := project.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "2001:db8::/48"}`, n).ID()
	project.Create("port", `{"network_id": %q, "fixed_ips": [{"subnet_id": %q, "ip_address": "10.0.0.200"}]}`, n, s4)
	project.Create("port", `{"network_id": %q, "fixed_ips": [{"subnet_id": %q, "ip_address": "10.0.0.30"}, {"subnet_id": %q}]}`, n, s4, s6)

	four := fmt.Sprintf(`{"cidr":"10.0.0.0/24","ip_availability_details":{"total_ips_in_allocation_pool":15,"total_ips_in_subnet":254,"used_ips_in_allocation_pool":1,"used_ips_in_subnet":2},"ip_version":4,"subnet_id":%q,"subnet_name":"four","total_ips":15,"used_ips":2}`, s4)
	a := admin.Get("network_ip_availability", n)
	if a.Text("network_id") != n || a.Text("network_name") != "n" || a.Text("tenant_id") != "project1" || a.Text("project_id") != "project1" || a["used_ips"] != 3.0 {
		t.Errorf("availability is %v", a)
	}
	// Exact beyond 64 bits: 2^80 without network address and gateway, and 15.
	service := k.Registry.Named("network_ip_availability").Service
	o, err := service.Get(admin.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if raw := string(service.Encode(nil, o, map[string]bool{"total_ips": true})); raw != `{"total_ips":1208925819614629174706189}` {
		t.Errorf("total is %s", raw)
	}
	if l := admin.List("network_ip_availability", "ip_version", "4"); len(l) != 1 || l[0].JSON("subnet_ip_availability") != "["+four+"]" || l[0]["total_ips"] != 15.0 || l[0]["used_ips"] != 2.0 {
		t.Errorf("with version 4: %v", l)
	}
	if l := admin.List("network_ip_availability", "ip_version", "6"); len(l) != 1 || l[0]["used_ips"] != 1.0 {
		t.Errorf("with version 6: %v", l)
	}
	e := admin.Get("network_ip_availability", empty)
	if e.JSON("subnet_ip_availability") != "[]" || e["total_ips"] != 0.0 || e["used_ips"] != 0.0 ||
		e.JSON("ip_availability_details") != `{"total_ips_in_allocation_pool":0,"total_ips_in_subnet":0,"used_ips_in_allocation_pool":0,"used_ips_in_subnet":0}` {
		t.Errorf("of a network without subnets: %v", e)
	}
	for _, c := range []struct {
		name, value string
		want        int
	}{{"network_id", n, 1}, {"network_name", "empty", 1}, {"tenant_id", "project1", 1}, {"tenant_id", "nobody", 0}, {"ip_version", "five", 0}} {
		if l := admin.List("network_ip_availability", c.name, c.value); len(l) != c.want {
			t.Errorf("with %s=%s: %v", c.name, c.value, l)
		}
	}
	if l := k.As("project2").List("network_ip_availability"); len(l) != 0 {
		t.Errorf("another project sees %v", l)
	}
	_, err = k.As("project2").TryGet("network_ip_availability", n)
	k.Refused(err, fault.NotFound, "NetworkNotFound", "Network "+n+" could not be found.")
	k.Refused(admin.TryDelete("network_ip_availability", n), fault.NotImplemented, "HTTPNotImplemented", "network_ip_availability delete using API is not supported.")
}

// Small subnets, and pools that there are none of.
func TestSizes(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	admin := k.Admin()
	for _, c := range []struct {
		subnet, total, inSubnet, inPools string
	}{
		{`"ip_version": 4, "cidr": "10.0.0.0/24"`, "253", "254", "253"},
		{`"ip_version": 4, "cidr": "10.0.0.0/24", "allocation_pools": []`, "256", "254", "0"},
		{`"ip_version": 4, "cidr": "10.0.0.0/31", "gateway_ip": null, "enable_dhcp": false`, "2", "2", "2"},
		{`"ip_version": 4, "cidr": "10.0.0.1/32", "gateway_ip": null, "enable_dhcp": false`, "1", "1", "1"},
	} {
		n := admin.Create("network", `{}`).ID()
		admin.Create("subnet", `{"network_id": %q, %s}`, n, c.subnet)
		a := admin.Get("network_ip_availability", n)
		want := fmt.Sprintf(`{"total_ips_in_allocation_pool":%s,"total_ips_in_subnet":%s,"used_ips_in_allocation_pool":0,"used_ips_in_subnet":0}`, c.inPools, c.inSubnet)
		if a.JSON("total_ips") != c.total || a.JSON("ip_availability_details") != want {
			t.Errorf("%s: %v", c.subnet, a)
		}
	}
}
