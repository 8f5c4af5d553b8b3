package metadata

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
	"isospin/internal/kernel/sysctl"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	networkID = "11111111-0000-4000-8000-000000000001"
	routerID  = "22222222-0000-4000-8000-000000000001"
	secret    = "the secret that Nova has too"
)

// nova stands in for the metadata API. It keeps the headers that it got.
type nova struct {
	*httptest.Server
	mu      sync.Mutex
	headers http.Header
	path    string
}

func newNova(t *testing.T) *nova {
	n := &nova{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.headers, n.path = r.Header.Clone(), r.URL.RequestURI()
		n.mu.Unlock()
		id := r.Header.Values("X-Instance-Id")
		if len(id) != 1 {
			http.Error(w, "instance ids: "+fmt.Sprint(id), http.StatusBadRequest)
			return
		}
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(id[0]))
		if r.Header.Get("X-Instance-Id-Signature") != hex.EncodeToString(h.Sum(nil)) {
			http.Error(w, "signature", http.StatusForbidden)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/absent") {
			http.NotFound(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s%s", r.Method, id[0], r.Header.Get("X-Tenant-Id"), r.Header.Get("X-Forwarded-For"), r.URL.RequestURI(), body)
	}))
	t.Cleanup(n.Close)
	return n
}

func testState() *runtime.State {
	return &runtime.State{
		Networks: map[string]*feed.Network{networkID: {
			Id: networkID, AdminStateUp: true, DhcpPort: &feed.Port{Id: "33333333-0000-4000-8000-000000000001"},
			Subnets: []*feed.Subnet{{Id: "s", Cidr: "10.0.0.0/24", IpVersion: 4, EnableDhcp: true}},
		}},
		Ports: map[string]*feed.Port{"p": {
			Id: "p", NetworkId: networkID, ProjectId: "project", DeviceId: "instance", MacAddress: "fa:16:3e:00:00:10",
			FixedIps: []*feed.FixedIP{{SubnetId: "s", IpAddress: "10.0.0.10"}, {SubnetId: "s6", IpAddress: "2001:db8::10"}},
		}},
		Forwarding: map[string]*runtime.ForwardingTable{networkID: {NetworkID: networkID, Entries: map[string]*feed.ForwardingEntry{
			"far": {PortId: "far", IpAddresses: []string{"10.0.0.77"}, DeviceId: "far-instance", ProjectId: "far-project"},
		}}},
		Routers: map[string]*feed.Router{routerID: {Id: routerID, AdminStateUp: true, Interfaces: []*feed.RouterInterface{{NetworkId: networkID}}}},
	}
}

// testProxy is a proxy for the test state, behind a scope.
func testProxy(t *testing.T, backend string, s *scope, limit *rateLimit) (*proxy, func(source string, r *http.Request) *httptest.ResponseRecorder) {
	t.Helper()
	u, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{ResponseHeaderTimeout: 300 * time.Millisecond}
	t.Cleanup(transport.CloseIdleConnections)
	p := newProxy(u, transport, secret, limit, slog.New(slog.NewTextHandler(t.Output(), nil)))
	p.directory.Store(newDirectory(testState(), &directory{}))
	return p, func(source string, r *http.Request) *httptest.ResponseRecorder {
		r.RemoteAddr = source
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), scopeKey{}, s)))
		return w
	}
}

func get(path string) *http.Request {
	return httptest.NewRequest(http.MethodGet, "http://169.254.169.254"+path, nil)
}

func TestWhoAsks(t *testing.T) {
	n := newNova(t)
	lookup := func(ip netip.Addr) (macAddress, bool) {
		return macAddress{0xfa, 0x16, 0x3e, 0, 0, 0x10}, ip == netip.MustParseAddr("fe80::abcd")
	}
	network := &scope{namespace: "n", network: networkID, neighbourHardware: lookup}
	router := &scope{namespace: "r", router: routerID}
	for _, c := range []struct {
		scope  *scope
		source string
		want   string
	}{
		{network, "10.0.0.10:40000", "200 GET instance project 10.0.0.10 /openstack/latest?x=1"},
		{network, "[::ffff:10.0.0.10]:40000", "200 GET instance project 10.0.0.10 /openstack/latest?x=1"},
		{network, "[2001:db8::10]:40000", "200 GET instance project 2001:db8::10 /openstack/latest?x=1"},
		{network, "[fe80::abcd%eth0]:40000", "200 GET instance project fe80::abcd /openstack/latest?x=1"},
		{network, "[fe80::1%eth0]:40000", "404"},
		{network, "10.0.0.77:40000", "200 GET far-instance far-project 10.0.0.77 /openstack/latest?x=1"},
		{network, "10.0.0.11:40000", "404"},
		{router, "10.0.0.10:40000", "200 GET instance project 10.0.0.10 /openstack/latest?x=1"},
		{router, "10.0.0.77:40000", "200 GET far-instance far-project 10.0.0.77 /openstack/latest?x=1"},
		{router, "10.0.0.11:40000", "404"},
		{&scope{router: "another"}, "10.0.0.10:40000", "404"},
		{&scope{network: "another"}, "10.0.0.10:40000", "404"},
		{nil, "10.0.0.10:40000", "400"},
	} {
		_, ask := testProxy(t, n.URL, c.scope, nil)
		w := ask(c.source, get("/openstack/latest?x=1"))
		got := strconv.Itoa(w.Code)
		if w.Code == 200 {
			got += " " + w.Body.String()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.source, got, c.want)
		}
	}
}

// Whatever a guest says about who it is, Nova hears what we know.
func TestSpoofedHeadersAreDropped(t *testing.T) {
	n := newNova(t)
	_, ask := testProxy(t, n.URL, &scope{network: networkID}, nil)
	r := get("/")
	r.Header = http.Header{"Accept": {"text/plain"}, "User-Agent": {"cloud-init"}}
	for _, name := range []string{"X-Instance-ID", "x-instance-id", "X_Instance_ID", "X-Instance-ID-Signature", "X-Tenant-ID", "X-Forwarded-For",
		"X-Forwarded-Host", "Forwarded", "X-Real-Ip", "X-Metadata-Provider", "X-Metadata-Provider-Signature", "X-Neutron-Network-Id",
		"X-OVN-Network-ID", "X-Auth-Token", "Connection", "Upgrade", "Cookie"} {
		r.Header[name] = []string{"evil"}
	}
	if w := ask("10.0.0.10:40000", r); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, values := range n.headers {
		if strings.Contains(strings.Join(values, " "), "evil") {
			t.Errorf("%s: %v went on", name, values)
		}
	}
	if got := n.headers.Get("X-Forwarded-For"); got != "10.0.0.10" {
		t.Errorf("X-Forwarded-For: %s", got)
	}
	if n.headers.Get("Accept") != "text/plain" || n.headers.Get("User-Agent") != "cloud-init" {
		t.Errorf("headers %v", n.headers)
	}
}

func TestAnswersOfTheBackend(t *testing.T) {
	n := newNova(t)
	_, ask := testProxy(t, n.URL, &scope{network: networkID}, nil)
	if w := ask("10.0.0.10:1", get("/absent")); w.Code != 404 {
		t.Errorf("absent: %d", w.Code)
	}
	post := func(size int) *http.Request {
		return httptest.NewRequest(http.MethodPost, "http://169.254.169.254/openstack/latest/password", strings.NewReader(strings.Repeat("x", size)))
	}
	if w := ask("10.0.0.10:1", post(3)); w.Body.String() != "POST instance project 10.0.0.10 /openstack/latest/passwordxxx" {
		t.Errorf("post: %d %s", w.Code, w.Body)
	}
	if w := ask("10.0.0.10:1", post(maxBody+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large post: %d %s", w.Code, w.Body)
	}
	// A request for another host goes to the metadata API all the same.
	if w := ask("10.0.0.10:1", httptest.NewRequest(http.MethodGet, "http://192.0.2.1/x", nil)); w.Code != 200 {
		t.Errorf("another host: %d", w.Code)
	}
	if w := ask("10.0.0.10:1", httptest.NewRequest(http.MethodConnect, "192.0.2.1:80", nil)); w.Code != 400 {
		t.Errorf("CONNECT: %d", w.Code)
	}

	gone := httptest.NewServer(nil)
	gone.Close()
	_, ask = testProxy(t, gone.URL, &scope{network: networkID}, nil)
	if w := ask("10.0.0.10:1", get("/")); w.Code != 503 || !strings.Contains(w.Body.String(), "cannot be reached") || strings.Contains(w.Body.String(), "127.0.0.1") {
		t.Errorf("no backend: %d %s", w.Code, w.Body)
	}
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	_, ask = testProxy(t, slow.URL, &scope{network: networkID}, nil)
	if w := ask("10.0.0.10:1", get("/")); w.Code != 504 {
		t.Errorf("a slow backend: %d %s", w.Code, w.Body)
	}
	rude := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			c.Close()
		}
	}))
	defer rude.Close()
	_, ask = testProxy(t, rude.URL, &scope{network: networkID}, nil)
	if w := ask("10.0.0.10:1", get("/")); w.Code != 502 {
		t.Errorf("a backend that hangs up: %d %s", w.Code, w.Body)
	}
}

func TestRateLimit(t *testing.T) {
	l := &rateLimit{RateLimit: RateLimit{IPv4: true, Base: Rate{3, 10 * time.Second}, Burst: Rate{2, time.Second}}}
	now := time.Unix(1000, 0)
	a, six := netip.MustParseAddr("10.0.0.10"), netip.MustParseAddr("2001:db8::1")
	var got []bool
	for _, ms := range []int{0, 0, 0, 1000, 1001, 10000} {
		got = append(got, l.admit("n", a, now.Add(time.Duration(ms)*time.Millisecond)))
	}
	if want := []bool{true, true, false, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if !l.admit("other", a, now.Add(10*time.Second)) || !l.admit("n", netip.MustParseAddr("10.0.0.11"), now.Add(10*time.Second)) {
		t.Error("one guest's requests count for another")
	}
	for range 10 {
		if !l.admit("n", six, now) {
			t.Error("IPv6 is limited")
		}
	}
}

// A network's forwarding table is indexed once, not at every change of a port.
func TestDirectoryKeepsWhatDidNotChange(t *testing.T) {
	want := testState()
	first := newDirectory(want, &directory{})
	first.networks[networkID].elsewhere()
	next := newDirectory(want, first)
	if reflectPointer(first.networks[networkID].elsewhere()) != reflectPointer(next.networks[networkID].elsewhere()) {
		t.Error("the index was made again")
	}
	want.Forwarding = map[string]*runtime.ForwardingTable{networkID: {NetworkID: networkID}}
	if n := newDirectory(want, next); len(n.networks[networkID].elsewhere()) != 0 {
		t.Error("the old index is used for a new table")
	}
}

func reflectPointer(m map[netip.Addr]instance) string { return fmt.Sprintf("%p", m) }

func startFeature(t *testing.T, n *nova, log io.Writer) *Feature {
	t.Helper()
	u, _ := url.Parse(n.URL)
	port, _ := strconv.Atoi(u.Port())
	f := New(Options{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Host: u.Hostname(), Port: port, SharedSecret: secret})
	if err := f.Start(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

// fetch asks from a namespace until it gets an answer, or the deadline comes.
func fetch(t *testing.T, namespace, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = netns.Do(namespace, func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/latest", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err == nil {
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%d %s", answer.StatusCode, body)
		}
		retry := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Fatalf("%s from %s: %v", address, namespace, err)
		case <-retry.C:
		}
	}
}

// makeNetwork makes the namespace that the DHCP feature would, and a guest on
// its device.
func makeNetwork(t *testing.T, namespace, device string) {
	t.Helper()
	netnstest.New(t, namespace)
	netnstest.Run(t, namespace, "ip link add "+device+" type veth peer name eth0 address fa:16:3e:00:00:10 netns vm")
	for ns, d := range map[string]string{namespace: device, "vm": "eth0"} {
		if err := netns.Do(ns, func() error { return sysctl.SetDevice6(d, sysctl.Device6{Enabled: true}) }); err != nil {
			t.Fatal(err)
		}
		netnstest.Run(t, ns, "ip link set "+d+" up")
	}
	netnstest.Run(t, namespace, "ip addr add 10.0.0.2/24 dev "+device)
	netnstest.Run(t, namespace, "ip addr add 169.254.169.254/32 dev "+device)
	netnstest.Run(t, namespace, "ip addr add fe80::a9fe:a9fe/64 dev "+device+" nodad")
	netnstest.Run(t, "vm", "ip addr add 10.0.0.10/24 dev eth0")
	netnstest.Run(t, "vm", "ip route add 169.254.169.254/32 via 10.0.0.2")
}

func guestIndex(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(strings.SplitN(netnstest.Run(t, "vm", "ip -o link show eth0"), ":", 2)[0])
}

func TestServedInNamespaces(t *testing.T) {
	netnstest.Require(t)
	n := newNova(t)
	var log syncBuffer
	f := startFeature(t, n, &log)
	want := testState()
	// The namespaces come later than the wish.
	if results, err := f.Apply(t.Context(), want, runtime.Changes{All: true}); err != nil || results != nil {
		t.Fatal(results, err)
	}
	network, device := "qdhcp-"+networkID, "tap33333333-00"
	netnstest.New(t, "vm")
	makeNetwork(t, network, device)
	const answer = "200 GET instance project 10.0.0.10 /latest"
	if got := fetch(t, "vm", "169.254.169.254:80"); got != answer {
		t.Errorf("IPv4: %s", got)
	}
	if got := fetch(t, "vm", "[fe80::a9fe:a9fe%"+guestIndex(t)+"]:80"); !strings.HasPrefix(got, "200 GET instance project fe80::") {
		t.Errorf("IPv6: %s", got)
	}

	// A router, reached at any address of it.
	router := netnstest.New(t, "qrouter-"+routerID)
	netnstest.Run(t, router, "ip addr add 10.0.0.10/32 dev lo")
	if got := fetch(t, router, "10.0.0.10:9697"); got != answer {
		t.Errorf("router: %s", got)
	}

	// The namespace is made anew: so is the socket.
	netnstest.Run(t, "", "ip netns del "+network)
	netnstest.Run(t, "vm", "ip link del eth0")
	makeNetwork(t, network, device)
	if got := fetch(t, "vm", "169.254.169.254:80"); got != answer {
		t.Errorf("namespace made anew: %s", got)
	}

	// A restart leaves nothing behind, and the next one serves.
	f.Stop()
	for _, ns := range []string{network, router} {
		if out := netnstest.Run(t, ns, "ss -Hltn"); strings.TrimSpace(out) != "" {
			t.Errorf("sockets are left in %s: %s", ns, out)
		}
	}
	f = startFeature(t, n, &log)
	if _, err := f.Apply(t.Context(), want, runtime.Changes{All: true}); err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, "vm", "169.254.169.254:80"); got != answer {
		t.Errorf("after a restart: %s", got)
	}

	// Administratively down: nobody listens.
	down := testState()
	down.AdminStateUp = map[string]bool{AgentType: false}
	if _, err := f.Apply(t.Context(), down, runtime.Changes{}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for strings.TrimSpace(netnstest.Run(t, network, "ss -Hltn")) != "" {
		if time.Now().After(deadline) {
			t.Fatal("an agent that is down listens")
		}
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the secret is in the log")
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestFunction(t *testing.T) {
	f := New(Options{Host: "nova.example", SharedSecret: secret, Logger: slog.Default()})
	got := f.Function()
	if got.AgentType != "Metadata agent" || got.Binary != "neutron-metadata-agent" || got.Topic != "N/A" ||
		got.Configurations != `{"log_agent_heartbeats":false,"nova_metadata_host":"nova.example","nova_metadata_port":8775}` {
		t.Errorf("%v", got)
	}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "options", f.options)
	if strings.Contains(b.String(), secret) {
		t.Error(b.String())
	}
}

// A guest fills the log neither with requests that it does not finish nor while the API is away.
func TestLogIsNotTheGuests(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	n := newNova(t)
	for name, c := range map[string]struct {
		backend, request, status string
		lines                    int
	}{
		"no chunk":   {n.URL, "POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n", "400", 0},
		"no backend": {gone.URL, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "503", 1},
	} {
		var mu sync.Mutex
		var log bytes.Buffer
		p, _ := testProxy(t, c.backend, nil, nil)
		p.logger = slog.New(slog.NewTextHandler(&locked{&mu, &log}, nil))
		s := &scope{network: networkID}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = "10.0.0.10:40000"
			p.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), scopeKey{}, s)))
		}))
		for range 20 {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			io.WriteString(conn, c.request)
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status) {
				t.Errorf("%s: %q, %v", name, answer, err)
			}
			conn.Close()
		}
		server.Close()
		mu.Lock()
		if lines := strings.Count(log.String(), "\n"); lines != c.lines {
			t.Errorf("%s: %d lines in the log:\n%s", name, lines, log.String())
		}
		mu.Unlock()
	}
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
