package access

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"testing"

	"isospin/internal/resource"
)

// written are values that attributes with rules of their own are given, by
// resource and attribute, other than their defaults. $kind and # as in fixtures.
// Several values are several cases.
var written = map[string][]string{
	"network.shared":                    {`true`},
	"network.mtu":                       {`1400`},
	"network.router:external":           {`true`},
	"network.is_default":                {`true`},
	"network.provider:network_type":     {`"vxlan"`},
	"network.provider:physical_network": {`"physnet1"`},
	"network.provider:segmentation_id":  {`77#`},
	"network.segments":                  {`[{"provider:network_type": "vxlan"}]`},
	"network.port_security_enabled":     {`false`},
	"network.qos_policy_id":             {`"$policy"`},
	"port.mac_address":                  {`"fa:16:3e:00:00:%02x"`},
	"port.fixed_ips":                    {`[{"ip_address": "10.0.0.%d"}]`, `[]`},
	"port.device_id":                    {`"d"`},
	"port.device_owner":                 {`"compute:nova"`, `"network:dhcp"`},
	"port.binding:vnic_type":            {`"direct"`},
	"port.binding:host_id":              {`"h1"`},
	"port.binding:profile":              {`{"a": 1}`},
	"port.port_security_enabled":        {`false`},
	"port.allowed_address_pairs":        {`[{"ip_address": "10.9.0.0/24"}]`, `[{"ip_address": "10.9.0.0/24", "mac_address": "fa:16:3e:00:00:01"}]`},
	"port.data_plane_status":            {`"ACTIVE"`},
	"port.hardware_offload_type":        {`"switchdev"`},
	"port.hints":                        {`{"openvswitch": {"other_config": {"tx-steering": "hash"}}}`},
	"port.trusted":                      {`true`},
	"port.qos_policy_id":                {`"$policy"`},
	"local_ip.local_ip_address":         {`"10.0.0.77"`},
	"binding.vnic_type":                 {`"direct"`},
	"binding.profile":                   {`{"a": 1}`},
	"router.external_gateway_info": {
		`{"network_id": "$external"}`, `{"network_id": "$external", "enable_snat": false}`,
		`{"network_id": "$external", "external_fixed_ips": [{"ip_address": "203.0.#.9"}]}`,
	},
	"router.distributed":               {`false`, `true`},
	"router.ha":                        {`false`, `true`},
	"router.flavor_id":                 {`"00000000-0000-4000-8000-000000000000"`},
	"router.evpn_vni":                  {`#`},
	"router.enable_default_route_bfd":  {`true`},
	"router.enable_default_route_ecmp": {`true`},
	"floatingip.floating_ip_address":   {`"203.0.77.#"`},
	"floatingip.qos_policy_id":         {`"$policy"`},
	"subnetpool.is_default":            {`true`},
	"subnetpool.shared":                {`true`},
	"trunk.sub_ports":                  {`[{"port_id": "$port", "segmentation_type": "vlan", "segmentation_id": #}]`},
	"address_scope.shared":             {`true`},
	"rbac_policy.object_type":          {`"network"`},
	"rbac_policy.object_id":            {`"$network"`},
	"rbac_policy.target_tenant":        {`"*"`, `"9a5f2c6e-0000-4000-8000-000000000007"`},
	"rbac_policy.action":               {`"access_as_shared"`},
}

// TestAttributes gives every attribute that has a rule of its own a value, on
// creation and on update, as every caller: who may not gets a 403 that names the
// rule, who may does not, whatever else is then wrong with the value.
func TestAttributes(t *testing.T) {
	j := newJudge(t)
	accepted := 0
	for _, r := range j.Core.Registry.Resources() {
		for _, a := range r.Attributes() {
			if !a.Flags.Has(resource.EnforcePolicy) || !a.Flags.Has(resource.Post) && !a.Flags.Has(resource.Put) {
				continue
			}
			values, ok := written[r.Name+"."+a.Name]
			if !ok {
				t.Errorf("%s.%s has rules: written lacks a line", r.Name, a.Name)
				continue
			}
			for _, v := range values {
				for _, c := range callers {
					if a.Flags.Has(resource.Post) {
						accepted += j.write(r, a.Name, v, c.name, c.ProjectID, true)
					}
					if a.Flags.Has(resource.Put) {
						accepted += j.write(r, a.Name, v, c.name, c.ProjectID, false)
					}
				}
			}
		}
	}
	t.Logf("%d of %d values are refused or not as the matrix says (%d refused, %d not, %d of these accepted)", j.right, j.checked, j.denied, j.granted, accepted)
	if accepted < j.granted*3/4 {
		t.Errorf("too few values are accepted to say much")
	}
}

// write sends one value, and returns 1 when it was accepted.
func (j *judge) write(r *resource.Resource, attribute, value, caller, project string, create bool) int {
	j.t.Helper()
	value = j.expand("p1", value)
	if attribute == "mac_address" || attribute == "fixed_ips" && len(value) > 2 {
		j.count++
		value = fmt.Sprintf(value, j.count%200+20)
	}
	f := fixtures()[r.URL()]
	var method, at, body, verb string
	situation := situationOf(r)
	given := fmt.Sprintf(`{%q: %s}`, attribute, value)
	if create {
		parent, members := f.create(j.cloud, "p1")
		all := map[string]json.RawMessage{}
		for _, text := range []string{members, given} {
			one := map[string]json.RawMessage{}
			if err := json.Unmarshal([]byte(text), &one); err != nil {
				j.t.Fatalf("%s: %v", text, err)
			}
			maps.Copy(all, one)
		}
		raw, err := json.Marshal(all)
		if err != nil {
			j.t.Fatal(err)
		}
		of := ""
		switch {
		case caller == "admin", caller == "service":
			of = "p1"
		case project == "p2":
			situation = "below"
		}
		given = string(raw)
		method, at, verb, body = "POST", path(r.URL(), parent), "create", document(r, given, of)
	} else {
		collection, id := j.object("p1", r.URL())
		method, at, verb, body = "PUT", collection+"/"+id, "update", fmt.Sprintf(`{%q: %s}`, r.Name, given)
	}
	may := j.mayWrite(r, verb, situation, caller, given)
	a := j.call(caller, method, at, body)
	what := method + " " + at + " " + body
	if !may {
		want := http.StatusForbidden
		switch {
		case caller == "nobody":
			want = http.StatusUnauthorized
		case !create && !j.may(r.PolicyAction("get"), situation, caller):
			want = http.StatusNotFound
		}
		j.expect(what, caller, a, want)
		return 0
	}
	j.checked++
	j.granted++
	if typ, _ := a.Error(); typ == "PortBindingError" { // no driver has such an interface on that host: that is a 500 in Neutron
		j.right++
		return 0
	}
	if a.Status == http.StatusForbidden || a.Status == http.StatusUnauthorized || a.Status >= 500 ||
		a.Status == http.StatusNotFound && situation != "below" && attribute != "flavor_id" {
		j.t.Errorf("%s by %s: %s; the matrix lets it", what, caller, a)
		return 0
	}
	j.right++
	if a.Status/100 == 2 {
		if create {
			by := "admin"
			if f.by != "" {
				by = f.by
			}
			j.must(by, "DELETE", at+"/"+j.named(&f, given, a), "")
		}
		return 1
	}
	return 0
}
