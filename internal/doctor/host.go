package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/ovs/ovsdb"
)

// Host returns the checks of a host with an agent, or that is to have one.
func Host(c *config.Config) []Check {
	checks := []Check{
		{"rights", func(context.Context) []Finding { return rights() }},
		{"programs", func(context.Context) []Finding { return programs(c) }},
		{"openvswitch", func(ctx context.Context) []Finding { return openvswitch(ctx, c) }},
		{"kernel", func(ctx context.Context) []Finding { return kernel(ctx, c) }},
		{"tunnels", func(context.Context) []Finding { return tunnels(c) }},
	}
	servers := config.FeedServer.Of(c)
	if slices.ContainsFunc(servers, func(s string) bool { return strings.HasPrefix(s, "https:") }) {
		checks = append(checks, Certificates("certificate", time.Now(), Certificate{
			Option: "[isospin] feed_cert_file, feed_key_file, feed_ca_file", File: config.FeedCertFile.Of(c), Key: config.FeedKeyFile.Of(c),
			Authority: config.FeedCAFile.Of(c), Usage: x509.ExtKeyUsageClientAuth, Host: config.Host.Of(c), Cure: makeCertificate,
		}))
	}
	for _, s := range servers {
		checks = append(checks, Check{"server", func(ctx context.Context) []Finding { return feedServer(ctx, c, s) }})
	}
	return append(checks,
		Directory("state", config.StatePath.Of(c), "make it ([DEFAULT] state_path)"),
		Clock(),
		Rivals("stop and disable it: both would program the same bridges", "neutron-openvswitch-agent", "neutron-l3-agent", "neutron-dhcp-agent", "neutron-metadata-agent", "neutron-linuxbridge-agent", "neutron-ovn-metadata-agent"),
	)
}

func feature(c *config.Config, name string) bool {
	return slices.Contains(config.AgentFeatures.Of(c), name)
}

func rights() []Finding {
	if os.Geteuid() != 0 {
		return bad("run it as root", "the agent must be root, and this is user %d", os.Geteuid())
	}
	var set [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &set[0]); err != nil {
		return note("", "capabilities cannot be read: %v", err)
	}
	var missing []string
	for _, need := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "NET_ADMIN"}, {unix.CAP_NET_RAW, "NET_RAW"}, {unix.CAP_NET_BIND_SERVICE, "NET_BIND_SERVICE"}, {unix.CAP_SYS_ADMIN, "SYS_ADMIN"}, {unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"}} {
		if set[need.bit/32].Effective&(1<<(need.bit%32)) == 0 {
			missing = append(missing, need.name)
		}
	}
	if len(missing) > 0 {
		return bad("give the service or container these capabilities", "missing: %s", strings.Join(missing, ", "))
	}
	// Containers have it read-only; access tells so of root too.
	if err := unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK); err != nil {
		return bad("podman run --security-opt unmask=/proc/sys", "settings of interfaces in /proc/sys cannot be written: %v", err)
	}
	return well("root, with the capabilities that an agent needs")
}

func programs(c *config.Config) (findings []Finding) {
	for _, p := range []struct{ name, pack, feature string }{
		{"ovs-ofctl", "openvswitch-common", "l2ovs"},
		{"nft", "nftables", "l3"},
	} {
		if !feature(c, p.feature) {
			continue
		}
		if path, err := exec.LookPath(p.name); err != nil {
			findings = append(findings, bad("apt-get install "+p.pack, "there is no %s, which %s needs", p.name, p.feature)...)
		} else {
			findings = append(findings, well("%s", path)...)
		}
	}
	return findings
}

// openvswitch asks the database of the host's Open vSwitch.
func openvswitch(ctx context.Context, c *config.Config) []Finding {
	address := config.OVSDBConnection.Of(c)
	client, err := ovsdb.Dial(ctx, ovsdb.Options{Address: address, Database: "Open_vSwitch", Tables: map[string][]string{
		"Open_vSwitch": {"ovs_version", "datapath_types", "iface_types", "cur_cfg"}, "Bridge": {"name"},
	}})
	if err != nil {
		return bad("apt-get install openvswitch-switch && systemctl start openvswitch-switch; see [ovs] ovsdb_connection", "%v", err)
	}
	defer client.Close()
	var findings []Finding
	var bridges, kinds, datapaths []string
	var version string
	client.View(func(tables ovsdb.Tables) {
		for _, row := range tables["Bridge"] {
			bridges = append(bridges, words(row["name"])...)
		}
		for _, row := range tables["Open_vSwitch"] {
			version = strings.Join(words(row["ovs_version"]), "")
			kinds, datapaths = words(row["iface_types"]), words(row["datapath_types"])
		}
	})
	if len(kinds) == 0 {
		return bad("systemctl restart openvswitch-switch", "ovsdb-server answers at %s, but ovs-vswitchd has not said what it can do", address)
	}
	findings = append(findings, well("version %s at %s", cmp.Or(version, "unknown"), address)...)
	if want := config.OVSDatapathType.Of(c); !slices.Contains(datapaths, want) {
		findings = append(findings, bad("load the kernel's module: modprobe openvswitch", "[ovs] datapath_type = %s: it has %s", want, strings.Join(datapaths, ", "))...)
	}
	for _, kind := range config.AgentTunnelTypes.Of(c) {
		if !slices.Contains(kinds, kind) {
			findings = append(findings, bad("take it out of [agent] tunnel_types, or use an Open vSwitch that has it", "tunnels of type %s are not to be had", kind)...)
		}
	}
	for _, mapping := range config.OVSBridgeMappings.Of(c) {
		if _, bridge, _ := strings.Cut(mapping, ":"); !slices.Contains(bridges, bridge) {
			findings = append(findings, bad("ovs-vsctl add-br "+bridge+", and add the network card to it", "[ovs] bridge_mappings has %s, and there is no such bridge", mapping)...)
		}
	}
	return findings
}

// words are the elements of a column: a set of texts, or one.
func words(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{v}
	case ovsdb.Set:
		var all []string
		for _, e := range v {
			all = append(all, fmt.Sprint(e))
		}
		slices.Sort(all)
		return all
	}
	return nil
}

func kernel(ctx context.Context, c *config.Config) (findings []Finding) {
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		findings = append(findings, bad("use a kernel with CONFIG_NET_NS", "there are no network namespaces: %v", err)...)
	}
	if feature(c, "l3") {
		if _, err := exec.LookPath("nft"); err == nil {
			if out, err := exec.CommandContext(ctx, "nft", "list", "tables").CombinedOutput(); err != nil {
				findings = append(findings, bad("load the kernel's module: modprobe nf_tables", "nftables: %s", out)...)
			}
		}
	}
	count, most := number("/proc/sys/net/netfilter/nf_conntrack_count"), number("/proc/sys/net/netfilter/nf_conntrack_max")
	switch {
	case most < 0:
		findings = append(findings, note("modprobe nf_conntrack; it is loaded by the first security group or router, too", "the kernel does not follow connections yet")...)
	case most > 0 && count > most/10*8:
		findings = append(findings, bad("sysctl -w net.netfilter.nf_conntrack_max="+strconv.Itoa(2*most), "%d of %d connections are in use: new ones are about to be dropped", count, most)...)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil && len(findings) == 0 {
		findings = well("Linux %s", unix.ByteSliceToString(name.Release[:]))
	}
	return findings
}

// number reads one from a file; -1: there is none.
func number(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}

func tunnels(c *config.Config) []Finding {
	local := config.OVSLocalIP.Of(c)
	kinds := config.AgentTunnelTypes.Of(c)
	switch {
	case local == "" && len(kinds) == 0:
		return note("set [ovs] local_ip and [agent] tunnel_types, if project networks are of vxlan, gre or geneve", "this host has no tunnels")
	case local == "":
		return bad("set it to this host's address on the network of the tunnels", "[agent] tunnel_types is set, and [ovs] local_ip is not")
	case len(kinds) == 0:
		return bad("set it to vxlan, gre or geneve", "[ovs] local_ip is set, and [agent] tunnel_types is not")
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return note("", "addresses of this host: %v", err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.ParseIP(local)) {
			return well("%s from %s", strings.Join(kinds, ", "), local)
		}
	}
	return bad("set it to an address of this host", "[ovs] local_ip = %s is on no interface of this host", local)
}

func feedServer(ctx context.Context, c *config.Config, server string) []Finding {
	var files *runtime.TLS
	if cert := config.FeedCertFile.Of(c); cert != "" {
		files = &runtime.TLS{CertFile: cert, KeyFile: config.FeedKeyFile.Of(c), CAFile: config.FeedCAFile.Of(c)}
	}
	begin := time.Now()
	err := runtime.Probe(ctx, server, files)
	switch {
	case err == nil:
		return well("%s answers in %v", server, time.Since(begin).Round(time.Millisecond))
	case errors.Is(err, fs.ErrNotExist):
		return bad("start the server on this machine, or set [isospin] feed_server to where it is", "%s: %v", server, err)
	}
	return bad("see that the server runs, that [isospin] feed_server is its feed_listen by a name of its certificate, and that a firewall lets it through", "%s: %v", server, err)
}
