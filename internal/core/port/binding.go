package port

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"isospin/internal/core/agent"
	"isospin/internal/core/network"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Mechanism binds ports to the software of hosts. Implementations live in
// package driver/mech.
type Mechanism interface {
	// Name as in [ml2] mechanism_drivers.
	Name() string
	// Bind chooses one of the segments for the port on its host; false: this
	// mechanism cannot serve it. It is pure: the same request has the same answer.
	Bind(r BindRequest) (Binding, bool)
}

// BindRequest is what a mechanism decides upon.
type BindRequest struct {
	Port     *Port
	Host     string
	VNICType string
	Segments []network.Segment
	// Agents of the host; Alive tells which of them were heard of lately.
	Agents []*agent.Agent
	Alive  func(*agent.Agent) bool
}

// Binding is how a port is plugged on its host.
type Binding struct {
	SegmentID string
	VIFType   string
	// VIFDetails as compute services read them, e.g. {"port_filter": true}.
	VIFDetails map[string]any
}

// bind fills in the port's binding for its host.
func (s *Service) bind(tx *store.Tx, p *Port, parent *network.Network) error {
	p.begin()
	p.SegmentID, p.VIFType, p.VIFDetails = "", VIFUnbound, json.RawMessage("{}")
	if p.HostID == "" {
		return nil
	}
	var err error
	p.SegmentID, p.VIFType, p.VIFDetails, err = s.attempt(tx, p, parent)
	return err
}

// begin says that nothing is known of how the port's host serves a new binding.
func (p *Port) begin() {
	p.BindingGeneration = p.Generation
	p.L2Ready, p.DHCPReady = false, false
	if p.Status != StatusNone {
		p.Status = StatusDown
	}
}

// attempt asks the mechanisms, in their order, to bind the port to its host:
// the segment, VIF type and details of the first that can, or VIFBindingFailed.
func (s *Service) attempt(tx *store.Tx, p *Port, parent *network.Network) (segmentID, vifType string, details json.RawMessage, err error) {
	agents, err := s.options.Agents.OnHost(tx, p.HostID)
	if err != nil {
		return "", "", nil, err
	}
	segments, err := s.forBinding(tx, p, parent)
	if err != nil {
		return "", "", nil, err
	}
	r := BindRequest{Port: p, Host: p.HostID, VNICType: p.VNICType, Segments: segments, Agents: agents, Alive: s.options.Agents.IsAlive}
	for _, m := range s.options.Mechanisms {
		if b, ok := m.Bind(r); ok {
			if b.VIFDetails == nil {
				b.VIFDetails = map[string]any{}
			}
			b.VIFDetails["bound_drivers"] = map[string]string{"0": m.Name()}
			raw, err := json.Marshal(b.VIFDetails)
			if err != nil {
				return "", "", nil, fmt.Errorf("vif_details of port %s: %w", p.ID, err)
			}
			return b.SegmentID, b.VIFType, raw, nil
		}
	}
	return "", VIFBindingFailed, json.RawMessage("{}"), nil
}

// Reaches tells whether a plain port of the network could be bound to the host now.
func (s *Service) Reaches(tx *store.Tx, host string, parent *network.Network) (bool, error) {
	agents, err := s.options.Agents.OnHost(tx, host)
	if err != nil {
		return false, err
	}
	r := BindRequest{Port: &Port{NetworkID: parent.ID, VNICType: "normal"}, Host: host, VNICType: "normal", Segments: parent.Segments, Agents: agents, Alive: s.options.Agents.IsAlive}
	for _, m := range s.options.Mechanisms {
		if _, ok := m.Bind(r); ok {
			return true, nil
		}
	}
	return false, nil
}

// rebind is bind for a port that is stored: as a new generation. An inactive
// binding to the same host is superseded.
func (s *Service) rebind(ctx context.Context, tx *store.Tx, p *Port, parent *network.Network) error {
	p.Generation++
	if err := s.bind(tx, p, parent); err != nil {
		return err
	}
	p.Generation-- // store counts it
	p.BindingGeneration = p.Generation + 1
	if p.HostID != "" {
		if err := tx.Put("DELETE FROM port_binding WHERE port_id = ? AND host = ?", p.ID, p.HostID); err != nil {
			return err
		}
	}
	for _, hook := range s.AfterBind {
		if err := hook(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}

// storeBound stores a port that has been bound anew, and then sees to its
// network's DHCP port. That may be the same port, which must not be stored from
// what was read before.
func (s *Service) storeBound(ctx context.Context, tx *store.Tx, p *Port) error {
	if err := s.store(ctx, tx, p); err != nil || !p.Bound() || p.DHCP() {
		return err
	}
	return s.ensureDHCP(ctx, tx, p.NetworkID)
}

// Move binds a port of the server's own to another host; "" unbinds.
func (s *Service) Move(ctx context.Context, tx *store.Tx, p *Port, host string) error {
	parent, err := s.options.Networks.Load(tx, p.NetworkID)
	if err != nil {
		return err
	}
	p.HostID = host
	if err := s.rebind(ctx, tx, p, parent); err != nil {
		return err
	}
	return s.storeBound(ctx, tx, p)
}

// Applied is a host's word on a port.
type Applied struct {
	ID string
	// Generation that the host acted upon.
	Generation int64
	// AgentType that acted.
	AgentType string
	// Status is StatusActive, StatusDown or StatusError.
	Status string
}

// Word is what a host says of a port.
type Word struct {
	Host string
	Applied
}

// Known tells of each word whether Report would change nothing. A host that
// attaches says everything anew, and most of it is known.
func (s *Service) Known(tx *store.Tx, words []Word) ([]bool, error) {
	type row struct {
		host, owner, status string
		up, l2, dhcp        bool
		generation, binding int64
	}
	rows := map[string]*row{}
	var ids []string
	for _, w := range words {
		if _, asked := rows[w.ID]; !asked {
			rows[w.ID] = nil
			ids = append(ids, w.ID)
		}
	}
	err := store.Child(tx, "SELECT id, host_id, device_owner, status, admin_state_up, l2_ready, dhcp_ready, generation, binding_generation FROM port WHERE %s", "id", ids,
		func(scan func(...any) error) error {
			var id string
			r := &row{}
			err := scan(&id, &r.host, &r.owner, &r.status, &r.up, &r.l2, &r.dhcp, &r.generation, &r.binding)
			rows[id] = r
			return err
		})
	if err != nil {
		return nil, err
	}
	known := make([]bool, len(words))
	for i, w := range words {
		r := rows[w.ID]
		if r == nil || r.owner != OwnerDHCP && r.host != w.Host || w.Generation < r.binding || w.Generation > r.generation {
			known[i] = true // late, or about nothing
			continue
		}
		l2 := r.l2
		if w.AgentType == agent.DHCP {
			if w.Status != StatusActive || !r.dhcp {
				known[i] = w.Status != StatusActive
				continue
			}
		} else if l2 = w.Status == StatusActive; l2 != r.l2 {
			continue
		}
		switch {
		case !r.up:
			known[i] = r.status == StatusDown
		case l2:
			known[i] = r.status == StatusActive
		default:
			known[i] = w.Status != StatusDown && w.Status != StatusError || r.status == w.Status
		}
	}
	return known, nil
}

// Report notes what a host did with a port. A report about an older binding,
// another host's port or a deleted one is ignored.
func (s *Service) Report(ctx context.Context, tx *store.Tx, host string, a Applied) error {
	return s.ReportAll(ctx, tx, []Word{{host, a}})
}

// ReportAll is Report for many words, in their order, in as many statements as for one.
func (s *Service) ReportAll(ctx context.Context, tx *store.Tx, words []Word) error {
	ports, waiting, err := s.reported(tx, words)
	if err != nil {
		return err
	}
	before := map[string]readiness{}
	for _, w := range words {
		p := ports[w.ID]
		if p == nil || !p.DHCP() && p.HostID != w.Host || w.Generation < p.BindingGeneration || w.Generation > p.Generation {
			continue
		}
		if _, noted := before[p.ID]; !noted {
			before[p.ID] = readinessOf(p)
		}
		p.apply(w.Applied, waiting[p.ID])
	}
	changed := map[readiness][]any{}
	now := resource.Stamp(s.Now())
	for id, was := range before {
		p := ports[id]
		is := readinessOf(p)
		if is == was {
			continue
		}
		// What the API does not show is no new revision.
		is.shown = is.status != was.status
		changed[is] = append(changed[is], id)
		if is.shown {
			p.Revision++
			p.UpdatedAt = now
			s.Changed(ctx, tx, p)
		}
	}
	for is, ids := range changed {
		set, args := "l2_ready = ?, dhcp_ready = ?", []any{is.l2, is.dhcp}
		if is.shown {
			set, args = set+", status = ?, revision_number = revision_number + 1, updated_at = ?", append(args, is.status, now)
		}
		for chunk := range slices.Chunk(ids, 512) {
			in, values := store.In("id", chunk)
			if err := tx.Put("UPDATE port SET "+set+" WHERE "+in, append(slices.Clone(args), values...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// readiness is what reports change of a port.
type readiness struct {
	status          string
	l2, dhcp, shown bool
}

func readinessOf(p *Port) readiness {
	return readiness{status: p.Status, l2: p.L2Ready, dhcp: p.DHCPReady}
}

// apply takes a host's word. waits: the port needs DHCP.
func (p *Port) apply(a Applied, waits bool) {
	if a.AgentType == agent.DHCP {
		if a.Status != StatusActive {
			return
		}
		p.DHCPReady = true
	} else {
		p.L2Ready = a.Status == StatusActive
	}
	switch {
	case !p.AdminStateUp, !p.L2Ready && a.Status == StatusDown:
		p.Status = StatusDown
	case !p.L2Ready && a.Status == StatusError:
		p.Status = StatusError
	case !p.L2Ready:
	case waits && !p.DHCPReady:
		p.Status = StatusBuild
	default:
		p.Status = StatusActive
	}
}

// reported reads the ports that words are about, and which of them wait for
// DHCP: a DHCP service of their host answers for one of their addresses, which
// it does not for one of a prefix that is still to be delegated.
func (s *Service) reported(tx *store.Tx, words []Word) (ports map[string]*Port, waiting map[string]bool, err error) {
	ports, waiting = map[string]*Port{}, map[string]bool{}
	var ids []any
	for _, w := range words {
		if _, asked := ports[w.ID]; !asked {
			ports[w.ID] = nil
			ids = append(ids, w.ID)
		}
	}
	var guests []string
	var hosts []any
	seen := map[string]bool{}
	for chunk := range slices.Chunk(ids, 512) {
		in, args := store.In("id", chunk)
		rows, err := s.Table.Select(tx, "WHERE t."+in, args...)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range rows {
			ports[p.ID] = p
			if p.Service() {
				continue
			}
			guests = append(guests, p.ID)
			if !seen[p.HostID] {
				seen[p.HostID] = true
				hosts = append(hosts, p.HostID)
			}
		}
	}
	if len(guests) == 0 {
		return ports, waiting, nil
	}
	// A host without a DHCP service, or with one that is administratively down, says nothing of it.
	serving := map[string]bool{}
	for chunk := range slices.Chunk(hosts, 512) {
		in, args := store.In("host", chunk)
		err := tx.Query(func(scan func(...any) error) error {
			var host string
			err := scan(&host)
			serving[host] = true
			return err
		}, "SELECT host FROM agent WHERE agent_type = ? AND admin_state_up AND "+in, append([]any{agent.DHCP}, args...)...)
		if err != nil {
			return nil, nil, err
		}
	}
	guests = slices.DeleteFunc(guests, func(id string) bool { return !serving[ports[id].HostID] })
	err = store.Child(tx, `SELECT DISTINCT a.port_id FROM ip_allocation a JOIN subnet s ON s.id = a.subnet_id
		WHERE s.enable_dhcp AND a.ip_address NOT LIKE '::%%' AND EXISTS (SELECT 1 FROM port d WHERE d.network_id = s.network_id AND d.device_owner = '`+OwnerDHCP+`') AND %s`, "a.port_id", guests,
		func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			waiting[id] = true
			return err
		})
	return ports, waiting, err
}

// expectDHCP makes the DHCP port of a network whose first port has no host yet:
// who waits for DHCP before the first instance comes sees that it is there. It
// needs some host that would answer.
func (s *Service) expectDHCP(ctx context.Context, tx *store.Tx, p *Port, subnets []*subnet.Subnet) error {
	if !slices.ContainsFunc(p.FixedIPs, func(f FixedIP) bool { n := subnet.Of(subnets, f.SubnetID); return n != nil && n.EnableDHCP }) {
		return nil
	}
	if any, err := tx.Exists("SELECT 1 FROM agent WHERE agent_type = ?", agent.DHCP); err != nil || !any {
		return err
	}
	there, err := tx.Exists("SELECT 1 FROM port WHERE network_id = ? AND device_owner = ? AND device_id = ?", p.NetworkID, OwnerDHCP, DHCPDevice(p.NetworkID))
	if err != nil || there {
		return err
	}
	agents, err := s.options.Agents.OfType(tx, agent.DHCP)
	if err != nil || len(agents) == 0 {
		return err
	}
	want := make([]FixedIP, 0, len(subnets))
	for _, n := range subnets {
		if n.EnableDHCP {
			want = append(want, FixedIP{SubnetID: n.ID})
		}
	}
	return s.placeDHCP(ctx, tx, p.NetworkID, nil, subnets, want)
}

// ensureDHCP makes the network's DHCP port, or gives it addresses on new
// subnets, once some port of the network is bound. A full subnet goes without.
func (s *Service) ensureDHCP(ctx context.Context, tx *store.Tx, networkID string) error {
	subnets, err := s.options.Subnets.OfNetwork(tx, networkID)
	if err != nil {
		return err
	}
	ports, err := s.Table.Select(tx, "WHERE t.network_id = ? AND t.device_owner = ? AND t.device_id = ? ORDER BY t.id", networkID, OwnerDHCP, DHCPDevice(networkID))
	if err != nil {
		return err
	}
	var present *Port
	if len(ports) > 0 {
		present = ports[0]
	}
	var want []FixedIP
	changed := false
	for _, n := range subnets {
		if !n.EnableDHCP {
			continue
		}
		var f FixedIP
		if present != nil {
			for _, have := range present.FixedIPs {
				if have.SubnetID == n.ID {
					f = have
				}
			}
		}
		if f.SubnetID == "" {
			f.SubnetID = n.ID
			changed = true
		}
		want = append(want, f)
	}
	switch {
	case present == nil && len(want) == 0:
		return nil
	case present == nil:
		var bound int
		if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM port WHERE network_id = ? AND host_id <> '' LIMIT 1) x", []any{networkID}, &bound); err != nil || bound == 0 {
			return err
		}
	case len(want) == 0:
		return s.Drop(ctx, tx, present)
	case !changed && len(present.FixedIPs) == len(want):
		return nil
	}
	return s.placeDHCP(ctx, tx, networkID, present, subnets, want)
}

func (s *Service) placeDHCP(ctx context.Context, tx *store.Tx, networkID string, present *Port, subnets []*subnet.Subnet, want []FixedIP) error {
	if present == nil {
		parent, err := s.options.Networks.Load(tx, networkID)
		if err != nil {
			return err
		}
		p, err := s.Make(ctx, tx, Draft{Plain: true, Addresses: []FixedIP{}, Port: Port{
			Standard: resource.Standard{ProjectID: parent.ProjectID}, NetworkID: networkID, DeviceOwner: OwnerDHCP, DeviceID: DHCPDevice(networkID),
		}})
		if err != nil {
			return err
		}
		present = p
		present.VIFType, present.Status, present.IPAllocation = "distributed", StatusActive, AllocationImmediate
	}
	had := present.FixedIPs
	present.FixedIPs = nil
	for _, f := range want {
		w := wish{among: []*subnet.Subnet{subnet.Of(subnets, f.SubnetID)}, address: f.IPAddress}
		for _, h := range had {
			w.keep = w.keep || h == f
		}
		got, err := s.allocateOne(tx, present, w, len(present.FixedIPs))
		if fault.Is(err, "IpAddressGenerationFailure") {
			continue
		}
		if err != nil {
			return err
		}
		present.FixedIPs = append(present.FixedIPs, got)
	}
	for _, h := range had {
		if !containsIP(present.FixedIPs, h) {
			if err := tx.Put("DELETE FROM ip_allocation WHERE subnet_id = ? AND ip_address = ? AND port_id = ?", h.SubnetID, h.IPAddress.String(), present.ID); err != nil {
				return err
			}
		}
	}
	if len(present.FixedIPs) == 0 {
		return s.Drop(ctx, tx, present)
	}
	return s.store(ctx, tx, present)
}

func containsIP(list []FixedIP, f FixedIP) bool {
	for _, have := range list {
		if have == f {
			return true
		}
	}
	return false
}

// checkRenumber refuses another VLAN for a network with ports that are bound to what
// no agent follows: those of drivers without agents, and those whose agents are gone.
func (s *Service) checkRenumber(_ context.Context, tx *store.Tx, n *network.Network) error {
	agents, err := s.options.Agents.OfType(tx, agent.OpenVSwitch)
	if err != nil {
		return err
	}
	followed := []string{VIFUnbound, VIFBindingFailed}
	for range agents {
		followed = append(followed, "ovs")
	}
	bound := "ovs"
	if len(agents) == 0 {
		bound = vifNone
	}
	var others int
	if err := tx.Row("SELECT COUNT(*) FROM port WHERE network_id = ? AND vif_type NOT IN (?, ?, ?, ?, ?)",
		[]any{n.ID, VIFUnbound, VIFBindingFailed, bound, vifNone, "distributed"}, &others); err != nil || others == 0 {
		return err
	}
	return fault.InvalidInput("Provider network attribute provider:segmentation_id cannot be updated if any port in the network has not the following binding:vif_type: %s", strings.Join(followed, ", "))
}
