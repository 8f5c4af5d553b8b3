package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/sysctl"
	"isospin/internal/ovs/ovstest"
	"isospin/internal/ovs/vswitch"
)

// Host is an emulated hypervisor.
type Host struct {
	Node
	// TunnelIP is the host's address on the underlay.
	TunnelIP netip.Addr
	// Switch is the host's Open vSwitch.
	Switch *ovstest.Switch

	lab    *Lab
	dir    string // below the lab's data folder: agent.conf, agent.log, state
	run    string // run folder of the Open vSwitch
	db     *vswitch.Client
	thread *thread
	agent  *process
}

// newHost describes the host number n, from 1.
func (l *Lab) newHost(n int) *Host {
	name := "host" + strconv.Itoa(n)
	return &Host{
		Node:     Node{Name: name, Namespace: prefix(l.ID) + name},
		TunnelIP: netip.AddrFrom4([4]byte{172, 31, 0, byte(10 + n)}),
		lab:      l,
		dir:      filepath.Join(l.DataDir, name),
		run:      filepath.Join(l.runDir, name),
	}
}

// start makes the host: namespaces, NICs, Open vSwitch with the bridges that an
// operator makes (br-ul, br-ex); not the agent.
func (h *Host) start(ctx context.Context) error {
	for _, dir := range []string{h.dir, h.run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if _, err := netns.Create(h.Namespace); err != nil {
		return err
	}
	t, err := newThread(h.enter)
	if err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	h.lab.mu.Lock()
	h.thread = t
	h.lab.mu.Unlock()
	if err := h.lab.connect(h); err != nil {
		return err
	}
	if h.Switch, err = ovstest.Start(ctx, ovstest.Options{Netns: h.Namespace, Dir: h.run}); err != nil {
		return fmt.Errorf("open vswitch: %w", err)
	}
	h.db, err = vswitch.Dial(h.lab.ctx, vswitch.Options{
		Connection: h.Switch.Connection(), Logger: h.lab.logger.With("host", h.Name), DatapathType: "netdev",
	})
	if err != nil {
		return fmt.Errorf("open vswitch: %w", err)
	}
	for bridge, nic := range map[string]string{"br-ul": "u0", "br-ex": "ex0"} {
		if err := h.db.EnsureBridge(ctx, vswitch.Bridge{Name: bridge}); err != nil {
			return err
		}
		if err := h.db.EnsurePort(ctx, bridge, vswitch.Port{Name: nic}); err != nil {
			return err
		}
	}
	// The tunnels' address is on the bridge itself: the userspace datapath
	// looks for the bridge that has it, and sends through that.
	err = h.Do(func() error {
		up := true
		if err := link.SetAddresses("br-ul", []netip.Prefix{netip.PrefixFrom(h.TunnelIP, underlayAddress.Bits())}); err != nil {
			return err
		}
		// The switch may drop the first ARP request of a pair; the kernel
		// would ask again after a second.
		if err := sysctl.Set(sysctl.Setting{Key: "net/ipv4/neigh/br-ul/retrans_time_ms", Value: "50"}); err != nil {
			return err
		}
		return link.Configure("br-ul", link.Config{MTU: underlayMTU, Up: &up})
	})
	if err != nil {
		return fmt.Errorf("tunnel address: %w", err)
	}
	return nil
}

// enter gives the calling thread the host's network namespace and a mount
// namespace with an own /run: named namespaces of the host are not those of the
// machine, and the default paths of the Open vSwitch tools are those of the
// host's own.
func (h *Host) enter() error {
	ns, err := netns.Open(h.Namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The lab's own folders must be seen here too, under the same names.
	keep := map[string]int{}
	for _, dir := range []string{h.lab.runDir, h.lab.DataDir} {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		defer unix.Close(fd)
		if strings.HasPrefix(dir, "/run/") {
			keep[dir] = fd
		}
	}
	// Copies of the machine's mounts below /run would keep its namespaces
	// alive when they are deleted there.
	if err := detachBelow("/run"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for dir, fd := range keep {
		if err := bindMount("/proc/thread-self/fd/"+strconv.Itoa(fd), dir); err != nil {
			return err
		}
	}
	if err := bindMount(h.run, "/run/openvswitch"); err != nil {
		return err
	}
	if err := os.Mkdir("/run/netns", 0o755); err != nil {
		return err
	}
	// /sys/class/net is that of the namespace in which /sys was mounted.
	_ = unix.Unmount("/sys", unix.MNT_DETACH)
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

func bindMount(from, to string) error {
	err := os.MkdirAll(to, 0o755)
	if err == nil {
		err = unix.Mount(from, to, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("bind mount %s: %w", to, err)
	}
	return nil
}

// detachBelow unmounts everything below a folder, in the mount namespace of the
// thread.
func detachBelow(dir string) error {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): the fifth field is the mount point, with
		// blanks and the like as octal escapes.
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, unescape(f[4]))
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		// One that has gone with its parent is fine.
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// StartAgent starts the host's agent process. It returns at once; AgentAlive
// tells when the server knows the agent.
func (h *Host) StartAgent() error {
	if h.lab.executable == "" {
		return errors.New("the lab has no executable to start agents from")
	}
	if h.agent != nil && h.agent.running() {
		return fmt.Errorf("the agent of %s runs already", h.Name)
	}
	config := filepath.Join(h.dir, "agent.conf")
	settings := Settings{
		"DEFAULT": {
			"host":                         h.Name,
			"state_path":                   filepath.Join(h.dir, "state"),
			"nova_metadata_host":           underlayAddress.Addr().String(),
			"nova_metadata_port":           strconv.Itoa(metadataPort),
			"metadata_proxy_shared_secret": h.lab.metadata.secret,
		},
		"ovs": {
			"bridge_mappings":    "public:br-ex",
			"local_ip":           h.TunnelIP.String(),
			"ovsdb_connection":   h.Switch.Connection(),
			"datapath_type":      "netdev",
			"integration_bridge": "br-int",
		},
		"agent":   {"tunnel_types": "vxlan"},
		"isospin": {"feed_server": h.lab.feedAddress()},
	}
	if err := settings.merge(h.lab.agentConfig).write(config); err != nil {
		return err
	}
	p, err := startProcess("agent of "+h.Name, h.thread, h.AgentLog(), h.lab.executable, "agent", "--config-file", config)
	if err != nil {
		return err
	}
	h.lab.mu.Lock()
	h.agent = p
	h.lab.mu.Unlock()
	return h.lab.record()
}

// KillAgent ends the agent as a crash does, with SIGKILL.
func (h *Host) KillAgent() error {
	if h.agent == nil || !h.agent.running() {
		return fmt.Errorf("no agent runs on %s", h.Name)
	}
	h.agent.stop(0)
	return nil
}

// AgentLog is the path of the agent's log.
func (h *Host) AgentLog() string { return filepath.Join(h.dir, "agent.log") }

// AgentFailure is not nil when the agent has ended by itself.
func (h *Host) AgentFailure() error {
	if h.agent == nil || h.agent.running() {
		return nil
	}
	return h.agent.failure()
}

// Run runs a program inside of the host, with its own /run and network, and
// returns its output.
func (h *Host) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return runOn(cmd, h.thread.do)
}

func (h *Host) stop() {
	if h.agent != nil {
		h.agent.stop(2 * time.Second)
	}
	if h.db != nil {
		h.db.Close()
	}
	if h.Switch != nil {
		h.Switch.Stop()
	}
	if h.thread != nil {
		h.thread.end()
	}
}
