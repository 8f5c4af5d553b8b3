package l3

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"isospin/internal/agent/l3/bfd"
	"isospin/internal/agent/l3/pd"
	"isospin/internal/agent/l3/radv"
	"isospin/internal/agent/plug"
	"isospin/internal/kernel/conntrack"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/neighbour"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/nft"
	"isospin/internal/kernel/route"
	"isospin/internal/kernel/sysctl"
	"isospin/internal/reconcile"
)

// announceAt is when addresses that are new are announced: again, since the
// switch may take the port into service only after the device is there.
var announceAt = []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}

// router is what this process knows of a router that it made. Only one
// goroutine at a time works on it.
type router struct {
	feature *Feature
	rules   nft.Fingerprint
	// stale: tracked flows may be there that the rules do not justify.
	stale   bool
	senders map[string]*radv.Sender // by device
	watched map[neighbor]*bfd.Session
	// delegated asks for the prefixes that delegation says; nil: none are wanted.
	delegated  *pd.Client
	delegation *delegation
	// advertised are the prefixes of each device's advertisements, and since when they are so no longer.
	advertised map[string]map[netip.Prefix]time.Time
}

// apply makes the router be as w says. What fails is in the error; what can be
// done in spite of it is done.
func (r *router) apply(ctx context.Context, w *wanted, there []plug.Plugged) error {
	f := r.feature
	inside := func(do func() error) func(context.Context) error {
		return func(context.Context) error { return netns.Do(w.Namespace, do) }
	}
	return reconcile.RunPhases(ctx,
		reconcile.Phase{Name: "namespace", Required: true, Run: func(context.Context) error {
			if err := f.record.add(w.Namespace); err != nil {
				return err
			}
			_, err := netns.Create(w.Namespace)
			return err
		}},
		// Before the devices: no packet passes without them.
		reconcile.Phase{Name: "rules", Required: true, Run: inside(func() error {
			now, changed, err := f.table.Replace(ctx, w.Rules, r.rules)
			r.rules, r.stale = now, r.stale || changed
			return err
		})},
		reconcile.Phase{Name: "tracked flows", Run: inside(func() error { return r.endFlows(w) })},
		reconcile.Phase{Name: "settings", Required: true, Run: inside(func() error { return sysctl.Set(w.Settings...) })},
		// They are released over the device that goes.
		reconcile.Phase{Name: "prefixes that are asked for no longer", Run: func(context.Context) error { r.undelegate(w); return nil }},
		reconcile.Phase{Name: "devices that are gone", Run: func(ctx context.Context) error { return r.prune(ctx, w, there) }},
		reconcile.Phase{Name: "devices", Run: func(ctx context.Context) error { return r.plug(ctx, w) }},
		reconcile.Phase{Name: "EVPN", Run: func(context.Context) error { return r.applyOverlay(w) }},
		reconcile.Phase{Name: "delegated prefixes", Run: func(context.Context) error { r.delegate(w); return nil }},
		reconcile.Phase{Name: "neighbors of default routes", Run: func(context.Context) error { return r.watch(w) }},
		reconcile.Phase{Name: "choice among next hops", Run: inside(func() error { return sysctl.Set(w.Balance...) })},
		reconcile.Phase{Name: "neighbour proxies", Run: inside(w.Proxies.apply)},
		reconcile.Phase{Name: "routes", Run: inside(func() error { return route.Set(route.Main, w.Routes) })},
		reconcile.Phase{Name: "routes of gateways", Run: inside(func() error { return setPolicy(w) })},
		reconcile.Phase{Name: "advertisements", Run: func(context.Context) error { return r.advertise(w) }},
	)
}

// endFlows deletes the tracked flows whose translation has no reason any more,
// as after the removal of a floating IP: they would go on otherwise.
func (r *router) endFlows(w *wanted) error {
	if !r.stale {
		return nil
	}
	n, err := conntrack.Delete4(w.NAT.unjustified)
	if n > 0 {
		r.feature.logger.Info("ended translated flows", "router", w.ID, "flows", n)
	}
	r.stale = err != nil
	return err
}

// prune unplugs our ports in the namespace that are not wanted, and removes
// router devices in it that are left of ports that the switch has forgotten.
func (r *router) prune(ctx context.Context, w *wanted, there []plug.Plugged) error {
	keep := map[string]bool{}
	ports := map[string]bool{}
	for _, d := range w.Devices {
		keep[d.Name], ports[d.PortID] = true, true
	}
	var failed []error
	for name, s := range r.senders {
		if !keep[name] {
			s.Stop(true)
			delete(r.senders, name)
		}
	}
	for _, d := range there {
		if !ports[d.PortID] {
			if err := r.feature.plugger.Unplug(ctx, d.PortID); err != nil {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(append(failed, netns.Do(w.Namespace, func() error {
		names, err := link.Names()
		if err != nil {
			return err
		}
		for _, n := range names {
			if !keep[n] && (strings.HasPrefix(n, "qr-") || strings.HasPrefix(n, "qg-")) {
				if err := link.Delete(n); err != nil {
					return err
				}
			}
		}
		return nil
	}))...)
}

// plug makes the devices and announces addresses that were not there before.
func (r *router) plug(ctx context.Context, w *wanted) error {
	var failed []error
	for _, d := range w.Devices {
		var before []netip.Prefix
		err := netns.Do(w.Namespace, func() (err error) {
			if before, err = link.Addresses(d.Name); errors.Is(err, link.ErrNotExist) {
				err = nil
			}
			return err
		})
		if err == nil {
			err = r.feature.plugger.Plug(ctx, d)
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		var fresh []netip.Addr
		for _, a := range d.Addresses {
			if !slices.Contains(before, a) {
				fresh = append(fresh, a.Addr())
			}
		}
		if len(fresh) > 0 && !d.AdminDown {
			r.feature.announce(w.Namespace, d.Name, fresh)
		}
	}
	return errors.Join(failed...)
}

// announce tells the neighbours of new addresses, several times, in the
// background until the feature stops.
func (f *Feature) announce(namespace, device string, addresses []netip.Addr) {
	f.tasks.Go(func() {
		begin := time.Now()
		for _, at := range announceAt {
			select {
			case <-f.ctx.Done():
				return
			case <-time.After(time.Until(begin.Add(at))):
			}
			err := netns.Do(namespace, func() error {
				// Those that are gone again belong to somebody else now.
				have, err := link.Addresses(device)
				if err != nil {
					return err
				}
				still := slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool {
					return !slices.ContainsFunc(have, func(p netip.Prefix) bool { return p.Addr() == a })
				})
				return neighbour.Announce(device, still)
			})
			if errors.Is(err, link.ErrNotExist) || errors.Is(err, netns.ErrNotExist) {
				return
			}
			if err != nil {
				f.logger.Warn("addresses not announced", "device", device, "error", err)
			}
		}
	})
}

// advertise starts, changes and stops the senders of router advertisements.
func (r *router) advertise(w *wanted) error {
	var failed []error
	for name, s := range r.senders {
		if _, ok := w.Advertisements[name]; !ok {
			s.Stop(true)
			delete(r.senders, name)
		}
	}
	for name, a := range w.Advertisements {
		a = r.withFormer(name, a, time.Now())
		if s := r.senders[name]; s != nil {
			var index int
			err := netns.Do(w.Namespace, func() (err error) { index, err = link.Index(name); return err })
			if err == nil && index == s.Index() {
				s.Update(a)
				continue
			}
			s.Stop(false) // its device was made anew
			delete(r.senders, name)
		}
		s, err := radv.Start(r.feature.ctx, radv.Options{Namespace: w.Namespace, Device: name, Advertisement: a, Logger: r.feature.logger})
		if err != nil {
			failed = append(failed, fmt.Errorf("device %s: %w", name, err))
			continue
		}
		r.senders[name] = s
	}
	return errors.Join(failed...)
}

// watch starts and stops the sessions with the neighbors of default routes.
func (r *router) watch(w *wanted) error {
	f := r.feature
	for n, s := range r.watched {
		if !slices.Contains(w.Watched, n) {
			s.Stop()
			delete(r.watched, n)
		}
	}
	var failed []error
	for _, n := range w.Watched {
		if s := r.watched[n]; s != nil {
			var index int
			err := netns.Do(w.Namespace, func() (err error) { index, err = link.Index(n.Device); return err })
			if err == nil && index == s.Index() {
				continue
			}
			s.Stop() // its device was made anew
			delete(r.watched, n)
		}
		s, err := bfd.Start(f.ctx, bfd.Options{Namespace: w.Namespace, Device: n.Device, Peer: n.Address, Changed: func() { f.reroute(w.ID) }, Logger: f.logger})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		r.watched[n] = s
	}
	return errors.Join(failed...)
}

// reachable tells whether a neighbor answers.
func (r *router) reachable(n neighbor) bool {
	s := r.watched[n]
	return s != nil && s.Up()
}

// silence ends what the router says of itself; retire tells the hosts, see radv.
func (r *router) silence(retire bool) {
	if r.delegated != nil {
		r.delegated.Stop(false) // whoever serves the router next goes on with the leases
		r.delegated, r.delegation = nil, nil
	}
	for n, s := range r.watched {
		s.Stop()
		delete(r.watched, n)
	}
	for name, s := range r.senders {
		s.Stop(retire)
		delete(r.senders, name)
	}
}
