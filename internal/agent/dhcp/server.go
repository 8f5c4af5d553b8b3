package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// server is what runs for one network: DHCPv4, DHCPv6 if it is served, and DNS.
type server struct {
	id     identity
	six    bool
	table  atomic.Pointer[table]
	broken atomic.Bool // a socket ended by itself

	cancel    context.CancelFunc
	endpoints []*endpoint
	dns       []*dns.Server
	tasks     sync.WaitGroup
}

// openServer opens the sockets of a network whose device is plugged, and begins
// to answer. broken is called when a socket ends by itself.
func openServer(ctx context.Context, p *plan, up *upstreams, logger *slog.Logger, broken func()) (_ *server, err error) {
	s := &server{six: p.six}
	ctx, s.cancel = context.WithCancel(ctx)
	s.table.Store(p.table)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.id, err = identify(p.namespace, p.device.Name); err != nil {
		return nil, err
	}
	four, err := openEndpoint(ctx, p.namespace, p.device.Name, 4)
	if err != nil {
		return nil, err
	}
	s.endpoints = append(s.endpoints, four)
	if p.six {
		six, err := openEndpoint(ctx, p.namespace, p.device.Name, 6)
		if err != nil {
			return nil, err
		}
		s.endpoints = append(s.endpoints, six)
	}
	s.dns, err = openDNS(ctx, p.namespace, p.device.Name, &resolver{
		names: func() *names { return s.table.Load().names }, upstreams: up,
		slots: make(chan struct{}, forwardsOfNet), logger: logger, ctx: ctx,
	})
	if err != nil {
		return nil, err
	}

	ended := func(what string, err error) {
		if ctx.Err() == nil {
			logger.Warn("socket ended, it is opened again", "server", what, "error", err)
			s.broken.Store(true)
			broken()
		}
	}
	sent := func(err error) {
		if err != nil {
			logger.Debug("DHCP answer not sent", "error", err)
		}
	}
	answers := []func(macAddress, datagram) *reply{
		func(_ macAddress, d datagram) *reply { return s.table.Load().answer4(d) },
		func(from macAddress, d datagram) *reply { return s.table.Load().answer6(from, d) },
	}
	for i, e := range s.endpoints {
		s.tasks.Go(func() { ended(fmt.Sprintf("DHCPv%d", 4+2*i), e.serve(answers[i], sent)) })
	}
	for _, d := range s.dns {
		s.tasks.Go(func() { ended("DNS", d.ActivateAndServe()) })
	}
	return s, nil
}

// close ends the servers and returns when nothing of them runs.
func (s *server) close() {
	s.cancel()
	for _, e := range s.endpoints {
		e.close()
	}
	for _, d := range s.dns {
		// Closing the sockets, not Shutdown: that refuses a server which is not
		// running yet, and would leave it to start afterwards.
		if d.PacketConn != nil {
			d.PacketConn.Close()
		}
		if d.Listener != nil {
			d.Listener.Close()
		}
	}
	s.tasks.Wait()
}
