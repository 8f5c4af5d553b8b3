package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"isospin/api/neutron"
	"isospin/internal/kernel/sysctl"
	"isospin/internal/lab"
)

// host measures a hypervisor of a lab: plugging, and the restart of its agent.
func (b *bench) host(ctx context.Context) error {
	why := ""
	if err := lab.Check(); err != nil {
		why = strings.Join(strings.Fields(err.Error()), " ")
	}
	if why != "" {
		b.missing("plug ", why)
		b.missing("agent ", why)
		b.missing("the switch ", why)
		return nil
	}
	h := &hypervisor{bench: b}
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unlimited := map[string]string{}
	for line := range strings.Lines(quotas) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
			unlimited[name] = value
		}
	}
	var err error
	h.lab, err = lab.Start(starting, lab.Options{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Executable: b.executable,
		Hosts: 1, Listen: "127.0.0.1:0", DataDir: filepath.Join(b.dir, "lab"),
		ServerConfig: lab.Settings{"QUOTAS": unlimited},
		AgentConfig:  lab.Settings{"isospin": {"metrics_listen": metricsAddress}},
	})
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	err = h.measure(ctx)
	if err != nil {
		err = fmt.Errorf("%w; the agent's log ends: %s", err, tail(h.lab.Hosts()[0].AgentLog()))
	}
	return errors.Join(err, h.lab.Close())
}

// metricsAddress is in the network namespace of the host.
const metricsAddress = "127.0.0.1:9698"

type hypervisor struct {
	*bench
	lab       *lab.Lab
	api       *load
	network   neutron.Network
	subnet    neutron.Subnet
	guests    []*lab.Instance
	addresses []netip.Prefix // of guests
	named     int
}

func (h *hypervisor) setup(ctx context.Context) (err error) {
	endpoint, err := url.Parse(h.lab.Endpoint)
	if err != nil {
		return err
	}
	h.api = &load{address: endpoint.Host}
	if h.network, err = neutron.Create(ctx, h.lab.Client(), neutron.Network{Object: neutron.Object{Name: "bench"}}); err != nil {
		return err
	}
	h.subnet, err = neutron.Create(ctx, h.lab.Client(), neutron.Subnet{NetworkID: h.network.ID, IPVersion: 4, CIDR: "10.20.0.0/20"})
	return err
}

func (h *hypervisor) measure(ctx context.Context) error {
	if err := h.setup(ctx); err != nil {
		return err
	}
	defer h.api.close()
	for _, size := range []struct {
		guests int
		name   string
	}{{h.few, "10 ports on the host"}, {h.many, "200 ports on the host"}} {
		if err := h.fill(ctx, size.guests); err != nil {
			return err
		}
		if err := h.plugs(ctx, size.name); err != nil {
			return err
		}
		if err := h.switchAlone(ctx, size.name); err != nil {
			return err
		}
	}
	if err := h.restarts(ctx); err != nil {
		return err
	}
	return h.agentMemory()
}

func (h *hypervisor) host() *lab.Host { return h.lab.Hosts()[0] }

// newPorts makes ports on the host, in the default group, which admits itself.
func (h *hypervisor) newPorts(ctx context.Context, n int) ([]neutron.Port, error) {
	ports := make([]neutron.Port, n)
	for i := range ports {
		ports[i] = neutron.Port{NetworkID: h.network.ID, HostID: &h.host().Name, DeviceOwner: neutron.Ptr("compute:nova")}
	}
	return neutron.CreateBulk(ctx, h.lab.Client(), ports)
}

// plug makes a guest for a port. plugging is called just before the NIC is plugged.
func (h *hypervisor) plug(ctx context.Context, name string, port neutron.Port, plugging func(netip.Prefix)) (*lab.Instance, netip.Prefix, error) {
	var at netip.Prefix
	mac, err := net.ParseMAC(port.MACAddress)
	if err != nil || len(port.FixedIPs) == 0 {
		return nil, at, errors.Join(fmt.Errorf("port %s has MAC %q and %d addresses", port.ID, port.MACAddress, len(port.FixedIPs)), err)
	}
	address, err := netip.ParseAddr(port.FixedIPs[0].IPAddress)
	if err != nil {
		return nil, at, err
	}
	at = netip.PrefixFrom(address, 20)
	guest, err := h.lab.AddInstance(ctx, lab.InstanceOptions{Name: name, Host: h.host(), PortID: port.ID, MAC: mac, Prepare: func(i *lab.Instance) error {
		if err := i.SetAddress(at); err != nil {
			return err
		}
		// A guest asks again at once when an ARP request is lost, rather
		// than after a second: its waiting is not the host's slowness.
		err := i.Do(func() error {
			return sysctl.Set(sysctl.Setting{Key: "net/ipv4/neigh/eth0/retrans_time_ms", Value: "10"})
		})
		if err == nil && plugging != nil {
			plugging(at)
		}
		return err
	}})
	return guest, at, err
}

// fill brings the host to so many guests, all ACTIVE.
func (h *hypervisor) fill(ctx context.Context, guests int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	ports, err := h.newPorts(ctx, guests-len(h.guests))
	if err != nil {
		return err
	}
	made, addresses := make([]*lab.Instance, len(ports)), make([]netip.Prefix, len(ports))
	group, plugging := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, port := range ports {
		group.Go(func() (err error) {
			made[i], addresses[i], err = h.plug(plugging, fmt.Sprintf("guest%d", len(h.guests)+i), port, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	h.guests, h.addresses = append(h.guests, made...), append(h.addresses, addresses...)
	list := "ports?fields=id&status=ACTIVE&device_owner=compute:nova&network_id=" + h.network.ID
	for {
		body, err := h.api.one(ctx, "GET", list, "", 200)
		if err != nil {
			return err
		}
		if len(ids(body)) == guests {
			return nil
		}
		if err := h.pause(ctx, 50*time.Millisecond, fmt.Sprintf("%d of %d ports are ACTIVE", len(ids(body)), guests)); err != nil {
			return err
		}
	}
}

// pause waits between two looks at something that has not come to pass.
func (h *hypervisor) pause(ctx context.Context, d time.Duration, what string) error {
	if err := h.wait(ctx, d); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return h.host().AgentFailure()
}

func (h *hypervisor) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// plugs plugs one guest after the other and removes it again.
func (h *hypervisor) plugs(ctx context.Context, name string) error {
	var active, ping samples
	for range h.sizes.plugs {
		a, p, err := h.plugOnce(ctx)
		if err != nil {
			return err
		}
		active.durations, ping.durations = append(active.durations, a), append(ping.durations, p)
	}
	if h.quick {
		active.note = fmt.Sprintf("in fact %d ports", len(h.guests))
		ping.note = active.note
	}
	h.times("plug to ACTIVE, "+name, active)
	h.times("plug to first ping, "+name, ping)
	return nil
}

func (h *hypervisor) plugOnce(ctx context.Context) (active, ping time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ports, err := h.newPorts(ctx, 1)
	if err != nil {
		return 0, 0, err
	}
	h.named++
	var begin time.Time
	waiting, ended := errgroup.WithContext(ctx)
	guest, _, err := h.plug(ctx, fmt.Sprintf("new%d", h.named), ports[0], func(at netip.Prefix) {
		begin = time.Now()
		waiting.Go(func() error {
			err := h.guests[0].Reach(ended, at.Addr())
			ping = time.Since(begin)
			return err
		})
		waiting.Go(func() error {
			err := h.active(ended, ports[0].ID)
			active = time.Since(begin)
			return err
		})
	})
	if err != nil {
		cancel()
		return 0, 0, errors.Join(err, waiting.Wait())
	}
	err = waiting.Wait()
	err = errors.Join(err, neutron.Delete[neutron.Port](ctx, h.lab.Client(), ports[0].ID), h.lab.RemoveInstance(context.WithoutCancel(ctx), guest))
	if err != nil {
		return 0, 0, fmt.Errorf("plug of port %s: %w", ports[0].ID, err)
	}
	// What the removal makes the agent do is not to fall into the next time.
	return active, ping, h.pause(ctx, 200*time.Millisecond, "plug")
}

// switchAlone measures the least that a plug takes: the switch's own time to
// take a port, without an agent.
func (h *hypervisor) switchAlone(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	run := func(program string, args ...string) error {
		out, err := h.host().Run(ctx, program, args...)
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", program, err, out)
		}
		return err
	}
	if err := h.host().KillAgent(); err != nil {
		return err
	}
	if err := run("ip", "link", "add", "alone0", "type", "veth", "peer", "name", "alone1"); err != nil {
		return err
	}
	var s samples
	for range h.sizes.plugs {
		begin := time.Now()
		if err := run("ovs-vsctl", "add-port", "br-int", "alone0"); err != nil {
			return err
		}
		s.durations = append(s.durations, time.Since(begin))
		if err := run("ovs-vsctl", "del-port", "br-int", "alone0"); err != nil {
			return err
		}
		if err := h.wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	if h.quick {
		s.note = fmt.Sprintf("in fact %d ports", len(h.guests))
	}
	h.times("the switch alone: add-port, "+name, s)
	if err := run("ip", "link", "delete", "alone0"); err != nil {
		return err
	}
	_, err := h.startAgent(ctx)
	return err
}

// active polls the API every 2 ms until the port is ACTIVE.
func (h *hypervisor) active(ctx context.Context, port string) error {
	path, last := "ports/"+port+"?fields=status", ""
	for {
		body, err := h.api.one(ctx, "GET", path, "", 200)
		if err != nil {
			return err
		}
		if last = string(body); strings.Contains(last, `"ACTIVE"`) {
			return nil
		}
		if err := h.pause(ctx, 2*time.Millisecond, "the port is "+last); err != nil {
			return err
		}
	}
}

// restarts kills the agent and starts it, while one guest pings another.
func (h *hypervisor) restarts(ctx context.Context) error {
	var took samples
	lost, sent, written, flows := 0, 0, 0, 0
	var gap time.Duration
	for range h.sizes.restarts {
		p, err := h.guests[0].StartPing(h.addresses[1].Addr(), 5*time.Millisecond)
		if err != nil {
			return err
		}
		killed := time.Now()
		d, err := h.restart(ctx)
		r := p.Stop()
		if err != nil {
			return err
		}
		took.durations = append(took.durations, d)
		lost, sent, gap = lost+r.Lost(), sent+r.Sent, max(gap, r.LongestGap)
		young, all, err := h.flows(ctx, killed)
		if err != nil {
			return err
		}
		written, flows = written+young, all
	}
	if h.quick {
		took.note = fmt.Sprintf("in fact %d ports", len(h.guests))
	}
	h.times("agent restart, 200 ports on the host", took)
	h.value("agent restart, pings lost", float64(lost), sent, fmt.Sprintf("every 5 ms; longest gap %s ms", number(milliseconds(gap))))
	h.value("agent restart, flows written", float64(written), flows, "of those that there are")
	return nil
}

// restart returns the time from the start of a new agent until it has compared
// the host with the state on disk, is attached to the server and has all.
func (h *hypervisor) restart(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := h.host().KillAgent(); err != nil {
		return 0, err
	}
	return h.startAgent(ctx)
}

// startAgent starts the agent and waits until it has nothing left to do.
func (h *hypervisor) startAgent(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	if err := h.host().StartAgent(); err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: h.host().Dial}}
	defer client.CloseIdleConnections()
	for {
		why := reconciled(ctx, client)
		if why == nil {
			return time.Since(begin), nil
		}
		if err := h.pause(ctx, 5*time.Millisecond, why.Error()); err != nil {
			return 0, err
		}
	}
}

// reconciled says what an agent still lacks.
func reconciled(ctx context.Context, client *http.Client) error {
	get := func(path string, read func(io.Reader) error) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		return read(resp.Body)
	}
	if err := get("/readyz", func(io.Reader) error { return nil }); err != nil {
		return err
	}
	return get("/metrics", func(r io.Reader) error {
		attached := false
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), " ")
			switch {
			case name == "isospin_agent_attached":
				attached = value == "1"
			case strings.HasPrefix(name, "isospin_agent_failed_objects{") && value != "0":
				return fmt.Errorf("%s is %s", name, value)
			}
		}
		if !attached {
			return errors.New("the agent is not attached")
		}
		return lines.Err()
	})
}

// flows counts the flows of all bridges, and those that were written since a
// time. Flows that the switch learned have timeouts and are left out.
func (h *hypervisor) flows(ctx context.Context, since time.Time) (young, all int, err error) {
	out, err := h.host().Run(ctx, "ovs-vsctl", "list-br")
	if err != nil {
		return 0, 0, err
	}
	for _, bridge := range strings.Fields(string(out)) {
		out, err := h.host().Run(ctx, "ovs-ofctl", "-O", "OpenFlow14", "--no-names", "dump-flows", bridge)
		if err != nil {
			return 0, 0, err
		}
		age := time.Since(since) // at least that of flows written then, when they were read
		for line := range strings.Lines(string(out)) {
			_, rest, ok := strings.Cut(line, "duration=")
			if !ok || strings.Contains(line, "_timeout=") {
				continue
			}
			text, _, _ := strings.Cut(rest, "s,")
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("flow %q: %w", line, err)
			}
			all++
			if seconds <= age.Seconds() {
				young++
			}
		}
	}
	return young, all, nil
}

// agentMemory reads the resident memory of the agent.
func (h *hypervisor) agentMemory() error {
	records, err := lab.Running("")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(records, func(r *lab.Record) bool { return r.ID == h.lab.ID })
	if i < 0 {
		return errors.New("the lab has no record")
	}
	for _, p := range records[i].Processes {
		if p.Name == "agent of "+h.host().Name {
			size, err := resident(p.PID)
			if err == nil {
				h.value("agent memory, 200 ports on the host", size, 0, "")
			}
			return err
		}
	}
	text, _ := json.Marshal(records[i].Processes)
	return fmt.Errorf("the agent is not among the lab's processes: %s", text)
}
