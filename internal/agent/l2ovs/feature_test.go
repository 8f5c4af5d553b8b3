package l2ovs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/ovs/ovstest"
)

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "openvswitch_agent.ini")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.LoadOptions{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An agent file of Neutron's means what it means there.
func TestOptions(t *testing.T) {
	o, err := optionsOf(load(t, `
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
bridge_mappings = public:br-ex, physnet1:br-data
local_ip = 192.0.2.7
datapath_type = netdev
resource_provider_bandwidths = br-ex:1000:2000
[agent]
tunnel_types = vxlan,geneve
vxlan_udp_port = 8472
[securitygroup]
permitted_ethertypes = 0x4008
`), "h7")
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"public": "br-ex", "physnet1": "br-data"}; !reflect.DeepEqual(o.BridgeMappings, want) {
		t.Errorf("mappings %v", o.BridgeMappings)
	}
	if o.LocalIP != "192.0.2.7" || o.Outer.VXLANPort != 8472 || !o.Outer.DontFragment || o.Unfiltered || !reflect.DeepEqual(o.Ethertypes, []uint16{0x4008}) {
		t.Errorf("options %+v", o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	function := f.Function()
	var c map[string]any
	if err := json.Unmarshal([]byte(function.Configurations), &c); err != nil {
		t.Fatal(err)
	}
	if function.AgentType != "Open vSwitch agent" || function.Binary != "neutron-openvswitch-agent" || function.Topic != "N/A" ||
		c["tunneling_ip"] != "192.0.2.7" || c["datapath_type"] != "netdev" || c["ovs_hybrid_plug"] != false ||
		!reflect.DeepEqual(c["tunnel_types"], []any{"vxlan", "geneve"}) || !reflect.DeepEqual(c["bridge_mappings"], map[string]any{"public": "br-ex", "physnet1": "br-data"}) ||
		!reflect.DeepEqual(c["resource_provider_bandwidths"], map[string]any{"br-ex": map[string]any{"egress": 1000.0, "ingress": 2000.0}}) ||
		!reflect.DeepEqual(c["resource_provider_hypervisors"], map[string]any{"br-ex": "h7"}) {
		t.Errorf("function %v", function)
	}
	if o, err := optionsOf(load(t, "[securitygroup]\nfirewall_driver = noop\n"), "h"); err != nil || !o.Unfiltered {
		t.Errorf("noop: %+v, %v", o, err)
	}
	for _, bad := range []Options{
		{Host: "h"},
		{Host: "h", Connection: "unix:/x", LocalIP: "nowhere"},
		{Host: "h", Connection: "unix:/x", TunnelTypes: []string{"vxlan"}},
		{Host: "h", Connection: "unix:/x", LocalIP: "192.0.2.1", TunnelTypes: []string{"stt"}},
		{Host: "h", Connection: "unix:/x", BridgeMappings: map[string]string{"a": "br-ex", "b": "br-ex"}},
		{Host: "h", Connection: "unix:/x", BridgeMappings: map[string]string{"a": "br-int"}},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// Tunnel ports come and go with the endpoints that are needed; what others
// made stays, and so does the number of a network's local VLAN.
func TestTunnelPorts(t *testing.T) {
	l := ovstest.NewLab(t)
	h := newHost(t, l, nil, "h", "", func(o *Options) { o.LocalIP, o.TunnelTypes = "192.0.2.1", []string{"vxlan", "gre", "geneve"} })
	if _, err := h.s.VSCtl(t.Context(), "add-port", "br-tun", "vxlan-theirs", "--", "set", "interface", "vxlan-theirs", "type=vxlan", "options:remote_ip=192.0.2.99", "options:key=5"); err != nil {
		t.Fatal(err)
	}
	c := newCloud()
	c.groups["g"] = group("g")
	far, farther := &host{address: "192.0.2.2"}, &host{address: "192.0.2.3"}
	for n, kind := range []string{"vxlan", "gre", "geneve"} {
		c.networks[kind] = &feed.Network{Id: kind, Segment: &feed.Segment{NetworkType: kind, SegmentationId: int64(100 + n)}}
		p := c.port(h, "p-"+kind, kind, []string{"g"}, "10.0.0.1")
		c.port(far, "far-"+kind, kind, nil, "10.0.0.2")
		l.Guest(h.s, "br-int", kind, p.Id, p.MacAddress)
	}
	c.port(farther, "farther", "gre", nil, "10.0.0.3")
	ports := func() string {
		out, err := h.s.VSCtl(t.Context(), "list-ports", "br-tun")
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(out, "\n", " ")
	}
	c.push(h)
	for _, kind := range []string{"vxlan", "gre", "geneve"} {
		h.expect("p-"+kind, feed.State_STATE_ACTIVE)
	}
	if got, want := ports(), "geneve-c0000202 gre-c0000202 gre-c0000203 patch-int vxlan-c0000202 vxlan-theirs"; got != want {
		t.Errorf("ports %s, want %s", got, want)
	}
	out, err := h.s.VSCtl(t.Context(), "get", "interface", "vxlan-c0000202", "options")
	if want := `{df_default="false", egress_pkt_mark="0", in_key=flow, local_ip="192.0.2.1", out_key=flow, remote_ip="192.0.2.2"}`; err != nil || out != want {
		t.Errorf("options %s, %v; want %s", out, err, want)
	}
	vlans := mapsClone(h.f.vlans)
	c.ports = c.ports[:len(c.ports)-1]
	h.state = c.state(h)
	h.apply(runtime.Changes{Forwarding: map[string]runtime.ForwardingChange{"gre": {Ports: map[string]struct{}{"farther": {}}}}})
	if got, want := ports(), "geneve-c0000202 gre-c0000202 patch-int vxlan-c0000202 vxlan-theirs"; got != want {
		t.Errorf("ports %s, want %s", got, want)
	}
	h.stop()
	h.start()
	h.all()
	if !reflect.DeepEqual(h.f.vlans, vlans) {
		t.Errorf("local VLANs %v, before the restart %v", h.f.vlans, vlans)
	}
	steering := func(hint string) string {
		t.Helper()
		for _, p := range c.ports {
			if p.port.Id == "p-gre" {
				p.port.TxSteering = hint
			}
		}
		h.state = c.state(h)
		h.apply(runtime.Changes{Ports: map[string]struct{}{"p-gre": {}}})
		out, err := h.s.VSCtl(t.Context(), "get", "interface", "tap-gre", "other_config")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := h.s.VSCtl(t.Context(), "set", "interface", "tap-gre", "other_config:theirs=1"); err != nil {
		t.Fatal(err)
	}
	if got := steering("hash"); got != `{theirs="1", tx-steering=hash}` {
		t.Errorf("other_config %s with a hint", got)
	}
	if got := steering(""); got != `{theirs="1"}` {
		t.Errorf("other_config %s without hint", got)
	}
	tag, err := h.s.VSCtl(t.Context(), "get", "port", "tap-gre", "tag", "other_config:net_uuid", "other_config:segmentation_id")
	if err != nil || !strings.HasSuffix(tag, "gre\n\"101\"") {
		t.Errorf("port %q, %v", tag, err)
	}
}
