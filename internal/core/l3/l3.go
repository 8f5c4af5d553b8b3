// Package l3 is what the families of extensions around routers and floating IPs
// share: what they may ask of routers, and where they hook in. The family of
// routers fills it in; those that come after it use it.
//
// It must not know how routers are kept, nor any family that uses it.
package l3

import (
	"context"
	"net/netip"

	"isospin/internal/core/port"
	"isospin/internal/core/subnet"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Router is a router as other families see it.
type Router struct {
	ID, ProjectID string
	// GatewayPortID is the port on the external network, nil: none.
	GatewayPortID *string
	// GatewayQoSPolicyID limits the gateway's address; it is shown within
	// external_gateway_info.
	GatewayQoSPolicyID *string
	// EVPNVNI is the VNI under which the router's networks are advertised, nil: none.
	EVPNVNI *int
	// Slots hold the attributes that families add. They are filled in by
	// FillRouters from tables of the families.
	Slots *resource.Slots
}

// Advertised is what a router tells others by EVPN.
type Advertised struct {
	VNI int `json:"vni"`
	// HostSubnets are those whose ports are advertised one by one.
	HostSubnets []string `json:"host_subnets,omitempty"`
}

const advertised = "evpn"

// AdvertisedSlot is where routers have it; without: they tell nothing.
var AdvertisedSlot = resource.NewSlot[Advertised](advertised)

// SetAdvertised sets the router's slot; nil: it tells nothing.
func (r *Router) SetAdvertised(a *Advertised) error {
	if a == nil {
		delete(*r.Slots, advertised)
		return nil
	}
	return AdvertisedSlot.Set(r.Slots, *a)
}

// FloatingIP is a floating IP as other families see it.
type FloatingIP struct {
	ID, ProjectID string
	// NetworkID is the external network's.
	NetworkID string
	Address   netip.Addr
	// PortID and FixedIP are what it stands for; nil: nothing.
	PortID  *string
	FixedIP netip.Addr
	// RouterID without PortID: held by port forwardings.
	RouterID *string
	Slots    *resource.Slots
}

// Routers is what the family of routers offers.
type Routers interface {
	// RouterResource and FloatingIPResource are there to add attributes to.
	RouterResource() *resource.Resource
	FloatingIPResource() *resource.Resource
	// FindRouter returns a router that the caller may see, LoadRouter any.
	FindRouter(ctx context.Context, tx *store.Tx, id string) (*Router, error)
	LoadRouter(tx *store.Tx, id string) (*Router, error)
	// RouterChanged gives the router's host a new generation of it: something that
	// other families add to it has changed. changed: clients see it in the router, too.
	RouterChanged(ctx context.Context, tx *store.Tx, id string, changed bool) error
	// FindFloatingIP returns a floating IP that the caller may see, LoadFloatingIP any.
	FindFloatingIP(ctx context.Context, tx *store.Tx, id string) (*FloatingIP, error)
	LoadFloatingIP(tx *store.Tx, id string) (*FloatingIP, error)
	// FloatingIPOf is a floating IP that stands for an address of the port; nil: there is none.
	FloatingIPOf(tx *store.Tx, portID string) (*FloatingIP, error)
	// HoldFloatingIP gives a floating IP that stands for nothing to a router, nil
	// takes it away from the one it has; the routers' hosts are told.
	HoldFloatingIP(ctx context.Context, tx *store.Tx, id string, routerID *string) error
	// RouterBetween is the router with an interface on the subnet and its gateway
	// on the external network, by its id; empty: there is none.
	RouterBetween(tx *store.Tx, subnetID, externalID string) (string, error)
}

// Service is where the families meet.
type Service struct {
	// Routers is set when the family of routers has been installed.
	Routers

	// FillRouters complete routers that were read, all of one page at once.
	FillRouters []func(tx *store.Tx, rows []*Router) error
	// OnRouterWrite hooks follow a router that was made or changed, in the same
	// transaction, with its gateway as it is now; old is nil for a new one.
	OnRouterWrite []func(ctx context.Context, tx *store.Tx, old, now *Router, body *resource.Body) error
	// BeforeRouterDelete hooks run before a router goes.
	BeforeRouterDelete []func(ctx context.Context, tx *store.Tx, r *Router) error
	// OnInterfaceAdd hooks follow a port that became an interface of a router, or one
	// that was given another prefix, with the subnets that the router has by this,
	// and what the client's request says besides.
	OnInterfaceAdd []func(ctx context.Context, tx *store.Tx, r *Router, p *port.Port, subnets []string, body map[string]any) error
	// BeforeInterfaceRemoval hooks refuse to take a subnet away from a router.
	BeforeInterfaceRemoval []func(tx *store.Tx, r *Router, n *subnet.Subnet) error
	// OnFloatingIPWrite hooks follow a floating IP that was made or changed by a
	// client, in the same transaction; old is nil for a new one.
	OnFloatingIPWrite []func(ctx context.Context, tx *store.Tx, old, now *FloatingIP, body *resource.Body) error
	// BeforeFloatingIPDelete hooks refuse to let a floating IP go.
	BeforeFloatingIPDelete []func(ctx context.Context, tx *store.Tx, f *FloatingIP) error
	// PresentFloatingIPs complete floating IPs that are shown.
	PresentFloatingIPs []func(ctx context.Context, rows []*FloatingIP)

	// RouterConditions answer filters on attributes of routers that are in tables
	// of other families: values → SQL condition on alias t.
	RouterConditions map[string]func(values []any) (string, []any)
}

// New returns a Service without routers.
func New() *Service {
	return &Service{RouterConditions: map[string]func([]any) (string, []any){}}
}

// Limited routers and floating IPs are what the hub keeps of them under "router"
// and "floatingip", for families that limit their traffic.
type (
	// LimitedRouter is a router.
	LimitedRouter interface {
		// GatewayLimit is the host that serves the router (empty: none does) and the
		// QoS policy of its gateway (empty: none).
		GatewayLimit() (host, policyID string)
	}
	// LimitedFloatingIP is a floating IP.
	LimitedFloatingIP interface {
		// Limit is the router that has the floating IP (empty: none), its external
		// network, and its own QoS policy (empty: none).
		Limit() (routerID, networkID, policyID string)
	}
)
