package l2ovs

import (
	"fmt"
	"strconv"
	"strings"

	"isospin/internal/agent/hostswitch"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/ovs/vswitch"
)

func init() {
	runtime.Register("l2ovs", func(env runtime.Environment) (runtime.Feature, error) {
		o, err := optionsOf(env.Config, env.Host)
		if err != nil {
			return nil, err
		}
		o.Logger = env.Logger
		o.Connect = func() (*vswitch.Client, error) { return hostswitch.Client(env) }
		return New(o)
	})
}

// optionsOf reads Neutron's options of its Open vSwitch agent.
func optionsOf(c *config.Config, host string) (Options, error) {
	o := Options{
		Host:              host,
		Connection:        config.OVSDBConnection.Of(c),
		IntegrationBridge: config.IntegrationBridge.Of(c),
		TunnelBridge:      config.TunnelBridge.Of(c),
		PatchTun:          config.OVSIntPeerPatchPort.Of(c),
		PatchInt:          config.OVSTunPeerPatchPort.Of(c),
		BridgeMappings:    map[string]string{},
		DatapathType:      config.OVSDatapathType.Of(c),
		Unfiltered:        !config.EnableSecurityGroup.Of(c) || noFirewall(config.FirewallDriver.Of(c)),
		Outer: Outer{
			VXLANPort:    config.AgentVXLANUDPPort.Of(c),
			DontFragment: config.AgentDontFragment.Of(c),
			Checksum:     config.AgentTunnelCsum.Of(c),
			DSCP:         config.AgentDSCP.Of(c),
			InheritDSCP:  config.AgentDSCPInherit.Of(c),
		},
		Configurations: map[string]any{"vhostuser_socket_dir": config.OVSVhostuserSocketDir.Of(c)},
	}
	for _, mapping := range config.OVSBridgeMappings.Of(c) {
		physical, bridge, ok := strings.Cut(mapping, ":")
		physical, bridge = strings.TrimSpace(physical), strings.TrimSpace(bridge)
		if _, twice := o.BridgeMappings[physical]; !ok || physical == "" || bridge == "" || twice {
			return o, fmt.Errorf("bridge_mappings: %q", mapping)
		}
		o.BridgeMappings[physical] = bridge
	}
	// Neutron asks for local_ip only when there are tunnel types, and the other way round means no tunnels.
	if kinds := config.AgentTunnelTypes.Of(c); len(kinds) > 0 {
		o.TunnelTypes, o.LocalIP = kinds, config.OVSLocalIP.Of(c)
	}
	for _, text := range config.PermittedEthertypes.Of(c) {
		t, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "0x"), 16, 16)
		if err != nil || t < 0x600 {
			return o, fmt.Errorf("permitted_ethertypes: %q", text)
		}
		o.Ethertypes = append(o.Ethertypes, uint16(t))
	}
	return o, o.placement(c)
}

// noFirewall tells whether the operator has chosen Neutron's driver that does
// nothing.
func noFirewall(driver string) bool {
	return driver == "noop" || strings.HasSuffix(driver, ".NoopFirewallDriver")
}

// placement adds what the server tells Placement of this host's bandwidth.
func (o *Options) placement(c *config.Config) error {
	bandwidths, hypervisors := map[string]any{}, map[string]string{}
	for _, text := range config.OVSResourceProviderBandwidths.Of(c) {
		parts := strings.Split(strings.TrimSpace(text), ":")
		if len(parts) != 3 || parts[0] == "" {
			return fmt.Errorf("resource_provider_bandwidths: %q is not bridge:egress:ingress", text)
		}
		bandwidth := map[string]any{}
		for i, direction := range []string{"egress", "ingress"} {
			if parts[i+1] == "" {
				bandwidth[direction] = nil // not limited
				continue
			}
			kilobits, err := strconv.ParseUint(parts[i+1], 10, 63)
			if err != nil {
				return fmt.Errorf("resource_provider_bandwidths: %q: %s is not a number", text, direction)
			}
			bandwidth[direction] = kilobits
		}
		bandwidths[parts[0]] = bandwidth
	}
	given := config.OVSResourceProviderHypervisors.Of(c)
	for bridge := range bandwidths {
		hypervisors[bridge] = o.Host
		if h := given[bridge]; h != "" {
			hypervisors[bridge] = h
		}
	}
	defaults := map[string]any{}
	for key, text := range config.OVSResourceProviderInventoryDefaults.Of(c) {
		if n, err := strconv.Atoi(text); err == nil {
			defaults[key] = n
		} else if f, err := strconv.ParseFloat(text, 64); err == nil {
			defaults[key] = f
		} else {
			return fmt.Errorf("resource_provider_inventory_defaults: %s is not a number: %q", key, text)
		}
	}
	o.Configurations["resource_provider_bandwidths"] = bandwidths
	o.Configurations["resource_provider_hypervisors"] = hypervisors
	o.Configurations["resource_provider_inventory_defaults"] = defaults
	return nil
}
