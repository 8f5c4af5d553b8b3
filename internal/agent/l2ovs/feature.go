package l2ovs

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
	"isospin/internal/ovs/vswitch"
)

// AgentType is the row of the agents API that reports are under.
const AgentType = "Open vSwitch agent"

// owner marks the tunnel ports that we made, in external_ids.
const (
	keyOwner = "isospin-owner"
	owner    = "l2ovs"
)

// Options of a Feature.
type Options struct {
	Host              string            // required
	Connection        string            // required: of OVSDB, "unix:/run/openvswitch/db.sock" or "tcp:127.0.0.1:6640"
	RunDir            string            // optional: of Open vSwitch, with the bridges' management sockets; else the folder of Connection's socket, or /var/run/openvswitch
	IntegrationBridge string            // optional: "br-int"
	TunnelBridge      string            // optional: "br-tun"
	PatchTun          string            // optional: "patch-tun", port of the integration bridge
	PatchInt          string            // optional: "patch-int", port of the tunnel bridge
	BridgeMappings    map[string]string // optional: bridge by physical network
	LocalIP           string            // optional: tunnel endpoint of this host; without it there are no tunnels
	TunnelTypes       []string          // optional: of "vxlan", "gre", "geneve"
	Outer             Outer             // optional: of tunnels' outer packets
	DatapathType      string            // optional: "system" or "netdev", of bridges that we make
	Unfiltered        bool              // optional: no port is filtered, neither by security groups nor against spoofing
	Ethertypes        []uint16          // optional: what filtered ports may send and receive besides IP and ARP, with their own MAC
	LogRate           int               // optional: packets in a second that all packet logs of this host may record, 100
	LogBurst          int               // optional: and at once, 25
	LogFile           string            // optional: what gets the records of packet logs, else Logger
	AvailabilityZone  string            // optional
	Logger            *slog.Logger      // optional
	// Configurations are added to those that the agents API shows.
	Configurations map[string]any // optional
	// Connect returns the connection to OVSDB, which somebody else closes.
	Connect func() (*vswitch.Client, error) // optional: one of the feature's own
	// OFCtl is the program that speaks OpenFlow.
	OFCtl string // optional: "ovs-ofctl"
	// Timeout of each step that Open vSwitch takes.
	Timeout time.Duration // optional: 15 s
}

// Feature is the layer 2 of a host on Open vSwitch.
type Feature struct {
	o       Options
	localIP netip.Addr
	log     *slog.Logger

	// Set by Start.
	ctx  context.Context
	wake func()

	vs       *vswitch.Client
	own      bool // vs is ours to close
	bridges  map[string]*openflow.Bridge
	physical map[string]*openflow.Set // flows of physical bridges, by bridge
	planner  *planner
	vlans    map[string]int // local VLAN by network
	needed   map[tunnel]struct{}
	reported map[string]portStatus
	devices  int
	// trunks is what became of each at the last Apply; reportedTrunks what was told of them.
	trunks, reportedTrunks map[string]portStatus
	// records is what packets of packet logs are recorded as, which recording says are read; unlogged is why there are none.
	records   atomic.Pointer[map[uint64]logged]
	recording bool
	unlogged  string
	// restarted is set when a bridge has lost its flows.
	restarted atomic.Bool

	flushing struct {
		sync.Mutex
		queue []departure
		runs  bool
	}
}

var _ runtime.Feature = (*Feature)(nil)

// New checks the options. Nothing is touched before Start.
func New(o Options) (*Feature, error) {
	if o.Host == "" || o.Connection == "" {
		return nil, errors.New("l2ovs: host and OVSDB connection are required")
	}
	if o.IntegrationBridge == "" {
		o.IntegrationBridge = "br-int"
	}
	if o.TunnelBridge == "" {
		o.TunnelBridge = "br-tun"
	}
	if o.PatchTun == "" {
		o.PatchTun = "patch-tun"
	}
	if o.PatchInt == "" {
		o.PatchInt = "patch-int"
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	if o.LogRate == 0 {
		o.LogRate = 100
	}
	if o.LogBurst == 0 {
		o.LogBurst = 25
	}
	if o.LogRate < 0 || o.LogBurst < 0 {
		return nil, fmt.Errorf("l2ovs: packet logs of %d packets in a second and %d at once", o.LogRate, o.LogBurst)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RunDir == "" {
		o.RunDir = "/var/run/openvswitch"
		if path, ok := strings.CutPrefix(o.Connection, "unix:"); ok {
			o.RunDir = filepath.Dir(path)
		}
	}
	f := &Feature{o: o, log: o.Logger}
	if o.LocalIP != "" {
		ip, err := netip.ParseAddr(o.LocalIP)
		if err != nil || ip.Is4In6() || ip.IsUnspecified() {
			return nil, fmt.Errorf("l2ovs: local_ip %q is not an address of this host", o.LocalIP)
		}
		f.localIP = ip
		for _, kind := range o.TunnelTypes {
			if _, ok := tunnelTable(kind); !ok {
				return nil, fmt.Errorf("l2ovs: tunnel type %q is none of vxlan, gre, geneve", kind)
			}
		}
	} else if len(o.TunnelTypes) > 0 {
		return nil, errors.New("l2ovs: tunnel_types need local_ip")
	}
	seen := map[string]string{}
	for physnet, bridge := range o.BridgeMappings {
		if other, ok := seen[bridge]; ok {
			return nil, fmt.Errorf("l2ovs: bridge_mappings: physical networks %s and %s have the same bridge %s", other, physnet, bridge)
		}
		seen[bridge] = physnet
		if bridge == o.IntegrationBridge || bridge == o.TunnelBridge {
			return nil, fmt.Errorf("l2ovs: bridge_mappings: %s is not a physical bridge", bridge)
		}
	}
	return f, nil
}

// Function describes the feature as Neutron's agent does.
func (f *Feature) Function() *feed.Function {
	datapath := f.o.DatapathType
	if datapath == "" {
		datapath = "system"
	}
	datapaths, interfaces := []string{}, []string{}
	if f.vs != nil {
		if d, i := f.vs.Capabilities(); d != nil {
			datapaths, interfaces = d, i
		}
	}
	mappings := f.o.BridgeMappings
	if mappings == nil {
		mappings = map[string]string{}
	}
	kinds := f.o.TunnelTypes
	if kinds == nil {
		kinds = []string{}
	}
	empty := struct{}{}
	all := map[string]any{
		"bridge_mappings": mappings, "integration_bridge": f.o.IntegrationBridge,
		"tunnel_types": kinds, "tunneling_ip": f.o.LocalIP,
		"l2_population": true, "arp_responder_enabled": true, "enable_distributed_routing": false, "in_distributed_mode": false,
		"extensions": []string{"qos", "log"}, "datapath_type": datapath,
		"ovs_capabilities":     map[string]any{"datapath_types": datapaths, "iface_types": interfaces},
		"vhostuser_socket_dir": f.o.RunDir, "ovs_hybrid_plug": false, "devices": f.devices, "log_agent_heartbeats": false,
		"baremetal_smartnic": false, "resource_provider_bandwidths": empty, "resource_provider_inventory_defaults": empty,
		"resource_provider_packet_processing_without_direction": empty, "resource_provider_packet_processing_with_direction": empty,
		"resource_provider_packet_processing_inventory_defaults": empty, "resource_provider_hypervisors": empty,
	}
	maps.Copy(all, f.o.Configurations)
	configurations, err := json.Marshal(all)
	if err != nil {
		f.log.Error("agent configurations", "error", err)
	}
	return &feed.Function{
		AgentType: AgentType, Binary: "neutron-openvswitch-agent", Topic: "N/A",
		AvailabilityZone: f.o.AvailabilityZone, Configurations: string(configurations),
	}
}

// Start connects to Open vSwitch; when it is not there yet, Apply tries again.
func (f *Feature) Start(ctx context.Context, wake func()) error {
	f.ctx, f.wake = ctx, wake
	f.planner = newPlanner(planOptions{
		unfiltered: f.o.Unfiltered, ethertypes: f.o.Ethertypes,
		logMeter: openflow.Meter{Packets: true, Rate: uint32(f.o.LogRate), Burst: uint32(f.o.LogBurst)},
	})
	f.recording = false
	f.bridges = map[string]*openflow.Bridge{}
	f.physical = map[string]*openflow.Set{}
	f.vlans = nil
	f.reported, f.reportedTrunks = map[string]portStatus{}, map[string]portStatus{}
	if err := f.connect(); err != nil {
		f.log.Warn("Open vSwitch is not there yet", "error", err)
	}
	return nil
}

// Stop ends the connections. Bridges, ports and flows stay.
func (f *Feature) Stop() {
	if f.vs != nil && f.own {
		f.vs.Close()
	}
	f.vs = nil
}

func (f *Feature) connect() error {
	if f.vs != nil {
		return nil
	}
	connect := f.o.Connect
	if f.own = connect == nil; f.own {
		connect = func() (*vswitch.Client, error) {
			return vswitch.Dial(f.ctx, vswitch.Options{
				Connection: f.o.Connection, Logger: f.log, DatapathType: f.o.DatapathType, ConnectTimeout: f.o.Timeout,
			})
		}
	}
	vs, err := connect()
	if err != nil {
		return err
	}
	vs.Watch(f.wake)
	f.vs = vs
	return nil
}

// bridge returns the flow tables of a bridge, which are followed from then on.
func (f *Feature) bridge(name string) *openflow.Bridge {
	b := f.bridges[name]
	if b == nil {
		b = openflow.NewBridge(openflow.Options{Name: name, RunDir: f.o.RunDir, Mark: flowMark, Meters: meterRange, Logger: f.log, Program: f.o.OFCtl})
		f.bridges[name] = b
		go b.Follow(f.ctx, func() {
			f.log.Warn("bridge came back, its flows are put in place again", "bridge", name)
			f.restarted.Store(true)
			f.wake()
		})
	}
	return b
}

// Apply implements runtime.Feature.
func (f *Feature) Apply(ctx context.Context, want *runtime.State, changes runtime.Changes) ([]*feed.Applied, error) {
	if err := f.connect(); err != nil {
		return nil, err
	}
	if !f.vs.Connected() {
		return nil, errors.New("OVSDB is not connected")
	}
	if f.restarted.Swap(false) || changes.All {
		for _, b := range f.bridges {
			b.Forget()
		}
		clear(f.planner.unapplied) // another try
		f.planner.unlogged = ""
	}
	facts, err := f.prepare(ctx)
	if err != nil {
		f.restarted.Store(true) // what is known of the flows may be wrong
		return nil, err
	}
	if err := f.wireTrunks(ctx, want); err != nil {
		return nil, err
	}
	attached := f.attached()
	facts.ports = map[string]int{}
	for id, i := range attached {
		facts.ports[id] = i.OFPort
	}
	fresh := f.assignVLANs(want, attached)
	facts.vlans = f.vlans
	if err := f.lookThroughTags(ctx, want); err != nil {
		return nil, err
	}
	if err := f.ensureTunnels(ctx, want, facts, changes, len(fresh) > 0); err != nil {
		return nil, err
	}
	f.planner.plan(want, facts, changes)

	if err := f.annotate(ctx, want, attached); err != nil {
		return nil, err
	}
	integration := f.bridge(f.o.IntegrationBridge)
	for _, vlan := range fresh {
		// Connections of a network that had the number before are not this one's.
		if err := integration.FlushZone(ctx, uint16(vlan)); err != nil {
			return nil, err
		}
	}
	for name, set := range f.physical {
		if _, err := f.bridge(name).Apply(ctx, set); err != nil {
			return nil, err
		}
	}
	if facts.patchInt != 0 {
		if _, err := f.bridge(f.o.TunnelBridge).Apply(ctx, f.planner.tunnels); err != nil {
			return nil, err
		}
	}
	for attempt := 0; ; attempt++ {
		refused, err := integration.EnsureMeters(ctx, f.planner.meters)
		if err != nil {
			return nil, err
		}
		without := false
		for id, err := range refused {
			without = f.planner.refuseMeter(id, err) || without
		}
		if without {
			f.planner.plan(want, facts, runtime.Changes{})
		}
		f.recordPackets(integration)
		change, err := integration.Apply(ctx, f.planner.integration)
		if err != nil {
			return nil, err
		}
		again := false
		for _, r := range change.Refused {
			again = f.planner.refuse(want, r) || again
		}
		if !again || attempt == 3 {
			break
		}
		f.planner.plan(want, facts, runtime.Changes{})
	}
	if err := integration.PruneMeters(ctx, f.planner.meters); err != nil {
		return nil, err
	}
	f.devices = len(f.planner.local)
	f.flush(integration, f.planner.left)
	f.planner.left = nil
	if err := f.removeTunnels(ctx); err != nil {
		f.log.Warn("unused tunnel ports stay", "error", err)
	}
	return append(f.results(want, changes), f.trunkResults(want, changes)...), nil
}

// prepare makes our bridges and patch ports be there, and gathers what they
// are.
func (f *Feature) prepare(parent context.Context) (*facts, error) {
	ctx, cancel := context.WithTimeout(parent, f.o.Timeout)
	defer cancel()
	protocols := []string{"OpenFlow10", "OpenFlow13", "OpenFlow14"}
	bridge := vswitch.Bridge{Name: f.o.IntegrationBridge, DatapathType: f.o.DatapathType, FailMode: "secure", Protocols: protocols}
	if err := f.vs.EnsureBridge(ctx, bridge); err != nil {
		return nil, err
	}
	facts := &facts{localIP: f.localIP, kinds: f.o.TunnelTypes, physical: map[string]outlet{}, tunnels: map[tunnel]int{}}
	type patch struct{ bridge, port, peer string }
	var patches []patch
	if len(f.o.TunnelTypes) > 0 {
		bridge.Name = f.o.TunnelBridge
		if err := f.vs.EnsureBridge(ctx, bridge); err != nil {
			return nil, err
		}
		patches = append(patches, patch{f.o.IntegrationBridge, f.o.PatchTun, f.o.PatchInt}, patch{f.o.TunnelBridge, f.o.PatchInt, f.o.PatchTun})
	}
	present := map[string]vswitch.BridgeInfo{}
	for _, b := range f.vs.Bridges() {
		present[b.Name] = b
	}
	facts.netdev = present[f.o.IntegrationBridge].DatapathType == "netdev"
	for physnet, name := range f.o.BridgeMappings {
		if _, ok := present[name]; !ok {
			facts.physical[physnet] = outlet{problem: fmt.Sprintf(
				"bridge %s of physical network %s does not exist on host %s: create it with \"ovs-vsctl add-br %s\" and add the network interface to it",
				name, physnet, f.o.Host, name)}
			delete(f.physical, name)
			continue
		}
		inner, outer := patchName("int-", name), patchName("phy-", name)
		patches = append(patches, patch{f.o.IntegrationBridge, inner, outer}, patch{name, outer, inner})
	}
	for _, p := range patches {
		err := f.vs.EnsurePort(ctx, p.bridge, vswitch.Port{Name: p.port, Type: "patch", Options: map[string]string{"peer": p.peer}})
		if err != nil {
			return nil, err
		}
	}
	ofports := map[string]int{}
	for _, i := range f.vs.Interfaces() {
		ofports[i.Bridge+"/"+i.Name] = i.OFPort
	}
	if len(f.o.TunnelTypes) > 0 {
		facts.patchTun = ofports[f.o.IntegrationBridge+"/"+f.o.PatchTun]
		facts.patchInt = ofports[f.o.TunnelBridge+"/"+f.o.PatchInt]
	}
	for physnet, name := range f.o.BridgeMappings {
		b, ok := present[name]
		if !ok {
			continue
		}
		facts.physical[physnet] = outlet{ofport: ofports[f.o.IntegrationBridge+"/"+patchName("int-", name)]}
		// Tags are translated on the integration bridge; all that the physical one has to do is to switch.
		var fl flows
		fl.add(tableClassify, 10, fmt.Sprintf("in_port=%d", ofports[name+"/"+patchName("phy-", name)]), "NORMAL")
		if b.FailMode == "secure" {
			fl.add(tableClassify, 1, "", "NORMAL")
		}
		if f.physical[name] == nil {
			f.physical[name] = openflow.NewSet()
		}
		f.physical[name].Put("base", fl)
	}
	return facts, nil
}

// patchName is Neutron's name of a patch port: at most 15 characters.
func patchName(prefix, bridge string) string {
	const longest, hash = 15, 6
	if len(prefix)+len(bridge) <= longest {
		return prefix + bridge
	}
	sum := sha1.Sum([]byte(bridge))
	return prefix + bridge[:longest-len(prefix)-hash] + hex.EncodeToString(sum[:])[:hash]
}

// attached finds the plugged ports on br-int by the id that a compute service
// or a feature of ours has given them.
func (f *Feature) attached() map[string]vswitch.Interface {
	out := map[string]vswitch.Interface{}
	for _, i := range f.vs.Interfaces() {
		id := i.ExternalIDs["iface-id"]
		if i.Bridge != f.o.IntegrationBridge || id == "" {
			continue
		}
		// While an instance moves, two interfaces may bear one id: the one that works counts.
		if old, ok := out[id]; ok && (old.OFPort > 0 && i.OFPort <= 0 ||
			old.OFPort > 0 && old.ExternalIDs["iface-status"] == "active" && i.ExternalIDs["iface-status"] != "active") {
			continue
		}
		out[id] = i
	}
	return out
}

// assignVLANs gives each network with a plugged port a local VLAN, and returns
// those that were not in use. They are recovered from the ports after a start.
func (f *Feature) assignVLANs(want *runtime.State, attached map[string]vswitch.Interface) []int {
	present := map[string]bool{}
	for id := range attached {
		if p := want.Ports[id]; p != nil && want.Networks[p.NetworkId] != nil {
			present[p.NetworkId] = true
		}
	}
	for id, n := range want.Networks {
		if _, ok := attached[n.DhcpPort.GetId()]; ok {
			present[id] = true
		}
	}
	taken := map[int]bool{}
	if f.vlans == nil {
		f.vlans = map[string]int{}
		for _, id := range slices.Sorted(maps.Keys(attached)) {
			config := attached[id].OtherConfig
			vlan, err := strconv.Atoi(config["tag"])
			network := config["net_uuid"]
			if _, known := f.vlans[network]; err == nil && network != "" && vlan >= 1 && vlan <= 4094 && !known && !taken[vlan] {
				f.vlans[network] = vlan
				taken[vlan] = true
			}
		}
	}
	vlans := make(map[string]int, len(present))
	clear(taken)
	for id, vlan := range f.vlans {
		if present[id] {
			vlans[id] = vlan
			taken[vlan] = true
		}
	}
	var fresh []int
	for _, id := range slices.Sorted(maps.Keys(present)) {
		if vlans[id] != 0 {
			continue
		}
		// The same network gets the same number again if it can.
		first := int(hash31(id) % 4094)
		for i := range 4094 {
			if vlan := (first+i)%4094 + 1; !taken[vlan] {
				vlans[id], taken[vlan] = vlan, true
				fresh = append(fresh, vlan)
				break
			}
		}
	}
	f.vlans = vlans
	return fresh
}

// steeringMark is where a port keeps the transmit steering that was asked for:
// what somebody else has set is left alone.
const steeringMark = "tx_steering"

// annotate writes the local VLANs, and how the interfaces are to transmit, to the ports, as Neutron's agent does:
// operators see them, and the next start finds them.
func (f *Feature) annotate(parent context.Context, want *runtime.State, attached map[string]vswitch.Interface) error {
	networkOf := map[string]string{}
	for id, n := range want.Networks {
		if n.DhcpPort != nil {
			networkOf[n.DhcpPort.Id] = id
		}
	}
	var ports []vswitch.Port
	for id, i := range attached {
		network, steering := networkOf[id], ""
		if p := want.Ports[id]; p != nil {
			network, steering = p.NetworkId, p.TxSteering
		}
		n, vlan := want.Networks[network], f.vlans[network]
		if n == nil || vlan == 0 {
			continue
		}
		if i.Tag == vlan && i.OtherConfig["tag"] == strconv.Itoa(vlan) && i.OtherConfig["net_uuid"] == network && i.OtherConfig[steeringMark] == steering {
			continue
		}
		port := vswitch.Port{Name: i.Port, Tag: vlan, OtherConfig: map[string]string{
			"net_uuid": network, "network_type": n.Segment.GetNetworkType(), "physical_network": n.Segment.GetPhysicalNetwork(),
			"segmentation_id": strconv.Itoa(int(n.Segment.GetSegmentationId())), "tag": strconv.Itoa(vlan),
		}}
		if i.OtherConfig[steeringMark] != steering {
			port.OtherConfig[steeringMark] = steering
			port.InterfaceOtherConfig = map[string]string{"tx-steering": steering}
		}
		ports = append(ports, port)
	}
	if len(ports) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(parent, f.o.Timeout)
	defer cancel()
	return f.vs.AnnotatePorts(ctx, f.o.IntegrationBridge, ports)
}

// lookThroughTags prepares the switch when a network on this host carries its guests' tags.
func (f *Feature) lookThroughTags(parent context.Context, want *runtime.State) error {
	for id := range f.vlans {
		if n := want.Networks[id]; n != nil && carriesTags(n) {
			ctx, cancel := context.WithTimeout(parent, f.o.Timeout)
			defer cancel()
			return f.vs.EnsureVLANTags(ctx, lookThrough)
		}
	}
	return nil
}

// ensureTunnels makes the tunnel ports that the networks of this host need.
// One that cannot be made is left out, and told in the log.
func (f *Feature) ensureTunnels(parent context.Context, want *runtime.State, facts *facts, changes runtime.Changes, more bool) error {
	if facts.patchInt == 0 {
		return nil
	}
	if f.needed == nil || more || changes.All || len(changes.Forwarding) > 0 || len(changes.Networks) > 0 {
		f.needed = neededTunnels(want, f.vlans, facts.kinds, f.localIP)
	}
	byName := map[string]tunnel{}
	var ports []vswitch.Port
	for t := range f.needed {
		byName[t.name()] = t
		ports = append(ports, vswitch.Port{
			Name: t.name(), Type: t.kind, Options: t.options(f.localIP, f.o.Outer), ExternalIDs: map[string]string{keyOwner: owner},
		})
	}
	slices.SortFunc(ports, func(a, b vswitch.Port) int { return strings.Compare(a.Name, b.Name) })
	ctx, cancel := context.WithTimeout(parent, f.o.Timeout)
	defer cancel()
	if err := f.vs.EnsurePorts(ctx, f.o.TunnelBridge, ports); err != nil {
		var one *vswitch.InterfaceError
		if !errors.As(err, &one) {
			return err
		}
		f.log.Error("tunnels cannot be made", "error", err)
	}
	for _, i := range f.vs.Interfaces() {
		if t, ok := byName[i.Name]; ok && i.Bridge == f.o.TunnelBridge && i.OFPort > 0 {
			facts.tunnels[t] = i.OFPort
		}
	}
	return nil
}

// flush forgets, in the background, the connections of addresses that left:
// who gets such an address next has not opened them, and is not to be sent
// their answers.
func (f *Feature) flush(b *openflow.Bridge, left []departure) {
	q := &f.flushing
	q.Lock()
	defer q.Unlock()
	q.queue = append(q.queue, left...)
	if q.runs || len(q.queue) == 0 {
		return
	}
	q.runs = true
	ctx := f.ctx
	go func() {
		for {
			q.Lock()
			if len(q.queue) == 0 || ctx.Err() != nil {
				q.runs, q.queue = false, nil
				q.Unlock()
				return
			}
			next := q.queue[0]
			q.queue = q.queue[1:]
			q.Unlock()
			if err := b.FlushAddress(ctx, uint16(next.vlan), next.address); err != nil && ctx.Err() == nil {
				f.log.Warn("connections of an address that left are not forgotten", "address", next.address, "error", err)
			}
		}
	}()
}

// removeTunnels deletes tunnel ports of ours that no network needs any more.
func (f *Feature) removeTunnels(parent context.Context) error {
	if f.needed == nil {
		return nil
	}
	keep := map[string]bool{}
	for t := range f.needed {
		keep[t.name()] = true
	}
	var gone []string
	for _, i := range f.vs.Interfaces() {
		if i.Bridge == f.o.TunnelBridge && i.ExternalIDs[keyOwner] == owner && !keep[i.Name] {
			gone = append(gone, i.Name)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(parent, f.o.Timeout)
	defer cancel()
	return f.vs.DeletePorts(ctx, f.o.TunnelBridge, gone)
}

// results tells what became of the ports that changed, or whose state did.
func (f *Feature) results(want *runtime.State, changes runtime.Changes) []*feed.Applied {
	var out []*feed.Applied
	for _, id := range slices.Sorted(maps.Keys(f.planner.ports)) {
		s := f.planner.ports[id]
		_, changed := changes.Ports[id]
		if !changed && !changes.All && f.reported[id] == s {
			continue
		}
		f.reported[id] = s
		out = append(out, &feed.Applied{Kind: feed.Kind_KIND_PORT, Id: id, Revision: s.revision, AgentType: AgentType, State: s.state, Error: s.err})
	}
	for id := range f.reported {
		if want.Ports[id] == nil {
			delete(f.reported, id)
		}
	}
	return out
}
