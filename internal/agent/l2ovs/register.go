package l2ovs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

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
		LogRate:        config.NetworkLogRate.Of(c),
		LogBurst:       config.NetworkLogBurst.Of(c),
		LogFile:        config.NetworkLogFile.Of(c),
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

// placement adds what the server tells Placement of this host's bandwidth and packet rates.
func (o *Options) placement(c *config.Config) error {
	bandwidths, err := ratesOf("resource_provider_bandwidths", config.OVSResourceProviderBandwidths.Of(c), "egress", "ingress")
	if err != nil {
		return err
	}
	undirected, err := ratesOf("resource_provider_packet_processing_without_direction", config.OVSResourceProviderPacketRates.Of(c), "any")
	if err != nil {
		return err
	}
	directed, err := ratesOf("resource_provider_packet_processing_with_direction", config.OVSResourceProviderDirectedPacketRates.Of(c), "egress", "ingress")
	if err != nil {
		return err
	}
	if len(undirected) > 0 && len(directed) > 0 {
		return errors.New("resource_provider_packet_processing_without_direction, resource_provider_packet_processing_with_direction: only one of them may be set")
	}
	hypervisors := map[string]string{}
	if len(bandwidths)+len(undirected)+len(directed) > 0 {
		hypervisor := config.OVSResourceProviderDefaultHypervisor.Of(c)
		if hypervisor == "" {
			hypervisor = canonical(o.Host)
		}
		given := config.OVSResourceProviderHypervisors.Of(c)
		bridges := slices.Collect(maps.Values(o.BridgeMappings))
		for bridge := range bandwidths {
			if !slices.Contains(bridges, bridge) && (bridge == "" || bridge != config.ML2TunnelledProvider.Of(c)) {
				return fmt.Errorf("resource_provider_bandwidths: %q is neither a bridge of bridge_mappings nor tunnelled_network_rp_name", bridge)
			}
			hypervisors[bridge] = cmp.Or(given[bridge], hypervisor)
		}
		for _, rates := range []map[string]map[string]any{undirected, directed} {
			if unnamed, ok := rates[""]; ok {
				if _, twice := rates[hypervisor]; twice {
					return fmt.Errorf("resource_provider_packet_processing: hypervisor %s has two rates", hypervisor)
				}
				delete(rates, "")
				rates[hypervisor] = unnamed
			}
		}
	}
	o.Configurations["resource_provider_bandwidths"] = bandwidths
	o.Configurations["resource_provider_packet_processing_without_direction"] = undirected
	o.Configurations["resource_provider_packet_processing_with_direction"] = directed
	o.Configurations["resource_provider_hypervisors"] = hypervisors
	for name, option := range map[string]*config.Option[map[string]string]{
		"resource_provider_inventory_defaults":                   config.OVSResourceProviderInventoryDefaults,
		"resource_provider_packet_processing_inventory_defaults": config.OVSResourceProviderPacketInventoryDefaults,
	} {
		if o.Configurations[name], err = inventory(name, option.Of(c)); err != nil {
			return err
		}
	}
	return nil
}

// ratesOf reads a list of name:rate:…, one rate for each direction; nil: no rate.
func ratesOf(option string, list []string, directions ...string) (map[string]map[string]any, error) {
	all := map[string]map[string]any{}
	for _, text := range list {
		parts := strings.Split(strings.TrimSpace(text), ":")
		if len(parts) == 1 {
			parts = append(parts, make([]string, len(directions))...)
		}
		if _, twice := all[parts[0]]; twice || len(parts) != len(directions)+1 {
			return nil, fmt.Errorf("%s: %q", option, text)
		}
		one := map[string]any{}
		for i, direction := range directions {
			if parts[i+1] == "" {
				one[direction] = nil
				continue
			}
			n, err := strconv.ParseUint(parts[i+1], 10, 63)
			if err != nil {
				return nil, fmt.Errorf("%s: %q: %s is not a number", option, text, direction)
			}
			one[direction] = n
		}
		all[parts[0]] = one
	}
	return all, nil
}

// inventory reads defaults of inventories.
func inventory(option string, given map[string]string) (map[string]any, error) {
	defaults := map[string]any{}
	for key, text := range given {
		switch key {
		case "allocation_ratio":
			f, err := strconv.ParseFloat(text, 64)
			if err != nil || !(f >= 0) || f > math.MaxFloat32 {
				return nil, fmt.Errorf("%s: %s is not a number: %q", option, key, text)
			}
			defaults[key] = f
		case "min_unit", "max_unit", "reserved", "step_size":
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				return nil, fmt.Errorf("%s: %s is not a number: %q", option, key, text)
			}
			defaults[key] = n
		default:
			return nil, fmt.Errorf("%s: there is no %q", option, key)
		}
	}
	return defaults, nil
}

// canonical is the name by which Nova knows a host if that is this machine:
// libvirt takes the canonical one. Another name was given by the operator, who
// means it.
func canonical(host string) string {
	machine, err := os.Hostname()
	if err != nil || host != machine || strings.Contains(machine, ".") || strings.HasPrefix(machine, "localhost") {
		return host
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	name, err := net.DefaultResolver.LookupCNAME(ctx, machine)
	if name = strings.TrimSuffix(name, "."); err != nil || name == "" || strings.HasPrefix(name, "localhost") {
		return host
	}
	return name
}
