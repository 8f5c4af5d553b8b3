// Package plug puts service ports (DHCP, router interface, router gateway) into
// a network namespace and onto the integration bridge: a veth pair, one end
// in the namespace under the name that operators know, the other one a port of
// the bridge, marked in Open vSwitch as that Neutron port and as ours.
//
// It must not know what a port is used for, nor how the bridge forwards.
package plug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/sysctl"
	"isospin/internal/ovs/vswitch"
)

// Keys of external_ids of a port's interface. The first three are those of a
// compute service, so whatever reads them treats service ports alike.
const (
	KeyPortID     = "iface-id"
	KeyMAC        = "attached-mac"
	KeyStatus     = "iface-status"
	KeyOwner      = "isospin-owner"
	KeyNamespace  = "isospin-namespace"
	KeyDeviceName = "isospin-device"
)

// Device is a service port as it is to be on this host.
type Device struct {
	PortID    string // required
	MAC       string // required; "fa:16:3e:12:34:56"
	Namespace string // required; made when absent
	// Name of the device in the namespace: DeviceName("qr-", PortID) and the like. // required
	Name string
	MTU  int // optional; bytes
	// AdminDown leaves the device there, and down. // optional
	AdminDown bool
	// AcceptAdvertisements lets the device learn addresses and routes from IPv6
	// routers on its link. // optional
	AcceptAdvertisements bool
	// Addresses of the device in the namespace. Nil leaves them alone; else
	// they become exactly these. IPv6 is off on the device while this is not
	// nil and holds no IPv6 address. // optional
	Addresses []netip.Prefix
}

// Plugged is a port of the bridge that a Plugger with our Owner made.
type Plugged struct {
	PortID    string
	Namespace string
	Name      string // of the device in the namespace
}

// Switch is what Plugger needs of Open vSwitch; a *vswitch.Client is one.
type Switch interface {
	EnsurePort(ctx context.Context, bridge string, p vswitch.Port) error
	DeletePort(ctx context.Context, bridge, name string) error
	Interfaces() []vswitch.Interface
}

var _ Switch = (*vswitch.Client)(nil)

// Options are what New needs.
type Options struct {
	Switch Switch // required
	Bridge string // optional; "br-int"
	// Owner marks our ports among those of others; one of each feature. // required
	Owner  string
	Logger *slog.Logger // optional
}

// Plugger plugs and unplugs devices. Safe for concurrent use as long as no two
// calls are about the same port.
type Plugger struct {
	Options
}

// New returns a Plugger; it touches nothing yet.
func New(o Options) *Plugger {
	if o.Bridge == "" {
		o.Bridge = "br-int"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return &Plugger{o}
}

// DeviceName is prefix followed by the start of a port's id, the names that
// operators know: tap12345678-9a, qr-12345678-9a, qg-12345678-9a.
func DeviceName(prefix, portID string) string {
	return prefix + portID[:min(len(portID), 14-3)]
}

// HostName is the name of the veth end that is a port of the bridge.
func HostName(portID string) string { return DeviceName("tap", portID) }

// Plug makes the device and its bridge port be as d says. It is idempotent, and
// what is right already is not touched: a second call loses no packet. A namespace
// that is made here gets its loopback device up. The bridge port is there before
// the device has its addresses.
func (p *Plugger) Plug(ctx context.Context, d Device) error {
	if err := p.plug(ctx, d); err != nil {
		return fmt.Errorf("plug port %s: %w", d.PortID, err)
	}
	return nil
}

func (p *Plugger) plug(ctx context.Context, d Device) error {
	if d.PortID == "" || strings.ContainsAny(d.PortID, "/ \t\n") {
		return fmt.Errorf("port id %q is not valid", d.PortID)
	}
	mac, err := net.ParseMAC(d.MAC)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("MAC address %q is not valid", d.MAC)
	}
	host := HostName(d.PortID)
	if err := p.ours(host); err != nil {
		return err
	}
	if _, err := netns.Create(d.Namespace); err != nil {
		return err
	}
	made, err := link.EnsureVeth(link.Veth{Name: host, PeerName: d.Name, PeerNamespace: d.Namespace, PeerMAC: mac, MTU: d.MTU})
	if err != nil {
		return err
	}
	up, deviceUp := true, !d.AdminDown
	if err := link.SetTransmitChecksum(host, false); err != nil {
		return err
	}
	if err := link.Configure(host, link.Config{MTU: d.MTU, Up: &up}); err != nil {
		return err
	}
	v6 := d.Addresses == nil || d.AcceptAdvertisements || slices.ContainsFunc(d.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
	if err := netns.Do(d.Namespace, func() error {
		if err := link.SetTransmitChecksum(d.Name, false); err != nil {
			return err
		}
		err := sysctl.SetDevice6(d.Name, sysctl.Device6{Enabled: v6, AcceptAdvertisements: d.AcceptAdvertisements})
		if err != nil && !(d.Addresses == nil && errors.Is(err, fs.ErrNotExist)) { // a kernel without IPv6
			return err
		}
		return link.Configure(d.Name, link.Config{MAC: mac, MTU: d.MTU, Up: &deviceUp})
	}); err != nil {
		return err
	}
	if made {
		// The switch may still hold the device that had this name before.
		if err := p.Switch.DeletePort(ctx, p.Bridge, host); err != nil {
			return err
		}
	}
	if err := p.Switch.EnsurePort(ctx, p.Bridge, vswitch.Port{Name: host, ExternalIDs: map[string]string{
		KeyPortID: d.PortID, KeyMAC: mac.String(), KeyStatus: "active",
		KeyOwner: p.Owner, KeyNamespace: d.Namespace, KeyDeviceName: d.Name,
	}}); err != nil {
		return err
	}
	if d.Addresses == nil {
		return nil
	}
	return netns.Do(d.Namespace, func() error { return link.SetAddresses(d.Name, d.Addresses) })
}

// Unplug removes the port from the bridge, and its devices. Absent is success;
// a device under its name that Plug did not make is left, and an error. The
// namespace stays.
func (p *Plugger) Unplug(ctx context.Context, portID string) error {
	host := HostName(portID)
	if err := p.ours(host); err != nil {
		return fmt.Errorf("unplug port %s: %w", portID, err)
	}
	return errors.Join(
		wrap("unplug port "+portID, p.Switch.DeletePort(ctx, p.Bridge, host)),
		wrap("unplug port "+portID, link.Delete(host)))
}

// ours fails when a port of that name is there and not ours.
func (p *Plugger) ours(host string) error {
	for _, i := range p.Switch.Interfaces() {
		if owner := i.ExternalIDs[KeyOwner]; i.Name == host && owner != p.Owner {
			return fmt.Errorf("interface %s belongs to %q, not to %q", host, owner, p.Owner)
		}
	}
	return nil
}

// Devices returns the ports that are ours, by their mark, in no order.
func (p *Plugger) Devices() []Plugged {
	var out []Plugged
	for _, i := range p.Switch.Interfaces() {
		if ids := i.ExternalIDs; i.Bridge == p.Bridge && ids[KeyOwner] == p.Owner {
			out = append(out, Plugged{PortID: ids[KeyPortID], Namespace: ids[KeyNamespace], Name: ids[KeyDeviceName]})
		}
	}
	return out
}

func wrap(noun string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", noun, err)
}
