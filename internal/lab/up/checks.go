package up

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"isospin/api/neutron"
	"isospin/internal/lab"
)

const (
	// limit of what must work.
	limit = 8 * time.Second
	// silence is how long to wait for what must not come.
	silence = 300 * time.Millisecond
	// ruleLimit is how soon a new rule must be in force.
	ruleLimit = time.Second
)

// check runs all checks; each reports itself.
func (c *cloud) check(ctx context.Context) {
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, n := range []*lab.Node{&c.vm[0].Node, &c.vm[1].Node, &c.vm[2].Node, c.lab.Outside()} {
		stop, err := n.Echo(servicePort)
		if err != nil {
			c.run.report("servers in the instances", "", 0, err)
			return
		}
		stops = append(stops, stop)
	}
	across := "instance to instance, across hosts through VXLAN"
	if c.vm[0].Host == c.vm[2].Host {
		across = "instance to instance, another pair (there is one host only)"
	}
	again := []struct {
		name string
		fn   func(context.Context) (string, error)
	}{
		{"DHCP lease obtained", c.leases},
		{"metadata from 169.254.169.254, with the proxy's signature", c.fetchMetadata},
		{"instance to instance, on one host", func(ctx context.Context) (string, error) {
			return c.converse(ctx, c.vm[0], c.vm[1])
		}},
		{across, func(ctx context.Context) (string, error) { return c.converse(ctx, c.vm[0], c.vm[2]) }},
		{"another project's network with the same CIDR is out of reach", c.isolated},
		{"ingress without a rule is dropped, replies to outgoing connections pass", c.guarded},
		{"a new rule opens the port", c.ruleOpens},
		{"the port is shut again when the rule goes", c.ruleShuts},
		{"spoofed MAC, IP and ARP are dropped", c.spoof},
		{"SNAT to the outside", c.sourceNAT},
		{"floating IP, from the outside and to it", c.floatingIP},
	}
	for _, s := range again {
		_ = c.run.step(ctx, s.name, limit, s.fn)
	}
	hosts, err := c.hostsInUse(ctx)
	if err != nil {
		c.run.report("hosts with instances or the router", "", 0, err)
		return
	}
	for _, host := range hosts {
		if err := c.run.step(ctx, "agent of "+host.Name+" killed (SIGKILL) and restarted: no packet lost", 3*limit, func(ctx context.Context) (string, error) {
			return c.killAgent(ctx, host)
		}); err != nil {
			return
		}
	}
	_ = c.run.step(ctx, "everything still works after that", 2*limit, func(ctx context.Context) (string, error) {
		for _, s := range again {
			if _, err := s.fn(ctx); err != nil {
				return "", fmt.Errorf("%s: %w", s.name, err)
			}
		}
		return fmt.Sprintf("%d checks again", len(again)), nil
	})
}

// hostsInUse returns the hosts of the instances and that of the router.
func (c *cloud) hostsInUse(ctx context.Context) ([]*lab.Host, error) {
	ports, err := neutron.List[neutron.Port](ctx, c.api, url.Values{"device_id": {c.router.ID}})
	if err != nil {
		return nil, err
	}
	names := map[string]bool{c.vm[0].Host.Name: true, c.vm[2].Host.Name: true}
	for _, p := range ports {
		names[neutron.Value(p.HostID)] = true
	}
	var hosts []*lab.Host
	for _, h := range c.lab.Hosts() {
		if names[h.Name] {
			hosts = append(hosts, h)
		}
	}
	return hosts, nil
}

// leases gets a lease for each instance and compares it with the API.
func (c *cloud) leases(ctx context.Context) (string, error) {
	group, ctx := errgroup.WithContext(ctx)
	all := append([]*instance{c.stranger}, c.vm...)
	for _, i := range all {
		group.Go(func() error {
			lease, err := i.AcquireLease(ctx)
			if err != nil {
				return err
			}
			if lease.Address != netip.PrefixFrom(i.address, 24) {
				return fmt.Errorf("%s was given %s, its port has %s", i.Name, lease.Address, i.address)
			}
			if i != c.stranger && lease.Gateway.String() != neutron.Value(c.privateSubnet.GatewayIP) {
				return fmt.Errorf("%s was given gateway %s", i.Name, lease.Gateway)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	lease := c.vm[0].Lease
	return fmt.Sprintf("%s of %d, MTU %d", lease.Address, len(all), lease.MTU), nil
}

func (c *cloud) fetchMetadata(ctx context.Context) (string, error) {
	for _, i := range []*instance{c.vm[0], c.vm[2]} {
		var status int
		var body string
		err := retry(ctx, func(ctx context.Context) (err error) {
			status, body, err = i.Get(ctx, "http://169.254.169.254/openstack/latest/meta_data.json")
			return err
		})
		if err != nil {
			return "", err
		}
		var got struct{ UUID, Name string }
		if status != 200 || json.Unmarshal([]byte(body), &got) != nil || got.UUID != i.DeviceID || got.Name != i.Name {
			return "", fmt.Errorf("%s was answered %d %s", i.Name, status, strings.TrimSpace(body))
		}
	}
	return "", nil
}

// converse pings from one instance to another.
func (c *cloud) converse(ctx context.Context, from, to *instance) (string, error) {
	if err := from.Reach(ctx, to.address); err != nil {
		return "", err
	}
	p, err := from.StartPing(to.address, 5*time.Millisecond)
	if err != nil {
		return "", err
	}
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
	r := p.Stop()
	if r.Received == 0 {
		return "", errors.New(r.String())
	}
	return fmt.Sprintf("round trip %v", r.Median.Round(10*time.Microsecond)), nil
}

// isolated pings from one project into the other's network, both ways, and
// looks on the other's wire for anything of ours.
func (c *cloud) isolated(ctx context.Context) (string, error) {
	frames, err := c.stranger.Frames("eth0")
	if err != nil {
		return "", err
	}
	defer frames.Close()
	quiet, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	group := errgroup.Group{}
	pings := map[*instance]netip.Addr{c.vm[0]: c.stranger.address, c.vm[2]: c.stranger.address, c.stranger: c.vm[0].address}
	for from, to := range pings {
		group.Go(func() error {
			if from.Reach(quiet, to) == nil {
				return fmt.Errorf("%s reaches %s in the other project's network", from.Name, to)
			}
			return nil
		})
	}
	group.Go(func() error {
		_, err := frames.Receive(quiet, func(f []byte) bool {
			for _, i := range c.vm {
				if len(f) >= 12 && bytes.Equal(f[6:12], i.MAC) {
					return true
				}
			}
			return false
		})
		if err == nil {
			return errors.New("a frame of one project is on the wire of the other")
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return "", err
	}
	// That nothing came shows something only if the sender can send at all.
	return "", c.vm[0].Reach(ctx, c.vm[1].address)
}

// guarded: vm1 and vm2 let in no TCP, vm3 does.
func (c *cloud) guarded(ctx context.Context) (string, error) {
	if _, err := c.seenAs(ctx, c.vm[0], c.vm[2].address); err != nil {
		return "", fmt.Errorf("a reply did not pass: %w", err)
	}
	for _, from := range []*instance{c.vm[1], c.vm[2]} {
		if err := c.shut(ctx, from, c.vm[0]); err != nil {
			return "", err
		}
	}
	return "", nil
}

// shut is an error if one instance connects to the service of another.
func (c *cloud) shut(ctx context.Context, from, to *instance) error {
	quiet, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := from.Dial(quiet, "tcp", service(to.address))
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s connects to %s without a rule", from.Name, to.Name)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		return fmt.Errorf("the connection was refused, not dropped: %w", err)
	}
	return nil
}

// ruleOpens adds a rule to the group of vm1 and vm2 and connects until it is in
// force.
func (c *cloud) ruleOpens(ctx context.Context) (string, error) {
	before := time.Now()
	rule, err := c.allow(ctx, c.web, servicePort)
	if err != nil {
		return "", err
	}
	c.web.Rules = append(c.web.Rules, rule)
	soon, cancel := context.WithTimeout(ctx, ruleLimit)
	defer cancel()
	if err := retry(soon, func(ctx context.Context) error {
		// A packet that was dropped is sent again after a second only: a new
		// connection instead.
		once, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		conn, err := c.vm[1].Dial(once, "tcp", service(c.vm[0].address))
		if err == nil {
			conn.Close()
		}
		return err
	}); err != nil {
		return "", fmt.Errorf("not within %v: %w", ruleLimit, err)
	}
	took := time.Since(before)
	_, err = c.seenAs(ctx, c.vm[2], c.vm[0].address)
	return "in force after " + seconds(took), err
}

// ruleShuts removes that rule.
func (c *cloud) ruleShuts(ctx context.Context) (string, error) {
	if len(c.web.Rules) == 0 {
		return "", errors.New("there is no rule to be removed")
	}
	rule := c.web.Rules[len(c.web.Rules)-1]
	if err := neutron.Delete[neutron.SecurityGroupRule](ctx, c.api, rule.ID); err != nil {
		return "", err
	}
	c.web.Rules = c.web.Rules[:len(c.web.Rules)-1]
	before := time.Now()
	for {
		err := c.shut(ctx, c.vm[1], c.vm[0])
		if err == nil {
			return "in force after " + seconds(max(0, time.Since(before)-silence)), nil
		}
		if time.Since(before) > ruleLimit+silence {
			return "", fmt.Errorf("not within %v: %w", ruleLimit, err)
		}
	}
}

// spoof sends from vm1 to vm2 what vm1 must not, and then what it may: when
// that has come and nothing else, the rest was dropped.
func (c *cloud) spoof(ctx context.Context) (string, error) {
	from, to := c.vm[0], c.vm[1]
	gateway, err := netip.ParseAddr(neutron.Value(c.privateSubnet.GatewayIP))
	if err != nil {
		return "", fmt.Errorf("gateway of the subnet: %w", err)
	}
	out, err := from.Frames("eth0")
	if err != nil {
		return "", err
	}
	defer out.Close()
	in, err := to.Frames("eth0")
	if err != nil {
		return "", err
	}
	defer in.Close()
	strange := net.HardwareAddr{0xfa, 0x16, 0x3e, 0xbb, 0xbb, 0xbb}
	stranger := netip.MustParseAddr("10.10.0.66") // outside of the allocation pool
	const legitimate = "its own addresses"
	forged := map[string][]byte{
		"source MAC":               lab.EchoFrame(strange, to.MAC, from.address, to.address, "source MAC"),
		"source IP":                lab.EchoFrame(from.MAC, to.MAC, stranger, to.address, "source IP"),
		"another's IP":             lab.EchoFrame(from.MAC, to.MAC, c.vm[2].address, to.address, "another's IP"),
		"both":                     lab.EchoFrame(strange, to.MAC, stranger, to.address, "both"),
		"ARP for the gateway":      lab.ARPReplyFrame(from.MAC, from.MAC, to.MAC, gateway, to.address),
		"ARP with another's MAC":   lab.ARPReplyFrame(from.MAC, strange, to.MAC, from.address, to.address),
		"ARP frame of another MAC": lab.ARPReplyFrame(strange, from.MAC, to.MAC, from.address, to.address),
	}
	for range 3 {
		for name, f := range forged {
			if err := out.Send(f); err != nil {
				return "", fmt.Errorf("send %s: %w", name, err)
			}
		}
	}
	stop := make(chan struct{})
	sent := make(chan error, 1)
	go func() {
		for {
			if err := out.Send(lab.EchoFrame(from.MAC, to.MAC, from.address, to.address, legitimate)); err != nil {
				sent <- err
				return
			}
			select {
			case <-stop:
				sent <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	// The switch may treat packets of different flows in parallel: one of ours
	// that came says little of a forged one, several in a row do.
	var passed string
	arrived := 0
	_, err = in.Receive(ctx, func(f []byte) bool {
		for name, forged := range forged {
			if len(f) >= len(forged) && bytes.Equal(f[:len(forged)], forged) {
				passed = name
				return true
			}
		}
		if bytes.Contains(f, []byte(legitimate)) && bytes.Equal(f[6:12], from.MAC) {
			arrived++
		}
		return arrived == 4
	})
	close(stop)
	if err := errors.Join(err, <-sent); err != nil {
		return "", fmt.Errorf("nor does what is not forged arrive: %w", err)
	}
	if passed != "" {
		return "", fmt.Errorf("forged %s was let through", passed)
	}
	return fmt.Sprintf("%d kinds", len(forged)), nil
}

// sourceNAT: vm2 has no floating IP; the outside sees the router's address.
func (c *cloud) sourceNAT(ctx context.Context) (string, error) {
	seen, err := c.seenAs(ctx, c.vm[1], lab.OutsideAddress.Addr())
	if err != nil {
		return "", err
	}
	router, err := neutron.Get[neutron.Router](ctx, c.api, c.router.ID)
	if err != nil {
		return "", err
	}
	if router.ExternalGatewayInfo != nil {
		for _, ip := range router.ExternalGatewayInfo.ExternalFixedIPs {
			if ip.IPAddress == seen {
				return "seen as " + seen, nil
			}
		}
	}
	return "", fmt.Errorf("%s is seen as %s, which is no address of the router", c.vm[1].Name, seen)
}

func (c *cloud) floatingIP(ctx context.Context) (string, error) {
	address, err := netip.ParseAddr(c.floating.FloatingIPAddress)
	if err != nil {
		return "", fmt.Errorf("floating IP: %w", err)
	}
	if err := c.lab.Outside().Reach(ctx, address); err != nil {
		return "", err
	}
	seen, err := c.seenAs(ctx, c.vm[0], lab.OutsideAddress.Addr())
	if err != nil {
		return "", err
	}
	if seen != address.String() {
		return "", fmt.Errorf("%s is seen as %s, not as its floating IP %s", c.vm[0].Name, seen, address)
	}
	return address.String(), nil
}

// seenAs connects from an instance to the service at an address and returns the
// address by which it is seen there.
func (c *cloud) seenAs(ctx context.Context, from *instance, at netip.Addr) (string, error) {
	var seen string
	err := retry(ctx, func(ctx context.Context) error {
		once, cancel := context.WithTimeout(ctx, silence)
		defer cancel()
		conn, err := from.Dial(once, "tcp", service(at))
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			return err
		}
		seen, _, err = net.SplitHostPort(strings.TrimSpace(line))
		return err
	})
	return seen, err
}

// killAgent kills an agent right after it has wired an instance, starts it
// again, and sees that it works, with pings running through its host in every
// way.
//
// While the pings run no device is plugged or unplugged on the host: after
// every change of devices the userspace switch reads the routes to the tunnel
// endpoints anew, and drops what is to be tunnelled in between. It does so
// without any agent too, so such a loss would say nothing of ours.
func (c *cloud) killAgent(ctx context.Context, host *lab.Host) (text string, err error) {
	floating, err := netip.ParseAddr(c.floating.FloatingIPAddress)
	if err != nil {
		return "", fmt.Errorf("floating IP: %w", err)
	}
	late, err := c.bootOn(ctx, "late", host)
	if late != nil {
		defer func() { err = errors.Join(err, c.terminate(context.WithoutCancel(ctx), late)) }()
	}
	if err != nil {
		return "", err
	}
	pings := []struct {
		name string
		from *lab.Node
		to   netip.Addr
	}{
		{"on one host", &c.vm[0].Node, c.vm[1].address},
		{"to the new instance", &c.vm[0].Node, late.address},
		{"across hosts", &c.vm[0].Node, c.vm[2].address},
		{"to the outside", &c.vm[1].Node, lab.OutsideAddress.Addr()},
		{"to the floating IP", c.lab.Outside(), floating},
	}
	running := make([]*lab.Pinger, 0, len(pings))
	var killed, started time.Time
	results := func() (sent int, err error) {
		for i, p := range running {
			r := p.Stop()
			sent += r.Sent
			if r.Lost() > 0 {
				err = errors.Join(err, fmt.Errorf("%s: %s, the first %v after the kill, longest gap %v; the agent was started %v after the kill",
					pings[i].name, r, r.LostAt[0].Sub(killed).Round(time.Millisecond), r.LongestGap.Round(time.Millisecond),
					started.Sub(killed).Round(time.Millisecond)))
			}
		}
		return sent, err
	}
	for _, p := range pings {
		pinger, err := p.from.StartPing(p.to, 10*time.Millisecond)
		if err != nil {
			_, _ = results()
			return "", err
		}
		running = append(running, pinger)
	}
	var working time.Time
	killed, started, working, err = c.restartAgent(ctx, host)
	sent, lost := results()
	if err := errors.Join(err, lost); err != nil {
		return "", err
	}
	// And it can plug.
	later, err := c.bootOn(ctx, "later", host)
	if later != nil {
		err = errors.Join(err, c.terminate(context.WithoutCancel(ctx), later))
	}
	return fmt.Sprintf("%d pings, agent back at work %s after its start", sent, seconds(working.Sub(started))), err
}

// bootOn launches an instance and waits until others of its network, on its
// host and on another, can reach it.
func (c *cloud) bootOn(ctx context.Context, name string, host *lab.Host) (*instance, error) {
	vm, err := c.launch(ctx, name, host, neutron.Port{NetworkID: c.private.ID, SecurityGroups: &[]string{c.web.ID}})
	if err == nil {
		_, err = vm.AcquireLease(ctx)
	}
	if err == nil {
		err = c.vm[0].Reach(ctx, vm.address)
	}
	if err == nil {
		err = c.vm[2].Reach(ctx, vm.address)
	}
	return vm, err
}

// restartAgent returns when the agent was killed, when it was started again,
// and when it was seen to act on a change.
func (c *cloud) restartAgent(ctx context.Context, host *lab.Host) (killed, started, working time.Time, err error) {
	// Some pings before, some without an agent, some after.
	pause := func() error {
		select {
		case <-time.After(100 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err = pause(); err != nil {
		return
	}
	killed = time.Now()
	if err = host.KillAgent(); err != nil {
		return
	}
	if err = pause(); err != nil {
		return
	}
	started = time.Now()
	if err = host.StartAgent(); err != nil {
		return
	}
	_, err = c.ruleOpens(ctx)
	working = time.Now()
	if err == nil {
		_, err = c.ruleShuts(ctx)
	}
	if err == nil {
		err = pause()
	}
	return
}

func service(a netip.Addr) string {
	return netip.AddrPortFrom(a, servicePort).String()
}

// retry calls fn until it succeeds or ctx ends.
func retry(ctx context.Context, fn func(context.Context) error) error {
	for {
		err := fn(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}
