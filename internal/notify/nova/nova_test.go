package nova_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/core/subnet"
	"isospin/internal/ext/exttest"
	"isospin/internal/notify"
	"isospin/internal/notify/cloud/cloudtest"
	"isospin/internal/notify/nova"
	"isospin/internal/store"
)

const server = "11111111-1111-4111-8111-111111111111"

type world struct {
	*cloudtest.World
	t       *testing.T
	nova    *cloudtest.Cloud
	admin   *exttest.Client
	network string
	names   *strings.Replacer
}

func taken(cloudtest.Request) (int, string) { return http.StatusOK, `{"events": []}` }

func newWorld(t *testing.T) *world {
	c := cloudtest.New(t, "compute", taken)
	w := &world{World: cloudtest.NewWorld(t, "[DEFAULT]\nhttp_retries = 0\n"+c.Config("nova")), t: t, nova: c}
	w.admin = w.Admin()
	w.Host("host1", exttest.HostOptions{Agents: []string{agent.OpenVSwitch}})
	w.network = w.admin.Create("network", `{}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.network)
	w.names = strings.NewReplacer(server, "SERVER")
	return w
}

func (w *world) consumer() *nova.Consumer {
	w.t.Helper()
	c, err := nova.New(nova.Options{Config: w.Config, Ports: w.Ports, Logger: w.Logger})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) run() func() { return cloudtest.Run(w.World, w.Options("one"), w.consumer()) }

func (w *world) port(name string) string {
	id := w.admin.Create("port", `{"network_id": %q, "name": %q, "device_owner": "compute:nova", "device_id": %q, "binding:host_id": "host1"}`, w.network, name, server).ID()
	w.names = strings.NewReplacer(server, "SERVER", id, name)
	return id
}

func (w *world) report(id string, state message.State) {
	p := w.View("host1", message.Kind_KIND_PORT)[id].GetPort()
	w.Report("host1", &message.Applied{Kind: message.Kind_KIND_PORT, Id: id, Revision: p.Revision, State: state, AgentType: agent.OpenVSwitch})
}

// events that Nova got, in order.
func (w *world) events(requests []cloudtest.Request) []string {
	w.t.Helper()
	var list []string
	for _, r := range requests {
		if r.Method != "POST" || r.Path != "/os-server-external-events" || r.Header.Get("OpenStack-API-Version") != "compute 2.1" {
			w.t.Errorf("Nova got %s %s %v", r.Method, r.Path, r.Header)
		}
		var body struct{ Events []nova.Event }
		if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
			w.t.Errorf("Nova got %s: %v", r.Body, err)
		}
		for _, e := range body.Events {
			list = append(list, w.names.Replace(strings.TrimSpace(fmt.Sprintf("%s %s %s %s", e.Name, e.ServerUUID, e.Tag, e.Status))))
		}
	}
	return list
}

// follows waits until everything was followed, and compares what Nova got.
func (w *world) follows(want ...string) {
	w.t.Helper()
	w.Reached("nova", w.LastSequenceOf("port", "floatingip"))
	if have := w.events(w.nova.Requests()); !slices.Equal(have, want) {
		w.t.Errorf("Nova got\n  %s\nwant\n  %s", strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
}

func (w *world) LastSequenceOf(kinds ...string) int64 {
	rows := w.Rows(1, "SELECT COALESCE(MAX(seq), 0) FROM event WHERE kind IN (?, ?)", kinds[0], kinds[1])
	return rows[0][0].(int64)
}

// The life of an instance's port, one change at a time.
func TestPort(t *testing.T) {
	w := newWorld(t)
	w.run()
	id := w.port("PORT")
	w.report(id, message.State_STATE_ACTIVE)
	want := []string{"network-vif-plugged SERVER PORT completed"}
	w.follows(want...)
	w.report(id, message.State_STATE_DOWN)
	want = append(want, "network-vif-unplugged SERVER PORT completed")
	w.follows(want...)
	w.report(id, message.State_STATE_ERROR)
	want = append(want, "network-vif-plugged SERVER PORT failed")
	w.follows(want...)
	w.admin.Update("port", id, `{"fixed_ips": [{"ip_address": "10.0.0.77"}]}`)
	want = append(want, "network-changed SERVER PORT")
	w.follows(want...)
	w.nova.Revoke() // Keystone's tokens end some day
	w.admin.Delete("port", id)
	want = append(want, "network-vif-deleted SERVER PORT")
	w.follows(want...)
	if rows := w.Rows(1, "SELECT COUNT(*) FROM notification_state"); rows[0][0] != int64(0) {
		t.Errorf("%v objects are remembered", rows[0][0])
	}
}

// A prefix that is delegated to the subnet's router changes the port's addresses.
func TestDelegatedPrefix(t *testing.T) {
	w := newWorld(t)
	w.run()
	n := w.admin.Create("subnet", `{"network_id": %q, "ip_version": 6, "subnetpool_id": "prefix_delegation", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}`, w.network).ID()
	w.report(w.port("PORT"), message.State_STATE_ACTIVE)
	want := []string{"network-vif-plugged SERVER PORT completed"}
	w.follows(want...)
	for _, prefix := range []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64"), subnet.Provisional} {
		if err := w.Store.Tx(t.Context(), func(tx *store.Tx) error {
			o, err := w.Subnets.Load(tx, n)
			if err != nil {
				return err
			}
			return w.Subnets.Delegate(t.Context(), tx, o, prefix)
		}); err != nil {
			t.Fatal(err)
		}
		want = append(want, "network-changed SERVER PORT")
		w.follows(want...)
	}
}

// Ports of others than instances are not Nova's.
func TestOthers(t *testing.T) {
	w := newWorld(t)
	w.run()
	for _, device := range []string{`"device_owner": "compute:nova", "device_id": "not-an-instance"`, `"device_owner": "baremetal:none", "device_id": "` + server + `"`} {
		id := w.admin.Create("port", `{"network_id": %q, "binding:host_id": "host1", `+device+`}`, w.network).ID()
		w.report(id, message.State_STATE_ACTIVE)
		w.admin.Update("port", id, `{"name": "n"}`)
		w.admin.Delete("port", id)
	}
	id := w.port("PORT")
	w.admin.Delete("port", id)
	w.Reached("nova", w.LastSequenceOf("port", "port"))
	w.follows("network-vif-deleted SERVER PORT")
}

func TestFloatingIP(t *testing.T) {
	w := newWorld(t)
	out := w.admin.Create("network", `{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "203.0.113.0/24"}`, out)
	router := w.admin.Create("router", `{"external_gateway_info": {"network_id": %q}}`, out).ID()
	subnet := w.admin.List("subnet", "network_id", w.network)[0].ID()
	w.admin.Act("router", router, "add_router_interface", `{"subnet_id": %q}`, subnet)
	one := w.port("ONE")
	two := w.admin.Create("port", `{"network_id": %q, "device_owner": "compute:nova", "device_id": "22222222-2222-4222-8222-222222222222"}`, w.network).ID()
	w.names = strings.NewReplacer(server, "SERVER1", one, "ONE", "22222222-2222-4222-8222-222222222222", "SERVER2", two, "TWO")
	w.run()
	f := w.admin.Create("floatingip", `{"floating_network_id": %q, "port_id": %q}`, out, one).ID()
	w.follows("network-changed SERVER1 ONE")
	w.admin.Update("floatingip", f, `{"port_id": %q}`, two)
	w.follows("network-changed SERVER1 ONE", "network-changed SERVER1 ONE", "network-changed SERVER2 TWO")
	w.admin.Update("floatingip", f, `{"description": "d"}`)
	w.admin.Delete("floatingip", f)
	w.follows("network-changed SERVER1 ONE", "network-changed SERVER1 ONE", "network-changed SERVER2 TWO", "network-changed SERVER2 TWO")
}

// What happens while Nova is away comes when it is back, in order, in one
// request, without what a deletion made pointless.
func TestAway(t *testing.T) {
	w := newWorld(t)
	w.nova.Answer(func(cloudtest.Request) (int, string) { return http.StatusServiceUnavailable, "" })
	w.run()
	a := w.port("A")
	w.report(a, message.State_STATE_ACTIVE)
	w.nova.Wait(func(r []cloudtest.Request) bool { return len(r) >= 3 })
	b := w.port("B")
	w.report(b, message.State_STATE_ACTIVE)
	w.admin.Delete("port", b)
	w.report(a, message.State_STATE_DOWN)
	w.report(a, message.State_STATE_ACTIVE)
	last := w.LastSequenceOf("port", "port")
	before := make(chan int, 1)
	var first atomic.Bool
	w.nova.Answer(func(cloudtest.Request) (int, string) {
		if first.CompareAndSwap(false, true) {
			before <- 0
		}
		return http.StatusOK, `{"events": []}`
	})
	w.Reached("nova", last)
	var good []cloudtest.Request
	for _, r := range w.nova.Requests() {
		if strings.Contains(r.Body, b) {
			good = append(good, r)
		}
	}
	w.names = strings.NewReplacer(server, "SERVER", a, "A", b, "B")
	want := []string{"network-vif-plugged SERVER A completed", "network-vif-deleted SERVER B", "network-vif-unplugged SERVER A completed", "network-vif-plugged SERVER A completed"}
	if have := w.events(good[len(good)-1:]); !slices.Equal(have, want) {
		t.Errorf("Nova got %q, want %q", have, want)
	}
}

// 404: no such instance. 400: something in the request; what is good in it is
// sent alone. Neither keeps later events back.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	w.nova.Answer(func(r cloudtest.Request) (int, string) {
		if strings.Count(r.Body, "tag") > 1 {
			return http.StatusBadRequest, ""
		}
		return http.StatusNotFound, ""
	})
	c := w.consumer()
	events := []nova.Event{{Name: "network-vif-plugged", ServerUUID: server, Tag: "x"}, {Name: "network-vif-plugged", ServerUUID: server, Tag: "y"}}
	if err := c.Send(t.Context(), events); err != nil {
		t.Error(err)
	}
	w.nova.Answer(func(cloudtest.Request) (int, string) {
		return http.StatusMultiStatus, `{"events": [{"name": "network-vif-plugged", "code": 200}, {"name": "network-vif-plugged", "code": 422}]}`
	})
	if err := c.Send(t.Context(), events); err != nil {
		t.Error(err)
	}
	if have := fmt.Sprintf("%q", w.events(w.nova.Requests())); have != `["network-vif-plugged SERVER x" "network-vif-plugged SERVER y" "network-vif-plugged SERVER x" "network-vif-plugged SERVER y" "network-vif-plugged SERVER x" "network-vif-plugged SERVER y"]` {
		t.Errorf("Nova got %s", have)
	}
}

// A server that ends, or loses its lease, between a delivery and the note of
// it delivers again; nothing is lost, and the next server goes on.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	end := w.run()
	a := w.port("A")
	w.report(a, message.State_STATE_ACTIVE)
	w.follows("network-vif-plugged SERVER A completed")
	end()
	w.report(a, message.State_STATE_DOWN)
	// The cursor stays where it was: as after a crash.
	crash := w.crashing()
	w.nova.Wait(func(r []cloudtest.Request) bool { return len(r) >= 2 })
	crash()
	cloudtest.Run(w.World, w.Options("two"), w.consumer())
	w.follows("network-vif-plugged SERVER A completed", "network-vif-unplugged SERVER A completed", "network-vif-unplugged SERVER A completed")
}

// crashing serves Nova with a holder that another takes the lease from while it sends.
func (w *world) crashing() func() {
	taken := make(chan struct{})
	w.nova.Answer(func(cloudtest.Request) (int, string) {
		<-taken
		return http.StatusOK, `{"events": []}`
	})
	end := make(chan func())
	go func() { end <- cloudtest.Run(w.World, w.Options("crashed"), w.consumer()) }()
	stop := <-end
	w.Seize("nova", "two")
	close(taken)
	return stop
}

// Two servers: one sends.
func TestReplicas(t *testing.T) {
	w := newWorld(t)
	w.run()
	end := cloudtest.Run(w.World, w.Options("other"), w.consumer())
	a := w.port("A")
	w.report(a, message.State_STATE_ACTIVE)
	w.follows("network-vif-plugged SERVER A completed")
	end()
	w.report(a, message.State_STATE_DOWN)
	w.follows("network-vif-plugged SERVER A completed", "network-vif-unplugged SERVER A completed")
}

var _ notify.Consumer[nova.Event] = (*nova.Consumer)(nil)
