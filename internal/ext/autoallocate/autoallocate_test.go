package autoallocate_test

import (
	"context"
	"sync"
	"testing"

	"isospin/internal/core/port"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

const path = "/auto-allocated-topology/{project_id}"

func newWorld(t *testing.T, config string) *exttest.Core {
	k := exttest.New(t, exttest.Options{Config: config})
	admin := k.Admin()
	external := admin.Create("network", `{"name": "ext", "router:external": true, "is_default": true}`).ID()
	admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "192.0.2.0/24"}`, external)
	admin.Create("subnetpool", `{"name": "four", "prefixes": ["10.0.0.0/16"], "default_prefixlen": 26, "is_default": true, "shared": true}`)
	admin.Create("subnetpool", `{"name": "six", "prefixes": ["fd00::/48"], "default_prefixlen": 64, "is_default": true, "shared": true}`)
	return k
}

func topology(t *testing.T, o exttest.Object) string {
	t.Helper()
	inner, _ := o["auto_allocated_topology"].(map[string]any)
	id, _ := inner["id"].(string)
	if id == "" {
		t.Errorf("answer is %v", o)
	}
	return id
}

// counted compares how many networks, subnets and routers a project has.
func counted(t *testing.T, c *exttest.Client, networks, subnets, routers int) {
	t.Helper()
	for name, want := range map[string]int{"network": networks, "subnet": subnets, "router": routers} {
		if have := len(c.List(name, "tenant_id", "p")); have != want {
			t.Errorf("the project has %d of %s, want %d", have, name, want)
		}
	}
}

// TestOnceAtOnce: calls at once share one topology, and none goes beyond the
// quota of one network.
func TestOnceAtOnce(t *testing.T) {
	k := newWorld(t, "[quotas]\nquota_network = 1\nquota_router = 1\nquota_subnet = 2\n")
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			o, err := k.As("p").TryCall("GET", path, []string{"p"}, "")
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = topology(t, o)
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("there are several topologies: %v", ids)
		}
	}
	p := k.As("p")
	counted(t, p, 1, 2, 1)
	if n := p.Get("network", ids[0]); n["admin_state_up"] != true {
		t.Errorf("the network is down: %v", n)
	}
	p.Call("DELETE", path, []string{"p"}, "")
	counted(t, p, 0, 0, 0)
}

// TestAnotherServerWins: what another server noted meanwhile stays, and ours goes.
func TestAnotherServerWins(t *testing.T) {
	k := newWorld(t, "")
	p := k.As("p")
	theirs := p.Create("network", `{"name": "theirs"}`).ID()
	var once sync.Once
	k.Ports.BeforeCreate = append(k.Ports.BeforeCreate, func(_ context.Context, tx *store.Tx, _ *port.Port, _ *resource.Body) (err error) {
		once.Do(func() {
			_, err = tx.Exec("INSERT INTO auto_allocated_topology (project_id, network_id) VALUES ('p', ?)", theirs)
		})
		return err
	})
	if got := topology(t, p.Call("GET", path, []string{"p"}, "")); got != theirs {
		t.Errorf("the topology is %s, want that of the other server, %s", got, theirs)
	}
	counted(t, p, 1, 0, 0)
	p.Delete("network", theirs)
	if got := topology(t, p.Call("GET", path, []string{"p"}, "")); got == theirs {
		t.Error("a topology without its network is still one")
	}
}

// TestNothingStays: a topology that cannot be whole leaves nothing behind.
func TestNothingStays(t *testing.T) {
	for _, c := range []struct{ name, config, typ string }{
		{"quota of routers", "[quotas]\nquota_router = 0\n", "OverQuota"},
		{"quota of subnets", "[quotas]\nquota_subnet = 1\n", "OverQuota"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := exttest.New(t, exttest.Options{Config: c.config})
			admin := k.Admin()
			external := admin.Create("network", `{"name": "ext", "router:external": true, "is_default": true}`).ID()
			admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "192.0.2.0/24"}`, external)
			admin.Create("subnetpool", `{"name": "four", "prefixes": ["10.0.0.0/16"], "default_prefixlen": 26, "is_default": true, "shared": true}`)
			admin.Create("subnetpool", `{"name": "six", "prefixes": ["fd00::/48"], "default_prefixlen": 64, "is_default": true, "shared": true}`)
			p := k.As("p")
			_, err := p.TryCall("GET", path, []string{"p"}, "")
			k.Refused(err, fault.Conflict, c.typ, "")
			counted(t, p, 0, 0, 0)
		})
	}
}
