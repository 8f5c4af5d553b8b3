// Package simulate runs hosts that have no data path: agents that attach to a
// server over the feed as those of real hosts do, say what they could do, and
// report whatever they are told of as applied. An API with such hosts binds
// ports, schedules routers and turns both ACTIVE, with no kernel to do it in.
//
// Run's are whole agents with the features replaced; a Fleet's are the protocol
// alone, so that thousands fit in one process. Load makes ports for them.
//
// It must not know the server but by the feed and the API, and touches no
// network device.
package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
)

// Options of Run.
type Options struct {
	// Hosts is how many there are, 1 to 10,000. // required
	Hosts int
	// NamePrefix begins their names, the number from 1 ends them. // optional, "simulated-"
	NamePrefix string
	// Servers are where they attach, as in [isospin] feed_server. // required
	Servers []string
	// TLS is needed for https. // optional
	TLS *runtime.TLS
	// BridgeMappings are the physical networks that every host reaches, with
	// the bridge of each. // optional
	BridgeMappings map[string]string
	// Directory, which exists, is where hosts keep their state. // optional, a temporary one
	Directory string
	// Config is what agents read their options of. // optional, defaults
	Config *config.Config
	// ReportInterval is the time between heartbeats. // optional, 30 s
	ReportInterval time.Duration
	// Told is called with all that a host must be, after each change of it. // optional
	Told   func(host string, state *runtime.State)
	Logger *slog.Logger // required
}

// tunnelAddresses are those of the benchmarks of RFC 2544: nobody has them.
var tunnelAddresses = netip.MustParsePrefix("198.18.0.0/15")

const defaultPrefix = "simulated-"

func checkHosts(n int) error {
	if n < 1 || n > 10_000 {
		return fmt.Errorf("simulate: %d hosts; 1 to 10000 can be", n)
	}
	return nil
}

// Run attaches the hosts and serves them until ctx ends; it returns when all
// of them have ended.
func Run(ctx context.Context, o Options) error {
	if err := checkHosts(o.Hosts); err != nil {
		return err
	}
	if o.NamePrefix == "" {
		o.NamePrefix = defaultPrefix
	}
	if o.Config == nil {
		c, err := config.FromText("")
		if err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
		o.Config = c
	}
	if o.Directory == "" {
		dir, err := os.MkdirTemp("", "isospin-simulate-")
		if err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
		defer os.RemoveAll(dir)
		o.Directory = dir
	}
	var agents []*runtime.Agent
	address := tunnelAddresses.Addr()
	for n := range o.Hosts {
		address = address.Next()
		a, err := newAgent(&o, fmt.Sprintf("%s%d", o.NamePrefix, n+1), address)
		if err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
		agents = append(agents, a)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failures := make([]error, len(agents))
	var running sync.WaitGroup
	for i, a := range agents {
		running.Go(func() {
			// One host that cannot go on ends all: a cloud that shrinks by itself is no use.
			defer cancel()
			failures[i] = a.Run(ctx)
		})
	}
	running.Wait()
	return errors.Join(failures...)
}

func newAgent(o *Options, host string, tunnelIP netip.Addr) (*runtime.Agent, error) {
	list := functions(o.BridgeMappings, tunnelIP)
	names, factories := make([]string, 0, len(list)), map[string]runtime.Factory{}
	for _, f := range list {
		names = append(names, f.AgentType)
		factories[f.AgentType] = func(runtime.Environment) (runtime.Feature, error) {
			made := &feature{function: f}
			if o.Told != nil && f.AgentType == switchAgent {
				made.told = func(s *runtime.State) { o.Told(host, s) }
			}
			return made, nil
		}
	}
	return runtime.New(runtime.Options{
		Environment: runtime.Environment{
			Config: o.Config, Host: host, StateDir: filepath.Join(o.Directory, host), Logger: o.Logger.With("host", host),
		},
		Features: names, Factories: factories, Servers: o.Servers, TLS: o.TLS, BinaryVersion: "simulated",
		ReportInterval: o.ReportInterval,
	})
}

// functions are those of a host, under Neutron's names.
func functions(mappings map[string]string, tunnelIP netip.Addr) []*feed.Function {
	if mappings == nil {
		mappings = map[string]string{}
	}
	empty := struct{}{}
	text := func(v map[string]any) string {
		v["log_agent_heartbeats"] = false
		b, err := json.Marshal(v)
		if err != nil { // maps of strings, numbers and maps
			return "{}"
		}
		return string(b)
	}
	return []*feed.Function{
		{AgentType: switchAgent, Binary: "neutron-openvswitch-agent", Topic: "N/A", Configurations: text(map[string]any{
			"bridge_mappings": mappings, "integration_bridge": "br-int",
			"tunnel_types": []string{"vxlan", "gre", "geneve"}, "tunneling_ip": tunnelIP.String(),
			"l2_population": true, "arp_responder_enabled": true, "enable_distributed_routing": false, "in_distributed_mode": false,
			"extensions": []string{}, "datapath_type": "system", "ovs_hybrid_plug": false, "devices": 0, "baremetal_smartnic": false,
			"ovs_capabilities":             map[string]any{"datapath_types": []string{"netdev", "system"}, "iface_types": []string{"geneve", "gre", "internal", "vxlan"}},
			"vhostuser_socket_dir":         "/var/run/openvswitch",
			"resource_provider_bandwidths": empty, "resource_provider_inventory_defaults": empty, "resource_provider_hypervisors": empty,
		})},
		{AgentType: dhcpAgent, Binary: "neutron-dhcp-agent", Topic: "dhcp_agent", AvailabilityZone: "nova", Configurations: text(map[string]any{
			"dhcp_driver": "isospin", "dhcp_lease_duration": 86400, "networks": 0, "subnets": 0, "ports": 0,
		})},
		{AgentType: l3Agent, Binary: "neutron-l3-agent", Topic: "l3_agent", AvailabilityZone: "nova", Configurations: text(map[string]any{
			"agent_mode": "legacy", "handle_internal_only_routers": true, "interface_driver": "openvswitch", "extensions": []string{},
			"routers": 0, "ex_gw_ports": 0, "interfaces": 0, "floating_ips": 0,
		})},
		{AgentType: "Metadata agent", Binary: "neutron-metadata-agent", Topic: "N/A", Configurations: text(map[string]any{
			"metadata_proxy_socket": "", "nova_metadata_host": "127.0.0.1", "nova_metadata_port": 8775,
		})},
	}
}
