package l3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"isospin/api/feed"
	"isospin/internal/agent/l3/bfd"
	"isospin/internal/agent/l3/radv"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/nft"
	"isospin/internal/reconcile"
)

// AgentType is the feature's name in the agents API.
const AgentType = "L3 agent"

const (
	// parallel is how many routers are worked on at a time.
	parallel = 4
	// routerTime bounds the work on one router: a switch that hangs does not
	// keep all the others waiting for ever.
	routerTime = 30 * time.Second
)

// Owner marks the feature's ports in Open vSwitch.
const Owner = "l3"

// Plugger puts ports into namespaces; *plug.Plugger is one.
type Plugger interface {
	Plug(context.Context, plug.Device) error
	Unplug(ctx context.Context, portID string) error
	Devices() []plug.Plugged
}

// Options are what New needs.
type Options struct {
	// Connect is called by Start and returns what plugs the routers' ports. // required
	Connect          func() (Plugger, error)
	StateDir         string                // required; an existing directory
	Logger           *slog.Logger          // optional
	AvailabilityZone string                // optional; "nova"
	Metrics          prometheus.Registerer // optional
	EVPN             *EVPN                 // optional; the host takes part in no EVPN without
	// Enterprise is the number of identifiers that ask for prefixes; 0: they are made of gateways' MAC addresses. // optional
	Enterprise uint32
}

// Feature is the L3 agent. Make it with New.
type Feature struct {
	options  Options
	logger   *slog.Logger
	plugger  Plugger
	table    *nft.Table
	metering *metering
	record   *record
	leases   *leases
	wake     func()
	ctx      context.Context
	cancel   context.CancelFunc
	tasks    sync.WaitGroup // announcements

	last    *runtime.State
	adminUp bool

	mu      sync.Mutex
	routers map[string]*router // by id; those that were applied or tried by this process
	// unsettled are routers whose neighbors came or went since they were applied.
	unsettled map[string]struct{}

	// Routers that are to go and could not be deleted yet. Wanted ones that
	// fail are the runtime's to try again.
	doomed  map[string]struct{}
	backoff reconcile.Backoff[string]
	timer   *time.Timer

	helpers helperSupport
	// evpn is nil when the host takes part in none.
	evpn *evpn
}

var _ runtime.Feature = (*Feature)(nil)

// New returns the feature; it opens nothing yet.
func New(o Options) *Feature {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.AvailabilityZone == "" {
		o.AvailabilityZone = "nova"
	}
	return &Feature{
		options: o, logger: o.Logger, adminUp: true,
		metering: newMetering(func(router string, err error) {
			o.Logger.Warn("counters of metering labels are not read", "router", router, "error", err)
		}),
		routers: map[string]*router{}, unsettled: map[string]struct{}{}, doomed: map[string]struct{}{},
		backoff: reconcile.Backoff[string]{First: time.Second, Longest: time.Minute},
	}
}

// Start implements runtime.Feature.
func (f *Feature) Start(ctx context.Context, wake func()) error {
	plugger, err := f.options.Connect()
	if err != nil {
		return fmt.Errorf("l3: %w", err)
	}
	table, err := nft.Open()
	if err != nil {
		return fmt.Errorf("l3: %w", err)
	}
	record, err := openRecord(f.options.StateDir)
	if err != nil {
		return fmt.Errorf("l3: %w", err)
	}
	leases, err := openLeases(f.options.StateDir)
	if err != nil { // all are asked for anew
		f.logger.Warn("delegated prefixes are not known", "error", err)
	}
	f.plugger, f.table, f.record, f.leases, f.wake = plugger, table, record, leases, wake
	if f.options.Metrics != nil {
		if err := f.options.Metrics.Register(f.metering); err != nil {
			return fmt.Errorf("l3: %w", err)
		}
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	if o := f.options.EVPN; o != nil {
		if f.evpn, err = startEVPN(f.ctx, *o, f); err != nil {
			return fmt.Errorf("l3: %w", err)
		}
	}
	f.tasks.Go(func() { f.reportMetering(f.ctx) })
	return nil
}

// Stop implements runtime.Feature. Routers go on forwarding; hosts keep them
// as IPv6 routers for the lifetime of the last advertisement.
func (f *Feature) Stop() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	f.evpn.stop()
	if f.timer != nil {
		f.timer.Stop()
	}
	f.mu.Lock()
	routers := slices.Collect(maps.Values(f.routers))
	f.mu.Unlock()
	for _, r := range routers {
		r.silence(false)
	}
	f.tasks.Wait()
	if f.options.Metrics != nil {
		f.options.Metrics.Unregister(f.metering)
	}
}

// Function implements runtime.Feature.
func (f *Feature) Function() *feed.Function {
	c := struct {
		AgentMode        string   `json:"agent_mode"`
		InternalOnly     bool     `json:"handle_internal_only_routers"`
		InterfaceDriver  string   `json:"interface_driver"`
		Extensions       []string `json:"extensions"`
		LogHeartbeats    bool     `json:"log_agent_heartbeats"`
		Routers          int      `json:"routers"`
		ExternalGateways int      `json:"ex_gw_ports"`
		Interfaces       int      `json:"interfaces"`
		FloatingIPs      int      `json:"floating_ips"`
		// EVPNNeighbors are the states of BGP sessions, by address.
		EVPNNeighbors map[string]string `json:"evpn_neighbors,omitempty"`
	}{AgentMode: "legacy", InternalOnly: true, InterfaceDriver: "openvswitch", Extensions: []string{}, EVPNNeighbors: f.evpn.states()}
	if f.last != nil {
		for _, r := range f.last.Routers {
			c.Routers++
			c.Interfaces += len(r.Interfaces)
			c.FloatingIPs += len(r.FloatingIps)
			if r.Gateway != nil {
				c.ExternalGateways += 1 + len(r.FurtherGateways)
			}
		}
	}
	configurations, err := json.Marshal(c)
	if err != nil { // a struct of strings and numbers
		configurations = []byte("{}")
	}
	return &feed.Function{
		AgentType: AgentType, Binary: "neutron-l3-agent", Topic: "l3_agent",
		AvailabilityZone: f.options.AvailabilityZone, Configurations: string(configurations),
	}
}

// Apply implements runtime.Feature.
func (f *Feature) Apply(ctx context.Context, want *runtime.State, changes runtime.Changes) ([]*feed.Applied, error) {
	adminUp, known := want.AdminStateUp[AgentType]
	adminUp = adminUp || !known
	all := changes.All || f.last == nil || adminUp != f.adminUp
	f.last, f.adminUp = want, adminUp

	// An agent that is administratively down serves no routers.
	routers := want.Routers
	if !adminUp {
		routers = nil
	}
	index := f.devices()
	touched := f.touched(routers, changes, index, all)

	var mu sync.Mutex
	var results []*feed.Applied
	var group errgroup.Group
	group.SetLimit(parallel)
	for id := range touched {
		wanted := routers[id]
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, routerTime)
			defer cancel()
			result := f.applyOne(ctx, id, wanted, want, index[NamespacePrefix+id])
			mu.Lock()
			defer mu.Unlock()
			if result != nil {
				results = append(results, result)
			}
			return nil
		})
	}
	_ = group.Wait() // never an error
	f.evpn.announce(routers, want)
	f.wakeForDoomed()
	return results, ctx.Err()
}

// devices returns our plugged devices by namespace.
func (f *Feature) devices() map[string][]plug.Plugged {
	index := map[string][]plug.Plugged{}
	for _, d := range f.plugger.Devices() {
		index[d.Namespace] = append(index[d.Namespace], d)
	}
	return index
}

// touched is the ids of the routers to work on, those to be deleted among them.
func (f *Feature) touched(routers map[string]*feed.Router, changes runtime.Changes, index map[string][]plug.Plugged, all bool) map[string]struct{} {
	touched := map[string]struct{}{}
	now := time.Now()
	for id := range f.doomed {
		if all || f.backoff.Ready(id, now) {
			touched[id] = struct{}{}
		}
	}
	f.mu.Lock()
	for id := range f.unsettled {
		if routers[id] != nil {
			touched[id] = struct{}{}
		}
	}
	clear(f.unsettled)
	f.mu.Unlock()
	if !all {
		for id := range changes.Routers {
			touched[id] = struct{}{}
		}
		for id, r := range routers {
			if len(changes.Ports) > 0 && usesPort(r, changes.Ports) || len(changes.QoSPolicies) > 0 && usesPolicy(r, changes.QoSPolicies) {
				touched[id] = struct{}{}
			}
		}
		return touched
	}
	for id := range routers {
		touched[id] = struct{}{}
	}
	for id := range f.routers {
		touched[id] = struct{}{}
	}
	for _, name := range f.record.list() {
		touched[strings.TrimPrefix(name, NamespacePrefix)] = struct{}{}
	}
	for name := range index {
		if id, ok := strings.CutPrefix(name, NamespacePrefix); ok {
			touched[id] = struct{}{}
		}
	}
	return touched
}

func usesPort(r *feed.Router, ports map[string]struct{}) bool {
	for _, i := range r.Interfaces {
		if _, ok := ports[i.PortId]; ok {
			return true
		}
	}
	for _, g := range r.FurtherGateways {
		if _, ok := ports[g.PortId]; ok {
			return true
		}
	}
	if r.Gateway != nil {
		_, ok := ports[r.Gateway.PortId]
		return ok
	}
	return false
}

// applyOne makes one router be as wanted, or go when wanted is nil, and says
// what came of it.
func (f *Feature) applyOne(ctx context.Context, id string, wanted *feed.Router, state *runtime.State, there []plug.Plugged) *feed.Applied {
	if wanted == nil {
		err := f.delete(ctx, id, there)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			f.doomed[id] = struct{}{}
			f.backoff.Failed(id, time.Now())
			f.logger.Error("router not deleted", "router", id, "error", err)
			return nil
		}
		delete(f.doomed, id)
		f.backoff.Forget(id)
		return nil
	}
	f.mu.Lock()
	delete(f.doomed, id)
	f.backoff.Forget(id)
	r := f.routers[id]
	if r == nil {
		r = &router{feature: f, senders: map[string]*radv.Sender{}, watched: map[neighbor]*bfd.Session{}, stale: true}
		f.routers[id] = r
	}
	f.mu.Unlock()

	plan, err := planRouter(wanted, func(port string) bool {
		p, known := state.Ports[port]
		return !known || p.AdminStateUp
	}, r.reachable)
	var without []string
	overlaid := true
	if plan != nil {
		planLimits(plan, wanted, state.QoSPolicies)
		without = f.planHelpers(ctx, plan, wanted.ConntrackHelpers)
		overlaid = f.evpn.plan(plan, wanted)
		err = errors.Join(err, r.apply(ctx, plan, there), f.metering.apply(ctx, wanted))
	}
	result := &feed.Applied{
		Kind: feed.Kind_KIND_ROUTER, Id: id, Revision: wanted.Revision, AgentType: AgentType, State: feed.State_STATE_ACTIVE,
	}
	result.Delegations = r.delegations()
	if err != nil {
		result.State, result.Error = feed.State_STATE_ERROR, err.Error()
	} else if len(without) > 0 { // the router works in spite of it
		result.Error = "this host's kernel does not have the connection tracking helpers " + strings.Join(without, ", ")
		f.logger.Warn("connection tracking helpers are left out", "router", id, "helpers", without)
	} else if !overlaid {
		result.Error = "this host takes part in no EVPN: [evpn] local_as is not set"
		f.logger.Warn("the VNI of a router is not served", "router", id, "vni", wanted.EvpnVni)
	}
	return result
}

// delete removes what is there of a router, if it is ours.
func (f *Feature) delete(ctx context.Context, id string, there []plug.Plugged) error {
	f.mu.Lock()
	r := f.routers[id]
	f.mu.Unlock()
	if r != nil {
		r.silence(true)
	}
	f.evpn.forget(id)
	var failed []error
	for _, d := range there {
		if err := f.plugger.Unplug(ctx, d.PortID); err != nil {
			failed = append(failed, err)
		}
	}
	name := NamespacePrefix + id
	// Ours by the record, or by the mark of the devices in it.
	if len(failed) == 0 && validID(id) && (f.record.has(name) || len(there) > 0) {
		// Now, not when the kernel comes to it: the VNI may be another router's next.
		if err := removeOverlays(name, ""); err != nil {
			failed = append(failed, err)
		} else if err := netns.Delete(name); err != nil {
			failed = append(failed, err)
		} else if err := f.record.remove(name); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 {
		f.mu.Lock()
		delete(f.routers, id)
		f.mu.Unlock()
		f.metering.forget(id)
		if err := f.leases.set(id, nil); err != nil {
			f.logger.Warn("delegated prefixes are not forgotten", "router", id, "error", err)
		}
	}
	return errors.Join(failed...)
}

// reroute has a router's routes chosen anew.
func (f *Feature) reroute(id string) {
	f.mu.Lock()
	f.unsettled[id] = struct{}{}
	f.mu.Unlock()
	f.wake()
}

// wakeForDoomed asks to be called again when a failed deletion is due.
func (f *Feature) wakeForDoomed() {
	next, ok := f.backoff.Next()
	if !ok || f.ctx.Err() != nil {
		return
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(time.Until(next), f.wake)
}
