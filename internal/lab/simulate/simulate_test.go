package simulate_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"isospin/internal/lab/simulate"
	"isospin/test/servertest"
)

// TestSimulate shows that ports bound to a simulated host become ACTIVE, that
// its functions are agents, and that the hosts end with their context.
func TestSimulate(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- simulate.Run(ctx, simulate.Options{
			Hosts: 2, NamePrefix: "node-", Servers: []string{"unix:" + s.Feed}, BridgeMappings: map[string]string{"physnet1": "br-phys"},
			Directory: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		})
	}()
	servertest.Eventually(t, "the agents are there", func() bool {
		return len(s.Must(t, 200, "GET", "/agents?alive=true", "")["agents"].([]any)) == 8
	})
	network := s.Must(t, 201, "POST", "/networks", `{"network": {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}}`)["id"].(string)
	s.Must(t, 201, "POST", "/subnets", `{"subnet": {"ip_version": 4, "cidr": "192.0.2.0/24", "network_id": "`+network+`"}}`)
	port := s.Must(t, 201, "POST", "/ports", `{"port": {"binding:host_id": "node-2", "device_owner": "compute:nova", "network_id": "`+network+`"}}`)
	if port["binding:vif_type"] != "ovs" {
		t.Fatalf("not bound: %v", port)
	}
	path := "/ports/" + port["id"].(string)
	status := func() any { return s.Must(t, 200, "GET", path, "")["status"] }
	servertest.Eventually(t, "the port is active", func() bool { return status() == "ACTIVE" })
	s.Must(t, 200, "PUT", path, `{"port": {"admin_state_up": false}}`)
	servertest.Eventually(t, "the port is down", func() bool { return status() == "DOWN" })
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the hosts do not end")
	}
}

func TestRefused(t *testing.T) {
	for _, hosts := range []int{0, -1, 10_001} {
		if err := simulate.Run(t.Context(), simulate.Options{Hosts: hosts, Servers: []string{"unix:/nowhere"}, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%d hosts were accepted", hosts)
		}
	}
}
