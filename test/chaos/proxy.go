package main

import (
	"context"
	"net"
	"sync"
)

// proxy passes connections on, until it cuts or stalls them.
type proxy struct {
	listener        net.Listener
	network, target string

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	flows chan struct{} // closed while bytes flow
	all   sync.WaitGroup
	ctx   context.Context
	end   context.CancelFunc
}

func newProxy(network, target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, network: network, target: target, open: map[net.Conn]struct{}{}, flows: make(chan struct{})}
	p.ctx, p.end = context.WithCancel(context.Background())
	close(p.flows)
	p.all.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() {
			var d net.Dialer
			out, err := d.DialContext(p.ctx, p.network, p.target)
			if err != nil {
				in.Close()
				return
			}
			p.mu.Lock()
			p.open[in], p.open[out] = struct{}{}, struct{}{}
			p.mu.Unlock()
			p.all.Go(func() { p.pass(in, out) })
			p.pass(out, in)
		})
	}
}

// pass copies one direction; its end is that of the connection.
func (p *proxy) pass(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		flows := p.flows
		p.mu.Unlock()
		select {
		case <-flows:
		case <-p.ctx.Done():
		}
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	from.Close()
	to.Close()
	p.mu.Lock()
	delete(p.open, from)
	delete(p.open, to)
	p.mu.Unlock()
}

// cut ends all connections; new ones are possible.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

// stall holds all bytes back until flow.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flows:
		p.flows = make(chan struct{})
	default:
	}
}

func (p *proxy) flow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flows:
	default:
		close(p.flows)
	}
}

func (p *proxy) close() {
	p.end()
	p.listener.Close()
	p.flow()
	p.cut()
	p.all.Wait()
}
