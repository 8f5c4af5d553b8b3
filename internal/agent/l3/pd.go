package l3

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/l3/pd"
	"isospin/internal/agent/l3/radv"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/route"
)

// delegation is what a router has delegated over its first gateway.
type delegation struct {
	Device  string
	MAC     net.HardwareAddr
	Subnets []pd.Subnet // sorted
	// Down: nothing can be asked for now, and what there is stays.
	Down bool
	// index is that of the device when the client was started.
	index int
}

// same tells whether one client serves both.
func (d *delegation) same(o *delegation) bool {
	return d != nil && o != nil && d.Device == o.Device && slices.Equal(d.MAC, o.MAC) && d.Down == o.Down
}

// planDelegation says for which subnets the router asks, RFC 8415. The way out
// for their packets is learnt from the neighbors, if no gateway is named.
func planDelegation(w *wanted, r *feed.Router, gateways []*outside) {
	if len(gateways) == 0 || r.Gateway == nil {
		return
	}
	out := gateways[0]
	d := &delegation{Device: out.Device, MAC: out.port.mac, Down: out.port.device.AdminDown}
	for _, i := range r.Interfaces {
		for _, n := range i.Delegations {
			if !validID(n.SubnetId) || slices.ContainsFunc(d.Subnets, func(s pd.Subnet) bool { return s.ID == n.SubnetId }) {
				continue
			}
			s := pd.Subnet{ID: n.SubnetId}
			if hint, err := netip.ParsePrefix(n.Prefix); err == nil && hint.Addr().Is6() {
				s.Hint = hint
			}
			d.Subnets = append(d.Subnets, s)
		}
	}
	if len(d.Subnets) == 0 {
		return
	}
	slices.SortFunc(d.Subnets, func(a, b pd.Subnet) int { return strings.Compare(a.ID, b.ID) })
	w.Delegation = d
	named := slices.ContainsFunc(out.Defaults, func(o route.Route) bool { return o.Destination.Addr().Is6() })
	out.port.device.AcceptAdvertisements = out.port.device.AcceptAdvertisements || !named
}

// undelegate ends a client that is not the one that is wanted. It gives the
// leases back, unless the router is only down.
func (r *router) undelegate(w *wanted) {
	if r.delegated == nil {
		return
	}
	if w.Delegation.same(r.delegation) {
		index, err := indexOf(w.Namespace, r.delegation.Device)
		if err == nil && index == r.delegation.index {
			return
		}
		r.delegated.Stop(false) // its device was made anew
	} else {
		r.delegated.Stop(w.Delegation == nil || !w.Delegation.Down)
	}
	r.delegated, r.delegation = nil, nil
}

func indexOf(namespace, device string) (index int, err error) {
	err = netns.Do(namespace, func() (err error) { index, err = link.Index(device); return err })
	return index, err
}

// delegate has the client ask for what is wanted.
func (r *router) delegate(w *wanted) {
	f := r.feature
	if w.Delegation == nil {
		// Of a time before this process: they run out by themselves.
		if err := f.leases.set(w.ID, nil); err != nil {
			f.logger.Warn("delegated prefixes are not forgotten", "router", w.ID, "error", err)
		}
		return
	}
	if w.Delegation.Down {
		return
	}
	if r.delegated == nil {
		index, err := indexOf(w.Namespace, w.Delegation.Device)
		if err != nil {
			return // the device's own failure is told
		}
		r.delegated = pd.Start(f.ctx, pd.Options{
			Namespace: w.Namespace, Device: w.Delegation.Device, MAC: w.Delegation.MAC, Enterprise: f.options.Enterprise,
			Leases: f.leases.of(w.ID), Save: func(leases map[string]pd.Lease) error { return f.leases.set(w.ID, leases) },
			Changed: func() { f.reroute(w.ID) }, Logger: f.logger.With("router", w.ID),
		})
		w.Delegation.index = index
	} else {
		w.Delegation.index = r.delegation.index
	}
	r.delegation = w.Delegation
	r.delegated.Set(w.Delegation.Subnets)
}

// delegations are what is to be told of prefixes, sorted by subnet.
func (r *router) delegations() []*feed.PrefixDelegation {
	if r.delegated == nil {
		return nil
	}
	prefixes := r.delegated.Prefixes()
	var list []*feed.PrefixDelegation
	for _, id := range slices.Sorted(maps.Keys(prefixes)) {
		d := &feed.PrefixDelegation{SubnetId: id}
		if p := prefixes[id]; p.IsValid() {
			d.Prefix = p.String()
		}
		list = append(list, d)
	}
	return list
}

// formerFor is how long a prefix is told to be of no use: hosts that hear it
// for the first time then have forgotten it anyway.
const formerFor = 24 * time.Hour

// withFormer adds the prefixes to an advertisement that the device had before:
// hosts are to take no addresses of theirs for new connections (RFC 9096).
func (r *router) withFormer(device string, a radv.Advertisement, now time.Time) radv.Advertisement {
	had := r.advertised[device]
	if had == nil {
		had = map[netip.Prefix]time.Time{}
		if r.advertised == nil {
			r.advertised = map[string]map[netip.Prefix]time.Time{}
		}
		r.advertised[device] = had
	}
	current := map[netip.Prefix]bool{}
	for _, p := range a.Prefixes {
		current[p.Prefix] = true
		had[p.Prefix] = time.Time{}
	}
	a.Prefixes = slices.Clone(a.Prefixes)
	for _, p := range slices.SortedFunc(maps.Keys(had), netip.Prefix.Compare) {
		since := had[p]
		switch {
		case current[p]:
			continue
		case since.IsZero():
			had[p] = now
		case now.Sub(since) > formerFor:
			delete(had, p)
			continue
		}
		a.Prefixes = append(a.Prefixes, radv.Prefix{Prefix: p, OnLink: true, Autonomous: true})
	}
	return a
}

// leases are the prefixes that routers have, kept on disk so that a later
// process goes on with them. Safe for concurrent use.
type leases struct {
	file string

	mu       sync.Mutex
	byRouter map[string]map[string]pd.Lease // by subnet
}

// openLeases is of use also with an error: there are none then.
func openLeases(dir string) (*leases, error) {
	l := &leases{file: filepath.Join(dir, "l3-prefixes.json"), byRouter: map[string]map[string]pd.Lease{}}
	b, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &l.byRouter)
	}
	if err != nil || l.byRouter == nil {
		l.byRouter = map[string]map[string]pd.Lease{}
	}
	if err != nil {
		err = fmt.Errorf("delegated prefixes: %w", err)
	}
	return l, err
}

func (l *leases) of(router string) map[string]pd.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.byRouter[router])
}

// set replaces the leases of a router.
func (l *leases) set(router string, now map[string]pd.Lease) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(now) == 0 && len(l.byRouter[router]) == 0 {
		return nil
	}
	if len(now) == 0 {
		delete(l.byRouter, router)
	} else {
		l.byRouter[router] = maps.Clone(now)
	}
	if err := replaceFile(l.file, l.byRouter); err != nil {
		return fmt.Errorf("delegated prefixes: %w", err)
	}
	return nil
}
