package simulate

import (
	"context"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
)

// The functions that report what they are told of.
const (
	switchAgent = "Open vSwitch agent"
	dhcpAgent   = "DHCP agent"
	l3Agent     = "L3 agent"
)

// feature is one function of a simulated host. It keeps nothing: what the
// host must be is what it says the host is.
type feature struct {
	function *feed.Function
	told     func(*runtime.State) // nil: nobody asks
}

var _ runtime.Feature = (*feature)(nil)

func (f *feature) Function() *feed.Function            { return f.function }
func (f *feature) Start(context.Context, func()) error { return nil }
func (f *feature) Stop()                               {}

// Apply reports the objects that are this function's and have changed.
func (f *feature) Apply(_ context.Context, want *runtime.State, changes runtime.Changes) ([]*feed.Applied, error) {
	if f.told != nil {
		f.told(want)
	}
	var results []*feed.Applied
	report := func(kind feed.Kind, id string, revision int64, up bool) {
		state := feed.State_STATE_ACTIVE
		if !up {
			state = feed.State_STATE_DOWN
		}
		results = append(results, &feed.Applied{Kind: kind, Id: id, Revision: revision, AgentType: f.function.AgentType, State: state})
	}
	switch f.function.AgentType {
	case switchAgent:
		each(changes.All, changes.Ports, want.Ports, func(p *feed.Port) {
			report(feed.Kind_KIND_PORT, p.Id, p.Revision, p.AdminStateUp)
		})
		each(changes.All, changes.Networks, want.Networks, func(n *feed.Network) {
			// Every host has the network's DHCP port; it is in no host's ports.
			if p := n.DhcpPort; p != nil {
				report(feed.Kind_KIND_PORT, p.Id, p.Revision, p.AdminStateUp)
			}
		})
		each(changes.All, changes.Trunks, want.Trunks, func(t *feed.Trunk) { report(feed.Kind_KIND_TRUNK, t.Id, t.Revision, true) })
	case dhcpAgent:
		each(changes.All, changes.Ports, want.Ports, func(p *feed.Port) { report(feed.Kind_KIND_PORT, p.Id, p.Revision, true) })
	case l3Agent:
		each(changes.All, changes.Routers, want.Routers, func(r *feed.Router) { report(feed.Kind_KIND_ROUTER, r.Id, r.Revision, true) })
	}
	return results, nil
}

// each calls do for the objects that are there and have changed.
func each[T any](all bool, changed map[string]struct{}, there map[string]*T, do func(*T)) {
	if all {
		for _, o := range there {
			do(o)
		}
		return
	}
	for id := range changed {
		if o := there[id]; o != nil {
			do(o)
		}
	}
}
