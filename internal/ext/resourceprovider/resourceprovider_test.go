package resourceprovider_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"isospin/internal/core/agent"
	"isospin/internal/ext/exttest"
	"isospin/internal/notify/placement"
	"isospin/internal/notify/placement/placementtest"
	"isospin/internal/store"
)

const configurations = `{"bridge_mappings": {"physnet1": "br-ex"}, "resource_provider_bandwidths": {"br-ex": {"egress": %d, "ingress": null}},
	"resource_provider_hypervisors": {"br-ex": "h1.example"}, "resource_provider_inventory_defaults": {"reserved": 0}}`

// reports has the agent of a host say what it has.
func reports(t *testing.T, k *exttest.Core, host, configurations string, fresh bool) (id string) {
	t.Helper()
	if err := k.Store.Tx(k.Admin().Context(), func(tx *store.Tx) error {
		a, err := k.Agents.Report(k.Admin().Context(), tx, &agent.Agent{Host: host, AgentType: agent.OpenVSwitch, Binary: "b", Topic: "t", Configurations: json.RawMessage(configurations)}, fresh)
		if err == nil {
			id = a.ID
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return id
}

// until waits until a condition holds, and does something each time before.
func until(t *testing.T, what string, do func(), holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(exttest.Deadline)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
		if do != nil {
			do()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// What agents say gets to Placement; they show whether it did.
func TestSynced(t *testing.T) {
	p := placementtest.New(t, "h1.example")
	k := exttest.New(t, exttest.Options{Config: p.Config()})
	admin := k.Admin()
	id := reports(t, k, "h1", fmt.Sprintf(configurations, 1000), true)
	without := reports(t, k, "h2", `{"resource_provider_bandwidths": {}}`, true)
	shows := func(id, want string) func() bool {
		return func() bool { return admin.Get("agent", id).JSON("resources_synced") == want }
	}
	total := func(want float64) func() bool {
		return func() bool {
			have, _ := p.Provider(placement.DeviceProvider("h1.example", "br-ex"))
			return have.Inventories["NET_BW_EGR_KILOBIT_PER_SEC"]["total"] == want
		}
	}
	until(t, "first report", nil, shows(id, "true"))
	if !total(1000)() {
		t.Error("the bandwidth is not there")
	}
	// An agent that starts again says the same: nothing is written.
	reads, writes := len(p.Requests()), len(p.Writes())
	until(t, "restart", func() {
		reports(t, k, "h1", fmt.Sprintf(configurations, 1000), true)
	}, func() bool { return len(p.Requests()) > reads })
	if got := p.Writes()[writes:]; len(got) != 0 {
		t.Errorf("writes %v", got)
	}
	// Placement is away when the bandwidth changes, and comes back.
	p.Away(true)
	reports(t, k, "h1", fmt.Sprintf(configurations, 2000), false)
	until(t, "failure", nil, shows(id, "false"))
	p.Away(false)
	beat := func() {
		if err := k.Store.Tx(admin.Context(), func(tx *store.Tx) error { return k.Agents.Beat(admin.Context(), tx, "h1") }); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "heartbeat", beat, shows(id, "true"))
	if !total(2000)() {
		t.Error("the new bandwidth is not there")
	}
	until(t, "no resources", func() {}, func() bool {
		return len(k.Rows(1, "SELECT outcome FROM resource_provider_report WHERE agent_id = ? AND outcome = 'nothing'", without)) == 1
	})
	if !shows(without, "null")() {
		t.Errorf("agent is %v", admin.Get("agent", without))
	}
	// The compute node appears after the agent.
	late := reports(t, k, "h3", `{"resource_provider_packet_processing_without_direction": {"h3": {"any": 5}}}`, true)
	until(t, "no compute node", nil, shows(late, "false"))
	p.Add("h3")
	until(t, "heartbeat", func() {
		if err := k.Store.Tx(admin.Context(), func(tx *store.Tx) error { return k.Agents.Beat(admin.Context(), tx, "h3") }); err != nil {
			t.Fatal(err)
		}
	}, shows(late, "true"))
	admin.Delete("agent", late)
}

// A server without Placement knows nothing of it.
func TestUnconfigured(t *testing.T) {
	k := exttest.New(t, exttest.Options{})
	id := reports(t, k, "h1", fmt.Sprintf(configurations, 1000), true)
	if a := k.Admin().Get("agent", id); a.JSON("resources_synced") != "null" {
		t.Errorf("agent is %v", a)
	}
	if rows := k.Rows(1, "SELECT agent_id FROM resource_provider_report"); len(rows) != 0 {
		t.Errorf("reported: %v", rows)
	}
}
