package api

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"isospin/test/servertest"
)

// many sends n requests from that many clients at once and returns their answers.
func many(t testing.TB, s *servertest.Server, clients, n int, request func(i int) (method, path, body string)) []*servertest.Answer {
	t.Helper()
	answers := make([]*servertest.Answer, n)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for i := range next {
				method, path, body := request(i)
				a, err := s.Do(method, path, body)
				if err != nil {
					t.Errorf("%s %s: %v", method, path, err)
					a = &servertest.Answer{}
				}
				answers[i] = a
			}
		})
	}
	all.Wait()
	return answers
}

// sort tells the created objects from the refused requests, which must all be refused in one way.
func sorted(t testing.TB, answers []*servertest.Answer, member string, status int, typ string) (created []map[string]any, refused int) {
	t.Helper()
	for _, a := range answers {
		if a.Status == 201 {
			var doc map[string]map[string]any
			if err := a.Decode(&doc); err != nil {
				t.Fatal(err)
			}
			created = append(created, doc[member])
			continue
		}
		refused++
		if have, _ := a.Error(); a.Status != status || have != typ {
			t.Errorf("refused by %s", a)
		}
	}
	return created, refused
}

func unique(t testing.TB, what string, values []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, v := range values {
		if seen[v] {
			t.Errorf("%s %s twice", what, v)
		}
		seen[v] = true
	}
}

// TestAddressRace: many clients take the addresses of small subnets at once,
// with and without naming them. No address is given twice, all of them are
// given, and after deletion none is lost.
func TestAddressRace(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {"name": "small"}}`)["id"].(string)
	const capacity = 61
	s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/26"}}`, network))
	for round := range 3 {
		answers := many(t, s, 64, 90, func(i int) (string, string, string) {
			if round == 2 { // and everybody wants the same few of them
				return "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.%d"}]}}`, network, 2+i%30)
			}
			return "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network)
		})
		want, typ := capacity, "IpAddressGenerationFailure"
		if round == 2 {
			want, typ = 30, "IpAddressAlreadyAllocated"
		}
		ports, refused := sorted(t, answers, "port", 409, typ)
		if len(ports) != want || refused != 90-want {
			t.Errorf("round %d: %d ports, %d refused; the subnet has %d addresses", round, len(ports), refused, want)
		}
		var addresses, macs []string
		for _, p := range ports {
			fixed := p["fixed_ips"].([]any)
			if len(fixed) != 1 {
				t.Fatalf("port with addresses %v", fixed)
			}
			addresses = append(addresses, fixed[0].(map[string]any)["ip_address"].(string))
			macs = append(macs, p["mac_address"].(string))
		}
		unique(t, "address", addresses)
		unique(t, "MAC address", macs)
		for _, a := range many(t, s, 64, len(ports), func(i int) (string, string, string) { return "DELETE", "/ports/" + ports[i]["id"].(string), "" }) {
			if a.Status != 204 {
				t.Errorf("delete: %s", a)
			}
		}
	}
}

// TestAddressHistory: whatever was created, changed and deleted before, a
// subnet gives out exactly its capacity.
func TestAddressHistory(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	rapid.Check(t, func(r *rapid.T) {
		network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
		s.Must(t, 201, "POST", "/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/29", "gateway_ip": null}}`, network))
		const capacity = 6
		has := map[string]string{} // address by port
		taken := func(address string) bool {
			for _, a := range has {
				if a == address {
					return true
				}
			}
			return false
		}
		first := func(a *servertest.Answer) (id, address string) {
			var doc struct {
				Port struct {
					ID       string
					FixedIPs []struct {
						IPAddress string `json:"ip_address"`
					} `json:"fixed_ips"`
				}
			}
			if err := a.Decode(&doc); err != nil || len(doc.Port.FixedIPs) != 1 {
				r.Fatalf("%s", a)
			}
			return doc.Port.ID, doc.Port.FixedIPs[0].IPAddress
		}
		do := func(method, path, body string) *servertest.Answer {
			a, err := s.Do(method, path, body)
			if err != nil {
				r.Fatal(err)
			}
			return a
		}
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			address := fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 6).Draw(r, "address"))
			switch rapid.SampledFrom([]string{"any", "this", "move", "delete"}).Draw(r, "step") {
			case "any":
				a := do("POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network))
				if len(has) == capacity {
					if typ, _ := a.Error(); typ != "IpAddressGenerationFailure" {
						r.Fatalf("full, but: %s", a)
					}
					continue
				}
				id, got := first(a)
				if taken(got) {
					r.Fatalf("%s is given twice", got)
				}
				has[id] = got
			case "this":
				a := do("POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q, "fixed_ips": [{"ip_address": %q}]}}`, network, address))
				if typ, _ := a.Error(); taken(address) != (typ == "IpAddressAlreadyAllocated") {
					r.Fatalf("%s: %s", address, a)
				}
				if a.Status == 201 {
					id, got := first(a)
					has[id] = got
				}
			case "move":
				for id := range has {
					a := do("PUT", "/ports/"+id, fmt.Sprintf(`{"port": {"fixed_ips": [{"ip_address": %q}]}}`, address))
					if typ, _ := a.Error(); (taken(address) && has[id] != address) != (typ == "IpAddressAlreadyAllocated") {
						r.Fatalf("%s of %v: %s", address, has, a)
					}
					if a.Status == 200 {
						_, has[id] = first(a)
					}
					break
				}
			case "delete":
				for id := range has {
					if a := do("DELETE", "/ports/"+id, ""); a.Status != 204 {
						r.Fatalf("%s", a)
					}
					delete(has, id)
					break
				}
			}
		}
		for range capacity - len(has) {
			first(do("POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network)))
		}
		if a := do("POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network)); a.Status != 409 {
			r.Fatalf("beyond capacity: %s", a)
		}
		s.Must(t, 200, "PUT", "/quotas/fake_project_id", `{"quota": {"network": -1, "subnet": -1, "port": -1, "force": true}}`)
	})
}

// TestSegmentRace: the ids of a small range go to exactly as many networks.
func TestSegmentRace(t *testing.T) {
	s := servertest.Start(t, "[ml2]\ntenant_network_types = vlan,vxlan\n[ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:100:109\n[ml2_type_vxlan]\nvni_ranges = 1:5,100:114\n")
	for range 2 {
		networks, refused := sorted(t, many(t, s, 48, 48, func(int) (string, string, string) { return "POST", "/networks", `{"network": {}}` }), "network", 503, "NoNetworkAvailable")
		if len(networks) != 30 || refused != 18 {
			t.Errorf("%d networks, %d refused; there are 30 ids", len(networks), refused)
		}
		var ids []string
		for _, n := range networks {
			ids = append(ids, fmt.Sprint(n["provider:network_type"], n["provider:segmentation_id"]))
		}
		unique(t, "segment", ids)
		for _, a := range many(t, s, 48, len(networks), func(i int) (string, string, string) { return "DELETE", "/networks/" + networks[i]["id"].(string), "" }) {
			if a.Status != 204 {
				t.Errorf("delete: %s", a)
			}
		}
	}
}

// TestNamedSegmentRace: of many who ask for one VLAN, one gets it.
func TestNamedSegmentRace(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	networks, _ := sorted(t, many(t, s, 32, 32, func(int) (string, string, string) {
		return "POST", "/networks", `{"network": {"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 7}}`
	}), "network", 409, "VlanIdInUse")
	if len(networks) != 1 {
		t.Errorf("%d networks have the VLAN", len(networks))
	}
}

// TestDefaultGroupRace: a project's first requests, all at once, make one default group.
func TestDefaultGroupRace(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	for p := range 4 {
		project := fmt.Sprintf("project%d", p)
		answers := many(t, s, 32, 32, func(i int) (string, string, string) {
			switch i % 4 {
			case 0:
				return "POST", "/networks", fmt.Sprintf(`{"network": {"tenant_id": %q}}`, project)
			case 1:
				return "GET", "/security-groups?tenant_id=" + project, ""
			case 2:
				return "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q, "tenant_id": %q}}`, network, project)
			default:
				return "GET", "/security-group-rules?tenant_id=" + project, ""
			}
		})
		for _, a := range answers {
			if a.Status != 200 && a.Status != 201 {
				t.Errorf("%s", a)
			}
		}
		list := s.Must(t, 200, "GET", "/security-groups?tenant_id="+project, "")["security_groups"].([]any)
		if len(list) != 1 || len(list[0].(map[string]any)["security_group_rules"].([]any)) != 4 {
			t.Errorf("%s has %d groups: %v", project, len(list), list)
		}
	}
}

// TestQuotaRace: a quota is exact under concurrent creation, also of several at once.
func TestQuotaRace(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {}}`)["id"].(string)
	s.Must(t, 200, "PUT", "/quotas/fake_project_id", `{"quota": {"port": 20, "network": 7}}`)
	ports, refused := sorted(t, many(t, s, 32, 64, func(int) (string, string, string) {
		return "POST", "/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, network)
	}), "port", 409, "OverQuota")
	if len(ports) != 20 || refused != 44 {
		t.Errorf("%d ports, %d refused; the quota is 20", len(ports), refused)
	}
	made := 0
	for _, a := range many(t, s, 32, 32, func(int) (string, string, string) {
		return "POST", "/networks", `{"networks": [{}, {}]}`
	}) {
		if a.Status == 201 {
			made += 2
		} else if typ, _ := a.Error(); typ != "OverQuota" {
			t.Errorf("%s", a)
		}
	}
	if made != 6 {
		t.Errorf("%d networks were made in pairs; one was there and the quota is 7", made)
	}
	details := s.Must(t, 200, "GET", "/quotas/fake_project_id/details", "")["network"].(map[string]any)
	if details["used"] != 7.0 || details["limit"] != 7.0 {
		t.Errorf("details: %v", details)
	}
}
