package server_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"isospin/internal/config"
	"isospin/internal/server"
)

// TestConfigurationsRefused: the server does not start with configurations with
// which Neutron's does not, and names the option that is to be mended.
func TestConfigurationsRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"ExternalDNSDriverNotFound":         {"[DEFAULT]\nexternal_dns_driver = nonsense", "external_dns_driver"},
		"InvalidPTRZoneConfiguration":       {"[DEFAULT]\nexternal_dns_driver = designate\n[designate]\nurl = http://192.0.2.1:9001/v2\nauth_url = http://192.0.2.1/identity\nusername = u\npassword = p\nallow_reverse_dns_lookup = true\nipv4_ptr_zone_prefix_size = 23", "ipv4_ptr_zone_prefix_size"},
		"InvalidPTRZoneConfiguration, most": {"[DEFAULT]\nexternal_dns_driver = designate\n[designate]\nurl = http://192.0.2.1:9001/v2\nauth_url = http://192.0.2.1/identity\nusername = u\npassword = p\nallow_reverse_dns_lookup = true\nipv6_ptr_zone_prefix_size = 128", "ipv6_ptr_zone_prefix_size"},
		"HANetworkCIDRNotValid":             {"[DEFAULT]\nl3_ha_net_cidr = 169.254.192.0/40", "l3_ha_net_cidr"},
		"Invalid service provider format":   {"[service_providers]\nservice_provider = nonsense", "service_provider"},
		"Last part should be 'default'":     {"[service_providers]\nservice_provider = L3_ROUTER_NAT:a:x.y:nonsense", "service_provider"},
		"Provider name is limited":          {"[service_providers]\nservice_provider = L3_ROUTER_NAT:" + strings.Repeat("a", 256) + ":x.y", "service_provider"},
		"Multiple default providers":        {"[service_providers]\nservice_provider = L3_ROUTER_NAT:a:x.y:default\nservice_provider = L3_ROUTER_NAT:b:x.z:default", "service_provider"},
		"Driver is not unique":              {"[service_providers]\nservice_provider = L3_ROUTER_NAT:a:x.y\nservice_provider = L3_ROUTER_NAT:b:x.y", "service_provider"},
		"Multiple providers specified":      {"[service_providers]\nservice_provider = L3_ROUTER_NAT:a:x.y\nservice_provider = L3_ROUTER_NAT:a:x.z", "service_provider"},
		"PhysicalNetworkNameError":          {"[ml2_type_vlan]\nnetwork_vlan_ranges = :1:2", "network_vlan_ranges"},
		"a mechanism driver":                {"[ml2]\nmechanism_drivers = nonsense", "mechanism_drivers"},
		"a type driver":                     {"[ml2]\ntype_drivers = nonsense", "type_drivers"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg, err := config.FromText(fmt.Sprintf("[DEFAULT]\nauth_strategy = noauth\nbind_host = 127.0.0.1\nbind_port = 0\nstate_path = %s\n[database]\nconnection = sqlite:///%s\n[isospin]\nfeed_listen = unix:%s\n%s\n",
				dir, filepath.Join(dir, "n.sqlite"), filepath.Join(dir, "s"), c.text))
			if err == nil {
				_, err = server.New(t.Context(), server.Options{Config: cfg, Logger: slog.New(slog.DiscardHandler)})
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s\nstarts: %v; want words on %s", c.text, err, c.want)
			}
		})
	}
}
