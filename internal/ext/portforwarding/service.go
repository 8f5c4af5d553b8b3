package portforwarding

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/core/l3"
	"isospin/internal/core/port"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	*collection.Collection[Forwarding, *Forwarding]
	core *core.Core
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	res := newResource(c.L3.FloatingIPResource())
	s.Collection = collection.New[Forwarding](collection.Options[Forwarding]{
		Store: c.Store, Resource: res, Table: store.NewTable[Forwarding]("port_forwarding", store.TableOptions[Forwarding]{}),
		Create: s.create, Update: s.update, Delete: s.delete,
	})
	within := s.Within(collection.Parent[Forwarding]{
		Member: "floatingip_id", Column: "floatingip_id",
		Of: func(f *Forwarding) string { return f.FloatingIPID },
		Enter: func(ctx context.Context, tx *store.Tx, id string) error {
			_, err := c.L3.FindFloatingIP(ctx, tx, id)
			return err
		},
		NotFound: func(_, id string) error { return s.NotFound(id) },
	})
	res.Within = func(id string) resource.Service { return numbers{within(id)} }
	return s
}

// numbers takes ports that clients send as text: their validator lets it pass.
type numbers struct{ resource.Service }

func (numbers) normal(b *resource.Body) *resource.Body {
	c := *b
	c.Values = maps.Clone(b.Values)
	for _, name := range []string{"external_port", "internal_port"} {
		if text, ok := c.Values[name].(string); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32); err == nil {
				c.Values[name] = n
			}
		}
	}
	return &c
}

// Create implements resource.Service.
func (n numbers) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	list := make([]*resource.Body, len(items))
	for i, b := range items {
		list[i] = n.normal(b)
	}
	return n.Service.Create(ctx, list)
}

// Update implements resource.Service.
func (n numbers) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	return n.Service.Update(ctx, id, n.normal(body), match)
}

// bad is neutron-lib's BadRequest.
func bad(format string, args ...any) error {
	return fault.New(fault.Invalid, "BadRequest", "Bad port_forwarding request: "+format+".", args...)
}

// span is a range of ports; the zero value is that of protocols without ports.
type span struct{ first, last int }

func (s span) String() string { return strconv.Itoa(s.first) + ":" + strconv.Itoa(s.last) }

func (s span) size() int { return s.last - s.first + 1 }

func (s span) overlaps(o span) bool { return s.first <= o.last && o.first <= s.last }

// spanOf reads a stored range.
func spanOf(text *string) span {
	if text == nil {
		return span{}
	}
	first, last, whole := strings.Cut(*text, ":")
	if !whole {
		last = first
	}
	var s span
	s.first, _ = strconv.Atoi(first)
	s.last, _ = strconv.Atoi(last)
	return s
}

// settle brings the port and the range of one side to the same: what the body
// gives counts, the range before the port.
func settle(body *resource.Body, side string, number **int, text **string) span {
	given := func(name string) bool { return body.Has(name) && body.Values[name] != nil }
	switch {
	case given(side + "_range"):
	case given(side) && *number != nil:
		one := strconv.Itoa(**number)
		*text = &one
	}
	s := spanOf(*text)
	if s == (span{}) {
		*number, *text = nil, nil
		return s
	}
	*number = nil
	if s.first == s.last {
		*number = &s.first
	}
	shown := s.String()
	*text = &shown
	return s
}

// portless tells whether a protocol has no ports.
func portless(protocol string) bool { return strings.Contains(protocol, "icmp") }

// checkPorts completes and checks the ports of both sides.
func checkPorts(f *Forwarding, body *resource.Body) error {
	external := settle(body, "external_port", &f.ExternalPort, &f.ExternalPortRange)
	internal := settle(body, "internal_port", &f.InternalPort, &f.InternalPortRange)
	if portless(f.Protocol) && external == (span{}) && internal == (span{}) {
		return nil
	}
	for _, s := range []span{external, internal} {
		if s.first < 1 || s.last > 65535 || s.last < s.first {
			return bad("Invalid port value, the port value must be a value between 1 and 65535.")
		}
	}
	if internal.size() != 1 && internal.size() != external.size() {
		return bad("Invalid ranges of internal and/or external ports. The relation between internal and external ports must be N-N or 1-N")
	}
	return nil
}

func associated(f *l3.FloatingIP, portID string, fixed fmt.Stringer) error {
	return fault.New(fault.Conflict, "FloatingIPPortAlreadyAssociated", "Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.",
		f.Address, f.ID, portID, fixed, f.NetworkID)
}

// checkPort refuses a port that has a floating IP.
func (s *service) checkPort(tx *store.Tx, f *Forwarding) error {
	of, err := s.core.L3.FloatingIPOf(tx, f.InternalPortID)
	if err != nil || of == nil {
		return err
	}
	return fault.New(fault.Conflict, "PortHasBindingFloatingIP", "Cannot create port forwarding to floating IP %s (%s) with port %s using fixed IP %s, as that port already has a binding floating IP.",
		of.Address, of.ID, f.InternalPortID, f.InternalIPAddress)
}

// fixedIPs are a port's addresses as Neutron words them.
func fixedIPs(p *port.Port) string {
	list := make([]string, len(p.FixedIPs))
	for i, a := range p.FixedIPs {
		list[i] = fmt.Sprintf("{'subnet_id': '%s', 'ip_address': '%s'}", a.SubnetID, a.IPAddress)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// router finds the router by which a forwarding's address is reached.
func (s *service) router(ctx context.Context, tx *store.Tx, f *Forwarding, of *l3.FloatingIP) (string, error) {
	p, err := s.core.Ports.Find(ctx, tx, f.InternalPortID)
	if err != nil {
		return "", err
	}
	subnetID, version4 := "", false
	for _, a := range p.FixedIPs {
		if !a.IPAddress.Is4() {
			continue
		}
		version4 = true
		if a.IPAddress == f.InternalIPAddress {
			subnetID = a.SubnetID
		}
	}
	if !version4 {
		return "", bad("Requested internal port %s must allocate an IPv4 address at least.", p.ID)
	}
	if subnetID == "" {
		return "", bad("Requested internal IP address %s is not suitable for internal neutron port %s, as its fixed_ips are %s", f.InternalIPAddress, p.ID, fixedIPs(p))
	}
	id, err := s.core.L3.RouterBetween(tx, subnetID, of.NetworkID)
	if err != nil {
		return "", err
	}
	if id == "" {
		return "", bad("External network %s is not reachable from subnet %s. Cannot set Port forwarding for port %s with Floating IP %s", of.NetworkID, subnetID, p.ID, of.ID)
	}
	if of.RouterID != nil && *of.RouterID != id {
		same, err := s.Table.SelectBare(tx, "WHERE t.floatingip_id = ? AND t.internal_ip_address = ? AND t.internal_port = ?", of.ID, f.InternalIPAddress.String(), f.InternalPort)
		if err != nil {
			return "", err
		}
		if len(same) > 0 {
			return "", bad("Floating IP %s with params: internal_ip_address: %s, internal_port: %d already exists", of.ID, f.InternalIPAddress, *f.InternalPort)
		}
		return "", bad("The Floating IP %s had been set on router %s, the internal Neutron port %s can not reach it", of.ID, *of.RouterID, p.ID)
	}
	return id, nil
}

// rivals are the other forwardings of the protocol that could take the same ports:
// those of the floating IP, and those to the internal address.
func (s *service) rivals(tx *store.Tx, f *Forwarding) ([]*Forwarding, error) {
	return s.Table.SelectBare(tx, `WHERE t.id <> ? AND t.protocol = ? AND (t.floatingip_id = ? OR t.internal_port_id = ? AND t.internal_ip_address = ?) ORDER BY t.created_at, t.id`,
		f.ID, f.Protocol, f.FloatingIPID, f.InternalPortID, f.InternalIPAddress.String())
}

// inside tells whether both are for one internal address.
func (f *Forwarding) inside(o *Forwarding) bool {
	return o.InternalPortID == f.InternalPortID && o.InternalIPAddress == f.InternalIPAddress
}

// checkCollisions refuses what is forwarded twice: an internal port, or an external one.
func checkCollisions(f *Forwarding, rivals []*Forwarding) error {
	collision := func(side string, have, want span) error {
		return bad("There is a port collision with the %s. The following ranges collide: %s and %s", side, have, want)
	}
	for _, o := range rivals {
		if have, want := spanOf(o.InternalPortRange), spanOf(f.InternalPortRange); f.inside(o) && have.overlaps(want) {
			return collision("internal_port_range", have, want)
		}
	}
	for _, o := range rivals {
		if have, want := spanOf(o.ExternalPortRange), spanOf(f.ExternalPortRange); o.FloatingIPID == f.FloatingIPID && have.overlaps(want) {
			return collision("external_port_range", have, want)
		}
	}
	return nil
}

func equal(a, b *int) bool { return a != nil && b != nil && *a == *b }

// checkSame refuses a change that makes of a forwarding what another of the
// floating IP is already.
func checkSame(f *Forwarding, of *l3.FloatingIP, rivals []*Forwarding) error {
	another := func(format string, args ...any) error {
		return bad("Another port forwarding entry with the same attributes already exists, conflicting values are {%s}", fmt.Sprintf(format, args...))
	}
	for _, o := range rivals {
		if o.FloatingIPID != f.FloatingIPID {
			continue
		}
		if equal(o.ExternalPort, f.ExternalPort) {
			return another("'floating_ip_address': '%s', 'external_port': %d", of.Address, *o.ExternalPort)
		}
		if f.inside(o) && equal(o.InternalPort, f.InternalPort) {
			return another("'internal_port_id': '%s', 'internal_ip_address': '%s', 'internal_port': %d", o.InternalPortID, o.InternalIPAddress, *o.InternalPort)
		}
	}
	return nil
}

// checkDuplicate refuses what Neutron's database does: another protocol for
// ports that a forwarding of it has.
func checkDuplicate(f *Forwarding, rivals []*Forwarding) error {
	for _, o := range rivals {
		if f.inside(o) && equal(o.InternalPort, f.InternalPort) {
			return bad("A duplicate port forwarding entry with same attributes already exists, conflicting values are {'internal_port_id': '%s', 'internal_ip_address': '%s', 'internal_port': %d, 'protocol': '%s'}",
				o.InternalPortID, o.InternalIPAddress, *o.InternalPort, o.Protocol)
		}
	}
	return checkCollisions(f, rivals)
}

func (s *service) create(ctx context.Context, tx *store.Tx, f *Forwarding, body *resource.Body) error {
	if err := checkPorts(f, body); err != nil {
		return err
	}
	rivals, err := s.rivals(tx, f)
	if err != nil {
		return err
	}
	if err := checkCollisions(f, rivals); err != nil {
		return err
	}
	if err := s.checkPort(tx, f); err != nil {
		return err
	}
	of, err := s.core.L3.LoadFloatingIP(tx, f.FloatingIPID)
	if err != nil {
		return err
	}
	if of.PortID != nil {
		return associated(of, f.InternalPortID, f.InternalIPAddress)
	}
	routerID, err := s.router(ctx, tx, f, of)
	if err != nil {
		return err
	}
	f.ProjectID = of.ProjectID
	// Who else adds one to this router waits, or comes again, so that nothing
	// gets between what is read now and the new row.
	if of.RouterID == nil {
		err = s.core.L3.HoldFloatingIP(ctx, tx, of.ID, &routerID)
	} else {
		err = s.core.L3.RouterChanged(ctx, tx, routerID, false)
	}
	if err != nil {
		return err
	}
	if rivals, err = s.rivals(tx, f); err != nil {
		return err
	}
	if err := checkDuplicate(f, rivals); err != nil {
		return err
	}
	return s.Insert(ctx, tx, f)
}

func (s *service) update(ctx context.Context, tx *store.Tx, old, want *Forwarding, body *resource.Body) error {
	if body.Has("internal_port_id") {
		if err := s.checkPort(tx, want); err != nil {
			return err
		}
	}
	of, err := s.core.L3.LoadFloatingIP(tx, want.FloatingIPID)
	if err != nil {
		return err
	}
	if want.InternalPortID != old.InternalPortID {
		if _, err := s.router(ctx, tx, want, of); err != nil {
			return err
		}
	}
	if err := checkPorts(want, body); err != nil {
		return err
	}
	p, err := s.core.Ports.Load(tx, want.InternalPortID)
	if err != nil {
		return err
	}
	if !has(p, want) {
		return bad("The internal IP does not correspond to an address on the internal port, which has fixed_ips %s", fixedIPs(p))
	}
	if want.InternalPortID == old.InternalPortID && want.InternalIPAddress != old.InternalIPAddress {
		if _, err := s.router(ctx, tx, want, of); err != nil {
			return err
		}
	}
	if of.RouterID != nil { // as in create
		if err := s.core.L3.RouterChanged(ctx, tx, *of.RouterID, false); err != nil {
			return err
		}
	}
	rivals, err := s.rivals(tx, want)
	if err != nil {
		return err
	}
	if err := checkSame(want, of, rivals); err != nil {
		return err
	}
	check := checkDuplicate
	for _, name := range []string{"internal_port", "internal_port_range", "external_port", "external_port_range", "internal_ip_address", "internal_port_id"} {
		if body.Has(name) {
			check = checkCollisions
		}
	}
	if err := check(want, rivals); err != nil {
		return err
	}
	return s.Save(ctx, tx, want)
}

// has tells whether the port has the forwarding's address.
func has(p *port.Port, f *Forwarding) bool {
	for _, a := range p.FixedIPs {
		if a.IPAddress == f.InternalIPAddress {
			return true
		}
	}
	return false
}

// delete removes a forwarding; with the last one its floating IP leaves the router.
func (s *service) delete(ctx context.Context, tx *store.Tx, f *Forwarding) error {
	if err := s.Remove(ctx, tx, f); err != nil {
		return err
	}
	n, err := s.count(tx, f.FloatingIPID)
	if err != nil {
		return err
	}
	if n == 0 {
		return s.core.L3.HoldFloatingIP(ctx, tx, f.FloatingIPID, nil)
	}
	of, err := s.core.L3.LoadFloatingIP(tx, f.FloatingIPID)
	if err != nil || of.RouterID == nil {
		return err
	}
	return s.core.L3.RouterChanged(ctx, tx, *of.RouterID, false)
}

// count is the number of forwardings of a floating IP.
func (s *service) count(tx *store.Tx, floatingID string) (int, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM port_forwarding WHERE floatingip_id = ?", []any{floatingID}, &n)
	return n, err
}
