package router

import (
	"context"
	"net/netip"
	"slices"

	"isospin/internal/core/network"
	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/store"
)

// interfaceInfo is the answer of add_router_interface and remove_router_interface.
type interfaceInfo struct {
	ID        string   `json:"id"`
	ProjectID string   `json:"project_id"`
	TenantID  string   `json:"tenant_id"`
	PortID    string   `json:"port_id"`
	NetworkID string   `json:"network_id"`
	SubnetID  string   `json:"subnet_id"`
	SubnetIDs []string `json:"subnet_ids"`
}

func answer(r *Router, p *port.Port, subnetID string, subnets []string) *interfaceInfo {
	return &interfaceInfo{ID: r.ID, ProjectID: r.ProjectID, TenantID: r.ProjectID, PortID: p.ID, NetworkID: p.NetworkID, SubnetID: subnetID, SubnetIDs: subnets}
}

// chosen reads subnet_id and port_id of a body; empty: not given.
func chosen(body any) (subnetID, portID string, err error) {
	members, _ := body.(map[string]any)
	subnetValue, bySubnet := members["subnet_id"]
	portValue, byPort := members["port_id"]
	if !bySubnet && !byPort {
		return "", "", bad("router", "Either subnet_id or port_id must be specified")
	}
	for _, m := range []struct {
		value any
		given bool
		into  *string
	}{{subnetValue, bySubnet, &subnetID}, {portValue, byPort, &portID}} {
		if !m.given {
			continue
		}
		reason, err := value.Validate("type:uuid", nil, m.value)
		if err != nil {
			return "", "", err
		}
		if reason != "" {
			return "", "", bad("router", "%s", reason)
		}
		*m.into, _ = m.value.(string)
	}
	return subnetID, portID, nil
}

func (s *service) addInterface(ctx context.Context, id string, body any) (any, error) {
	var done *interfaceInfo
	err := s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		r, err := s.routers.Find(ctx, tx, id)
		if err != nil {
			return err
		}
		subnetID, portID, err := chosen(body)
		if err != nil {
			return err
		}
		switch {
		case subnetID != "" && portID != "":
			return bad("router", "Cannot specify both subnet-id and port-id")
		case portID != "":
			done, err = s.addByPort(ctx, tx, r, portID, body)
		default:
			done, err = s.addBySubnet(ctx, tx, r, subnetID, body)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (s *service) addByPort(ctx context.Context, tx *store.Tx, r *Router, portID string, body any) (*interfaceInfo, error) {
	p, err := s.core.Ports.Find(ctx, tx, portID)
	if err != nil {
		return nil, err
	}
	if p.DeviceID != "" {
		return nil, fault.New(fault.Conflict, "PortInUse", "Unable to complete operation on port %s for network %s. Port already has an attached device %s.", p.ID, p.NetworkID, p.DeviceID)
	}
	if len(p.FixedIPs) == 0 {
		return nil, bad("router", "Router port must have at least one fixed IP")
	}
	who := identity.From(ctx)
	if !who.Admin && p.ProjectID != r.ProjectID {
		return nil, notOwned(r.ID)
	}
	onNetwork, err := s.core.Subnets.OfNetwork(tx, p.NetworkID)
	if err != nil {
		return nil, err
	}
	var subnets []*subnet.Subnet
	var ids []string
	version4 := 0
	for _, f := range p.FixedIPs {
		n := subnet.Of(onNetwork, f.SubnetID)
		if n == nil {
			return nil, s.core.Subnets.NotFound(f.SubnetID)
		}
		if !who.Admin && n.ProjectID != who.ProjectID && !inPools(n, f.IPAddress) {
			return nil, bad("router", "Cannot add interface to router because specified port %s has an IP address out of the allocation pool of subnet %s, which is not owned by the project making the request", p.ID, n.ID)
		}
		if subnet.Of(subnets, n.ID) != nil {
			continue
		}
		if err := checkMode(n); err != nil {
			return nil, err
		}
		if n.IPVersion == 4 {
			version4++
		}
		subnets, ids = append(subnets, n), append(ids, n.ID)
	}
	if err := s.checkSubnets(tx, r, subnets, false); err != nil {
		return nil, err
	}
	if version4 > 1 {
		return nil, bad("router", "Cannot have multiple IPv4 subnets on router port")
	}
	parent, err := s.core.Networks.Load(tx, p.NetworkID)
	if err != nil {
		return nil, err
	}
	if err := s.place(ctx, tx, r, parent); err != nil {
		return nil, err
	}
	p.DeviceID, p.DeviceOwner = r.ID, r.interfaceOwner()
	if err := s.core.Ports.Move(elevated(ctx), tx, p, r.HostID); err != nil {
		return nil, err
	}
	return answer(r, p, ids[len(ids)-1], ids), s.attach(ctx, tx, r, p, ids, body)
}

func inPools(n *subnet.Subnet, a netip.Addr) bool {
	for _, pool := range n.AllocationPools {
		if pool.Contains(a) {
			return true
		}
	}
	return false
}

// checkMode refuses subnets whose addresses come from another router's advertisements.
func checkMode(n *subnet.Subnet) error {
	if n.IPVersion == 6 && n.IPv6RAMode == nil && n.IPv6AddressMode != nil {
		return bad("router", "IPv6 subnet %s configured to receive RAs from an external router cannot be added to Neutron Router.", n.ID)
	}
	return nil
}

// attach notes a port as an interface of the router, on these subnets.
func (s *service) attach(ctx context.Context, tx *store.Tx, r *Router, p *port.Port, subnets []string, body any) error {
	if err := tx.Put("INSERT INTO router_port (port_id, router_id) VALUES (?, ?)", p.ID, r.ID); err != nil {
		return err
	}
	r.PortIDs = append(r.PortIDs, p.ID)
	return s.added(ctx, tx, r, p, subnets, body)
}

// added tells other families of subnets that the router has now, and saves it.
func (s *service) added(ctx context.Context, tx *store.Tx, r *Router, p *port.Port, subnets []string, body any) error {
	members, _ := body.(map[string]any)
	for _, hook := range s.core.L3.OnInterfaceAdd {
		if err := hook(ctx, tx, viewRouter(r), p, subnets, members); err != nil {
			return err
		}
	}
	if err := s.fillShared(tx, []*Router{r}); err != nil {
		return err
	}
	return s.save(ctx, tx, r)
}

// mayUse tells whether the caller may put routers on the network: its own, or
// one that is shared with its project by name. A network that is shared with
// everybody has one gateway for everybody.
func mayUse(ctx context.Context, n *subnet.Subnet, parent *network.Network) bool {
	who := identity.From(ctx)
	return who.Admin || n.ProjectID == who.ProjectID || slices.Contains(parent.SharedWith, who.ProjectID)
}

func (s *service) addBySubnet(ctx context.Context, tx *store.Tx, r *Router, subnetID string, body any) (*interfaceInfo, error) {
	n, err := s.core.Subnets.Find(ctx, tx, subnetID)
	if err != nil {
		return nil, err
	}
	if !n.GatewayIP.IsValid() {
		return nil, bad("router", "Subnet for router interface must have a gateway IP")
	}
	parent, err := s.core.Networks.Load(tx, n.NetworkID)
	if err != nil {
		return nil, err
	}
	if !mayUse(ctx, n, parent) {
		return nil, bad("router", "Cannot add interface to router because subnet %s is not owned by project making the request", n.ID)
	}
	if err := checkMode(n); err != nil {
		return nil, err
	}
	if err := s.checkSubnets(tx, r, []*subnet.Subnet{n}, false); err != nil {
		return nil, err
	}
	address := port.FixedIP{SubnetID: n.ID, IPAddress: n.GatewayIP}
	if n.IPVersion == 6 {
		p, err := s.interface6(tx, r, n.NetworkID)
		if err != nil {
			return nil, err
		}
		if p != nil { // one port for all IPv6 prefixes of a network
			if err := s.core.Ports.SetAddresses(elevated(ctx), tx, p, append(slices.Clone(p.FixedIPs), address)); err != nil {
				return nil, err
			}
			return answer(r, p, n.ID, []string{n.ID}), s.added(ctx, tx, r, p, []string{n.ID}, body)
		}
	}
	if err := s.place(ctx, tx, r, parent); err != nil {
		return nil, err
	}
	p, err := s.core.Ports.Make(elevated(ctx), tx, port.Draft{Plain: true, Addresses: []port.FixedIP{address}, Port: port.Port{
		Standard: resource.Standard{ProjectID: r.ProjectID}, NetworkID: n.NetworkID,
		DeviceOwner: r.interfaceOwner(), DeviceID: r.ID, HostID: r.HostID,
	}})
	if err != nil {
		return nil, err
	}
	return answer(r, p, n.ID, []string{n.ID}), s.attach(ctx, tx, r, p, []string{n.ID}, body)
}

// interface6 is the router's interface on the network that has IPv6 addresses; nil: none.
func (s *service) interface6(tx *store.Tx, r *Router, networkID string) (*port.Port, error) {
	ports, err := s.core.Ports.Table.Select(tx, "WHERE t.network_id = ? AND t.id IN (SELECT port_id FROM router_port WHERE router_id = ?) ORDER BY t.id", networkID, r.ID)
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		if slices.ContainsFunc(p.FixedIPs, func(f port.FixedIP) bool { return f.IPAddress.Is6() }) {
			return p, nil
		}
	}
	return nil, nil
}

func (s *service) removeInterface(ctx context.Context, id string, body any) (any, error) {
	var done *interfaceInfo
	err := s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		r, err := s.routers.Find(ctx, tx, id)
		if err != nil {
			return err
		}
		subnetID, portID, err := chosen(body)
		if err != nil {
			return err
		}
		if portID != "" {
			done, err = s.removeByPort(ctx, tx, r, portID, subnetID)
		} else {
			done, err = s.removeBySubnet(ctx, tx, r, subnetID)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (s *service) removeByPort(ctx context.Context, tx *store.Tx, r *Router, portID, subnetID string) (*interfaceInfo, error) {
	if !slices.Contains(r.PortIDs, portID) {
		return nil, fault.New(fault.NotFound, "RouterInterfaceNotFound", "Router %s does not have an interface with id %s", r.ID, portID)
	}
	p, err := s.core.Ports.Load(tx, portID)
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for _, f := range p.FixedIPs {
		if !slices.Contains(ids, f.SubnetID) {
			ids = append(ids, f.SubnetID)
		}
	}
	if subnetID != "" && !slices.Contains(ids, subnetID) {
		return nil, fault.New(fault.Invalid, "SubnetMismatchForPort", "Subnet on port %s does not match the requested subnet %s.", p.ID, subnetID)
	}
	first := ""
	for _, id := range ids {
		n, err := s.core.Subnets.Load(tx, id)
		if err != nil {
			return nil, err
		}
		if err := s.checkUnused(tx, r, n); err != nil {
			return nil, err
		}
		if first == "" {
			first = id
		}
	}
	return answer(r, p, first, ids), s.detach(ctx, tx, r, p)
}

func (s *service) removeBySubnet(ctx context.Context, tx *store.Tx, r *Router, subnetID string) (*interfaceInfo, error) {
	n, err := s.core.Subnets.Find(ctx, tx, subnetID)
	if err != nil {
		return nil, err
	}
	if err := s.checkUnused(tx, r, n); err != nil {
		return nil, err
	}
	for _, id := range r.PortIDs {
		p, err := s.core.Ports.Load(tx, id)
		if err != nil {
			return nil, err
		}
		left := slices.DeleteFunc(slices.Clone(p.FixedIPs), func(f port.FixedIP) bool { return f.SubnetID == n.ID })
		asked, err := s.requested(tx, p)
		if err != nil {
			return nil, err
		}
		asked = slices.DeleteFunc(asked, func(o *subnet.Subnet) bool { return o.ID != n.ID })
		switch {
		case len(left) == len(p.FixedIPs):
			continue
		case len(left) == 0:
			err = s.detach(ctx, tx, r, p)
		default: // a port with several prefixes loses this one
			if err = s.core.Ports.SetAddresses(elevated(ctx), tx, p, left); err == nil {
				err = s.revoke(ctx, tx, asked)
			}
			if err == nil {
				err = s.fillShared(tx, []*Router{r})
			}
			if err == nil {
				err = s.save(ctx, tx, r)
			}
		}
		return answer(r, p, n.ID, []string{n.ID}), err
	}
	return nil, fault.New(fault.NotFound, "RouterInterfaceNotFoundForSubnet", "Router %s has no interface on subnet %s", r.ID, n.ID)
}

// checkUnused refuses to take a subnet away that floating IPs or routes need.
func (s *service) checkUnused(tx *store.Tx, r *Router, n *subnet.Subnet) error {
	list, err := s.floating.Table.SelectBare(tx, "WHERE t.router_id = ?", r.ID)
	if err != nil {
		return err
	}
	for _, f := range list {
		if n.CIDR.Contains(f.FixedIPAddress) {
			return fault.New(fault.Conflict, "RouterInterfaceInUseByFloatingIP", "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.", n.ID, r.ID)
		}
	}
	for _, hook := range s.core.L3.BeforeInterfaceRemoval {
		if err := hook(tx, viewRouter(r), n); err != nil {
			return err
		}
	}
	for _, route := range r.Routes {
		if hop, err := netip.ParseAddr(route.NextHop); err == nil && n.CIDR.Contains(hop) {
			return fault.New(fault.Conflict, "RouterInterfaceInUseByRoute", "Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more routes.", n.ID, r.ID)
		}
	}
	return nil
}

// detach deletes an interface, also one that a user made.
func (s *service) detach(ctx context.Context, tx *store.Tx, r *Router, p *port.Port) error {
	asked, err := s.requested(tx, p)
	if err != nil {
		return err
	}
	if err := tx.Put("DELETE FROM router_port WHERE port_id = ?", p.ID); err != nil {
		return err
	}
	r.PortIDs = slices.DeleteFunc(slices.Clone(r.PortIDs), func(id string) bool { return id == p.ID })
	if err := s.core.Ports.Drop(ctx, tx, p); err != nil {
		return err
	}
	if err := s.revoke(ctx, tx, asked); err != nil {
		return err
	}
	if err := s.fillShared(tx, []*Router{r}); err != nil {
		return err
	}
	return s.save(ctx, tx, r)
}
