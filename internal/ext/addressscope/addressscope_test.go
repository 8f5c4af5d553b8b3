package addressscope_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"isospin/internal/core/rbac"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/store"
)

const absent = "00000000-0000-4000-8000-000000000000"

func last[T any](_ T, err error) error { return err }

type world struct {
	*exttest.Core
	t              *testing.T
	project, admin *exttest.Client
}

func newWorld(t *testing.T) *world {
	w := &world{Core: exttest.New(t, exttest.Options{}), t: t}
	w.project, w.admin = w.As("project1"), w.Admin()
	return w
}

func (w *world) scope(version int) string {
	w.t.Helper()
	return w.project.Create("address_scope", `{"name": "s", "ip_version": %d}`, version).ID()
}

// tryPool makes a pool of one prefix in a scope ("": none).
func (w *world) tryPool(c *exttest.Client, prefix, scope string) (exttest.Object, error) {
	in := "null"
	if scope != "" {
		in = `"` + scope + `"`
	}
	return c.TryCreate("subnetpool", `{"name": "p", "prefixes": [%q], "address_scope_id": %s}`, prefix, in)
}

func (w *world) pool(prefix, scope string) string {
	w.t.Helper()
	o, err := w.tryPool(w.project, prefix, scope)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := o.Text("address_scope_id"); got != scope {
		w.t.Errorf("address_scope_id is %q, want %q", got, scope)
	}
	return o.ID()
}

// grant opens an object to a project, as RBAC policies do.
func (w *world) grant(objectType, id, target string) {
	w.t.Helper()
	if err := w.Store.Tx(context.Background(), func(tx *store.Tx) error {
		return rbac.Grant(context.Background(), tx, objectType, id, "project1", rbac.AccessAsShared, target)
	}); err != nil {
		w.t.Fatal(err)
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func TestLifeOfAScope(t *testing.T) {
	w := newWorld(t)
	begin := w.LastSequence()
	a := w.project.Create("address_scope", `{"name": "blue", "ip_version": 4}`)
	id := a.ID()
	equal(t, "created", fmt.Sprint(map[string]any(a)), "map[id:"+id+" ip_version:4 name:blue project_id:project1 shared:false tenant_id:project1]")
	equal(t, "updated", w.project.Update("address_scope", id, `{"name": "green"}`).Text("name"), "green")
	w.Refused(last(w.project.TryUpdate("address_scope", id, `{"ip_version": 6}`)), fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute ip_version")
	w.Refused(last(w.project.TryCreate("address_scope", `{"ip_version": 5}`)), fault.Invalid, "HTTPBadRequest", "")
	hidden := w.As("project2")
	w.Refused(last(hidden.TryGet("address_scope", id)), fault.NotFound, "AddressScopeNotFound", "Address scope "+id+" could not be found.")
	equal(t, "shared", w.admin.Update("address_scope", id, `{"shared": true}`).JSON("shared"), "true")
	equal(t, "entry", fmt.Sprint(w.Rows(4, "SELECT project_id, object_type, action, target_project FROM rbac_policy")), "[[project1 address_scope access_as_shared *]]")
	equal(t, "seen by others", hidden.Get("address_scope", id).JSON("shared"), "true")
	if n := len(hidden.List("address_scope", "shared", "true")); n != 1 {
		t.Errorf("%d shared scopes", n)
	}
	w.Refused(last(w.admin.TryUpdate("address_scope", id, `{"shared": false}`)), fault.Invalid, "AddressScopeUpdateError", "Unable to update address scope "+id+" : Shared address scope can't be unshared.")
	w.admin.Update("address_scope", id, `{"shared": true}`)

	pool := w.pool("10.0.0.0/8", id)
	w.Refused(w.project.TryDelete("address_scope", id), fault.Conflict, "AddressScopeInUse", "Unable to complete operation on address scope "+id+". There are one or more subnet pools in use on the address scope.")
	if n := len(w.project.List("subnetpool", "address_scope_id", id)); n != 1 {
		t.Errorf("%d pools of the scope", n)
	}
	w.project.Delete("subnetpool", pool)
	w.project.Delete("address_scope", id)
	equal(t, "entries", fmt.Sprint(w.Rows(1, "SELECT id FROM rbac_policy")), "[]")
	equal(t, "events", strings.Join(w.Events(begin, map[string]string{id: "S", pool: "P"}), ", "),
		"create address_scope S, update address_scope S, update address_scope S, update address_scope S, create subnetpool P, delete subnetpool P, delete address_scope S")
}

func TestPoolsOfAScope(t *testing.T) {
	w := newWorld(t)
	four, six, other := w.scope(4), w.scope(6), w.scope(4)
	a, b := w.pool("10.0.0.0/16", four), w.pool("10.1.0.0/16", four)
	w.pool("10.0.0.0/16", other) // another domain
	conflict := "Failed to associate address scope: subnetpools within an address scope must have unique prefixes."
	w.Refused(last(w.tryPool(w.project, "10.0.7.0/24", four)), fault.Conflict, "AddressScopePrefixConflict", conflict)
	w.Refused(last(w.project.TryUpdate("subnetpool", a, `{"prefixes": ["10.0.0.0/15"]}`)), fault.Conflict, "AddressScopePrefixConflict", conflict)
	w.Refused(last(w.project.TryAct("subnetpool", a, "add_prefixes", `{"prefixes": ["10.1.5.0/24"]}`)), fault.Conflict, "AddressScopePrefixConflict", conflict)
	free := w.pool("10.0.0.0/8", "")
	w.Refused(last(w.project.TryUpdate("subnetpool", free, `{"address_scope_id": %q}`, four)), fault.Conflict, "AddressScopePrefixConflict", conflict)
	w.project.Delete("subnetpool", b)
	w.project.Update("subnetpool", a, `{"prefixes": ["10.0.0.0/15"]}`)

	w.Refused(last(w.project.TryUpdate("subnetpool", free, `{"address_scope_id": %q}`, six)), fault.Invalid, "IllegalSubnetPoolIpVersionAssociationToAddressScope",
		"Illegal subnetpool association: subnetpool "+free+" cannot associate with address scope "+six+" because subnetpool ip_version is not 6.")
	w.Refused(last(w.tryPool(w.project, "172.16.0.0/16", absent)), fault.NotFound, "AddressScopeNotFound", "Address scope "+absent+" could not be found.")
	w.Refused(last(w.tryPool(w.As("project2"), "172.16.0.0/16", four)), fault.NotFound, "AddressScopeNotFound", "")
	equal(t, "taken out", w.project.Update("subnetpool", a, `{"address_scope_id": null}`).JSON("address_scope_id"), "null")
	w.project.Delete("address_scope", four)
}

func TestSharedScopeOfAnotherProject(t *testing.T) {
	w := newWorld(t)
	scope := w.scope(4)
	w.grant("address_scope", scope, "project2")
	member := w.As("project2")
	equal(t, "shared with the caller", member.Get("address_scope", scope).JSON("shared"), "true")
	equal(t, "and not with its own", w.project.Get("address_scope", scope).JSON("shared"), "false")
	p, err := w.tryPool(member, "10.0.0.0/16", scope)
	if err != nil {
		t.Fatal(err)
	}
	w.Refused(last(member.TryUpdate("subnetpool", p.ID(), `{"name": "x"}`)), fault.Invalid, "IllegalSubnetPoolUpdate",
		"Illegal subnetpool update : subnetpool "+p.ID()+" cannot be updated when associated with shared address scope "+scope+".")
	w.admin.Update("subnetpool", p.ID(), `{"name": "x"}`)
	// A pool is open to everybody only when its scope is.
	w.Refused(last(w.admin.TryCreate("subnetpool", `{"name": "p", "prefixes": ["11.0.0.0/8"], "shared": true, "address_scope_id": %q}`, scope)), fault.Invalid, "InvalidInput", "")
}

func TestScopesOfNetworks(t *testing.T) {
	w := newWorld(t)
	four, six, other := w.scope(4), w.scope(6), w.scope(4)
	pool4, more4, pool6 := w.pool("10.0.0.0/16", four), w.pool("10.1.0.0/16", four), w.pool("fd00::/48", six)
	loose, strange := w.pool("10.2.0.0/16", ""), w.pool("10.3.0.0/16", other)
	network := w.project.Create("network", `{}`)
	equal(t, "without subnets", network.JSON("ipv4_address_scope")+network.JSON("ipv6_address_scope"), "nullnull")
	try := func(pool string, version, length int) error {
		return last(w.project.TryCreate("subnet", `{"network_id": %q, "ip_version": %d, "subnetpool_id": %q, "prefixlen": %d}`, network.ID(), version, pool, length))
	}
	for _, err := range []error{try(pool4, 4, 24), try(more4, 4, 24), try(pool6, 6, 64)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	n := w.project.Get("network", network.ID())
	equal(t, "IPv4", n.Text("ipv4_address_scope"), four)
	equal(t, "IPv6", n.Text("ipv6_address_scope"), six)
	listed := w.project.List("network", "id", network.ID())
	equal(t, "in a list", listed[0].Text("ipv4_address_scope"), four)
	affinity := "Subnets of the same address family hosted on the same network must all participate in the same address scope."
	for _, p := range []string{loose, strange} {
		w.Refused(try(p, 4, 24), fault.Invalid, "NetworkAddressScopeAffinityError", affinity)
	}
	w.Refused(last(w.project.TryCreate("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.9.0.0/24"}`, network.ID())), fault.Invalid, "NetworkSubnetPoolAffinityError", "")
	w.Refused(last(w.project.TryUpdate("subnetpool", pool4, `{"address_scope_id": %q}`, other)), fault.Invalid, "NetworkAddressScopeAffinityError", affinity)
	w.Refused(last(w.project.TryUpdate("subnetpool", pool4, `{"address_scope_id": null}`)), fault.Invalid, "NetworkAddressScopeAffinityError", affinity)

	begin := w.LastSequence()
	w.project.Update("subnetpool", pool6, `{"address_scope_id": null}`)
	equal(t, "events", strings.Join(w.Events(begin, map[string]string{pool6: "P", network.ID(): "N"}), ", "), "update subnetpool P, update network N")
	equal(t, "IPv6 later", w.project.Get("network", network.ID()).JSON("ipv6_address_scope"), "null")
}

// TestConcurrentPrefixes: of many pools with the same prefix one gets into the scope.
func TestConcurrentPrefixes(t *testing.T) {
	w := newWorld(t)
	scope := w.scope(4)
	var group sync.WaitGroup
	errs := make([]error, 32)
	for i := range errs {
		group.Add(1)
		go func() {
			defer group.Done()
			_, errs[i] = w.tryPool(w.project, fmt.Sprintf("10.0.%d.0/16", i), scope)
		}()
	}
	group.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			w.Refused(err, fault.Conflict, "AddressScopePrefixConflict", "")
		}
	}
	if made != 1 {
		t.Errorf("%d pools got in", made)
	}
}
