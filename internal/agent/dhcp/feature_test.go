package dhcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/miekg/dns"

	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/link"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/sysctl"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// testSwitch is a plug.Plugger on a Linux bridge instead of Open vSwitch.
type testSwitch struct {
	t testing.TB

	mu      sync.Mutex
	devices map[string]plug.Device
	fail    error
	plugged int
}

const testBridge = "brtest"

func newSwitch(t testing.TB) *testSwitch {
	t.Helper()
	netnstest.Require(t)
	if _, err := netnstest.Try("", "ip link show "+testBridge); err != nil {
		netnstest.Run(t, "", "ip link add "+testBridge+" type bridge mcast_snooping 0")
		netnstest.Run(t, "", "ip link set "+testBridge+" up")
		t.Cleanup(func() { netnstest.Try("", "ip link del "+testBridge) })
	}
	return &testSwitch{t: t, devices: map[string]plug.Device{}}
}

func (s *testSwitch) Plug(_ context.Context, d plug.Device) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.plugged++
	if _, err := netns.Create(d.Namespace); err != nil {
		return err
	}
	mac, _ := net.ParseMAC(d.MAC)
	host := plug.HostName(d.PortID)
	if _, err := link.EnsureVeth(link.Veth{Name: host, PeerName: d.Name, PeerNamespace: d.Namespace, PeerMAC: mac, MTU: d.MTU}); err != nil {
		return err
	}
	netnstest.Run(s.t, "", "ip link set "+host+" master "+testBridge+" up")
	up := true
	err := netns.Do(d.Namespace, func() error {
		return errors.Join(sysctl.SetDevice6(d.Name, sysctl.Device6{Enabled: true}),
			link.Configure(d.Name, link.Config{MAC: mac, Up: &up}), link.SetAddresses(d.Name, d.Addresses))
	})
	if err == nil {
		s.devices[d.PortID] = d
	}
	return err
}

func (s *testSwitch) Unplug(_ context.Context, portID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	delete(s.devices, portID)
	return link.Delete(plug.HostName(portID))
}

func (s *testSwitch) Devices() (out []plug.Plugged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		out = append(out, plug.Plugged{PortID: d.PortID, Namespace: d.Namespace, Name: d.Name})
	}
	return out
}

func (s *testSwitch) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// guest makes a namespace with eth0 on the bridge.
func guest(t testing.TB, name string, mac net.HardwareAddr) string {
	t.Helper()
	netnstest.New(t, name)
	netnstest.Run(t, "", fmt.Sprintf("ip link add v%s type veth peer name eth0 address %s netns %s", name, mac, name))
	netnstest.Run(t, "", "ip link set v"+name+" master "+testBridge+" up")
	t.Cleanup(func() { netnstest.Try("", "ip link del v"+name) })
	if err := netns.Do(name, func() error { return sysctl.SetDevice6("eth0", sysctl.Device6{Enabled: true}) }); err != nil {
		t.Fatal(err)
	}
	netnstest.Run(t, name, "ip link set eth0 up")
	return name
}

type testAgent struct {
	*Feature
	woken chan struct{}
}

func startAgent(t testing.TB, s *testSwitch, o Options) *testAgent {
	t.Helper()
	return startAgentWith(t, s, o)
}

func startAgentWith(t testing.TB, s Plugger, o Options) *testAgent {
	t.Helper()
	o.Connect = func(context.Context) (Plugger, error) { return s, nil }
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := &testAgent{New(o), make(chan struct{}, 1)}
	if err := a.Start(t.Context(), func() {
		select {
		case a.woken <- struct{}{}:
		default:
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	return a
}

func (a *testAgent) apply(t testing.TB, want *runtime.State, changes runtime.Changes) map[string]*feed.Applied {
	t.Helper()
	results, err := a.Apply(t.Context(), want, changes)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*feed.Applied{}
	for _, r := range results {
		if r.Kind != feed.Kind_KIND_PORT || r.AgentType != "DHCP agent" {
			t.Errorf("result %v", r)
		}
		out[r.Id] = r
	}
	return out
}

func states(results map[string]*feed.Applied) string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(results)) {
		out = append(out, fmt.Sprintf("%s:%s@%d", id, strings.TrimPrefix(results[id].State.String(), "STATE_"), results[id].Revision))
	}
	return strings.Join(out, " ")
}

func testState(n *feed.Network, ports ...*feed.Port) *runtime.State {
	s := &runtime.State{Networks: map[string]*feed.Network{}, Ports: map[string]*feed.Port{}, Forwarding: map[string]*runtime.ForwardingTable{}}
	if n != nil {
		s.Networks[n.Id] = n
	}
	for _, p := range ports {
		s.Ports[p.Id] = p
	}
	return s
}

var everything = runtime.Changes{All: true}

func changedPorts(ids ...string) runtime.Changes {
	c := runtime.Changes{Ports: map[string]struct{}{}}
	for _, id := range ids {
		c.Ports[id] = struct{}{}
	}
	return c
}

// script writes a client's script, which saves its environment.
func script(t testing.TB) (file, result string) {
	t.Helper()
	dir := t.TempDir()
	file, result = filepath.Join(dir, "script"), filepath.Join(dir, "result")
	text := "#!/bin/sh\n{ echo \"event=$1\"; env; } >>" + result + ".part\n" +
		"case \"$1\" in bound) mv " + result + ".part " + result + ";; esac\nexit 0\n"
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file, result
}

func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("needs " + program)
	}
}

// run runs a client in a namespace; it ends with the test at the latest.
func run(t testing.TB, namespace string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []byte
	err := netns.Do(namespace, func() (err error) {
		out, err = exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(out), err
}

func udhcpc(t testing.TB, namespace string) string {
	t.Helper()
	need(t, "busybox")
	file, result := script(t)
	out, err := run(t, namespace, "busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "5", "-T", "1", "-s", file, "-O", "mtu", "-O", "staticroutes", "-O", "121")
	if err != nil {
		t.Fatalf("udhcpc: %v\n%s", err, out)
	}
	text, err := os.ReadFile(result)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(text)
}

// dhclient6 returns the environment of dhclient's script once it has a lease.
func dhclient6(t testing.TB, namespace string) string {
	t.Helper()
	need(t, "dhclient")
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "script"), filepath.Join(dir, "lease")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#!/bin/sh\n[ \"$reason\" != BOUND6 ] || { env; echo lease-end; } >"+pipe+"\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// In the foreground, so that it is ours to end; open for writing too, so
	// that reading does not depend on it.
	lease, err := os.OpenFile(pipe, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	cmd := exec.Command("dhclient", "-6", "-1", "-d", "-D", "LL", "-sf", file, "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "-cf", "/dev/null", "eth0")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := netns.Do(namespace, cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := lease.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var text []byte
	buffer := make([]byte, 16<<10)
	for !strings.Contains(string(text), "lease-end") {
		var n int
		if n, err = lease.Read(buffer); err != nil {
			break
		}
		text = append(text, buffer[:n]...)
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	if err != nil {
		t.Fatalf("dhclient: %v\n%s", err, log.String())
	}
	return string(text)
}

func TestLeaseOverTheWire(t *testing.T) {
	s := newSwitch(t)
	a := startAgent(t, s, Options{Settings: Settings{LeaseDuration: 3600}})
	vm := guest(t, "vm10", testMAC(0x10))
	port := testPort("a", 0x10, "s4=10.0.0.10", "s6=2001:db8:1::10")
	if got := states(a.apply(t, testState(testNetwork(), port, testPort("b", 0x11, "s4=10.0.0.11")), everything)); got != "a:ACTIVE@7 b:ACTIVE@7" {
		t.Fatal(got)
	}
	var c struct{ Networks, Subnets, Ports, Lease int }
	if err := json.Unmarshal([]byte(a.Function().Configurations), &c); err != nil || c.Networks != 1 || c.Subnets != 4 || c.Ports != 2 {
		t.Errorf("configurations %s", a.Function().Configurations)
	}

	t.Run("udhcpc", func(t *testing.T) {
		lease := udhcpc(t, vm)
		for _, want := range []string{"ip=10.0.0.10", "router=10.0.0.1", "subnet=255.255.255.0", "mtu=1450", "domain=cloud.example",
			"dns=10.0.0.2", "lease=3600", "serverid=10.0.0.2", "siaddr=10.0.0.2", "hostname=host-10-0-0-10", "169.254.169.254/32 10.0.0.2"} {
			if !strings.Contains(lease, want) {
				t.Errorf("%q is missing in\n%s", want, lease)
			}
		}
	})

	t.Run("library", func(t *testing.T) {
		var client *nclient4.Client
		err := netns.Do(vm, func() (err error) {
			client, err = nclient4.New("eth0", nclient4.WithTimeout(3*time.Second), nclient4.WithRetry(3))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		lease, err := client.Request(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !lease.ACK.YourIPAddr.Equal(net.IP{10, 0, 0, 10}) || !lease.ACK.ServerIdentifier().Equal(net.IP{10, 0, 0, 2}) {
			t.Errorf("lease %v", lease.ACK.Summary())
		}
		// With its address, it renews by unicast from a socket.
		netnstest.Run(t, vm, "ip addr add 10.0.0.10/24 dev eth0")
		renewed := exchange(t, vm, "10.0.0.10:68", "10.0.0.2:67", func(m *dhcpv4.DHCPv4) {
			m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
			m.ClientIPAddr = net.IP{10, 0, 0, 10}
		})
		if renewed.MessageType() != dhcpv4.MessageTypeAck {
			t.Errorf("renewal: %v", renewed)
		}
	})

	t.Run("dhclient -6", func(t *testing.T) {
		text := dhclient6(t, vm)
		for _, want := range []string{"new_ip6_address=2001:db8:1::10", "new_dhcp6_name_servers=2001:db8:1::2", "new_dhcp6_domain_search=cloud.example.", "new_max_life=3600"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
	})

	t.Run("names", func(t *testing.T) {
		linkLocal := linkLocalOf(t, NamespacePrefix+networkID, vm)
		for _, network := range []string{"udp", "tcp"} {
			for _, server := range []string{"10.0.0.2:53", "[2001:db8:1::2]:53", "[" + linkLocal + "]:53"} {
				if strings.HasPrefix(server, "[") {
					netnstest.Run(t, vm, "ip addr replace 2001:db8:1::10/64 dev eth0 nodad")
				}
				answer := lookup(t, vm, network, server, "host-10-0-0-11.cloud.example.")
				if len(answer.Answer) != 1 || !strings.HasSuffix(answer.Answer[0].String(), "10.0.0.11") {
					t.Errorf("%s %s: %v", network, server, answer)
				}
			}
		}
	})
}

// exchange sends one DHCP message from a socket of a namespace.
func exchange(t testing.TB, namespace, from, to string, change func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
	t.Helper()
	c, err := netns.ListenPacket(t.Context(), namespace, &net.ListenConfig{Control: netns.BindToDevice("eth0")}, "udp4", from)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := message4(t, dhcpv4.MessageTypeRequest, 0x10)
	change(m)
	address, _ := net.ResolveUDPAddr("udp4", to)
	buffer := make([]byte, 1500)
	for range 5 {
		if _, err := c.WriteTo(m.ToBytes(), address); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			continue
		}
		answer, err := dhcpv4.FromBytes(buffer[:n])
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	t.Fatal("no answer")
	return nil
}

// linkLocalOf is the link-local address of a namespace's only device, as a guest writes it.
func linkLocalOf(t testing.TB, namespace, guest string) string {
	t.Helper()
	fields := strings.Fields(netnstest.Run(t, namespace, "ip -6 -o addr show scope link"))
	index, _, _ := strings.Cut(netnstest.Run(t, guest, "ip -o link show eth0"), ":")
	if len(fields) < 4 {
		t.Fatalf("no link-local address in %s: %q", namespace, fields)
	}
	address, _, _ := strings.Cut(fields[3], "/")
	return address + "%" + index
}

func lookup(t testing.TB, namespace, network, server, name string) *dns.Msg {
	t.Helper()
	var answer *dns.Msg
	err := netns.Do(namespace, func() error {
		c, err := net.DialTimeout(network, server, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		m := &dns.Msg{}
		m.SetQuestion(name, dns.TypeA)
		client := dns.Client{Net: network, Timeout: 5 * time.Second}
		answer, _, err = client.ExchangeWithConn(m, &dns.Conn{Conn: c})
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", network, server, err)
	}
	return answer
}

// What is asked for that no port is called goes to a resolver, which is reached
// from the host and not from the network.
func TestNamesOfOthersAreForwarded(t *testing.T) {
	s := newSwitch(t)
	upstream, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: upstream, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		a := &dns.Msg{}
		a.SetReply(m)
		a.Answer = []dns.RR{&dns.A{Hdr: header(m.Question[0].Name, dns.TypeA, 60), A: net.IP{192, 0, 2, 80}}}
		w.WriteMsg(a)
	})}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() { upstream.Close(); <-done })

	a := startAgent(t, s, Options{DNSServers: []string{"127.0.0.1#" + strings.TrimPrefix(upstream.LocalAddr().String(), "127.0.0.1:")}})
	vm := guest(t, "vm10", testMAC(0x10))
	netnstest.Run(t, vm, "ip addr add 10.0.0.10/24 dev eth0")
	a.apply(t, testState(testNetwork(), testPort("a", 0x10, "s4=10.0.0.10")), everything)
	if answer := lookup(t, vm, "udp", "10.0.0.2:53", "example.org."); len(answer.Answer) != 1 || !strings.HasSuffix(answer.Answer[0].String(), "192.0.2.80") {
		t.Errorf("%v", answer)
	}
}

// An agent that starts again finds the namespace and device as they were, and
// answers by the same addresses.
func TestRestart(t *testing.T) {
	s := newSwitch(t)
	want := testState(testNetwork(), testPort("a", 0x10, "s4=10.0.0.10"))
	vm := guest(t, "vm10", testMAC(0x10))
	first := startAgent(t, s, Options{})
	first.apply(t, want, everything)
	namespace := NamespacePrefix + networkID
	device := plug.DeviceName("tap", want.Networks[networkID].DhcpPort.Id)
	before, err := identify(namespace, device)
	if err != nil {
		t.Fatal(err)
	}
	first.Stop()
	for _, proto := range []string{"udp", "tcp", "raw"} {
		if out := netnstest.Run(t, namespace, "ss -Hlna --"+proto); strings.TrimSpace(out) != "" {
			t.Errorf("sockets are left: %s", out)
		}
	}
	second := startAgent(t, s, Options{})
	second.apply(t, want, everything)
	after, err := identify(namespace, device)
	if err != nil || after != before {
		t.Errorf("device %v became %v, %v", before, after, err)
	}
	if lease := udhcpc(t, vm); !strings.Contains(lease, "ip=10.0.0.10") {
		t.Error(lease)
	}
}

func TestChanges(t *testing.T) {
	s := newSwitch(t)
	a := startAgent(t, s, Options{})
	n := testNetwork()
	port := testPort("a", 0x10, "s4=10.0.0.10")
	namespace := NamespacePrefix + networkID

	noPort := testNetwork()
	noPort.DhcpPort = nil
	if got := states(a.apply(t, testState(noPort, port), everything)); got != "" {
		t.Errorf("without a DHCP port: %s", got)
	}
	if got := states(a.apply(t, testState(n, port), runtime.Changes{Networks: map[string]struct{}{networkID: {}}})); got != "a:ACTIVE@7" {
		t.Errorf("with it: %s", got)
	}
	plugged := s.plugged
	// A port comes: it is reported, the others are not, and the device is left alone.
	more := testPort("b", 0x11, "s4=10.0.0.11")
	if got := states(a.apply(t, testState(n, port, more), changedPorts("b"))); got != "b:ACTIVE@7" {
		t.Errorf("a port comes: %s", got)
	}
	if a.networks[networkID].server.table.Load().hosts[macAddress(testMAC(0x11))] == nil {
		t.Error("the new port is not served")
	}
	if got := states(a.apply(t, testState(n, port), changedPorts("b"))); got != "" {
		t.Errorf("a port goes: %s", got)
	}
	if a.networks[networkID].server.table.Load().hosts[macAddress(testMAC(0x11))] != nil {
		t.Error("the old port is served")
	}
	if s.plugged != plugged {
		t.Error("ports made the device be plugged again")
	}

	// Somebody deletes the namespace: the resync makes it anew, with new sockets.
	before := a.networks[networkID].server.id
	netnstest.Run(t, "", "ip link del "+plug.HostName(n.DhcpPort.Id))
	netnstest.Run(t, "", "ip netns del "+namespace)
	a.apply(t, testState(n, port), everything)
	if after := a.networks[networkID].server.id; after == before {
		t.Error("the server is in the namespace that was deleted")
	}
	udhcpc(t, guest(t, "vm10", testMAC(0x10)))

	// Somebody deletes the device: it is noticed without a resync.
	select { // of the first time
	case <-a.woken:
	default:
	}
	netnstest.Run(t, "", "ip link del "+plug.HostName(n.DhcpPort.Id))
	select {
	case <-a.woken:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody woke the agent")
	}
	if got := states(a.apply(t, testState(n, port), runtime.Changes{})); got != "a:ACTIVE@7" {
		t.Errorf("after the device went: %s", got)
	}
	udhcpc(t, "vm10")

	// The agent is administratively down, then the network leaves.
	down := testState(n, port)
	down.AdminStateUp = map[string]bool{"DHCP agent": false}
	a.apply(t, down, runtime.Changes{})
	if ok, _ := netns.Exists(namespace); ok || len(s.devices) != 0 {
		t.Error("an agent that is down serves")
	}
	a.apply(t, testState(n, port), runtime.Changes{})
	if ok, _ := netns.Exists(namespace); !ok {
		t.Error("an agent that is up again does not serve")
	}
	a.apply(t, testState(nil), runtime.Changes{Networks: map[string]struct{}{networkID: {}}, Ports: map[string]struct{}{"a": {}}})
	if ok, _ := netns.Exists(namespace); ok || len(s.devices) != 0 {
		t.Error("the network left, its namespace did not")
	}
}

// A network that cannot be served is an error of its ports alone; it is tried
// again without being asked.
func TestFailure(t *testing.T) {
	s := newSwitch(t)
	a := startAgent(t, s, Options{})
	bad := testNetwork()
	bad.Id, bad.DhcpPort.Id, bad.DhcpPort.MacAddress = "bad", "bad-port", "nonsense"
	badPort := testPort("c", 0x12, "s4=10.0.0.12")
	badPort.NetworkId = "bad"
	want := testState(testNetwork(), testPort("a", 0x10, "s4=10.0.0.10"), badPort)
	want.Networks["bad"] = bad
	if got := states(a.apply(t, want, everything)); got != "a:ACTIVE@7 c:ERROR@7" {
		t.Errorf("one network is bad: %s", got)
	}
	// While the switch is away, who is served goes on being served.
	s.setFail(errors.New("the switch is away"))
	more := testPort("b", 0x11, "s4=10.0.0.11")
	want.Ports["b"] = more
	if got := states(a.apply(t, want, everything)); got != "a:ACTIVE@7 b:ACTIVE@7 c:ERROR@7" {
		t.Errorf("the switch is away: %s", got)
	}
	// A network that leaves meanwhile is removed when the switch is back.
	gone := testState(nil)
	a.apply(t, gone, everything)
	s.setFail(nil)
	select {
	case <-a.woken:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody woke the agent")
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(a.networks) > 0 && time.Now().Before(deadline) {
		a.apply(t, gone, runtime.Changes{})
		if len(a.networks) > 0 {
			<-a.woken
		}
	}
	if ok, _ := netns.Exists(NamespacePrefix + networkID); ok || len(s.devices) > 0 {
		t.Error("the network is still there")
	}
}

// What a former process left is removed, what is of others is not.
func TestStraysArePruned(t *testing.T) {
	s := newSwitch(t)
	old := startAgent(t, s, Options{})
	old.apply(t, testState(testNetwork()), everything)
	old.Stop()
	other := netnstest.New(t, NamespacePrefix+"of-somebody-else")
	if ok, _ := netns.Exists(NamespacePrefix + networkID); !ok {
		t.Fatal("stopping removed the namespace")
	}
	a := startAgent(t, s, Options{})
	a.apply(t, testState(nil), everything)
	if ok, _ := netns.Exists(NamespacePrefix + networkID); ok || len(s.devices) > 0 {
		t.Error("the stray network is still there")
	}
	if ok, _ := netns.Exists(other); !ok {
		t.Error("somebody else's namespace is gone")
	}
}
