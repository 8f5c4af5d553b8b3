package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/route"
	"isospin/internal/ovs/vswitch"
)

// InstanceOptions of AddInstance.
type InstanceOptions struct {
	Name     string           // required; unique in the lab
	Host     *Host            // required
	PortID   string           // required; the id of its port in the API
	MAC      net.HardwareAddr // required; the port's
	DeviceID string           // optional; the port's device_id: the instance's uuid, for vm-uuid and metadata
	Project  string           // optional; the port's project, for metadata
	// Prepare is called when the namespace and its NIC are there, just before
	// the NIC is plugged.
	Prepare func(*Instance) error // optional
}

// Instance stands for a virtual machine: a namespace whose eth0 is plugged into
// its host's br-int as os-vif plugs a NIC.
type Instance struct {
	Node
	Host     *Host
	PortID   string
	MAC      net.HardwareAddr
	DeviceID string
	// Lease is what AcquireLease got last.
	Lease *Lease
}

// Lease is what an instance learned by DHCP.
type Lease struct {
	Address netip.Prefix
	Gateway netip.Addr // invalid: none
	MTU     int        // 0: not told
	DNS     []netip.Addr
	Routes  []route.Route // classless static ones; a default route is among them if the server sent any
}

// nic is the device of every instance.
const nic = "eth0"

// Tap is the name of the host's end of an instance's NIC.
func Tap(portID string) string {
	if len(portID) > 11 {
		portID = portID[:11]
	}
	return "tap" + portID
}

// AddInstance makes an instance and plugs its NIC. The port is created and bound
// through the API, by the caller; the agent does the rest.
func (l *Lab) AddInstance(ctx context.Context, o InstanceOptions) (*Instance, error) {
	i := &Instance{
		Node: Node{Name: o.Name, Namespace: prefix(l.ID) + o.Name},
		Host: o.Host, PortID: o.PortID, MAC: o.MAC, DeviceID: o.DeviceID,
	}
	if o.PortID == "" || o.Name == "" {
		return nil, errors.New("an instance needs a name and a port id")
	}
	l.mu.Lock()
	_, taken := l.instances[o.Name]
	if !taken {
		l.instances[o.Name] = i
	}
	l.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("there is an instance %s already", o.Name)
	}
	if err := i.start(ctx, o.Prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("instance %s: %w", o.Name, err), l.RemoveInstance(context.WithoutCancel(ctx), i))
	}
	if o.DeviceID != "" {
		l.metadata.add(o.DeviceID, o.Name, o.Project)
	}
	return i, l.record()
}

func (i *Instance) start(ctx context.Context, prepare func(*Instance) error) error {
	if _, err := netns.Create(i.Namespace); err != nil {
		return err
	}
	tap := Tap(i.PortID)
	if err := veth(i.Host.Namespace, tap, i.Namespace, nic, i.MAC, 1500); err != nil {
		return err
	}
	// As os-vif does: the bridge is made if the agent has not yet.
	if err := i.Host.db.EnsureBridge(ctx, vswitch.Bridge{Name: "br-int"}); err != nil {
		return err
	}
	ids := map[string]string{"iface-id": i.PortID, "iface-status": "active", "attached-mac": i.MAC.String()}
	if i.DeviceID != "" {
		ids["vm-uuid"] = i.DeviceID
	}
	if prepare != nil {
		if err := prepare(i); err != nil {
			return err
		}
	}
	return i.Host.db.EnsurePort(ctx, "br-int", vswitch.Port{Name: tap, ExternalIDs: ids})
}

// RemoveInstance unplugs and removes an instance. Its port is left to the
// caller.
func (l *Lab) RemoveInstance(ctx context.Context, i *Instance) error {
	l.mu.Lock()
	delete(l.instances, i.Name)
	l.mu.Unlock()
	l.metadata.remove(i.DeviceID)
	tap := Tap(i.PortID)
	err := i.Host.db.DeletePort(ctx, "br-int", tap)
	return errors.Join(err,
		i.Host.Do(func() error { return link.Delete(tap) }),
		netns.Delete(i.Namespace),
		l.record())
}

// AcquireLease asks for a DHCP lease until there is one, as a guest that boots
// does, and configures the NIC by it.
func (i *Instance) AcquireLease(ctx context.Context) (*Lease, error) {
	var client *nclient4.Client
	err := i.Do(func() (err error) {
		// Its packet socket is in the namespace, its goroutine anywhere.
		client, err = nclient4.New(nic, nclient4.WithTimeout(150*time.Millisecond), nclient4.WithRetry(3))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dhcp client: %w", err)
	}
	defer client.Close()
	var got *nclient4.Lease
	for {
		got, err = client.Request(ctx, dhcpv4.WithRequestedOptions(
			dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer))
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no DHCP lease for %s: %w", i.Name, errors.Join(ctx.Err(), err))
		}
	}
	lease, err := parseLease(got.ACK)
	if err != nil {
		return nil, fmt.Errorf("dhcp answer: %w", err)
	}
	if err := i.configure(lease); err != nil {
		return nil, err
	}
	// As DHCP clients do: an instance that had the address before may be
	// remembered by others.
	frames, err := i.Frames(nic)
	if err != nil {
		return nil, err
	}
	defer frames.Close()
	if err := frames.Send(announcement(i.MAC, lease.Address.Addr())); err != nil {
		return nil, fmt.Errorf("announce address: %w", err)
	}
	i.Lease = lease
	return lease, nil
}

func parseLease(ack *dhcpv4.DHCPv4) (*Lease, error) {
	address, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	bits, _ := ack.SubnetMask().Size()
	if !ok || bits == 0 {
		return nil, fmt.Errorf("address %s, mask %s", ack.YourIPAddr, ack.SubnetMask())
	}
	lease := &Lease{Address: netip.PrefixFrom(address, bits)}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil {
		lease.MTU = int(mtu)
	}
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok {
			lease.DNS = append(lease.DNS, a)
		}
	}
	for _, r := range ack.ClasslessStaticRoute() {
		to, ok1 := netip.AddrFromSlice(r.Dest.IP.To4())
		via, ok2 := netip.AddrFromSlice(r.Router.To4())
		bits, _ := r.Dest.Mask.Size()
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("route %s", r)
		}
		hop := route.NextHop{Gateway: via, Device: nic}
		if via.IsUnspecified() {
			hop.Gateway = netip.Addr{}
		}
		lease.Routes = append(lease.Routes, route.Route{Destination: netip.PrefixFrom(to, bits), NextHops: []route.NextHop{hop}})
	}
	if routers := ack.Router(); len(routers) > 0 {
		lease.Gateway, _ = netip.AddrFromSlice(routers[0].To4())
	}
	return lease, nil
}

func (i *Instance) configure(lease *Lease) error {
	routes := lease.Routes
	// RFC 3442: with classless static routes the router option is ignored.
	if len(routes) == 0 && lease.Gateway.IsValid() {
		routes = []route.Route{{
			Destination: netip.MustParsePrefix("0.0.0.0/0"),
			NextHops:    []route.NextHop{{Gateway: lease.Gateway, Device: nic}},
		}}
	}
	return i.Do(func() error {
		if lease.MTU > 0 {
			if err := link.Configure(nic, link.Config{MTU: lease.MTU}); err != nil {
				return err
			}
		}
		if err := link.SetAddresses(nic, []netip.Prefix{lease.Address}); err != nil {
			return err
		}
		return route.Set(route.Main, routes)
	})
}

// SetAddress configures an address by hand, as a guest may try to.
func (i *Instance) SetAddress(addresses ...netip.Prefix) error {
	return i.Do(func() error { return link.SetAddresses(nic, addresses) })
}

// Get fetches a page over HTTP from inside of the instance.
func (i *Instance) Get(ctx context.Context, url string) (status int, body string, err error) {
	transport := &http.Transport{DialContext: i.Dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), err
}
