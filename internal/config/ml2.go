package config

// Networks of types, and who binds ports to them.
var (
	ML2TypeDrivers = Strings("ml2", "type_drivers", []string{"local", "flat", "vlan", "gre", "vxlan", "geneve"},
		"Network types that are known.")
	ML2TenantNetworkTypes = Strings("ml2", "project_network_types", []string{"local"},
		"Types that are tried, in order, for networks that are created without provider attributes.",
		Deprecated("ml2", "tenant_network_types"))
	ML2MechanismDrivers = Strings("ml2", "mechanism_drivers", []string{"openvswitch"},
		"Drivers that bind ports, in order of preference. Neutron's default is none.",
		WithoutEffect("l2population", forwarding))
	ML2PathMTU = Int("ml2", "path_mtu", 0,
		"Upper bound of the MTU of tunnelled networks, with their overhead; 0 is global_physnet_mtu.", Min(0))
	ML2PhysicalNetworkMTUs = Map("ml2", "physical_network_mtus", nil,
		"MTU by physical network, where it differs from global_physnet_mtu.",
		Formed(&Form{"an MTU", numberText(0, 65535)}))
	ML2ExternalNetworkType = String("ml2", "external_network_type", "",
		"Type of external networks that are created without provider attributes; empty is as other networks.")
	ML2OverlayIPVersion = Int("ml2", "overlay_ip_version", 4,
		"IP version of tunnel endpoints, which decides the overhead of tunnels.", Choices("4", "6"))

	ML2TunnelledProvider = String("ml2", "tunnelled_network_rp_name", "rp_tunnelled",
		"Name that stands for the tunnels of a host in resource_provider_bandwidths and in Placement; the same on the server and all hosts. "+
			"Empty: bandwidth is promised on networks with a physical network only.")

	ML2FlatNetworks = Strings("ml2_type_flat", "flat_networks", []string{"*"},
		"Physical networks of flat networks; * is any.")
	ML2VLANRanges = Strings("ml2_type_vlan", "network_vlan_ranges", nil,
		"Physical networks of VLAN networks, each with the range from which projects get VLAN ids: physical_network:low:high, or physical_network for none.",
		Formed(vlanRange))
	ML2VXLANVNIRanges = Strings("ml2_type_vxlan", "vni_ranges", nil,
		"Ranges low:high of VXLAN network identifiers.", Formed(vniRange))
	ML2GeneveVNIRanges = Strings("ml2_type_geneve", "vni_ranges", nil,
		"Ranges low:high of Geneve network identifiers.", Formed(vniRange))
	ML2GeneveMaxHeaderSize = Int("ml2_type_geneve", "max_header_size", 30,
		"Size of Geneve's header with its options, in octets; it lowers the MTU of Geneve networks.", Min(0), Max(260))
	ML2GRETunnelIDRanges = Strings("ml2_type_gre", "tunnel_id_ranges", nil,
		"Ranges low:high of GRE keys.", Formed(greRange))

	EnableSecurityGroup = Bool("securitygroup", "enable_security_group", true,
		"Apply security groups to ports. Without it they are stored only.")
	FirewallDriver = String("securitygroup", "firewall_driver", "",
		"Kept for Neutron's files. Security groups are OpenFlow with connection tracking (openvswitch) whatever the driver, except noop, which applies none.")
	PermittedEthertypes = Strings("securitygroup", "permitted_ethertypes", nil,
		"Ethertypes in hexadecimal, such as 0x4008, that ports may send and receive besides IP and ARP.",
		Formed(&Form{"an Ethertype", ethertype}))
)
