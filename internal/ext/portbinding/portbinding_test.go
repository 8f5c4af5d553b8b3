package portbinding_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const activate = "/ports/{port_id}/bindings/{host}/activate"

type world struct {
	*exttest.Core
	admin *exttest.Client
	port  string
}

func newWorld(t *testing.T) *world {
	w := &world{Core: exttest.New(t, exttest.Options{})}
	for _, host := range []string{"host1", "host2", "host3"} {
		w.Host(host, exttest.HostOptions{})
	}
	w.admin = w.Admin()
	network := w.admin.Create("network", `{"name": "n"}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, network)
	w.port = w.admin.Create("port", `{"network_id": %q, "device_owner": "compute:nova", "device_id": "vm", "binding:host_id": "host1"}`, network).ID()
	// Another port, that has to learn where the first goes.
	w.admin.Create("port", `{"network_id": %q, "device_owner": "compute:nova", "binding:host_id": "host3"}`, network)
	return w
}

// here are the hosts that have the port in their views.
func (w *world) here() string {
	var list []string
	for _, host := range []string{"host1", "host2", "host3"} {
		if w.View(host, message.Kind_KIND_PORT)[w.port] != nil {
			list = append(list, host)
		}
	}
	return fmt.Sprint(list)
}

// A port leaves its host and arrives at the next in one commit, and not before.
func TestActivationMovesThePort(t *testing.T) {
	w := newWorld(t)
	streams := []*exttest.Stream{w.Attach("host1"), w.Attach("host2"), w.Attach("host3")}
	w.admin.In(w.port).Create("binding", `{"host": "host2"}`)
	if got := w.here(); got != "[host1]" {
		t.Errorf("the port is on %s while its binding waits", got)
	}
	before := w.LastSequence()
	w.admin.Call("PUT", activate, []string{w.port, "host2"}, "")
	if got := w.here(); got != "[host2]" {
		t.Errorf("the port is on %s after the activation", got)
	}
	for _, s := range streams {
		s.Agrees()
	}
	events := w.Events(before, map[string]string{w.port: "port"})
	if !slices.Equal(events, []string{"update port port"}) {
		t.Errorf("events of the activation: %v", events)
	}
	var tunnel string
	for _, o := range w.View("host3", message.Kind_KIND_FORWARDING) {
		for _, e := range o.GetForwarding().Entries {
			if e.PortId == w.port {
				tunnel = e.TunnelIp
			}
		}
	}
	if tunnel != "192.0.2.2" {
		t.Errorf("the third host finds the port behind %q", tunnel)
	}
}

// What the former host says of the port it had is not of the binding that is now.
func TestReportsOfTheFormerHost(t *testing.T) {
	w := newWorld(t)
	revision := func() int64 {
		return w.View(w.admin.Get("port", w.port).Text("binding:host_id"), message.Kind_KIND_PORT)[w.port].GetPort().Revision
	}
	w.admin.In(w.port).Create("binding", `{"host": "host2"}`)
	first := revision()
	w.admin.Call("PUT", activate, []string{w.port, "host2"}, "")
	report := func(host string, revision int64, state message.State) string {
		w.Report(host,
			&message.Applied{Kind: message.Kind_KIND_PORT, Id: w.port, Revision: revision, AgentType: "Open vSwitch agent", State: state},
			&message.Applied{Kind: message.Kind_KIND_PORT, Id: w.port, Revision: revision, AgentType: "DHCP agent", State: state})
		return w.admin.Get("port", w.port).Text("status")
	}
	if got := report("host1", first, message.State_STATE_ACTIVE); got != "DOWN" {
		t.Errorf("status %s by the former host's word", got)
	}
	if got := report("host2", first, message.State_STATE_ACTIVE); got != "DOWN" {
		t.Errorf("status %s by a word about the former binding", got)
	}
	if got := report("host2", revision(), message.State_STATE_ACTIVE); got != "ACTIVE" {
		t.Errorf("status %s by the host that has it", got)
	}
}

// Of two that activate at once, one is told that it is done.
func TestConcurrentActivation(t *testing.T) {
	w := newWorld(t)
	w.admin.In(w.port).Create("binding", `{"host": "host2"}`)
	errs := make([]error, 4)
	var all sync.WaitGroup
	for i := range errs {
		all.Add(1)
		go func() {
			defer all.Done()
			_, errs[i] = w.admin.TryCall("PUT", activate, []string{w.port, "host2"}, "")
		}()
	}
	all.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else {
			w.Refused(err, fault.Conflict, "PortBindingAlreadyActive", "Binding for port "+w.port+" on host host2 is already active.")
		}
	}
	if done != 1 {
		t.Errorf("%d activations succeeded", done)
	}
	if rows := w.Rows(2, "SELECT host, vif_type FROM port_binding"); fmt.Sprint(rows) != "[[host1 unbound]]" {
		t.Errorf("inactive bindings: %v", rows)
	}
}

// The bindings of a port go with it, and a host that cannot take it leaves no trace.
func TestRowsGo(t *testing.T) {
	w := newWorld(t)
	w.admin.In(w.port).Create("binding", `{"host": "host2"}`)
	_, err := w.admin.In(w.port).TryCreate("binding", `{"host": "nowhere"}`)
	w.Refused(err, fault.Unmapped, "PortBindingError", "Binding for port "+w.port+" on host nowhere could not be created or updated.")
	if rows := w.Rows(1, "SELECT COUNT(*) FROM port_binding"); fmt.Sprint(rows) != "[[1]]" {
		t.Errorf("%v bindings", rows)
	}
	w.admin.Delete("port", w.port)
	if rows := w.Rows(1, "SELECT COUNT(*) FROM port_binding"); fmt.Sprint(rows) != "[[0]]" {
		t.Errorf("%v bindings are left", rows)
	}
}

// The transmit steering of a hint reaches the host.
func TestHintsReachTheHost(t *testing.T) {
	w := newWorld(t)
	w.admin.Update("port", w.port, `{"hints": {"openvswitch": {"other_config": {"tx-steering": "hash"}}}}`)
	if got := w.View("host1", message.Kind_KIND_PORT)[w.port].GetPort().TxSteering; got != "hash" {
		t.Errorf("the host is told of steering %q", got)
	}
	w.admin.Update("port", w.port, `{"hints": null}`)
	if got := w.View("host1", message.Kind_KIND_PORT)[w.port].GetPort().TxSteering; got != "" {
		t.Errorf("the host is told of steering %q", got)
	}
}
