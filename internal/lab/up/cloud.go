package up

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"isospin/api/neutron"
	"isospin/internal/lab"
)

// The addresses of the cloud. Both projects' networks have the same.
const (
	privateCIDR  = "10.10.0.0/24"
	otherAddress = "10.10.0.200"
	servicePort  = 8080
)

// cloud is what is made through the API, and the instances.
type cloud struct {
	lab *lab.Lab
	api *neutron.Client
	run *run

	external, private, other neutron.Network
	privateSubnet            neutron.Subnet
	router                   neutron.Router
	// web lets in ICMP only, service also TCP to servicePort.
	web, service neutron.SecurityGroup
	floating     neutron.FloatingIP

	vm       []*instance // vm1 and vm2 on the first host, vm3 on the last
	stranger *instance   // of the other project, on the first host
}

// instance is a running one with what the API says of its port.
type instance struct {
	*lab.Instance
	port    neutron.Port
	address netip.Addr
}

func (c *cloud) instanceName() string {
	if len(c.vm) > 0 {
		return c.vm[0].Name
	}
	return "vm1"
}

// build makes everything; an error has been reported.
func (c *cloud) build(ctx context.Context) error {
	if err := c.run.step(ctx, "networks, router, security groups made through the API", 10*time.Second, c.makeNetworks); err != nil {
		return err
	}
	if err := c.run.step(ctx, "instances plugged, all ports ACTIVE", 15*time.Second, c.boot); err != nil {
		return err
	}
	return c.run.step(ctx, "floating IP made", 10*time.Second, func(ctx context.Context) (text string, err error) {
		c.floating, err = neutron.Create(ctx, c.api, neutron.FloatingIP{
			FloatingNetworkID: c.external.ID, PortID: &c.vm[0].port.ID,
		})
		return c.floating.FloatingIPAddress + " for " + c.vm[0].Name, err
	})
}

func (c *cloud) makeNetworks(ctx context.Context) (string, error) {
	yes, no := true, false
	var err error
	c.external, err = neutron.Create(ctx, c.api, neutron.Network{
		Object: neutron.Object{Name: "public"}, External: &yes,
		NetworkType: "flat", PhysicalNetwork: neutron.Ptr("public"),
	})
	if err != nil {
		return "", err
	}
	outside := lab.OutsideAddress.Addr().String()
	_, err = neutron.Create(ctx, c.api, neutron.Subnet{
		Object: neutron.Object{Name: "public"}, NetworkID: c.external.ID, IPVersion: 4, EnableDHCP: &no,
		CIDR: lab.OutsideAddress.Masked().String(), GatewayIP: &outside,
		AllocationPools: []neutron.AllocationPool{{Start: "203.0.113.100", End: "203.0.113.200"}},
	})
	if err != nil {
		return "", err
	}
	if c.private, err = neutron.Create(ctx, c.api, neutron.Network{Object: neutron.Object{Name: "private"}}); err != nil {
		return "", err
	}
	c.privateSubnet, err = neutron.Create(ctx, c.api, neutron.Subnet{
		Object: neutron.Object{Name: "private"}, NetworkID: c.private.ID, IPVersion: 4, CIDR: privateCIDR,
		DNSNameservers: []string{outside},
		// Away from the addresses that checks use for themselves.
		AllocationPools: []neutron.AllocationPool{{Start: "10.10.0.100", End: "10.10.0.149"}},
	})
	if err != nil {
		return "", err
	}
	c.router, err = neutron.Create(ctx, c.api, neutron.Router{
		Object: neutron.Object{Name: "router"}, ExternalGatewayInfo: &neutron.GatewayInfo{NetworkID: c.external.ID},
	})
	if err != nil {
		return "", err
	}
	if _, err = c.api.AddRouterInterface(ctx, c.router.ID, neutron.RouterInterface{SubnetID: c.privateSubnet.ID}); err != nil {
		return "", err
	}
	for _, g := range []struct {
		group *neutron.SecurityGroup
		name  string
		ports []int
	}{{&c.web, "web", nil}, {&c.service, "service", []int{servicePort}}} {
		if *g.group, err = neutron.Create(ctx, c.api, neutron.SecurityGroup{Object: neutron.Object{Name: g.name}}); err != nil {
			return "", err
		}
		_, err = neutron.Create(ctx, c.api, neutron.SecurityGroupRule{
			SecurityGroupID: g.group.ID, Direction: neutron.Ingress, Ethertype: neutron.IPv4, Protocol: neutron.Ptr("icmp"),
		})
		if err != nil {
			return "", err
		}
		for _, port := range g.ports {
			if _, err = c.allow(ctx, *g.group, port); err != nil {
				return "", err
			}
		}
	}
	// Another project, with a network of its own and the same addresses.
	project := uuid.NewString()
	c.other, err = neutron.Create(ctx, c.api, neutron.Network{Object: neutron.Object{Name: "private", ProjectID: project}})
	if err != nil {
		return "", err
	}
	_, err = neutron.Create(ctx, c.api, neutron.Subnet{
		Object: neutron.Object{Name: "private", ProjectID: project}, NetworkID: c.other.ID, IPVersion: 4, CIDR: privateCIDR,
	})
	return "", err
}

// allow adds a rule for TCP from anywhere.
func (c *cloud) allow(ctx context.Context, g neutron.SecurityGroup, port int) (neutron.SecurityGroupRule, error) {
	return neutron.Create(ctx, c.api, neutron.SecurityGroupRule{
		SecurityGroupID: g.ID, Direction: neutron.Ingress, Ethertype: neutron.IPv4, Protocol: neutron.Ptr("tcp"),
		PortRangeMin: &port, PortRangeMax: &port,
	})
}

// boot makes the instances, all at once as users do.
func (c *cloud) boot(ctx context.Context) (string, error) {
	hosts := c.lab.Hosts()
	first, last := hosts[0], hosts[len(hosts)-1]
	no := false
	c.vm = make([]*instance, 3)
	group, ctx := errgroup.WithContext(ctx)
	for n, i := range []struct {
		host  *lab.Host
		group neutron.SecurityGroup
	}{{first, c.web}, {first, c.web}, {last, c.service}} {
		group.Go(func() (err error) {
			c.vm[n], err = c.launch(ctx, fmt.Sprintf("vm%d", n+1), i.host, neutron.Port{
				NetworkID: c.private.ID, SecurityGroups: &[]string{i.group.ID},
			})
			return err
		})
	}
	group.Go(func() (err error) {
		// Nothing but the separation of networks keeps this one apart: it has
		// no security groups.
		c.stranger, err = c.launch(ctx, "stranger", first, neutron.Port{
			Object: neutron.Object{ProjectID: c.other.ProjectID}, NetworkID: c.other.ID,
			FixedIPs: []neutron.FixedIP{{IPAddress: otherAddress}}, PortSecurityEnabled: &no,
		})
		return err
	})
	err := group.Wait()
	if err != nil {
		return "", err
	}
	var text []string
	for _, i := range append(slices.Clone(c.vm), c.stranger) {
		text = append(text, i.Name+" on "+i.Host.Name)
	}
	return strings.Join(text, ", "), nil
}

// launch does what Nova does: a port with a host, a plugged NIC, and waiting
// for the network to say that it is wired.
func (c *cloud) launch(ctx context.Context, name string, host *lab.Host, port neutron.Port) (*instance, error) {
	id := uuid.NewString()
	port.Name, port.DeviceID, port.HostID = name, &id, &host.Name
	port.DeviceOwner = neutron.Ptr("compute:nova")
	port, err := neutron.Create(ctx, c.api, port)
	if err != nil {
		return nil, err
	}
	if port.VIFType != "ovs" || len(port.FixedIPs) == 0 {
		return nil, fmt.Errorf("port of %s: binding:vif_type is %q with %d addresses", name, port.VIFType, len(port.FixedIPs))
	}
	mac, err := net.ParseMAC(port.MACAddress)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", name, err)
	}
	address, err := netip.ParseAddr(port.FixedIPs[0].IPAddress)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", name, err)
	}
	vm, err := c.lab.AddInstance(ctx, lab.InstanceOptions{
		Name: name, Host: host, PortID: port.ID, MAC: mac, DeviceID: id, Project: port.ProjectID,
	})
	if err != nil {
		return nil, err
	}
	i := &instance{Instance: vm, port: port, address: address}
	return i, c.active(ctx, i)
}

// active waits until the port of an instance is ACTIVE.
func (c *cloud) active(ctx context.Context, i *instance) error {
	for {
		port, err := neutron.Get[neutron.Port](ctx, c.api, i.port.ID)
		if err == nil && port.Status == neutron.StatusActive {
			i.port = port
			return nil
		}
		if e := i.Host.AgentFailure(); e != nil {
			return e
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return err
			}
			return fmt.Errorf("the port of %s is %s: %w", i.Name, port.Status, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// terminate is the opposite of launch.
func (c *cloud) terminate(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return errors.Join(
		neutron.Delete[neutron.Port](ctx, c.api, i.port.ID),
		c.lab.RemoveInstance(ctx, i.Instance),
	)
}

// complaints returns the last lines of a log that are warnings or worse.
func complaints(path string, limit int) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		for _, mark := range []string{"level=WARN", "level=ERROR", `"level":"WARN"`, `"level":"ERROR"`, "panic:", "fatal error:"} {
			if strings.Contains(line, mark) {
				out = append(out, strings.TrimSpace(line))
				break
			}
		}
	}
	return out[max(0, len(out)-limit):]
}
