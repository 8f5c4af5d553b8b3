package dhcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/netns"
	"isospin/internal/reconcile"
)

// AgentType is the feature's name in the agents API.
const AgentType = "DHCP agent"

// Owner marks the bridge ports that this feature made; a Plugger for it has
// this as its owner.
const Owner = "dhcp"

// plugTime bounds the work on one device: a switch that hangs does not keep all
// other networks waiting for ever.
const plugTime = 30 * time.Second

// Plugger puts the DHCP ports into namespaces; a *plug.Plugger is one.
type Plugger interface {
	Plug(context.Context, plug.Device) error
	Unplug(ctx context.Context, portID string) error
	Devices() []plug.Plugged
}

var _ Plugger = (*plug.Plugger)(nil)

// Options are what New needs.
type Options struct {
	// Connect returns the plugger, whose owner is Owner. Start calls it.
	Connect func(context.Context) (Plugger, error) // required
	Logger  *slog.Logger                           // required
	Settings
	// NoIPv6: DHCPv6 is not answered. // optional
	NoIPv6 bool
	// DNSServers are asked for names that are none of the network's ports, each
	// "address" or "address#port". // optional; such names are refused
	DNSServers []string
	// ResolvConf names a file as in resolv.conf(5) whose resolvers are asked
	// when there are no DNSServers. // optional
	ResolvConf       string
	AvailabilityZone string // optional; "nova"
}

// Feature is the DHCP agent. Make it with New.
type Feature struct {
	options   Options
	logger    *slog.Logger
	upstreams *upstreams
	ipv6      bool // of the kernel

	plugger Plugger
	ctx     context.Context
	cancel  context.CancelFunc
	wake    func()

	enabled  bool
	networks map[string]*network
	// By network id; pruneKey is the strays.
	failed  map[string]struct{}
	backoff reconcile.Backoff[string]
	timer   *time.Timer
	subnets int // with DHCP, of networks that are served
}

// pruneKey stands for the devices of no network in the backoff.
const pruneKey = ""

// network is what is there, or half there, for one network.
type network struct {
	server *server // nil: not answering
	device plug.Device
	// ports of this host, with what was last planned for them.
	ports map[string]struct{}
}

var _ runtime.Feature = (*Feature)(nil)

// New returns the feature; it opens nothing yet.
func New(o Options) *Feature {
	if o.AvailabilityZone == "" {
		o.AvailabilityZone = "nova"
	}
	_, err := os.Stat("/proc/sys/net/ipv6/conf")
	return &Feature{
		options: o, logger: o.Logger, upstreams: newUpstreams(o.DNSServers, o.ResolvConf), ipv6: err == nil,
		enabled: true, networks: map[string]*network{}, failed: map[string]struct{}{},
		backoff: reconcile.Backoff[string]{First: 500 * time.Millisecond, Longest: time.Minute},
	}
}

// Function implements runtime.Feature.
func (f *Feature) Function() *feed.Function {
	c := struct {
		Driver        string `json:"dhcp_driver"`
		LeaseDuration int    `json:"dhcp_lease_duration"`
		LogHeartbeats bool   `json:"log_agent_heartbeats"`
		Networks      int    `json:"networks"`
		Subnets       int    `json:"subnets"`
		Ports         int    `json:"ports"`
	}{Driver: "isospin", LeaseDuration: f.options.LeaseDuration, Subnets: f.subnets}
	if c.LeaseDuration == 0 {
		c.LeaseDuration = int(f.options.lease())
	}
	for _, n := range f.networks {
		if n.server != nil {
			c.Networks++
			c.Ports += len(n.ports)
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		text = []byte("{}")
	}
	return &feed.Function{
		AgentType: AgentType, Binary: "neutron-dhcp-agent", Topic: "dhcp_agent",
		AvailabilityZone: f.options.AvailabilityZone, Configurations: string(text),
	}
}

// Start implements runtime.Feature.
func (f *Feature) Start(ctx context.Context, wake func()) error {
	plugger, err := f.options.Connect(ctx)
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	f.plugger, f.wake = plugger, wake
	f.ctx, f.cancel = context.WithCancel(ctx)
	return nil
}

// Stop implements runtime.Feature. Namespaces and devices stay, so that the
// next start only opens the sockets again; clients keep their leases.
func (f *Feature) Stop() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	if f.timer != nil {
		f.timer.Stop()
	}
	for _, n := range f.networks {
		if n.server != nil {
			n.server.close()
			n.server = nil
		}
	}
}

// Apply implements runtime.Feature.
func (f *Feature) Apply(ctx context.Context, want *runtime.State, changes runtime.Changes) ([]*feed.Applied, error) {
	enabled := true
	if up, ok := want.AdminStateUp[AgentType]; ok {
		enabled = up
	}
	all := changes.All || enabled != f.enabled
	f.enabled = enabled
	now := time.Now()

	// whole: the network itself changed, so that all of its ports are reported.
	affected := map[string]bool{}
	touch := func(id string, whole bool) { affected[id] = affected[id] || whole }
	if all {
		for id := range want.Networks {
			touch(id, true)
		}
		for id := range f.networks {
			touch(id, true)
		}
	} else {
		for id := range changes.Networks {
			touch(id, true)
		}
		for id := range changes.Forwarding {
			touch(id, false)
		}
		for id := range changes.Ports {
			if p := want.Ports[id]; p != nil {
				touch(p.NetworkId, false)
			}
		}
		for id, n := range f.networks {
			if n.server != nil && n.server.broken.Load() || f.due(id, now) {
				touch(id, true)
			}
			for port := range changes.Ports {
				if _, ok := n.ports[port]; ok {
					touch(id, false)
				}
			}
		}
	}
	local := map[string][]*feed.Port{}
	if len(affected) > 0 {
		for _, p := range want.Ports {
			if _, ok := affected[p.NetworkId]; ok {
				local[p.NetworkId] = append(local[p.NetworkId], p)
			}
		}
	}

	var results []*feed.Applied
	for _, id := range slices.Sorted(maps.Keys(affected)) {
		if err := ctx.Err(); err != nil {
			return results, err
		}
		wanted := want.Networks[id]
		if !enabled || !served(wanted) {
			f.failing(id, f.remove(ctx, id), now)
			continue
		}
		applied, err := f.network(ctx, wanted, local[id], want.Forwarding[id], all, affected[id], changes.Ports)
		f.failing(id, err, now)
		results = append(results, applied...)
	}
	if all || f.due(pruneKey, now) {
		f.failing(pruneKey, f.prune(ctx, want), now)
	}

	f.subnets = 0
	for id, n := range f.networks {
		if w := want.Networks[id]; n.server != nil && w != nil {
			for _, s := range w.Subnets {
				if s.EnableDhcp {
					f.subnets++
				}
			}
		}
	}
	f.schedule(now)
	return results, ctx.Err()
}

// network makes one network be served. An error is for the backoff; what became
// of the ports is in the results.
func (f *Feature) network(ctx context.Context, want *feed.Network, ports []*feed.Port, elsewhere *runtime.ForwardingTable, all, whole bool, changed map[string]struct{}) ([]*feed.Applied, error) {
	n := f.networks[want.Id]
	if n == nil {
		n = &network{}
		f.networks[want.Id] = n
	}
	n.ports = make(map[string]struct{}, len(ports))
	for _, p := range ports {
		n.ports[p.Id] = struct{}{}
	}
	slices.SortFunc(ports, func(a, b *feed.Port) int { return strings.Compare(a.Id, b.Id) })

	p, err := makePlan(want, ports, elsewhere, f.options.Settings, f.ipv6)
	if err == nil {
		p.six = p.six && !f.options.NoIPv6
		if n.server != nil {
			// Ports are answered at once, also while the switch is away.
			n.server.table.Store(p.table)
		}
		if all || n.server == nil || n.server.broken.Load() || n.server.six != p.six || !reflect.DeepEqual(n.device, p.device) {
			whole = true
			err = f.open(ctx, want.Id, n, p)
		}
	}
	if err != nil {
		f.logger.Error("DHCP of a network", "network", want.Id, "error", err)
	}
	var results []*feed.Applied
	for _, port := range ports {
		if _, ok := changed[port.Id]; !whole && !ok {
			continue
		}
		a := &feed.Applied{Kind: feed.Kind_KIND_PORT, Id: port.Id, Revision: port.Revision, AgentType: AgentType}
		switch {
		case p == nil || n.server == nil || n.server.broken.Load():
			a.State, a.Error = feed.State_STATE_ERROR, fmt.Sprintf("DHCP of network %s: %v", want.Id, err)
		default:
			if _, waits := p.waiting[port.Id]; waits {
				continue // the network's next version has the DHCP port's address
			}
			a.State, a.Error = feed.State_STATE_ACTIVE, p.ports[port.Id]
		}
		results = append(results, a)
	}
	return results, err
}

// open plugs the device and opens the sockets, as far as that is not so yet. A
// server that runs goes on if the device cannot be looked after now.
func (f *Feature) open(ctx context.Context, id string, n *network, p *plan) error {
	ctx, cancel := context.WithTimeout(ctx, plugTime)
	defer cancel()
	if old := n.device.PortID; old != "" && old != p.device.PortID {
		if err := f.plugger.Unplug(ctx, old); err != nil {
			return err
		}
	}
	// Whatever comes of it, there may be something to unplug.
	n.device = plug.Device{PortID: p.device.PortID, Namespace: p.device.Namespace}
	if err := f.plugger.Plug(ctx, p.device); err != nil {
		return err
	}
	n.device = p.device
	if n.server != nil {
		is, err := identify(p.namespace, p.device.Name)
		if err == nil && is == n.server.id && n.server.six == p.six && !n.server.broken.Load() {
			return nil
		}
		n.server.close()
		n.server = nil
	}
	s, err := openServer(f.ctx, p, f.upstreams, f.logger.With("network", id), f.wake)
	if err != nil {
		return err
	}
	n.server = s
	return nil
}

// remove ends a network on this host. Absent is success.
func (f *Feature) remove(ctx context.Context, id string) error {
	n := f.networks[id]
	if n == nil {
		return nil
	}
	if n.server != nil {
		n.server.close()
		n.server = nil
	}
	n.ports = nil
	if n.device.PortID != "" {
		if err := f.unplug(ctx, n.device.PortID, n.device.Namespace); err != nil {
			f.logger.Error("DHCP of a network that left the host", "network", id, "error", err)
			return err
		}
	}
	delete(f.networks, id)
	return nil
}

func (f *Feature) unplug(ctx context.Context, portID, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, plugTime)
	defer cancel()
	if err := f.plugger.Unplug(ctx, portID); err != nil {
		return err
	}
	if !strings.HasPrefix(namespace, NamespacePrefix) {
		return nil
	}
	return netns.Delete(namespace)
}

// prune removes what a former process made and nothing wants.
func (f *Feature) prune(ctx context.Context, want *runtime.State) error {
	wanted := map[string]string{} // namespace by port
	spaces := map[string]struct{}{}
	for id, n := range want.Networks {
		if f.enabled && served(n) {
			wanted[n.DhcpPort.Id] = NamespacePrefix + id
			spaces[NamespacePrefix+id] = struct{}{}
		}
	}
	var all []error
	for _, d := range f.plugger.Devices() {
		if wanted[d.PortID] != "" && wanted[d.PortID] == d.Namespace {
			continue
		}
		namespace := d.Namespace
		if _, used := spaces[namespace]; used {
			namespace = ""
		}
		if err := f.unplug(ctx, d.PortID, namespace); err != nil {
			f.logger.Error("stray DHCP port", "port", d.PortID, "error", err)
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func (f *Feature) failing(key string, err error, now time.Time) {
	if err != nil {
		f.failed[key] = struct{}{}
		f.backoff.Failed(key, now)
	} else {
		delete(f.failed, key)
		f.backoff.Forget(key)
	}
}

// due tells whether key failed and is to be tried again.
func (f *Feature) due(key string, now time.Time) bool {
	_, failed := f.failed[key]
	return failed && f.backoff.Ready(key, now)
}

// schedule wakes the runtime when the next attempt is due.
func (f *Feature) schedule(now time.Time) {
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if next, ok := f.backoff.Next(); ok {
		f.timer = time.AfterFunc(max(next.Sub(now), time.Millisecond), f.wake)
	}
}
