package rbac_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const (
	one    = "11111111-1111-4111-8111-111111111111"
	two    = "22222222-2222-4222-8222-222222222222"
	three  = "33333333-3333-4333-8333-333333333333"
	absent = "00000000-0000-4000-8000-000000000000"
)

func last[T any](_ T, err error) error { return err }

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// world is a core with an owner of objects, two other projects and an administrator.
type world struct {
	*exttest.Core
	t                        *testing.T
	owner, two, three, admin *exttest.Client
}

func newWorld(t *testing.T, config string) *world {
	w := &world{Core: exttest.New(t, exttest.Options{Config: config}), t: t}
	w.owner, w.two, w.three, w.admin = w.As(one), w.As(two), w.As(three), w.Admin()
	return w
}

func try(c *exttest.Client, objectType, id, action, target string) (exttest.Object, error) {
	return c.TryCreate("rbac_policy", `{"object_type": %q, "object_id": %q, "action": %q, "target_tenant": %q}`, objectType, id, action, target)
}

// open makes an entry of the owner's.
func (w *world) open(objectType, id, target string) string {
	w.t.Helper()
	o, err := try(w.owner, objectType, id, "access_as_shared", target)
	if err != nil {
		w.t.Fatal(err)
	}
	return o.ID()
}

// external opens a network of the owner's as an external one.
func (w *world) external(id, target string) string {
	w.t.Helper()
	o, err := try(w.owner, "network", id, "access_as_external", target)
	if err != nil {
		w.t.Fatal(err)
	}
	return o.ID()
}

func (w *world) inUse(err error, object, details string) {
	w.t.Helper()
	w.Refused(err, fault.Conflict, "RbacPolicyInUse", "RBAC policy on object "+object+" cannot be removed because other objects depend on it.\nDetails: "+details)
}

func TestLifeOfAPolicy(t *testing.T) {
	w := newWorld(t, "")
	network := w.owner.Create("network", `{}`).ID()
	begin := w.LastSequence()
	p := w.owner.Create("rbac_policy", `{"object_type": "Network", "object_id": %q, "action": "access_as_shared", "target_tenant": %q}`, network, two)
	id := p.ID()
	equal(t, "created", fmt.Sprint(map[string]any(p)), "map[action:access_as_shared id:"+id+" object_id:"+network+" object_type:network project_id:"+one+" target_tenant:"+two+" tenant_id:"+one+"]")
	equal(t, "row", fmt.Sprint(w.Rows(5, "SELECT project_id, object_type, object_id, action, target_project FROM rbac_policy")), fmt.Sprintf("[[%s network %s access_as_shared %s]]", one, network, two))
	equal(t, "shared with its target", w.two.Get("network", network).JSON("shared"), "true")
	equal(t, "not with its owner", w.owner.Get("network", network).JSON("shared"), "false")
	w.Refused(last(w.three.TryGet("network", network)), fault.NotFound, "NetworkNotFound", "")
	equal(t, "moved", w.owner.Update("rbac_policy", id, `{"target_tenant": %q}`, three).Text("target_tenant"), three)
	w.Refused(last(w.two.TryGet("network", network)), fault.NotFound, "NetworkNotFound", "")
	w.three.Get("network", network)
	if n := len(w.owner.List("rbac_policy", "target_tenant", three)); n != 1 {
		t.Errorf("%d entries for the target", n)
	}
	if n := len(w.three.List("rbac_policy")); n != 0 {
		t.Errorf("the target lists %d entries", n)
	}
	w.Refused(last(w.three.TryGet("rbac_policy", id)), fault.NotFound, "RbacPolicyNotFound", "RBAC policy of type unknown with ID "+id+" not found")
	w.owner.Delete("rbac_policy", id)
	w.Refused(last(w.three.TryGet("network", network)), fault.NotFound, "NetworkNotFound", "")
	equal(t, "events", strings.Join(w.Events(begin, map[string]string{id: "P", network: "N"}), ", "),
		"create rbac_policy P, update network N, update rbac_policy P, update network N, delete rbac_policy P, update network N")
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, "")
	network := w.owner.Create("network", `{}`).ID()
	pool := w.owner.Create("subnetpool", `{"name": "p", "prefixes": ["10.0.0.0/8"]}`).ID()
	entry := w.open("network", network, two)
	other := w.open("network", network, three)
	w.open("subnetpool", pool, two)
	duplicate := "An RBAC policy already exists with those values."
	for _, c := range []struct {
		name      string
		err       error
		kind      fault.Kind
		typ, text string
	}{
		{"unknown type", last(try(w.owner, "port", network, "access_as_shared", two)), fault.Invalid, "InvalidInput", "Invalid input for operation: 'port' is not a valid RBAC object type."},
		{"action of a network", last(try(w.owner, "network", network, "x", two)), fault.Invalid, "InvalidActionForType", "Invalid action 'x' for object type 'network'. Valid actions: ('access_as_shared', 'access_as_external')"},
		{"action of a pool", last(try(w.owner, "subnetpool", pool, "access_as_external", two)), fault.Invalid, "InvalidActionForType", "Invalid action 'access_as_external' for object type 'subnetpool'. Valid actions: ('access_as_shared',)"},
		{"target", last(try(w.owner, "network", network, "access_as_shared", "x")), fault.Invalid, "InvalidInput", "Invalid input for operation: 'x' is not a valid target project ID; expected a UUID or '*'."},
		{"absent object", last(try(w.owner, "network", absent, "access_as_shared", two)), fault.NotFound, "NetworkNotFound", ""},
		{"hidden object", last(try(w.As(absent), "network", network, "access_as_shared", two)), fault.NotFound, "NetworkNotFound", ""},
		{"another's network", last(try(w.two, "network", network, "access_as_shared", absent)), fault.Invalid, "InvalidInput", "Invalid input for operation: Only admins can manipulate policies on networks they do not own."},
		{"another's pool", last(try(w.two, "subnetpool", pool, "access_as_shared", absent)), fault.Invalid, "InvalidInput", "Invalid input for operation: Only admins can manipulate policies on objects they do not own."},
		{"twice", last(try(w.owner, "network", network, "access_as_shared", two)), fault.Conflict, "DuplicateRbacPolicy", duplicate},
		{"twice by update", last(w.owner.TryUpdate("rbac_policy", entry, `{"target_tenant": %q}`, three)), fault.Conflict, "DuplicateRbacPolicy", duplicate},
		{"update of the action", last(w.owner.TryUpdate("rbac_policy", other, `{"action": "access_as_external"}`)), fault.Invalid, "HTTPBadRequest", "Cannot update read-only attribute action"},
		{"delete of another's", w.two.TryDelete("rbac_policy", entry), fault.NotFound, "RbacPolicyNotFound", ""},
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
	w.admin.Create("rbac_policy", `{"object_type": "network", "object_id": %q, "action": "access_as_shared", "target_tenant": "*"}`, network)
	equal(t, "shared with all", w.owner.Get("network", network).JSON("shared"), "true")
	if n := len(w.As(absent).List("network", "shared", "true")); n != 1 {
		t.Errorf("%d shared networks", n)
	}
}

func TestQuota(t *testing.T) {
	w := newWorld(t, "[QUOTAS]\nquota_rbac_policy = 1\n")
	network := w.owner.Create("network", `{}`).ID()
	w.open("network", network, two)
	w.Refused(last(try(w.owner, "network", network, "access_as_shared", three)), fault.Conflict, "OverQuota", "Quota exceeded for resources: ['rbac_policy'].")
}

func TestNetworkInUse(t *testing.T) {
	w := newWorld(t, "")
	network := w.owner.Create("network", `{}`).ID()
	used := "Unable to reconfigure sharing settings for network " + network + ". Multiple projects are using it."
	entry := w.open("network", network, two)
	p := w.two.Create("port", `{"network_id": %q}`, network).ID()
	w.owner.Create("port", `{"network_id": %q}`, network)
	w.inUse(w.owner.TryDelete("rbac_policy", entry), network, used)
	w.inUse(last(w.owner.TryUpdate("rbac_policy", entry, `{"target_tenant": %q}`, three)), network, used)
	w.owner.Update("rbac_policy", entry, `{"target_tenant": %q}`, two) // nothing changes
	all := w.open("network", network, "*")
	w.owner.Delete("rbac_policy", entry)
	w.inUse(w.owner.TryDelete("rbac_policy", all), network, used)
	w.inUse(last(w.owner.TryUpdate("rbac_policy", all, `{"target_tenant": %q}`, three)), network, used)
	w.owner.Update("rbac_policy", all, `{"target_tenant": %q}`, two)
	w.two.Delete("port", p)
	w.owner.Delete("rbac_policy", all)
}

func TestExternalNetworks(t *testing.T) {
	w := newWorld(t, "")
	network := w.owner.Create("network", `{}`).ID()
	w.owner.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24"}`, network)
	forTwo := w.external(network, two)
	equal(t, "external", w.owner.Get("network", network).JSON("router:external"), "true")
	equal(t, "for its target", w.two.Get("network", network).JSON("router:external")+w.two.Get("network", network).JSON("shared"), "truefalse")
	w.Refused(last(w.three.TryGet("network", network)), fault.NotFound, "NetworkNotFound", "")
	forThree := w.external(network, three)
	w.owner.Delete("rbac_policy", forThree)
	equal(t, "external by the other entry", w.owner.Get("network", network).JSON("router:external"), "true")

	routers := "There are routers attached to this network that depend on this policy for access."
	router := w.two.Create("router", `{"external_gateway_info": {"network_id": %q}}`, network).ID()
	w.inUse(w.owner.TryDelete("rbac_policy", forTwo), network, routers)
	all := w.external(network, "*")
	w.owner.Delete("rbac_policy", forTwo)
	w.inUse(w.owner.TryDelete("rbac_policy", all), network, routers)
	w.inUse(last(w.owner.TryUpdate("rbac_policy", all, `{"target_tenant": %q}`, three)), network, routers)
	w.two.Delete("router", router)

	// The owner's routers need no entry for them, but an external network.
	own := w.owner.Create("router", `{"external_gateway_info": {"network_id": %q}}`, network).ID()
	w.owner.Update("rbac_policy", all, `{"target_tenant": %q}`, one)
	w.inUse(w.owner.TryDelete("rbac_policy", all), network, routers)
	w.owner.Delete("router", own)
	begin := w.LastSequence()
	w.owner.Delete("rbac_policy", all)
	equal(t, "internal", w.owner.Get("network", network).JSON("router:external"), "false")
	equal(t, "events", strings.Join(w.Events(begin, map[string]string{all: "P", network: "N"}), ", "), "delete rbac_policy P, update network N")

	// All entries go with the attribute.
	w.external(network, two)
	w.external(network, three)
	w.admin.Update("network", network, `{"router:external": false}`)
	equal(t, "entries", fmt.Sprint(w.Rows(1, "SELECT id FROM rbac_policy")), "[]")
	w.admin.Update("network", network, `{"router:external": true, "is_default": true}`)
	entry := w.Rows(1, "SELECT id FROM rbac_policy")[0][0].(string)
	w.inUse(w.owner.TryDelete("rbac_policy", entry), network, "Default external networks must be shared to everyone.")
}

func TestPoolsAndScopes(t *testing.T) {
	w := newWorld(t, "")
	scope := w.owner.Create("address_scope", `{"name": "s", "ip_version": 4}`).ID()
	pool := w.owner.Create("subnetpool", `{"name": "p", "prefixes": ["10.0.0.0/8"], "default_prefixlen": 24, "address_scope_id": %q}`, scope).ID()
	w.Refused(last(try(w.owner, "subnetpool", pool, "access_as_shared", two)), fault.Invalid, "InvalidInput",
		"Invalid input for operation: Failed to create RBAC policy on object "+pool+" because the address scope "+scope+" of the subnet pool is not shared with project "+two+".")
	ofScope := w.open("address_scope", scope, two)
	ofPool := w.open("subnetpool", pool, two)
	equal(t, "pool", w.two.Get("subnetpool", pool).JSON("shared"), "true")
	equal(t, "scope", w.two.Get("address_scope", scope).JSON("shared"), "true")
	w.Refused(last(w.owner.TryUpdate("rbac_policy", ofPool, `{"target_tenant": %q}`, three)), fault.Invalid, "InvalidInput", "")

	network := w.two.Create("network", `{}`).ID()
	w.two.Create("subnet", `{"network_id": %q, "ip_version": 4, "subnetpool_id": %q}`, network, pool)
	w.inUse(w.owner.TryDelete("rbac_policy", ofPool), pool, "project_id="+two)
	w.two.Create("subnetpool", `{"name": "q", "prefixes": ["11.0.0.0/8"], "address_scope_id": %q}`, scope)
	w.inUse(w.owner.TryDelete("rbac_policy", ofScope), scope, "project_id="+two)
	w.open("address_scope", scope, "*")
	w.owner.Delete("rbac_policy", ofScope)
	all := w.open("subnetpool", pool, "*")
	w.owner.Delete("rbac_policy", ofPool)
	if n := len(w.three.List("subnetpool", "shared", "true")); n != 1 {
		t.Errorf("%d shared pools", n)
	}
	w.inUse(w.owner.TryDelete("rbac_policy", all), pool, "project_id=*")
	w.two.Delete("network", network)
	w.owner.Delete("rbac_policy", all)
	if n := len(w.owner.List("subnetpool", "shared", "true")); n != 0 {
		t.Errorf("%d shared pools are left", n)
	}
}

func TestSecurityGroups(t *testing.T) {
	w := newWorld(t, "")
	group := w.owner.Create("security_group", `{"name": "g"}`).ID()
	w.Refused(last(w.two.TryGet("security_group", group)), fault.NotFound, "SecurityGroupNotFound", "")
	entry := w.open("security_group", group, two)
	shown := w.two.Get("security_group", group)
	equal(t, "shared", shown.JSON("shared")+w.owner.Get("security_group", group).JSON("shared"), "truefalse")
	if n := len(w.two.List("security_group_rule", "security_group_id", group)); n != 2 {
		t.Errorf("%d rules are seen", n)
	}
	network := w.two.Create("network", `{}`).ID()
	p := w.two.Create("port", `{"network_id": %q, "security_groups": [%q]}`, network, group).ID()
	w.Refused(last(w.two.TryCreate("security_group_rule", `{"security_group_id": %q, "direction": "ingress"}`, group)), fault.Forbidden, "NotAuthorized", "Not authorized.")
	w.inUse(w.owner.TryDelete("rbac_policy", entry), group, "project_id="+two)
	w.two.Delete("port", p)
	w.owner.Delete("rbac_policy", entry)
	w.Refused(last(w.two.TryCreate("port", `{"network_id": %q, "security_groups": [%q]}`, network, group)), fault.NotFound, "SecurityGroupNotFound", "")
	w.open("security_group", group, "*")
	if n := len(w.three.List("security_group", "shared", "true")); n != 1 {
		t.Errorf("%d shared groups", n)
	}
	w.owner.Delete("security_group", group)
	equal(t, "entries", fmt.Sprint(w.Rows(1, "SELECT id FROM rbac_policy")), "[]")

	addresses := w.owner.Create("address_group", `{"name": "a", "addresses": ["10.0.0.0/8"]}`).ID()
	entry = w.open("address_group", addresses, two)
	own := w.two.Create("security_group", `{"name": "own"}`).ID()
	rule := w.two.Create("security_group_rule", `{"security_group_id": %q, "direction": "ingress", "remote_address_group_id": %q}`, own, addresses).ID()
	w.inUse(w.owner.TryDelete("rbac_policy", entry), addresses, "project_id="+two)
	w.two.Delete("security_group_rule", rule)
	w.owner.Delete("rbac_policy", entry)
}

// TestRaces: a port of the target is made, or its access goes, never both.
func TestRaces(t *testing.T) {
	w := newWorld(t, "[QUOTAS]\nquota_network = -1\nquota_rbac_policy = -1\n")
	for range 20 {
		network := w.owner.Create("network", `{}`).ID()
		entry := w.open("network", network, two)
		var group sync.WaitGroup
		var made, gone error
		group.Add(2)
		go func() {
			defer group.Done()
			made = last(w.two.TryCreate("port", `{"network_id": %q}`, network))
		}()
		go func() {
			defer group.Done()
			gone = w.owner.TryDelete("rbac_policy", entry)
		}()
		group.Wait()
		if made == nil {
			w.Refused(gone, fault.Conflict, "RbacPolicyInUse", "")
		} else {
			w.Refused(made, fault.NotFound, "NetworkNotFound", "")
			if gone != nil {
				t.Errorf("neither: %v, %v", made, gone)
			}
		}
	}
}

// TestOnlyOnce: of many equal entries one is made.
func TestOnlyOnce(t *testing.T) {
	w := newWorld(t, "[QUOTAS]\nquota_rbac_policy = -1\n")
	network := w.owner.Create("network", `{}`).ID()
	errs := make([]error, 32)
	var group sync.WaitGroup
	for i := range errs {
		group.Add(1)
		go func() {
			defer group.Done()
			errs[i] = last(try(w.owner, "network", network, "access_as_shared", two))
		}()
	}
	group.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			w.Refused(err, fault.Conflict, "DuplicateRbacPolicy", "")
		}
	}
	if made != 1 {
		t.Errorf("%d entries were made", made)
	}
}
