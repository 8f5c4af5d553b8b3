package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"isospin/internal/kernel/netns"
)

// Pinger sends ICMP echo requests at an interval and counts what comes back.
type Pinger struct {
	conn net.PacketConn
	to   net.IPAddr
	id   int

	quit, sent, received chan struct{}

	mu      sync.Mutex
	at      []time.Time // of sending, by sequence
	trip    []time.Duration
	replied int
	wake    chan struct{} // one token: a reply came
}

// PingResult is what a Pinger counted.
type PingResult struct {
	Sent, Received int
	// LostAt is when the requests were sent that were not answered.
	LostAt []time.Time
	// LongestGap is the longest time between two requests in a row that were
	// answered, beyond which all between went unanswered.
	LongestGap time.Duration
	// Median and Longest are of round trips.
	Median, Longest time.Duration
}

// StartPing pings an IPv4 address from the node until Stop.
func (n *Node) StartPing(to netip.Addr, interval time.Duration) (*Pinger, error) {
	conn, err := netns.ListenPacket(context.Background(), n.Namespace, nil, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, err
	}
	p := &Pinger{
		conn: conn, to: net.IPAddr{IP: to.AsSlice()}, id: rand.N(1 << 16),
		quit: make(chan struct{}), sent: make(chan struct{}), received: make(chan struct{}),
		wake: make(chan struct{}, 1),
	}
	go p.send(interval)
	go p.receive()
	return p, nil
}

// cookie makes our replies known from those to anybody else.
const cookie = "isospin lab ping"

func (p *Pinger) send(interval time.Duration) {
	defer close(p.sent)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p.mu.Lock()
		sequence := len(p.at)
		p.at = append(p.at, time.Now())
		p.trip = append(p.trip, 0)
		p.mu.Unlock()
		// The whole sequence number is in the data: that of the header wraps.
		data := binary.BigEndian.AppendUint32([]byte(cookie), uint32(sequence))
		message := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: sequence & 0xffff, Data: data}}
		if text, err := message.Marshal(nil); err == nil {
			_, _ = p.conn.WriteTo(text, &p.to) // no route, no neighbour: counted as lost
		}
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
	}
}

func (p *Pinger) receive() {
	defer close(p.received)
	buf := make([]byte, 2048)
	for {
		size, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		m, err := icmp.ParseMessage(1, buf[:size])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || echo.ID != p.id || len(echo.Data) != len(cookie)+4 || string(echo.Data[:len(cookie)]) != cookie {
			continue
		}
		sequence := int(binary.BigEndian.Uint32(echo.Data[len(cookie):]))
		p.mu.Lock()
		if sequence < len(p.at) && p.trip[sequence] == 0 {
			p.trip[sequence] = max(time.Since(p.at[sequence]), 1)
			p.replied++
		}
		p.mu.Unlock()
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Stop ends the pinging, waits up to a second for replies that are under way,
// and returns the count. It must be called once.
func (p *Pinger) Stop() PingResult {
	close(p.quit)
	<-p.sent
	late := time.NewTimer(time.Second)
	defer late.Stop()
wait:
	for !p.complete() {
		select {
		case <-p.wake:
		case <-late.C:
			break wait
		}
	}
	p.conn.Close()
	<-p.received
	r := PingResult{Sent: len(p.at), Received: p.replied}
	var trips []time.Duration
	last := -1
	for i, trip := range p.trip {
		if trip == 0 {
			r.LostAt = append(r.LostAt, p.at[i])
			continue
		}
		trips = append(trips, trip)
		if last >= 0 {
			r.LongestGap = max(r.LongestGap, p.at[i].Sub(p.at[last]))
		}
		last = i
	}
	slices.Sort(trips)
	if len(trips) > 0 {
		r.Median, r.Longest = trips[len(trips)/2], trips[len(trips)-1]
	}
	return r
}

func (p *Pinger) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.replied == len(p.at)
}

// Lost is the number of requests without a reply.
func (r PingResult) Lost() int { return r.Sent - r.Received }

func (r PingResult) String() string {
	return fmt.Sprintf("%d of %d lost, round trip %v median, %v longest", r.Lost(), r.Sent, r.Median.Round(time.Microsecond), r.Longest.Round(time.Microsecond))
}

// Reach pings an address every few milliseconds until there is a reply.
func (n *Node) Reach(ctx context.Context, to netip.Addr) error {
	p, err := n.StartPing(to, 20*time.Millisecond)
	if err != nil {
		return err
	}
	select {
	case <-p.wake:
		close(p.quit)
	case <-ctx.Done():
		close(p.quit)
		err = fmt.Errorf("no reply from %s to %s: %w", to, n.Name, ctx.Err())
	}
	<-p.sent
	p.conn.Close()
	<-p.received
	return err
}

// Frames is a packet socket on a device of a node.
type Frames struct{ conn *packet.Conn }

// Frames opens a packet socket on the node's device.
func (n *Node) Frames(device string) (*Frames, error) {
	var f Frames
	err := n.Do(func() error {
		iface, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		f.conn, err = packet.Listen(iface, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s of %s: %w", device, n.Name, err)
	}
	return &f, nil
}

// Send sends one Ethernet frame.
func (f *Frames) Send(frame []byte) error {
	_, err := f.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}

// Receive returns the next frame that match is true of, or ctx's error.
func (f *Frames) Receive(ctx context.Context, match func(frame []byte) bool) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { _ = f.conn.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 65536)
	for {
		size, _, err := f.conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if match(buf[:size]) {
			return slices.Clone(buf[:size]), nil
		}
	}
}

// Close releases the socket.
func (f *Frames) Close() { f.conn.Close() }

// EchoFrame builds an Ethernet frame with an ICMP echo request.
func EchoFrame(fromMAC, toMAC net.HardwareAddr, from, to netip.Addr, payload string) []byte {
	message := slices.Concat([]byte{8, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, rand.Uint32()), []byte(payload))
	if len(message)%2 != 0 {
		message = append(message, 0)
	}
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	length := 20 + len(message)
	header := []byte{0x45, 0, byte(length >> 8), byte(length), 0, 0, 0, 0, 64, unix.IPPROTO_ICMP, 0, 0}
	src, dst := from.As4(), to.As4()
	header = slices.Concat(header, src[:], dst[:])
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return slices.Concat(toMAC, fromMAC, []byte{0x08, 0x00}, header, message)
}

// ARPReplyFrame builds an Ethernet frame from fromMAC that says: from is at
// senderMAC.
func ARPReplyFrame(fromMAC, senderMAC, toMAC net.HardwareAddr, from, to netip.Addr) []byte {
	return arpFrame(2, fromMAC, senderMAC, toMAC, toMAC, from, to)
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// announcement is the ARP announcement of RFC 5227: who has this address learns
// that it is at this MAC now.
func announcement(mac net.HardwareAddr, address netip.Addr) []byte {
	return arpFrame(1, mac, mac, broadcast, make(net.HardwareAddr, 6), address, address)
}

func arpFrame(operation byte, fromMAC, senderMAC, toMAC, targetMAC net.HardwareAddr, sender, target netip.Addr) []byte {
	src, dst := sender.As4(), target.As4()
	return slices.Concat(toMAC, fromMAC, []byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation}, senderMAC, src[:], targetMAC, dst[:])
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
