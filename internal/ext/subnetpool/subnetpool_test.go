package subnetpool_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const absent = "00000000-0000-4000-8000-000000000000"

func last[T any](_ T, err error) error { return err }

// world is a core with a project.
type world struct {
	*exttest.Core
	t       *testing.T
	project *exttest.Client
	admin   *exttest.Client
}

func newWorld(t *testing.T, config string) *world {
	w := &world{Core: exttest.New(t, exttest.Options{Config: config}), t: t}
	w.project, w.admin = w.As("project1"), w.Admin()
	return w
}

func (w *world) network() string {
	w.t.Helper()
	return w.project.Create("network", `{}`).ID()
}

// pool makes a pool from the members of its body, e.g. `"prefixes": ["10.0.0.0/8"]`.
func (w *world) pool(members string) string {
	w.t.Helper()
	return w.project.Create("subnetpool", "%s", `{"name": "pool", `+members+`}`).ID()
}

// take makes a subnet on a new network.
func (w *world) take(members string) (exttest.Object, error) {
	w.t.Helper()
	return w.project.TryCreate("subnet", "%s", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, %s}`, w.network(), members))
}

func (w *world) mustTake(members string) exttest.Object {
	w.t.Helper()
	o, err := w.take(members)
	if err != nil {
		w.t.Fatalf("subnet %s: %v", members, err)
	}
	return o
}

func members(o exttest.Object, names ...string) string {
	var parts []string
	for _, n := range names {
		parts = append(parts, n+"="+o.JSON(n))
	}
	return strings.Join(parts, " ")
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

var shown = []string{"name", "prefixes", "ip_version", "min_prefixlen", "max_prefixlen", "default_prefixlen", "default_quota", "is_default", "shared", "project_id", "revision_number"}

func TestLifeOfAPool(t *testing.T) {
	w := newWorld(t, "")
	begin := w.LastSequence()
	p := w.project.Create("subnetpool", `{"name": "p", "prefixes": ["10.1.0.0/16", "10.0.0.5/16", "192.168.0.0/24"]}`)
	equal(t, "created", members(p, shown...), `name="p" prefixes=["10.0.0.0/15","192.168.0.0/24"] ip_version=4 min_prefixlen="8" max_prefixlen="32" default_prefixlen="8" default_quota=null is_default=false shared=false project_id="project1" revision_number=0`)
	p = w.project.Update("subnetpool", p.ID(), `{"prefixes": ["10.0.0.0/8", "192.168.0.0/24"], "default_prefixlen": 24, "default_quota": 1024, "description": "d"}`)
	equal(t, "updated", members(p, shown...), `name="p" prefixes=["10.0.0.0/8","192.168.0.0/24"] ip_version=4 min_prefixlen=8 max_prefixlen=32 default_prefixlen=24 default_quota=1024 is_default=false shared=false project_id="project1" revision_number=1`)
	equal(t, "shown", members(w.project.Get("subnetpool", p.ID()), "min_prefixlen", "default_prefixlen", "description"), `min_prefixlen="8" default_prefixlen="24" description="d"`)
	for filter, n := range map[string]int{"min_prefixlen=8": 1, "min_prefixlen=9": 0, "ip_version=4": 1, "is_default=true": 0, "shared=false": 1, "default_quota=1024": 1} {
		name, v, _ := strings.Cut(filter, "=")
		if got := len(w.project.List("subnetpool", name, v)); got != n {
			t.Errorf("%s lists %d, want %d", filter, got, n)
		}
	}
	if got := len(w.As("project2").List("subnetpool")); got != 0 {
		t.Errorf("another project lists %d", got)
	}
	w.Refused(last(w.As("project2").TryGet("subnetpool", p.ID())), fault.NotFound, "SubnetPoolNotFound", "Subnet pool "+p.ID()+" could not be found.")
	equal(t, "row", fmt.Sprint(w.Rows(4, "SELECT prefixes, min_prefixlen, default_prefixlen, default_quota FROM subnetpool")), `[[["10.0.0.0/8","192.168.0.0/24"] 8 24 1024]]`)
	w.project.Delete("subnetpool", p.ID())
	equal(t, "events", strings.Join(w.Events(begin, map[string]string{p.ID(): "POOL"}), ", "), "create subnetpool POOL, update subnetpool POOL, delete subnetpool POOL")

	six := w.project.Create("subnetpool", `{"name": "six", "prefixes": ["fd00::/48"]}`)
	equal(t, "IPv6", members(six, "ip_version", "min_prefixlen", "max_prefixlen", "default_prefixlen"), `ip_version=6 min_prefixlen="64" max_prefixlen="128" default_prefixlen="64"`)
}

func TestAllocation(t *testing.T) {
	w := newWorld(t, "")
	id := w.pool(`"prefixes": ["10.0.0.0/16"], "default_prefixlen": 24, "min_prefixlen": 16, "max_prefixlen": 28`)
	from := fmt.Sprintf(`"subnetpool_id": %q`, id)
	first := w.mustTake(from)
	equal(t, "by the pool's default", members(first, "cidr", "gateway_ip", "allocation_pools", "subnetpool_id"),
		`cidr="10.0.0.0/24" gateway_ip="10.0.0.1" allocation_pools=[{"end":"10.0.0.254","start":"10.0.0.2"}] subnetpool_id="`+id+`"`)
	equal(t, "by length", w.mustTake(from+`, "prefixlen": 28`).Text("cidr"), "10.0.1.0/28")
	equal(t, "by length, the smallest block that fits", w.mustTake(from+`, "prefixlen": 27`).Text("cidr"), "10.0.1.32/27")
	equal(t, "by CIDR", w.mustTake(from+`, "cidr": "10.0.128.9/17"`).Text("cidr"), "10.0.128.0/17")
	equal(t, "of the largest block", w.mustTake(from+`, "prefixlen": 18`).Text("cidr"), "10.0.64.0/18")
	o := w.mustTake(from + `, "prefixlen": 26, "gateway_ip": null, "enable_dhcp": false`)
	equal(t, "without a gateway", members(o, "cidr", "gateway_ip"), `cidr="10.0.1.64/26" gateway_ip=null`)
	o = w.mustTake(from + `, "cidr": "10.0.2.0/24", "allocation_pools": [{"start": "10.0.2.10", "end": "10.0.2.20"}]`)
	equal(t, "with allocation pools", o.JSON("allocation_pools"), `[{"end":"10.0.2.20","start":"10.0.2.10"}]`)

	w.project.Delete("subnet", first.ID())
	equal(t, "what was released", w.mustTake(from).Text("cidr"), "10.0.0.0/24")
	network := w.network()
	inside := w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "subnetpool_id": %q, "cidr": "10.0.3.0/24"}`, network, id)
	w.Refused(last(w.take(from+`, "cidr": "10.0.3.0/24"`)), fault.Unmapped, "SubnetAllocationError", "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.")
	w.project.Delete("network", network)
	w.Refused(last(w.project.TryGet("subnet", inside.ID())), fault.NotFound, "SubnetNotFound", "")
	equal(t, "what went with its network", w.mustTake(from+`, "cidr": "10.0.3.0/24"`).Text("cidr"), "10.0.3.0/24")

	six := w.pool(`"prefixes": ["fd00::/62"]`)
	o = w.project.Create("subnet", `{"network_id": %q, "ip_version": 6, "subnetpool_id": %q, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}`, w.network(), six)
	equal(t, "IPv6", members(o, "cidr", "gateway_ip"), `cidr="fd00::/64" gateway_ip="fd00::1"`)
}

func TestDefaultPools(t *testing.T) {
	w := newWorld(t, "")
	w.Refused(last(w.take(`"use_default_subnetpool": true`)), fault.Invalid, "BadRequest", "Bad subnets request: No default subnetpool found for IPv4.")
	four := w.admin.Create("subnetpool", `{"name": "four", "prefixes": ["10.0.0.0/8"], "is_default": true, "shared": true, "default_prefixlen": 26}`)
	w.admin.Create("subnetpool", `{"name": "six", "prefixes": ["fd00::/48"], "is_default": true}`)
	o := w.mustTake(`"use_default_subnetpool": true`)
	equal(t, "of the default pool", members(o, "cidr", "subnetpool_id"), `cidr="10.0.0.0/26" subnetpool_id="`+four.ID()+`"`)
	if _, there := o["use_default_subnetpool"]; there {
		t.Error("use_default_subnetpool is shown")
	}
	w.Refused(last(w.project.TryCreate("subnet", `{"network_id": %q, "ip_version": 6, "use_default_subnetpool": true}`, w.network())),
		fault.Invalid, "BadRequest", "Bad subnets request: No default subnetpool found for IPv6.") // the default is another project's
	taken := "Invalid input for operation: A default subnetpool for this IP family has already been set. Only one default may exist per IP family."
	w.Refused(last(w.admin.TryCreate("subnetpool", `{"name": "x", "prefixes": ["11.0.0.0/8"], "is_default": true}`)), fault.Invalid, "InvalidInput", taken)
	other := w.admin.Create("subnetpool", `{"name": "x", "prefixes": ["11.0.0.0/8"]}`).ID()
	w.Refused(last(w.admin.TryUpdate("subnetpool", other, `{"is_default": true}`)), fault.Invalid, "InvalidInput", taken)
	w.admin.Update("subnetpool", four.ID(), `{"is_default": false}`)
	w.admin.Update("subnetpool", other, `{"is_default": true}`)
}

func TestSharedPool(t *testing.T) {
	w := newWorld(t, "")
	id := w.admin.Create("subnetpool", `{"name": "all", "prefixes": ["10.0.0.0/8"], "shared": true, "default_prefixlen": 24}`).ID()
	equal(t, "shared", members(w.project.Get("subnetpool", id), "shared", "project_id"), `shared=true project_id="admin"`)
	if n := len(w.project.List("subnetpool", "shared", "true")); n != 1 {
		t.Errorf("%d shared pools are listed", n)
	}
	equal(t, "entry", fmt.Sprint(w.Rows(4, "SELECT project_id, object_type, action, target_project FROM rbac_policy")), "[[admin subnetpool access_as_shared *]]")
	equal(t, "subnet", w.mustTake(fmt.Sprintf(`"subnetpool_id": %q`, id)).Text("cidr"), "10.0.0.0/24")
	free := w.admin.Create("subnetpool", `{"name": "x", "prefixes": ["11.0.0.0/8"], "shared": true}`).ID()
	w.admin.Delete("subnetpool", free)
	equal(t, "entries after deletion", fmt.Sprint(len(w.Rows(1, "SELECT id FROM rbac_policy WHERE object_id = ?", free))), "0")
}

func TestQuota(t *testing.T) {
	w := newWorld(t, "")
	exceeded := "Per-project subnet pool prefix quota exceeded."
	four := fmt.Sprintf(`"subnetpool_id": %q`, w.pool(`"prefixes": ["10.0.0.0/8"], "default_quota": 512, "default_prefixlen": 24`))
	w.mustTake(four)
	w.mustTake(four)
	w.Refused(last(w.take(four+`, "prefixlen": 32, "enable_dhcp": false`)), fault.Conflict, "SubnetPoolQuotaExceeded", exceeded)
	w.Refused(last(w.take(four+`, "cidr": "10.2.0.0/24"`)), fault.Conflict, "SubnetPoolQuotaExceeded", exceeded)

	id := w.admin.Create("subnetpool", `{"name": "six", "prefixes": ["fd00::/48"], "default_quota": 2, "max_prefixlen": 66, "shared": true}`).ID()
	six := func(c *exttest.Client, more string) error {
		return last(c.TryCreate("subnet", "%s", fmt.Sprintf(`{"network_id": %q, "ip_version": 6, "subnetpool_id": %q%s}`, c.Create("network", `{}`).ID(), id, more)))
	}
	for _, more := range []string{"", `, "prefixlen": 65`, `, "prefixlen": 66`, `, "prefixlen": 66`} {
		if err := six(w.project, more); err != nil {
			t.Errorf("%s within the quota of 2: %v", more, err)
		}
	}
	w.Refused(six(w.project, `, "prefixlen": 66`), fault.Conflict, "SubnetPoolQuotaExceeded", exceeded)
	if err := six(w.As("project2"), ""); err != nil {
		t.Errorf("another project's quota: %v", err)
	}

	w = newWorld(t, "[QUOTAS]\nquota_subnetpool = 1\n")
	w.pool(`"prefixes": ["10.0.0.0/8"]`)
	w.Refused(last(w.project.TryCreate("subnetpool", `{"name": "x", "prefixes": ["11.0.0.0/8"]}`)), fault.Conflict, "OverQuota", "Quota exceeded for resources: ['subnetpool'].")
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, "")
	create := func(members string) error {
		return last(w.project.TryCreate("subnetpool", "%s", `{"name": "x", `+members+`}`))
	}
	empty := w.pool(`"prefixes": ["10.9.0.0/16"]`)
	id := w.pool(`"prefixes": ["10.0.0.0/16"], "min_prefixlen": 20, "max_prefixlen": 24, "default_prefixlen": 22`)
	from := fmt.Sprintf(`"subnetpool_id": %q`, id)
	held := w.mustTake(from)
	mixed := "Cannot mix IPv4 and IPv6 prefixes in a subnet pool."
	illegal := "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes."
	affinity := "Subnets hosted on the same network must be allocated from the same subnet pool."
	beside := func(network, members string) error {
		return last(w.project.TryCreate("subnet", "%s", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, %s}`, network, members)))
	}
	plain := w.network()
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "172.16.0.0/24"}`, plain)
	// Families do not matter to each other.
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "fd01::/64"}`, held.Text("network_id"))
	act := func(action, body string) error { return last(w.project.TryAct("subnetpool", id, action, "%s", body)) }
	for _, c := range []struct {
		name      string
		err       error
		kind      fault.Kind
		typ, text string
	}{
		{"no prefixes", create(`"prefixes": []`), fault.Invalid, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list."},
		{"two families", create(`"prefixes": ["10.0.0.0/8", "fd00::/48"]`), fault.Invalid, "PrefixVersionMismatch", mixed},
		{"prefixes missing", create(`"shared": false`), fault.Invalid, "HTTPBadRequest", ""},
		{"read-only family", create(`"prefixes": ["10.0.0.0/8"], "ip_version": 4`), fault.Invalid, "HTTPBadRequest", "Attribute 'ip_version' not allowed in POST"},
		{"min above max", create(`"prefixes": ["10.0.0.0/8"], "min_prefixlen": 25, "max_prefixlen": 24`), fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: min_prefixlen=25, max_prefixlen=24."},
		{"max above the family's", create(`"prefixes": ["10.0.0.0/8"], "max_prefixlen": 33`), fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: max_prefixlen=33, ip_version_max=32."},
		{"default below min", create(`"prefixes": ["10.0.0.0/8"], "default_prefixlen": 7`), fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: default_prefixlen=7, min_prefixlen=8."},
		{"default above max", create(`"prefixes": ["10.0.0.0/8"], "default_prefixlen": 25, "max_prefixlen": 24`), fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: default_prefixlen=25, max_prefixlen=24."},
		{"lengths beyond numbers", create(`"prefixes": ["10.0.0.0/8"], "max_prefixlen": 99999999999999999999`), fault.Invalid, "IllegalSubnetPoolPrefixBounds", ""},
		{"shrinking", last(w.project.TryUpdate("subnetpool", id, `{"prefixes": ["10.0.0.0/17"]}`)), fault.Invalid, "IllegalSubnetPoolPrefixUpdate", illegal},
		{"another family", last(w.project.TryUpdate("subnetpool", id, `{"prefixes": ["fd00::/48"]}`)), fault.Invalid, "PrefixVersionMismatch", mixed},
		{"update's bounds", last(w.project.TryUpdate("subnetpool", id, `{"min_prefixlen": 25}`)), fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: min_prefixlen=25, max_prefixlen=24."},
		{"unsharing", last(w.project.TryUpdate("subnetpool", id, `{"shared": false}`)), fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute shared"},
		{"delete in use", w.project.TryDelete("subnetpool", id), fault.Invalid, "SubnetPoolDeleteError", "Unable to delete subnet pool: Subnet pool has existing allocations."},

		{"absent pool", last(w.take(`"subnetpool_id": "` + absent + `"`)), fault.NotFound, "SubnetPoolNotFound", "Subnet pool " + absent + " could not be found."},
		{"two selectors", last(w.take(from + `, "use_default_subnetpool": true`)), fault.Invalid, "BadRequest", "Bad subnets request: subnetpool_id and use_default_subnetpool cannot both be specified."},
		{"cidr and prefixlen", last(w.take(from + `, "cidr": "10.0.8.0/22", "prefixlen": 22`)), fault.Invalid, "BadRequest", "Bad subnets request: cidr and prefixlen must not be supplied together."},
		{"nothing", last(w.take(`"prefixlen": 22`)), fault.Invalid, "BadRequest", "Bad subnets request: a subnetpool must be specified in the absence of a cidr."},
		{"allocation pools", last(w.take(from + `, "allocation_pools": [{"start": "10.0.0.5", "end": "10.0.0.9"}]`)), fault.Invalid, "BadRequest", "Bad subnets request: allocation_pools allowed only for specific subnet requests.."},
		{"other family", last(w.project.TryCreate("subnet", `{"network_id": %q, "ip_version": 6, "subnetpool_id": %q}`, w.network(), id)), fault.Invalid, "BadRequest", "Bad subnets request: Cannot allocate IPv6 subnet from IPv4 subnet pool."},
		{"too long", last(w.take(from + `, "prefixlen": 25`)), fault.Invalid, "MaxPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length 25, maximum allowed prefix is 24."},
		{"too short", last(w.take(from + `, "prefixlen": 19`)), fault.Invalid, "MinPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length 19, minimum allowed prefix is 20."},
		{"CIDR too long", last(w.take(from + `, "cidr": "10.0.8.0/25"`)), fault.Invalid, "MaxPrefixSubnetAllocationError", ""},
		{"CIDR outside", last(w.take(from + `, "cidr": "10.1.0.0/22"`)), fault.Unmapped, "SubnetAllocationError", "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes."},
		{"CIDR taken", last(w.take(from + `, "cidr": "10.0.0.0/24"`)), fault.Unmapped, "SubnetAllocationError", ""},
		{"no room", last(w.take(`"prefixlen": 8, "subnetpool_id": "` + empty + `"`)), fault.Unmapped, "SubnetAllocationError", "Failed to allocate subnet: Insufficient prefix space to allocate subnet size /8."},
		{"beside one of no pool", beside(plain, from), fault.Invalid, "NetworkSubnetPoolAffinityError", affinity},
		{"of no pool beside one", beside(held.Text("network_id"), `"cidr": "172.16.0.0/24"`), fault.Invalid, "NetworkSubnetPoolAffinityError", affinity},
		{"of another pool", beside(held.Text("network_id"), `"prefixlen": 24, "subnetpool_id": "`+empty+`"`), fault.Invalid, "NetworkSubnetPoolAffinityError", affinity},

		{"add nothing", act("add_prefixes", `{"prefixes": []}`), fault.Invalid, "HTTPBadRequest", "Request body contains invalid data"},
		{"add no list", act("add_prefixes", `{"prefixes": "10.0.0.0/8"}`), fault.Invalid, "HTTPBadRequest", "Request body contains invalid data"},
		{"add what is none", act("add_prefixes", `{"prefixes": ["x"]}`), fault.Invalid, "HTTPBadRequest", "Request body contains invalid data"},
		{"add another family", act("add_prefixes", `{"prefixes": ["fd00::/48"]}`), fault.Invalid, "PrefixVersionMismatch", mixed},
		{"remove nothing", act("remove_prefixes", `{}`), fault.Invalid, "HTTPBadRequest", "Request body contains invalid data"},
		{"remove what is used", act("remove_prefixes", `{"prefixes": ["10.0.0.0/24"]}`), fault.Invalid, "IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: One or more of the prefixes to be removed is in use by a subnet."},
		{"remove all", last(w.project.TryAct("subnetpool", empty, "remove_prefixes", `{"prefixes": ["10.0.0.0/8"]}`)), fault.Invalid, "EmptySubnetPoolPrefixList", ""},
		{"act on another's", last(w.As("project2").TryAct("subnetpool", id, "add_prefixes", `{"prefixes": ["10.0.0.0/8"]}`)), fault.NotFound, "SubnetPoolNotFound", ""},
		{"onboard nothing", act("onboard_network_subnets", `{}`), fault.Invalid, "InvalidInput", "Invalid input for operation: network_id must be specified.."},
		{"onboard from an absent network", act("onboard_network_subnets", `{"network_id": "`+absent+`"}`), fault.NotFound, "NetworkNotFound", ""},
		{"onboard twice", act("onboard_network_subnets", `{"network_id": "`+held.Text("network_id")+`"}`), fault.Invalid, "IllegalSubnetPoolUpdate",
			"Illegal subnetpool update : Onboarding subnet " + held.ID() + ": 10.0.0.0/22 conflicts with existing prefixes in subnet pool " + id + "."},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f *fault.Error
			switch {
			case !errors.As(c.err, &f):
				t.Errorf("got %v, want %s: %s", c.err, c.typ, c.text)
			case f.Kind != c.kind || f.Type != c.typ || c.text != "" && f.Message != c.text:
				t.Errorf("got %d %s: %s\nwant %d %s: %s", f.Kind, f.Type, f.Message, c.kind, c.typ, c.text)
			}
		})
	}
}

func TestPrefixOperations(t *testing.T) {
	w := newWorld(t, "")
	id := w.pool(`"prefixes": ["10.0.0.0/24"], "default_prefixlen": 26`)
	begin := w.LastSequence()
	equal(t, "added", w.project.Act("subnetpool", id, "add_prefixes", `{"prefixes": ["10.0.1.0/24", "10.0.4.0/24"]}`).JSON("prefixes"), `["10.0.0.0/23","10.0.4.0/24"]`)
	equal(t, "taken", w.mustTake(fmt.Sprintf(`"subnetpool_id": %q, "cidr": "10.0.1.0/24"`, id)).Text("cidr"), "10.0.1.0/24")
	equal(t, "removed", w.project.Act("subnetpool", id, "remove_prefixes", `{"prefixes": ["10.0.4.0/25", "172.16.0.0/12", "10.0.0.0/24", "fd00::/48"]}`).JSON("prefixes"), `["10.0.1.0/24","10.0.4.128/25"]`)
	equal(t, "stored", members(w.project.Get("subnetpool", id), "prefixes", "revision_number"), `prefixes=["10.0.1.0/24","10.0.4.128/25"] revision_number=2`)
	var changes int
	for _, e := range w.Events(begin, map[string]string{id: "POOL"}) {
		if e == "update subnetpool POOL" {
			changes++
		}
	}
	if changes != 2 {
		t.Errorf("%d events of the pool, want 2", changes)
	}
}

func TestOnboarding(t *testing.T) {
	w := newWorld(t, "")
	id := w.pool(`"prefixes": ["10.0.0.0/24"]`)
	network := w.network()
	a := w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.1.0/24"}`, network).ID()
	b := w.project.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "192.168.0.0/24"}`, network).ID()
	w.project.Create("subnet", `{"network_id": %q, "ip_version": 6, "cidr": "fd00::/64"}`, network)
	begin := w.LastSequence()
	var answer []map[string]string
	for _, action := range w.Registry.Named("subnetpool").Actions {
		if action.Name != "onboard_network_subnets" {
			continue
		}
		v, err := action.Do(w.project.Context(), id, map[string]any{"network_id": network})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]string{id: "POOL", a: "A", b: "B", network: "NETWORK"}
	list := map[string]string{}
	for _, o := range answer {
		list[names[o["id"]]] = o["cidr"]
	}
	equal(t, "answer", fmt.Sprint(list), "map[A:10.0.1.0/24 B:192.168.0.0/24]")
	equal(t, "pool", w.project.Get("subnetpool", id).JSON("prefixes"), `["10.0.0.0/23","192.168.0.0/24"]`)
	equal(t, "subnet", w.project.Get("subnet", a).Text("subnetpool_id"), id)
	events := strings.Join(w.Events(begin, names), ", ")
	for _, want := range []string{"update subnetpool POOL", "update subnet A", "update subnet B", "update network NETWORK"} {
		if !strings.Contains(events, want) {
			t.Errorf("events %s lack %s", events, want)
		}
	}
	w.Refused(last(w.take(fmt.Sprintf(`"subnetpool_id": %q, "cidr": "10.0.1.0/24"`, id))), fault.Unmapped, "SubnetAllocationError", "")

	others := w.admin.Create("network", `{"shared": true}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.7.0.0/24"}`, others)
	w.Refused(last(w.project.TryAct("subnetpool", id, "onboard_network_subnets", `{"network_id": %q}`, others)), fault.Forbidden, "NotAuthorized", "Not authorized.")
}

// TestNeverOverlap lets many clients allocate and release at once, and looks at
// what the database has in between.
func TestNeverOverlap(t *testing.T) {
	w := newWorld(t, "[QUOTAS]\nquota_subnet = -1\nquota_network = -1\n")
	id := w.pool(`"prefixes": ["10.0.0.0/20", "10.1.0.0/22", "192.168.7.0/24"], "min_prefixlen": 20, "default_prefixlen": 26`)
	const clients, rounds = 32, 12
	var group sync.WaitGroup
	var mu sync.Mutex
	taken := map[netip.Prefix]string{} // by subnet id: what clients hold
	for i := range clients {
		network := w.network()
		group.Add(1)
		go func() {
			defer group.Done()
			r := rand.New(rand.NewPCG(uint64(i), 7))
			var mine []exttest.Object
			for range rounds {
				if len(mine) > 0 && r.IntN(3) == 0 {
					o := mine[r.IntN(len(mine))]
					mine = without(mine, o)
					mu.Lock()
					delete(taken, netip.MustParsePrefix(o.Text("cidr")))
					mu.Unlock()
					if err := w.project.TryDelete("subnet", o.ID()); err != nil {
						t.Errorf("delete: %v", err)
					}
					continue
				}
				members := fmt.Sprintf(`"prefixlen": %d`, 24+r.IntN(7))
				if r.IntN(4) == 0 {
					members = fmt.Sprintf(`"cidr": "10.0.%d.%d/28"`, r.IntN(16), r.IntN(16)*16)
				}
				o, err := w.project.TryCreate("subnet", "%s", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, "subnetpool_id": %q, %s}`, network, id, members))
				if fault.Is(err, "SubnetAllocationError") {
					continue
				}
				if err != nil {
					t.Errorf("create %s: %v", members, err)
					continue
				}
				mine = append(mine, o)
				p := netip.MustParsePrefix(o.Text("cidr"))
				mu.Lock()
				for q := range taken {
					if q.Overlaps(p) {
						t.Errorf("%s was given while %s is held", p, q)
					}
				}
				taken[p] = o.ID()
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	rows := w.Rows(1, "SELECT cidr FROM subnet WHERE subnetpool_id = ?", id)
	if len(rows) != len(taken) || len(rows) < clients {
		t.Errorf("%d subnets are stored, clients hold %d", len(rows), len(taken))
	}
	for i, a := range rows {
		p := netip.MustParsePrefix(a[0].(string))
		if !netip.MustParsePrefix("10.0.0.0/20").Contains(p.Addr()) && !netip.MustParsePrefix("10.1.0.0/22").Contains(p.Addr()) && !netip.MustParsePrefix("192.168.7.0/24").Contains(p.Addr()) {
			t.Errorf("%s is not of the pool", p)
		}
		for _, b := range rows[:i] {
			if p.Overlaps(netip.MustParsePrefix(b[0].(string))) {
				t.Errorf("%s overlaps %s", p, b[0])
			}
		}
	}
	t.Logf("%d subnets are held in the end", len(rows))
}

func without(list []exttest.Object, o exttest.Object) []exttest.Object {
	var rest []exttest.Object
	for _, x := range list {
		if x.ID() != o.ID() {
			rest = append(rest, x)
		}
	}
	return rest
}

// TestDeleteRaces: a pool goes, or a subnet is made of it, never both.
func TestDeleteRaces(t *testing.T) {
	w := newWorld(t, "")
	for range 20 {
		id, network := w.pool(`"prefixes": ["10.0.0.0/16"], "default_prefixlen": 24`), w.network()
		var group sync.WaitGroup
		var made, gone error
		group.Add(2)
		go func() {
			defer group.Done()
			made = last(w.project.TryCreate("subnet", `{"network_id": %q, "ip_version": 4, "subnetpool_id": %q}`, network, id))
		}()
		go func() {
			defer group.Done()
			gone = w.project.TryDelete("subnetpool", id)
		}()
		group.Wait()
		switch {
		case made == nil:
			w.Refused(gone, fault.Invalid, "SubnetPoolDeleteError", "")
		default:
			w.Refused(made, fault.NotFound, "SubnetPoolNotFound", "")
			if gone != nil {
				t.Errorf("neither: %v, %v", made, gone)
			}
		}
	}
}
