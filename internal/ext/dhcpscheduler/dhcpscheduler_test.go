package dhcpscheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

const (
	networksOf = "/agents/{agent_id}/dhcp-networks"
	oneOf      = "/agents/{agent_id}/dhcp-networks/{network_id}"
	agentsOf   = "/networks/{network_id}/dhcp-agents"
)

type world struct {
	*exttest.Core
	t       *testing.T
	admin   *exttest.Client
	agents  map[string]string // host → its DHCP agent
	network string
}

func newWorld(t *testing.T, config string) *world {
	w := &world{Core: exttest.New(t, exttest.Options{Config: config}), t: t, agents: map[string]string{}}
	w.admin = w.Admin()
	for _, host := range []string{"host1", "host2", "host3"} {
		w.agents[host] = w.Host(host, exttest.HostOptions{Zone: "zone-of-" + host})["DHCP agent"]
	}
	w.network = w.admin.Create("network", `{"name": "n"}`).ID()
	return w
}

func (w *world) subnet() {
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24"}`, w.network)
}

func (w *world) port(host string) string {
	return w.admin.Create("port", `{"network_id": %q, "binding:host_id": %q}`, w.network, host).ID()
}

// hosts that serve the network, as both sides say.
func (w *world) hosts() string {
	w.t.Helper()
	hosts := []string{}
	for _, a := range w.admin.Call("GET", agentsOf, []string{w.network}, "")["agents"].([]any) {
		a := a.(map[string]any)
		if a["agent_type"] != "DHCP agent" || a["alive"] != true || a["admin_state_up"] == nil {
			w.t.Errorf("agent is %v", a)
		}
		hosts = append(hosts, a["host"].(string))
	}
	for host, id := range w.agents {
		found := false
		for _, n := range w.admin.Call("GET", networksOf, []string{id}, "")["networks"].([]any) {
			n := n.(map[string]any)
			found = found || n["id"] == w.network && n["name"] == "n"
		}
		if found != slices.Contains(hosts, host) {
			w.t.Errorf("the network's agents are of %v; that the agent of %s has the network is %v", hosts, host, found)
		}
	}
	return fmt.Sprint(hosts)
}

func (w *world) serve(want string) {
	w.t.Helper()
	if have := w.hosts(); have != want {
		w.t.Errorf("hosts are %s, want %s", have, want)
	}
}

func (w *world) add(host string) error {
	_, err := w.admin.TryCall("POST", networksOf, []string{w.agents[host]}, `{"network_id": %q}`, w.network)
	return err
}

func (w *world) remove(host string) error {
	_, err := w.admin.TryCall("DELETE", oneOf, []string{w.agents[host], w.network}, "")
	return err
}

// The agents of hosts with ports serve a network, and nobody can change that.
func TestHostsWithPorts(t *testing.T) {
	w := newWorld(t, "")
	first := w.port("host1")
	w.serve("[]") // no subnet, no DHCP
	w.subnet()
	w.serve("[host1]")
	w.port("host3")
	w.serve("[host1 host3]")
	w.Refused(w.add("host3"), fault.Conflict, "NetworkHostedByDHCPAgent", "The network "+w.network+" has been already hosted by the DHCP Agent "+w.agents["host3"]+".")
	w.Refused(w.remove("host1"), fault.Conflict, "NetworkInUse", "Unable to complete operation on network "+w.network+". Its ports on host host1 are served by the DHCP agent there.")
	w.Refused(w.remove("host2"), fault.Conflict, "NetworkNotHostedByDhcpAgent", "The network "+w.network+" is not hosted by the DHCP Agent "+w.agents["host2"]+".")
	w.admin.Delete("port", first)
	w.serve("[host3]")
}

// The DHCP port is there, and active, with the first port that has an address
// that DHCP hands out, wherever the port may run later; but not where nobody
// answers DHCP.
func TestDHCPPort(t *testing.T) {
	ports := func(w *world) string {
		return fmt.Sprint(w.Rows(2, "SELECT status, vif_type FROM port WHERE network_id = ? AND device_owner = 'network:dhcp'", w.network))
	}
	w := newWorld(t, "")
	w.port("") // no address
	w.subnet()
	if have := ports(w); have != "[]" {
		t.Errorf("DHCP ports are %s before there is somebody to answer", have)
	}
	for range 2 {
		w.port("")
		if have := ports(w); have != "[[ACTIVE distributed]]" {
			t.Errorf("DHCP ports are %s", have)
		}
	}
	w.serve(w.hosts())
	w.network = w.admin.Create("network", `{"name": "n"}`).ID()
	w.admin.Create("subnet", `{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "enable_dhcp": false}`, w.network)
	w.port("")
	if have := ports(w); have != "[]" {
		t.Errorf("DHCP ports are %s without DHCP", have)
	}

	w = &world{Core: exttest.New(t, exttest.Options{}), t: t}
	w.admin = w.Admin()
	w.network = w.admin.Create("network", `{"name": "n"}`).ID()
	w.subnet()
	w.port("")
	if have := ports(w); have != "[]" {
		t.Errorf("DHCP ports are %s without a host", have)
	}
}

// What administrators choose is shown until they choose otherwise.
func TestChoice(t *testing.T) {
	w := newWorld(t, "")
	for range 2 {
		if err := w.add("host2"); err != nil {
			t.Fatal(err)
		}
		w.serve("[host2]")
		w.Refused(w.add("host2"), fault.Conflict, "NetworkHostedByDHCPAgent", "")
		if err := w.remove("host2"); err != nil {
			t.Fatal(err)
		}
		w.serve("[]")
		w.Refused(w.remove("host2"), fault.Conflict, "NetworkNotHostedByDhcpAgent", "")
	}
	if err := w.add("host2"); err != nil {
		t.Fatal(err)
	}
	w.subnet()
	w.port("host1")
	w.serve("[host1 host2]")
	w.admin.Delete("agent", w.agents["host2"])
	delete(w.agents, "host2")
	w.serve("[host1]")
	if rows := w.Rows(1, "SELECT COUNT(*) FROM dhcp_choice"); fmt.Sprint(rows) != "[[0]]" {
		t.Errorf("%v choices are left", rows)
	}
}

// A network that waits for its first port has one agent, always the same, and
// another when this is refused.
func TestIdleNetwork(t *testing.T) {
	w := newWorld(t, "")
	w.serve("[]")
	w.subnet()
	first := w.hosts()
	host := strings.Trim(first, "[]")
	if w.agents[host] == "" {
		t.Fatalf("hosts are %s", first)
	}
	w.serve(first)
	w.Refused(w.add(host), fault.Conflict, "NetworkHostedByDHCPAgent", "")
	if err := w.remove(host); err != nil {
		t.Fatal(err)
	}
	second := w.hosts()
	if second == first || w.agents[strings.Trim(second, "[]")] == "" {
		t.Errorf("hosts are %s, then %s", first, second)
	}
	if err := w.add(host); err != nil {
		t.Fatal(err)
	}
	w.serve(first)
	if err := w.remove(host); err != nil {
		t.Fatal(err)
	}
	w.serve(second)
	w.port(host) // who has ports has the network, whatever was said
	w.serve(first)
}

func TestIdleNetworkOfAZone(t *testing.T) {
	w := newWorld(t, "[DEFAULT]\ndefault_availability_zones = zone-of-host1\n")
	w.subnet()
	w.serve("[host1]")
	w.network = w.admin.Create("network", `{"name": "n", "availability_zone_hints": ["zone-of-host3"]}`).ID()
	w.subnet()
	w.serve("[host3]")
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, "")
	other := w.Host("host4", exttest.HostOptions{})["L3 agent"]
	if list := w.admin.Call("GET", networksOf, []string{other}, "").JSON("networks"); list != "[]" {
		t.Errorf("an L3 agent has networks: %s", list)
	}
	w.agents["l3"] = other
	w.Refused(w.add("l3"), fault.NotFound, "InvalidDHCPAgent", "Agent "+other+" is not a valid DHCP Agent or has been disabled.")
	w.Refused(w.remove("l3"), fault.Conflict, "NetworkNotHostedByDhcpAgent", "")
	w.admin.Update("agent", w.agents["host1"], `{"admin_state_up": false}`)
	w.Refused(w.add("host1"), fault.NotFound, "InvalidDHCPAgent", "Agent "+w.agents["host1"]+" is not a valid DHCP Agent or has been disabled.")
	const nobody = "00000000-0000-4000-8000-000000000000"
	w.agents["nobody"] = nobody
	w.Refused(w.add("nobody"), fault.NotFound, "AgentNotFound", "Agent "+nobody+" could not be found.")
	w.Refused(w.remove("nobody"), fault.NotFound, "AgentNotFound", "")
	_, err := w.admin.TryCall("GET", networksOf, []string{nobody}, "")
	w.Refused(err, fault.NotFound, "AgentNotFound", "")
	_, err = w.admin.TryCall("POST", networksOf, []string{w.agents["host2"]}, `{}`)
	w.Refused(err, fault.Invalid, "HTTPBadRequest", "Invalid input for network_id. Reason: 'None' is not a valid UUID.")
	_, err = w.admin.TryCall("GET", agentsOf, []string{nobody}, "")
	w.Refused(err, fault.NotFound, "NetworkNotFound", "Network "+nobody+" could not be found.")
	w.network = nobody
	w.Refused(w.add("host2"), fault.NotFound, "NetworkNotFound", "")
}
