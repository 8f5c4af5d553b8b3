package dhcp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"isospin/internal/agent/admission"
	"isospin/internal/kernel/linklocal"
	"isospin/internal/kernel/netns"
)

const (
	forwardTimeout = 3 * time.Second // of one upstream
	forwardsOfNet  = 32              // at once, of one network
	forwardsOfHost = 256             // at once, of all networks
)

// upstreams are the resolvers that names of others are asked of.
type upstreams struct {
	fixed      []string // "address:port"
	resolvConf string   // "": none
	slots      chan struct{}

	mu     sync.Mutex
	mtime  time.Time
	parsed []string
}

// newUpstreams takes addresses, each with "#port" if it is not 53.
func newUpstreams(servers []string, resolvConf string) *upstreams {
	u := &upstreams{resolvConf: resolvConf, slots: make(chan struct{}, forwardsOfHost)}
	for _, s := range servers {
		address, port, ok := strings.Cut(strings.TrimSpace(s), "#")
		if !ok {
			port = "53"
		}
		if a, err := netip.ParseAddr(address); err == nil {
			u.fixed = append(u.fixed, net.JoinHostPort(a.String(), port))
		}
	}
	return u
}

// list returns the resolvers in the order to try them.
func (u *upstreams) list() []string {
	if len(u.fixed) > 0 || u.resolvConf == "" {
		return u.fixed
	}
	info, err := os.Stat(u.resolvConf)
	if err != nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !info.ModTime().Equal(u.mtime) {
		config, err := dns.ClientConfigFromFile(u.resolvConf)
		if err != nil {
			return nil
		}
		u.mtime, u.parsed = info.ModTime(), nil
		for _, s := range config.Servers {
			u.parsed = append(u.parsed, net.JoinHostPort(s, config.Port))
		}
	}
	return u.parsed
}

// resolver answers DNS for one network.
type resolver struct {
	names     func() *names
	upstreams *upstreams
	slots     chan struct{}
	logger    *slog.Logger
	// ctx ends forwarding when the network leaves.
	ctx context.Context
}

// ServeDNS implements dns.Handler.
func (r *resolver) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	answer := r.answer(request, w.RemoteAddr().Network())
	if answer == nil {
		return
	}
	if strings.HasPrefix(w.RemoteAddr().Network(), "udp") {
		size := dns.MinMsgSize
		if o := request.IsEdns0(); o != nil {
			// Larger answers would be fragments on the way to a guest.
			size = min(max(size, int(o.UDPSize())), 1232)
		}
		answer.Truncate(size)
	}
	if err := w.WriteMsg(answer); err != nil {
		r.logger.Debug("DNS answer not sent", "error", err)
	}
}

func (r *resolver) answer(request *dns.Msg, network string) *dns.Msg {
	answer := &dns.Msg{}
	answer.SetReply(request)
	switch {
	case request.Response:
		return nil
	case request.Opcode != dns.OpcodeQuery:
		answer.Rcode = dns.RcodeNotImplemented
		return answer
	case len(request.Question) != 1:
		answer.Rcode = dns.RcodeFormatError
		return answer
	case request.Question[0].Qclass != dns.ClassINET && request.Question[0].Qclass != dns.ClassANY:
		answer.Rcode = dns.RcodeRefused
		return answer
	}
	servers := r.upstreams.list()
	answer.RecursionAvailable = len(servers) > 0
	records, known := r.names().answer(request.Question[0])
	switch {
	case known:
		answer.Authoritative = true
		answer.Answer = records
	case len(servers) == 0:
		answer.Rcode = dns.RcodeRefused
	default:
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		default:
			return nil // the guest asks again
		}
		select {
		case r.upstreams.slots <- struct{}{}:
			defer func() { <-r.upstreams.slots }()
		default:
			return nil
		}
		if forwarded := r.forward(request, servers, network); forwarded != nil {
			return forwarded
		}
		answer.Rcode = dns.RcodeServerFailure
	}
	if o := request.IsEdns0(); o != nil {
		answer.SetEdns0(1232, o.Do())
	}
	return answer
}

// forward asks one resolver after another, from the host's own namespace.
func (r *resolver) forward(request *dns.Msg, servers []string, network string) *dns.Msg {
	if strings.HasPrefix(network, "tcp") {
		network = "tcp"
	} else {
		network = "udp"
	}
	client := dns.Client{Net: network, Timeout: forwardTimeout}
	query := request.Copy()
	for _, server := range servers {
		query.Id = dns.Id()
		ctx, cancel := context.WithTimeout(r.ctx, forwardTimeout)
		answer, _, err := client.ExchangeContext(ctx, query, server)
		cancel()
		if err != nil {
			r.logger.Debug("resolver gives no answer", "resolver", server, "error", err)
			continue
		}
		if answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused {
			continue
		}
		answer.Id = request.Id
		return answer
	}
	return nil
}

const portDNS = 53

// openDNS makes the servers of a network, not yet running. They listen on all
// addresses of the device: those of subnets that come later are among them.
func openDNS(ctx context.Context, namespace, device string, handler dns.Handler) ([]*dns.Server, error) {
	config := net.ListenConfig{Control: netns.BindToDevice(device)}
	address := ":" + strconv.Itoa(portDNS)
	udp, err := netns.ListenPacket(ctx, namespace, &config, "udp", address)
	if err != nil {
		return nil, err
	}
	packets := udp
	if a, ok := udp.LocalAddr().(*net.UDPAddr); ok && a.IP.To4() == nil { // the kernel has IPv6
		if packets, err = linklocal.NewPacketConn(udp); err != nil {
			udp.Close()
			return nil, err
		}
	}
	tcp, err := netns.Listen(ctx, namespace, &config, "tcp", address)
	if err != nil {
		udp.Close()
		return nil, err
	}
	connections, err := linklocal.NewListener(tcp)
	if err != nil {
		udp.Close()
		tcp.Close()
		return nil, err
	}
	return []*dns.Server{
		{PacketConn: packets, Handler: handler, UDPSize: 1232, ReadTimeout: time.Hour, WriteTimeout: 5 * time.Second},
		{Listener: admission.New(connections, admission.Options{PerSource: 8, Total: 128}), Handler: handler,
			ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxTCPQueries: 64},
	}, nil
}
