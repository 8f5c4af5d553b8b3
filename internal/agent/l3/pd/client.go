// Package pd has IPv6 prefixes delegated: the client of DHCPv6 prefix
// delegation (RFC 8415) on one device in a network namespace. Each subnet that
// wants a prefix is an identity association of its own.
//
// It must not know what the prefixes are used for.
package pd

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"isospin/internal/kernel/netns"
)

const (
	// reopen is how long a device that no socket can be opened on is let alone.
	reopen = time.Second
	// releaseTimeLimit bounds how long Stop waits for servers to confirm releases.
	releaseTimeLimit = 2500 * time.Millisecond
)

// servers are All_DHCP_Relay_Agents_and_Servers on the device that the socket is bound to.
var servers = &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: dhcpv6.DefaultServerPort}

// Subnet wants a prefix.
type Subnet struct {
	ID string
	// Hint is the prefix that it had; invalid: none.
	Hint netip.Prefix
}

// Options are what Start needs.
type Options struct {
	Namespace string           // required
	Device    string           // required; has a link-local address
	MAC       net.HardwareAddr // required; identifies the client (DUID-LL)
	// Enterprise is the private enterprise number of identifiers that are the subnets' (DUID-EN). // optional
	Enterprise uint32
	// Leases are those that are there, by subnet. // optional
	Leases map[string]Lease
	// Save puts leases down before Changed tells of them. // optional
	Save func(leases map[string]Lease) error
	// Changed is called when a subnet has got a prefix, another one, or none any longer. // optional
	Changed func()
	Logger  *slog.Logger // optional
}

// Client asks for prefixes until it is stopped. Its methods are safe for concurrent use.
type Client struct {
	options Options
	calls   chan func()
	ended   chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup

	// Those of the owner's goroutine.
	wanted map[string]*association
	leaves map[string]*association // are being released
	ending time.Time               // releases are over then at the latest; zero: not ending
	random func() float64

	mu       sync.Mutex
	prefixes map[string]netip.Prefix
}

// Start begins to ask; Set says for what.
func Start(ctx context.Context, o Options) *Client {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Client{
		options: o, calls: make(chan func()), ended: make(chan struct{}), cancel: cancel, prefixes: map[string]netip.Prefix{},
		wanted: map[string]*association{}, leaves: map[string]*association{},
		random: func() float64 { return rand.Float64()/5 - 0.1 },
	}
	c.done.Go(func() { c.run(ctx) })
	return c
}

// call has the owner do something, if there is one still.
func (c *Client) call(do func()) {
	called := make(chan struct{})
	select {
	case c.calls <- func() { do(); close(called) }:
		<-called
	case <-c.ended:
	}
}

// Set says which subnets want prefixes. The leases of others are released.
func (c *Client) Set(subnets []Subnet) {
	c.call(func() {
		now := time.Now()
		want := map[string]bool{}
		for _, s := range subnets {
			want[s.ID] = true
			if c.wanted[s.ID] == nil {
				c.begin(s, now)
			}
		}
		for id := range c.options.Leases { // of a time before the client's
			c.begin(Subnet{ID: id}, now)
		}
		for id := range c.wanted {
			if !want[id] {
				c.release(id, now)
			}
		}
		c.store()
	})
}

// Prefixes are the /64s of the subnets that have a lease; those that have lost
// theirs have the zero Prefix, and of others nothing is known.
func (c *Client) Prefixes() map[string]netip.Prefix {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.prefixes)
}

// Stop ends the client. release gives the leases back, which needs the device;
// without it they stay what they are, for a client that goes on with them.
func (c *Client) Stop(release bool) {
	if release {
		c.call(func() {
			now := time.Now()
			for id := range c.wanted {
				c.release(id, now)
			}
			c.store()
			c.ending = now.Add(releaseTimeLimit)
		})
		c.done.Wait()
	}
	c.cancel()
	c.done.Wait()
}

// identity is the client's DUID for a subnet, and its IAID.
func (c *Client) identity(subnet string) (dhcpv6.DUID, uint32) {
	if c.options.Enterprise != 0 {
		id, err := hex.DecodeString(strings.ReplaceAll(subnet, "-", ""))
		if err != nil {
			id = []byte(subnet)
		}
		return &dhcpv6.DUIDEN{EnterpriseNumber: c.options.Enterprise, EnterpriseIdentifier: id}, 1
	}
	h := fnv.New32a()
	h.Write([]byte(subnet))
	iaid := h.Sum32()
	for taken := true; taken; {
		taken = false
		for _, a := range c.wanted {
			if a.iaid == iaid {
				taken = true
				iaid++
				break
			}
		}
	}
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: c.options.MAC}, iaid
}

func (c *Client) begin(s Subnet, now time.Time) {
	delete(c.leaves, s.ID)
	identity, iaid := c.identity(s.ID)
	a := &association{subnet: s.ID, identity: identity, iaid: iaid, hint: s.Hint, random: c.random}
	var lease *Lease
	if l, ok := c.options.Leases[s.ID]; ok {
		delete(c.options.Leases, s.ID)
		lease = &l
	}
	a.start(lease, now)
	c.wanted[s.ID] = a
}

func (c *Client) release(id string, now time.Time) {
	a := c.wanted[id]
	delete(c.wanted, id)
	if a == nil || a.lease == nil {
		return
	}
	a.begin(releasing, now)
	c.leaves[id] = a
}

// store puts the leases down and shows them.
func (c *Client) store() {
	leases, prefixes := map[string]Lease{}, map[string]netip.Prefix{}
	for id, a := range c.wanted {
		if a.lease != nil {
			leases[id] = *a.lease
			prefixes[id] = netip.PrefixFrom(a.lease.Prefix.Addr(), 64)
		} else if a.lost {
			prefixes[id] = netip.Prefix{}
		}
	}
	if c.options.Save != nil {
		if err := c.options.Save(leases); err != nil {
			c.options.Logger.Error("delegated prefixes are not stored", "device", c.options.Device, "error", err)
		}
	}
	c.mu.Lock()
	same := maps.Equal(c.prefixes, prefixes)
	c.prefixes = prefixes
	c.mu.Unlock()
	if !same && c.options.Changed != nil {
		c.options.Changed()
	}
}

// socket is where the client sends from.
type socket struct {
	net.PacketConn
	received chan *dhcpv6.Message
	broken   chan error // cap 1
	done     sync.WaitGroup
}

func (c *Client) open(ctx context.Context) (*socket, error) {
	conn, err := netns.ListenPacket(ctx, c.options.Namespace, &net.ListenConfig{Control: netns.BindToDevice(c.options.Device)}, "udp6", "[::]:546")
	if err != nil {
		return nil, err
	}
	// By Read: who sent it is not looked at, and finding that out costs more than the message (package linklocal).
	in, ok := conn.(io.Reader)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("socket of type %T cannot be read", conn)
	}
	s := &socket{PacketConn: conn, received: make(chan *dhcpv6.Message, 16), broken: make(chan error, 1)}
	s.done.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := in.Read(b)
			if err != nil {
				s.broken <- err
				return
			}
			m, err := dhcpv6.MessageFromBytes(b[:n])
			if err != nil {
				c.options.Logger.Debug("DHCPv6 message is not valid", "device", c.options.Device, "error", err)
				continue
			}
			select {
			case s.received <- m:
			default: // more of them than can be taken
			}
		}
	})
	return s, nil
}

func (s *socket) close() {
	s.Close()
	s.done.Wait()
}

// run owns the associations and the socket.
func (c *Client) run(ctx context.Context) {
	defer close(c.ended)
	var s *socket
	defer func() {
		if s != nil {
			s.close()
		}
	}()
	var opened time.Time
	told := ""
	// failed tells of the same error once, until a message comes.
	failed := func(what string, err error) {
		level := slog.LevelDebug
		if text := what + err.Error(); text != told {
			told, level = text, slog.LevelWarn
		}
		c.options.Logger.Log(ctx, level, what, "device", c.options.Device, "error", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var received chan *dhcpv6.Message
		var broken chan error
		if s != nil {
			received, broken = s.received, s.broken
		}
		select {
		case <-ctx.Done():
			return
		case do := <-c.calls:
			do()
		case m := <-received:
			told = ""
			c.receive(m, time.Now())
		case err := <-broken:
			failed("socket for prefix delegation", err)
			s.close()
			s = nil
		case <-timer.C:
		}
		now := time.Now()
		if !c.ending.IsZero() && (len(c.leaves) == 0 || !now.Before(c.ending)) {
			return
		}
		if s == nil && now.Sub(opened) >= reopen {
			var err error
			opened = now
			if s, err = c.open(ctx); err != nil {
				failed("no socket for prefix delegation", err)
				s = nil
			}
		}
		next := c.due(s, now)
		if again := opened.Add(reopen); s == nil && again.Before(next) {
			next = again
		}
		if !c.ending.IsZero() && c.ending.Before(next) {
			next = c.ending
		}
		timer.Reset(time.Until(next))
	}
}

// due has all associations do what is due, and says when the next is. Without
// a socket leases expire all the same.
func (c *Client) due(s *socket, now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	changed := false
	for _, all := range []map[string]*association{c.wanted, c.leaves} {
		for id, a := range all {
			m, other, over := a.due(now)
			if over {
				delete(all, id)
				continue
			}
			if other {
				changed = true
				c.options.Logger.Warn("delegated prefix has expired", "device", c.options.Device, "subnet", id, "prefix", a.hint)
			}
			if m != nil && s != nil {
				if _, err := s.WriteTo(m.ToBytes(), servers); err != nil { // a device that is down, or not ready yet
					c.options.Logger.Debug("send DHCPv6 message", "device", c.options.Device, "type", m.MessageType.String(), "error", err)
				}
			}
			if !a.next.IsZero() && a.next.Before(next) {
				next = a.next
			}
		}
	}
	if changed {
		c.store()
	}
	return next
}

func (c *Client) receive(m *dhcpv6.Message, now time.Time) {
	for _, all := range []map[string]*association{c.wanted, c.leaves} {
		for id, a := range all {
			if a.id != m.TransactionID {
				continue
			}
			before := a.lease
			changed, over := a.receive(m, now)
			if over {
				delete(all, id)
			}
			if changed && a.lease != nil {
				c.options.Logger.Info("prefix is delegated", "device", c.options.Device, "subnet", id, "prefix", a.lease.Prefix)
			} else if changed {
				c.options.Logger.Warn("prefix is delegated no longer", "device", c.options.Device, "subnet", id)
			}
			if a.lease != before {
				c.store()
			}
			return
		}
	}
}
