package bgp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"syscall"
)

// Neighbor is another speaker.
type Neighbor struct {
	Address  netip.Addr // required
	AS       uint32     // required; the own one: iBGP
	Port     uint16     // optional; 179
	Password string     // optional; TCP MD5 signatures, never logged
	Passive  bool       // optional; it is waited for, not called
}

// Options are what New needs.
type Options struct {
	AS        uint32     // required
	ID        netip.Addr // required; BGP identifier, as an IPv4 address
	Endpoint  netip.Addr // required; IPv4 address of the tunnel endpoint: next hop and source of sessions
	Neighbors []Neighbor
	// Listen is where neighbors are awaited. Not valid: nowhere.
	Listen netip.AddrPort           // optional
	Hold   time.Duration            // optional; 90 s
	Retry  time.Duration            // optional; 2 s, the first pause before a neighbor is called again; it doubles up to a minute
	Logger *slog.Logger             // optional
	Inside func(func() error) error // optional; sockets are made inside of it
	// Changed is told of VNIs whose routes changed. It must not call the speaker and not wait.
	Changed func(vnis []uint32) // optional
}

const longestRetry = time.Minute

// maxPaths bounds what one neighbor may announce.
const maxPaths = 200_000

// Speaker speaks with its neighbors. Make it with New.
type Speaker struct {
	options Options
	logger  *slog.Logger
	peers   map[netip.Addr]*peer
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	announced map[key]Announcement
	numbers   map[uint32]uint16 // VNI to number of its route distinguisher
	byVNI     map[uint32]map[pathKey]*path
}

type pathKey struct {
	neighbor netip.Addr
	key
}

// State is what became of a neighbor.
type State struct {
	Established bool
	// Routes is how many it announces, of all types of use or none.
	Routes int
	// Error ended the last session or attempt; nil while established.
	Error error
}

// New returns a speaker that does nothing yet.
func New(o Options) (*Speaker, error) {
	if o.AS == 0 || !o.ID.Is4() || o.ID.IsUnspecified() || !o.Endpoint.Is4() {
		return nil, errors.New("BGP: an AS number, an identifier and the IPv4 address of a tunnel endpoint are needed")
	}
	if o.Hold == 0 {
		o.Hold = 90 * time.Second
	}
	if o.Retry == 0 {
		o.Retry = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Inside == nil {
		o.Inside = func(do func() error) error { return do() }
	}
	if o.Changed == nil {
		o.Changed = func([]uint32) {}
	}
	s := &Speaker{options: o, logger: o.Logger, peers: map[netip.Addr]*peer{}, announced: map[key]Announcement{}, numbers: map[uint32]uint16{}, byVNI: map[uint32]map[pathKey]*path{}}
	for _, n := range o.Neighbors {
		if n.Port == 0 {
			n.Port = 179
		}
		if !n.Address.IsValid() || n.AS == 0 || s.peers[n.Address] != nil {
			return nil, fmt.Errorf("BGP: neighbor %s is there twice or not valid", n.Address)
		}
		s.peers[n.Address] = &peer{speaker: s, Neighbor: n, ended: make(chan struct{}, 1), rib: map[key]*path{}, logger: o.Logger.With("neighbor", n.Address.String())}
	}
	return s, nil
}

// listenRetry is the pause before a socket that could not be had is tried for again.
const listenRetry = 5 * time.Second

// Start listens, if it is to, and calls the neighbors until Stop. An address
// that is not there yet is waited for.
func (s *Speaker) Start(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	if s.options.Listen.IsValid() {
		l := s.tryListen(ctx)
		s.running.Go(func() {
			for ctx.Err() == nil {
				if l != nil {
					s.accept(ctx, l)
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(listenRetry):
					l = s.tryListen(ctx)
				}
			}
			if l != nil {
				l.Close()
			}
		})
	}
	for _, p := range s.peers {
		s.running.Go(func() { p.run(ctx) })
	}
}

func (s *Speaker) tryListen(ctx context.Context) net.Listener {
	l, err := s.listen(ctx)
	if err != nil {
		s.logger.Error("BGP neighbors cannot call", "address", s.options.Listen.String(), "error", err)
		return nil
	}
	return l
}

// Stop tells the neighbors that it ends, and waits for all that it started.
func (s *Speaker) Stop() {
	if s.cancel != nil {
		s.cancel()
		s.running.Wait()
	}
}

// Announce makes what neighbors are told exactly these.
func (s *Speaker) Announce(list []Announcement) {
	s.mu.Lock()
	now := map[key]Announcement{}
	vnis := map[uint32]bool{}
	for _, a := range list {
		vnis[a.VNI] = true
	}
	for vni := range s.numbers {
		if !vnis[vni] {
			delete(s.numbers, vni)
		}
	}
	for _, a := range list {
		a.Prefix = a.Prefix.Masked()
		if len(a.RouterMAC) == 6 && a.VNI > 0 && a.VNI < 1<<24 && a.Prefix.IsValid() {
			now[key{distinguisher: s.distinguisher(a.VNI), prefix: a.Prefix}] = a
		}
	}
	same := maps.EqualFunc(now, s.announced, func(a, b Announcement) bool { return a.VNI == b.VNI && slices.Equal(a.RouterMAC, b.RouterMAC) })
	s.announced = now
	s.mu.Unlock()
	if same {
		return
	}
	for _, p := range s.peers {
		p.kick()
	}
}

// distinguisher is the VNI's: of type 1, the endpoint and a number of two octets (RFC 7432, 7.9).
func (s *Speaker) distinguisher(vni uint32) uint64 {
	n, ok := s.numbers[vni]
	if !ok {
		taken := map[uint16]bool{}
		for _, m := range s.numbers {
			taken[m] = true
		}
		// The same number each time, as far as others have not taken it.
		for n = uint16(vni%0xffff) + 1; taken[n] || n == 0; n++ {
		}
		s.numbers[vni] = n
	}
	endpoint := s.options.Endpoint.As4()
	return 1<<48 | uint64(binary.BigEndian.Uint32(endpoint[:]))<<16 | uint64(n)
}

// Routes are the best ones that neighbors announce for a VNI, by prefix.
func (s *Speaker) Routes(vni uint32) []Route {
	s.mu.Lock()
	paths := slices.Collect(maps.Values(s.byVNI[vni])) // which are replaced, never changed
	s.mu.Unlock()
	return best(paths)
}

// States tells of all neighbors.
func (s *Speaker) States() map[netip.Addr]State {
	states := map[netip.Addr]State{}
	for a, p := range s.peers {
		p.mu.Lock()
		states[a] = State{Established: p.established != nil, Routes: len(p.rib), Error: p.failed}
		p.mu.Unlock()
	}
	return states
}

// set notes a neighbor's path, nil: it is gone. The caller holds s.mu.
func (s *Speaker) set(neighbor netip.Addr, k key, old, now *path, changed map[uint32]bool) {
	at := pathKey{neighbor, k}
	if old != nil {
		delete(s.byVNI[old.vni], at)
		if len(s.byVNI[old.vni]) == 0 {
			delete(s.byVNI, old.vni)
		}
		changed[old.vni] = true
	}
	if now != nil {
		if s.byVNI[now.vni] == nil {
			s.byVNI[now.vni] = map[pathKey]*path{}
		}
		s.byVNI[now.vni][at] = now
		changed[now.vni] = true
	}
}

// accept takes connections until ctx ends, and closes the listener then.
func (s *Speaker) accept(ctx context.Context, l net.Listener) {
	release := context.AfterFunc(ctx, func() { l.Close() })
	defer release()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.logger.Warn("no connection accepted", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		}
		var p *peer
		if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
			p = s.peers[from.Addr().Unmap()]
		}
		if p == nil || !p.enter() {
			conn.Close() // nobody that we know, or one that has connections already
			continue
		}
		s.running.Go(func() {
			defer p.leave()
			p.serve(ctx, conn, true)
		})
	}
}

func (s *Speaker) listen(ctx context.Context) (l net.Listener, err error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			for _, p := range s.peers {
				if p.Address.Is4() == s.options.Listen.Addr().Is4() {
					failed = errors.Join(failed, sign(int(fd), p.Neighbor))
				}
			}
		})
		return errors.Join(err, failed)
	}}
	err = s.options.Inside(func() error {
		l, err = config.Listen(ctx, network(s.options.Listen.Addr()), s.options.Listen.String())
		return err
	})
	return l, err
}

func network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// sign has segments to and from a neighbor signed (RFC 2385), if it has a password.
func sign(fd int, n Neighbor) error {
	if n.Password == "" {
		return nil
	}
	if len(n.Password) > unix.TCP_MD5SIG_MAXKEYLEN {
		return errors.New("the password is too long")
	}
	s := unix.TCPMD5Sig{Keylen: uint16(len(n.Password))}
	copy(s.Key[:], n.Password)
	if n.Address.Is4() {
		s.Addr.Family = unix.AF_INET
		copy(s.Addr.Data[2:], n.Address.AsSlice()) // behind the port
	} else {
		s.Addr.Family = unix.AF_INET6
		copy(s.Addr.Data[6:], n.Address.AsSlice()) // behind the port and the flow label
	}
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &s); err != nil {
		return fmt.Errorf("TCP MD5 signatures with %s: %w", n.Address, err)
	}
	return nil
}
