package metadata

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"isospin/api/feed"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
)

// AgentType is the feature's name in the agents API.
const AgentType = "Metadata agent"

var (
	address4 = netip.MustParseAddr("169.254.169.254")
	address6 = netip.MustParseAddr("fe80::a9fe:a9fe")
)

// Options are what New needs.
type Options struct {
	Logger *slog.Logger // required
	// Where Nova's metadata API is.
	Protocol string // optional; "http"
	Host     string // required; address or name
	Port     int    // optional; 8775
	// SharedSecret signs instance ids; Nova has the same. // required
	SharedSecret string
	// CACertFile has the authorities of the API's certificate, PEM. // optional; the system's
	CACertFile string
	// Insecure does not verify the API's certificate. // optional
	Insecure bool
	// ClientCertFile and ClientKeyFile are shown to the API, PEM. // optional
	ClientCertFile, ClientKeyFile string
	// RouterPort is where routers redirect requests to. // optional; 9697
	RouterPort int
	// NoRouters: nothing is answered in routers. // optional
	NoRouters bool
	RateLimit *RateLimit // optional; none
}

// LogValue keeps the secret out of logs.
func (o Options) LogValue() slog.Value {
	return slog.GroupValue(slog.String("backend", o.backend().String()))
}

func (o Options) backend() *url.URL {
	return &url.URL{Scheme: o.Protocol, Host: net.JoinHostPort(o.Host, strconv.Itoa(o.Port))}
}

// Feature is the metadata agent. Make it with New.
type Feature struct {
	options Options
	logger  *slog.Logger
	ipv6    bool
	last    *directory
	up      bool // administratively
	placed  bool

	proxy  *proxy
	keeper *keeper
	close  func() // of idle connections to the API
	cancel context.CancelFunc
	ended  chan struct{}
}

var _ runtime.Feature = (*Feature)(nil)

// New returns the feature; it opens nothing yet.
func New(o Options) *Feature {
	if o.Protocol == "" {
		o.Protocol = "http"
	}
	if o.Port == 0 {
		o.Port = 8775
	}
	if o.RouterPort == 0 {
		o.RouterPort = 9697
	}
	_, err := os.Stat("/proc/sys/net/ipv6/conf")
	return &Feature{options: o, logger: o.Logger, ipv6: err == nil, last: &directory{}}
}

// Function implements runtime.Feature.
func (f *Feature) Function() *feed.Function {
	text, err := json.Marshal(struct {
		LogHeartbeats bool   `json:"log_agent_heartbeats"`
		Host          string `json:"nova_metadata_host"`
		Port          int    `json:"nova_metadata_port"`
	}{Host: f.options.Host, Port: f.options.Port})
	if err != nil {
		text = []byte("{}")
	}
	return &feed.Function{AgentType: AgentType, Binary: "neutron-metadata-agent", Topic: "N/A", Configurations: string(text)}
}

// Start implements runtime.Feature.
func (f *Feature) Start(ctx context.Context, _ func()) error {
	security, err := f.security()
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	if f.options.SharedSecret == "" {
		f.logger.Warn("metadata_proxy_shared_secret is empty: Nova cannot tell our requests from others")
	}
	transport := &http.Transport{
		// From the host's own namespace, and never by the environment's proxies.
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:     security,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 32, DisableCompression: true,
	}
	var limit *rateLimit
	if f.options.RateLimit != nil {
		limit = &rateLimit{RateLimit: *f.options.RateLimit}
	}
	f.proxy = newProxy(f.options.backend(), transport, f.options.SharedSecret, limit, f.logger)
	f.keeper = newKeeper(f.proxy, f.logger)
	f.close = transport.CloseIdleConnections
	f.last, f.placed = &directory{}, false
	f.ended = make(chan struct{})
	ctx, f.cancel = context.WithCancel(ctx)
	go func() {
		defer close(f.ended)
		f.keeper.run(ctx)
	}()
	return nil
}

func (f *Feature) security() (*tls.Config, error) {
	o := f.options
	if o.Protocol != "https" {
		return nil, nil
	}
	config := &tls.Config{InsecureSkipVerify: o.Insecure, MinVersion: tls.VersionTLS12} // #nosec G402: the operator's choice
	if o.CACertFile != "" {
		text, err := os.ReadFile(o.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("authorities of the metadata API: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("authorities of the metadata API: %s has no certificate", o.CACertFile)
		}
	}
	if (o.ClientCertFile == "") != (o.ClientKeyFile == "") {
		return nil, errors.New("client certificate for the metadata API: certificate and key go together")
	}
	if o.ClientCertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCertFile, o.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate for the metadata API: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Stop implements runtime.Feature.
func (f *Feature) Stop() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	<-f.ended
	f.close()
}

// Apply implements runtime.Feature. It has no results: no object waits for
// metadata to be served.
func (f *Feature) Apply(_ context.Context, want *runtime.State, changes runtime.Changes) ([]*feed.Applied, error) {
	if !changes.Empty() {
		f.last = newDirectory(want, f.last)
		f.proxy.directory.Store(f.last)
	}
	up, told := want.AdminStateUp[AgentType]
	up = up || !told
	if changes.All || len(changes.Networks) > 0 || len(changes.Routers) > 0 || up != f.up || !f.placed {
		f.up, f.placed = up, true
		f.keeper.want(f.places(want))
	}
	return nil, nil
}

// places are the sockets that a state wants.
func (f *Feature) places(want *runtime.State) map[place]*scope {
	out := map[place]*scope{}
	if !f.up {
		return out
	}
	for id, n := range want.Networks {
		if n.DhcpPort == nil || !n.AdminStateUp || !slices.ContainsFunc(n.Subnets, func(s *feed.Subnet) bool { return s.EnableDhcp }) {
			continue // without DHCP there is no such namespace
		}
		s := &scope{namespace: "qdhcp-" + id, network: id, device: plug.DeviceName("tap", n.DhcpPort.Id)}
		s.neighbourHardware = neighbour(s.namespace, s.device)
		out[place{s.namespace, 80, false}] = s
		if f.ipv6 {
			out[place{s.namespace, 80, true}] = s
		}
	}
	if f.options.NoRouters {
		return out
	}
	for id, r := range want.Routers {
		if r.AdminStateUp {
			s := &scope{namespace: "qrouter-" + id, router: id}
			out[place{s.namespace, f.options.RouterPort, false}] = s
		}
	}
	return out
}
