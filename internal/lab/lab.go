package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"isospin/api/neutron"
)

// Options of a lab.
type Options struct {
	Logger *slog.Logger // required
	// Executable is the isospin program, for the server and the agents. Without
	// one there are none: the lab is hosts, underlay and outside network only.
	Executable string // optional
	Hosts      int    // optional: 2; at most 64
	// DataDir is for the database, configuration files and logs. It must be
	// empty or not exist, and stays after Close. Without one they are in the
	// lab's own folder and go with it.
	DataDir string // optional
	// Listen is the address of the API.
	Listen string // optional: 127.0.0.1:9696; with port 0 a free one is taken
	// ServerConfig and AgentConfig add to the configuration files, or replace
	// what would be there.
	ServerConfig, AgentConfig Settings // optional
	// RunDir is where labs keep their folders; socket paths are made from it,
	// so it must be short.
	RunDir string // optional: DefaultRunDir
}

// Lab is a cloud on this machine. Methods may be called from any goroutine,
// those of one host or instance from one at a time.
type Lab struct {
	ID      string
	DataDir string
	// Endpoint is the address of the API: "http://127.0.0.1:9696".
	Endpoint string

	logger                    *slog.Logger
	executable                string
	runDir                    string // of this lab
	serverConfig, agentConfig Settings
	started                   time.Time
	lock                      *os.File
	ctx                       context.Context // ends with Close
	cancel                    context.CancelFunc

	underlay, outside *Node
	metadata          *metadata
	http              *http.Client
	hosts             []*Host
	server            *process

	mu        sync.Mutex
	instances map[string]*Instance
}

// maxHosts is what the addresses of the underlay are good for, with room.
const maxHosts = 64

// Start makes a lab, and returns when its hosts reach each other and, with an
// executable, the server serves and knows every host's agent. ctx limits the
// start only. What was made is removed if it fails.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if o.Hosts == 0 {
		o.Hosts = 2
	}
	if o.Hosts < 1 || o.Hosts > maxHosts {
		return nil, fmt.Errorf("a lab has 1 to %d hosts, not %d", maxHosts, o.Hosts)
	}
	if o.RunDir == "" {
		o.RunDir = DefaultRunDir
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:9696"
	}
	if o.Executable != "" {
		// So that a taken port is told before anything is made.
		free, err := net.Listen("tcp", o.Listen)
		if err != nil {
			return nil, fmt.Errorf("the API cannot listen on %s (is another server or lab running? choose another port): %w", o.Listen, err)
		}
		o.Listen = free.Addr().String()
		free.Close()
	}
	id, lock, err := newFolder(o.RunDir)
	if err != nil {
		return nil, err
	}
	l := &Lab{
		ID: id, DataDir: o.DataDir, logger: o.Logger, executable: o.Executable, lock: lock,
		runDir: filepath.Join(o.RunDir, id), serverConfig: o.ServerConfig, agentConfig: o.AgentConfig,
		started:  time.Now(),
		underlay: &Node{Name: "underlay", Namespace: prefix(id) + "underlay"},
		outside:  &Node{Name: "outside", Namespace: prefix(id) + "outside"},
		http:     &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()},
		metadata: newMetadata(o.Logger), instances: map[string]*Instance{},
	}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := l.start(ctx, o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context, o Options) error {
	if l.DataDir == "" {
		l.DataDir = filepath.Join(l.runDir, "data")
	} else if abs, err := filepath.Abs(l.DataDir); err != nil {
		return err
	} else {
		l.DataDir = abs
	}
	if err := os.MkdirAll(l.DataDir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if entries, err := os.ReadDir(l.DataDir); err != nil {
		return fmt.Errorf("data folder: %w", err)
	} else if len(entries) > 0 {
		return fmt.Errorf("data folder %s is not empty: a lab starts with a new database; remove it or name another folder", l.DataDir)
	}
	for n := 1; n <= o.Hosts; n++ {
		l.hosts = append(l.hosts, l.newHost(n))
	}
	if err := l.record(); err != nil {
		return err
	}
	group, starting := errgroup.WithContext(ctx)
	if l.executable != "" {
		l.Endpoint = "http://" + o.Listen
		if err := l.startServer(o.Listen); err != nil {
			return err
		}
		group.Go(func() error { return l.awaitServer(starting) })
	}
	if err := l.makeUnderlay(); err != nil {
		return errors.Join(err, group.Wait())
	}
	if err := l.metadata.start(ctx, l.underlay.Namespace); err != nil {
		return errors.Join(err, group.Wait())
	}
	for _, h := range l.hosts {
		group.Go(func() error {
			err := h.start(starting)
			if err == nil && l.executable != "" {
				err = h.StartAgent()
			}
			if err != nil {
				return fmt.Errorf("host %s: %w", h.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := l.warmUnderlay(ctx); err != nil {
		return err
	}
	if l.executable != "" {
		for _, h := range l.hosts {
			if err := l.AwaitAgent(ctx, h); err != nil {
				return err
			}
		}
	}
	return l.record()
}

// warmUnderlay makes every host learn the others' underlay addresses: the
// switch drops the first packets to a tunnel endpoint that it must ask for.
func (l *Lab) warmUnderlay(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(8)
	for _, h := range l.hosts {
		group.Go(func() error {
			if err := h.Reach(ctx, underlayAddress.Addr()); err != nil {
				return fmt.Errorf("underlay: %w", err)
			}
			for _, other := range l.hosts {
				if other == h {
					continue
				}
				if err := h.Reach(ctx, other.TunnelIP); err != nil {
					return fmt.Errorf("underlay: %w", err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (l *Lab) feedAddress() string { return "unix://" + filepath.Join(l.runDir, "feed.sock") }

// ServerLog is the path of the server's log.
func (l *Lab) ServerLog() string { return filepath.Join(l.DataDir, "server.log") }

func (l *Lab) startServer(listen string) error {
	address, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	config := filepath.Join(l.DataDir, "server.conf")
	settings := Settings{
		"DEFAULT":  {"bind_host": address, "bind_port": port, "auth_strategy": "noauth"},
		"database": {"connection": "sqlite:///" + filepath.Join(l.DataDir, "isospin.sqlite")},
		"ml2": {
			"type_drivers":          "local,flat,vlan,vxlan,gre,geneve",
			"project_network_types": "vxlan",
			"mechanism_drivers":     "openvswitch",
		},
		"ml2_type_flat":  {"flat_networks": "public"},
		"ml2_type_vxlan": {"vni_ranges": "1:16000"},
		"isospin":        {"feed_listen": l.feedAddress()},
	}
	if err := settings.merge(l.serverConfig).write(config); err != nil {
		return err
	}
	p, err := startProcess("server", nil, l.ServerLog(), l.executable, "server", "--config-file", config)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.server = p
	l.mu.Unlock()
	return l.record()
}

// awaitServer returns when the API answers.
func (l *Lab) awaitServer(ctx context.Context) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.Endpoint+"/v2.0/", nil)
		if err != nil {
			return err
		}
		if resp, err := l.http.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode < 500 {
				return nil
			}
		}
		select {
		case <-l.server.exited:
			return l.server.failure()
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w; its log ends: %s", ctx.Err(), tail(l.ServerLog(), 1000))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// AwaitAgent returns when the server says that the host's agent is alive.
func (l *Lab) AwaitAgent(ctx context.Context, h *Host) error {
	for {
		agents, err := neutron.List[neutron.Agent](ctx, l.Client(), map[string][]string{"host": {h.Name}})
		if err == nil {
			for _, a := range agents {
				if a.AgentType == "Open vSwitch agent" && a.Alive {
					return nil
				}
			}
		}
		select {
		case <-h.agent.exited:
			return h.agent.failure()
		case <-l.server.exited:
			return l.server.failure()
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the server does not know the agent of %s: %w; its log ends: %s", h.Name, ctx.Err(), tail(h.AgentLog(), 1000)), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Client returns a client of the lab's API.
func (l *Lab) Client() *neutron.Client { return &neutron.Client{Endpoint: l.Endpoint, HTTP: l.http} }

// Hosts returns the emulated hypervisors.
func (l *Lab) Hosts() []*Host { return l.hosts }

// Outside is a machine on the outside network, with OutsideAddress.
func (l *Lab) Outside() *Node { return l.outside }

// Underlay is the namespace of the switches between the hosts.
func (l *Lab) Underlay() *Node { return l.underlay }

// Ended is closed when the server has ended by itself.
func (l *Lab) Ended() <-chan struct{} {
	if l.server == nil {
		return nil
	}
	return l.server.exited
}

// ServerFailure is not nil when the server has ended by itself.
func (l *Lab) ServerFailure() error {
	if l.server == nil || l.server.running() {
		return nil
	}
	return l.server.failure()
}

// Logs returns the paths of the logs of server and agents.
func (l *Lab) Logs() []string {
	logs := []string{l.ServerLog()}
	for _, h := range l.hosts {
		logs = append(logs, h.AgentLog())
	}
	return logs
}

// record writes down what there is, for Running and RemoveLeftovers.
func (l *Lab) record() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &Record{
		ID: l.ID, Started: l.started, PID: os.Getpid(), Endpoint: l.Endpoint, DataDir: l.DataDir,
		Nodes: []NodeRecord{
			{Name: l.underlay.Name, Kind: "underlay", Namespace: l.underlay.Namespace},
			{Name: l.outside.Name, Kind: "outside", Namespace: l.outside.Namespace},
		},
	}
	add := func(p *process) {
		if p == nil || !p.running() {
			return
		}
		if start, err := startTime(p.pid()); err == nil {
			r.Processes = append(r.Processes, ProcessRecord{Name: p.name, PID: p.pid(), Start: start})
		}
	}
	add(l.server)
	for _, h := range l.hosts {
		n := NodeRecord{Name: h.Name, Kind: "host", Namespace: h.Namespace, OVS: h.run}
		if t := h.thread; t != nil {
			n.Thread = t.id
		}
		r.Nodes = append(r.Nodes, n)
		add(h.agent)
	}
	for _, i := range l.instances {
		r.Nodes = append(r.Nodes, NodeRecord{Name: i.Name, Kind: "instance", Namespace: i.Namespace, Host: i.Host.Name, PortID: i.PortID})
	}
	slices.SortStableFunc(r.Nodes, func(a, b NodeRecord) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return r.write(l.runDir)
}

// Close ends every process and removes everything that the lab made, except a
// data folder that was asked for.
func (l *Lab) Close() error {
	// The server would wait for a connection on which nothing was asked yet.
	l.http.CloseIdleConnections()
	// Agents and switches of all hosts at once: each takes its time to end.
	var group sync.WaitGroup
	if l.server != nil {
		group.Go(func() { l.server.stop(3 * time.Second) })
	}
	for _, h := range l.hosts {
		group.Go(h.stop)
	}
	group.Wait()
	l.metadata.stop()
	l.cancel()
	err := deleteNamespaces(l.ID)
	err = errors.Join(err, os.RemoveAll(l.runDir))
	return errors.Join(err, l.lock.Close())
}

// programs that a lab needs, and the Debian packages that have them.
var programs = []struct{ name, pkg string }{
	{"ip", "iproute2"},
	{"ovsdb-server", "openvswitch-switch"},
	{"ovsdb-tool", "openvswitch-common"},
	{"ovs-vswitchd", "openvswitch-switch"},
	{"ovs-vsctl", "openvswitch-switch"},
	{"ovs-ofctl", "openvswitch-common"},
	{"nft", "nftables"},
}

// Check tells what this machine or user lacks to run a lab, and the cure.
func Check() error {
	var packages, missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p.name); err != nil {
			missing = append(missing, p.name)
			if !slices.Contains(packages, p.pkg) {
				packages = append(packages, p.pkg)
			}
		}
	}
	var err error
	if os.Geteuid() != 0 {
		err = errors.New("a lab makes network namespaces: run as root (sudo isospin up)")
	}
	if missing != nil {
		err = errors.Join(err, fmt.Errorf("missing on this machine: %s; on Debian and Ubuntu: apt-get install %s",
			strings.Join(missing, ", "), strings.Join(packages, " ")))
	}
	return err
}
