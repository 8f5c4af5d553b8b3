package bgp_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/internal/bgp"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// deadline of everything that a test waits for.
const deadline = 30 * time.Second

func address(last int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(last)}) }

func mac(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 192, 0, 2, last} }

type speaker struct {
	*bgp.Speaker
	changed chan struct{}
}

// start runs a speaker at 192.0.2.<last>, until the test ends.
func start(t *testing.T, last int, as uint32, change func(*bgp.Options), neighbors ...bgp.Neighbor) *speaker {
	t.Helper()
	netnstest.Require(t)
	netnstest.Try("", fmt.Sprintf("ip addr add %s/32 dev lo", address(last)))
	s := &speaker{changed: make(chan struct{}, 1)}
	for i := range neighbors {
		if neighbors[i].Port == 0 {
			neighbors[i].Port = 1790
		}
	}
	o := bgp.Options{
		AS: as, ID: address(last), Endpoint: address(last), Neighbors: neighbors, Listen: netip.AddrPortFrom(address(last), 1790), Retry: 50 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(writer{t, last}, nil)),
		Changed: func([]uint32) {
			select {
			case s.changed <- struct{}{}:
			default:
			}
		},
	}
	if change != nil {
		change(&o)
	}
	var err error
	if s.Speaker, err = bgp.New(o); err != nil {
		t.Fatal(err)
	}
	s.Start(context.Background())
	t.Cleanup(s.Stop)
	return s
}

type writer struct {
	t    *testing.T
	last int
}

func (w writer) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "secret") {
		w.t.Errorf("a password is logged: %s", b)
	}
	w.t.Logf("%d: %s", w.last, b)
	return len(b), nil
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", deadline, what)
		}
	}
}

func announcement(prefix string, vni uint32, last byte) bgp.Announcement {
	return bgp.Announcement{Prefix: netip.MustParsePrefix(prefix), VNI: vni, RouterMAC: mac(last)}
}

// until waits for a change of routes after which something is so.
func (s *speaker) until(t *testing.T, is func() bool, what func() string) {
	t.Helper()
	for late := time.After(deadline); !is(); {
		select {
		case <-s.changed:
		case <-late:
			t.Fatalf("not within %s: %s", deadline, what())
		}
	}
}

// has waits until the routes of a VNI are "prefix via endpoint, …".
func (s *speaker) has(t *testing.T, vni uint32, want ...string) {
	t.Helper()
	s.until(t, func() bool { return slices.Equal(s.texts(vni), want) }, func() string { return fmt.Sprintf("VNI %d has %v (there are %v)", vni, want, s.texts(vni)) })
}

func (s *speaker) texts(vni uint32) []string {
	var list []string
	for _, r := range s.Routes(vni) {
		text := r.Prefix.String()
		for _, h := range r.NextHops {
			text += " via " + h.Address.String()
			if h.RouterMAC != [6]byte(mac(h.Address.As4()[3])) {
				text += " of another router"
			}
		}
		list = append(list, text)
	}
	return list
}

// TestTwoSpeakers: routes come, change and go, between neighbors of one AS and
// of two, and no session stays when both call at once.
func TestTwoSpeakers(t *testing.T) {
	for name, as := range map[string]uint32{"internal": 65000, "external": 4200000001} {
		t.Run(name, func(t *testing.T) {
			one := start(t, 1, 65000, nil, bgp.Neighbor{Address: address(2), AS: as})
			two := start(t, 2, as, nil, bgp.Neighbor{Address: address(1), AS: 65000})
			one.Announce([]bgp.Announcement{announcement("10.1.0.0/24", 100, 1), announcement("2001:db8:1::/64", 100, 1), announcement("10.1.0.0/24", 200, 1)})
			two.Announce([]bgp.Announcement{announcement("10.2.0.0/24", 100, 2)})
			two.has(t, 100, "10.1.0.0/24 via 192.0.2.1", "2001:db8:1::/64 via 192.0.2.1")
			two.has(t, 200, "10.1.0.0/24 via 192.0.2.1")
			one.has(t, 100, "10.2.0.0/24 via 192.0.2.2")
			one.has(t, 200)
			one.Announce([]bgp.Announcement{announcement("10.1.0.0/24", 100, 1), announcement("10.1.0.5/32", 100, 1)})
			two.has(t, 100, "10.1.0.0/24 via 192.0.2.1", "10.1.0.5/32 via 192.0.2.1")
			two.has(t, 200)
			many := []bgp.Announcement{}
			for i := range 1000 {
				many = append(many, announcement(fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), 100, 1))
			}
			one.Announce(many)
			two.until(t, func() bool { return len(two.Routes(100)) == len(many) }, func() string { return "a thousand routes" })
			one.Stop()
			two.has(t, 100)
			eventually(t, "why the session ended", func() bool {
				err := two.States()[address(1)].Error
				return err != nil && (strings.Contains(err.Error(), "cease, subcode 2") || strings.Contains(err.Error(), "refused"))
			})
		})
	}
}

// TestAgain: a neighbor that was away is found again.
func TestAgain(t *testing.T) {
	one := start(t, 1, 65000, nil, bgp.Neighbor{Address: address(2), AS: 65000})
	one.Announce([]bgp.Announcement{announcement("10.1.0.0/24", 100, 1)})
	for range 3 {
		two := start(t, 2, 65000, nil, bgp.Neighbor{Address: address(1), AS: 65000, Passive: true})
		two.has(t, 100, "10.1.0.0/24 via 192.0.2.1")
		two.Stop()
		eventually(t, "the session is over", func() bool { return !one.States()[address(2)].Established })
	}
}

// TestRefused: neighbors that are not who they should be get no session.
func TestRefused(t *testing.T) {
	one := start(t, 1, 65000, nil, bgp.Neighbor{Address: address(2), AS: 65001, Passive: true})
	start(t, 2, 65000, nil, bgp.Neighbor{Address: address(1), AS: 65000})
	eventually(t, "another AS is refused", func() bool {
		err := one.States()[address(2)].Error
		return err != nil && strings.Contains(err.Error(), "its AS is 65000, not 65001")
	})
	netnstest.Try("", "ip addr add 192.0.2.3/32 dev lo")
	stranger, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: address(3).AsSlice()}}).Dial("tcp", "192.0.2.1:1790")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.SetReadDeadline(time.Now().Add(deadline))
	if n, err := stranger.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("a stranger is answered: %d, %v", n, err)
	}
}

// TestSilence: a neighbor that is heard of no more loses its session and routes.
func TestSilence(t *testing.T) {
	one := start(t, 1, 65000, func(o *bgp.Options) { o.Hold = 3 * time.Second }, bgp.Neighbor{Address: address(2), AS: 65000, Passive: true})
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: address(2).AsSlice()}}).Dial("tcp", "192.0.2.1:1790")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, m := range bgp.Recorded(65000, address(2)) {
		if _, err := conn.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	one.has(t, 100, "10.9.0.0/24 via 192.0.2.2")
	one.has(t, 100)
	eventually(t, "why the session ended", func() bool {
		err := one.States()[address(2)].Error
		return err != nil && strings.Contains(err.Error(), "hold timer expired")
	})
}

// TestPasswords: with equal passwords there is a session, with others none.
func TestPasswords(t *testing.T) {
	one := start(t, 1, 65000, nil, bgp.Neighbor{Address: address(2), AS: 65000, Password: "secret"}, bgp.Neighbor{Address: address(3), AS: 65000, Password: "secret"})
	one.Announce([]bgp.Announcement{announcement("10.1.0.0/24", 100, 1)})
	three := start(t, 3, 65000, nil, bgp.Neighbor{Address: address(1), AS: 65000, Password: "secret2"})
	two := start(t, 2, 65000, nil, bgp.Neighbor{Address: address(1), AS: 65000, Password: "secret"})
	two.has(t, 100, "10.1.0.0/24 via 192.0.2.1")
	if three.States()[address(1)].Established {
		t.Error("another password will do")
	}
}

// TestFRR: two speakers reach each other over FRR's bgpd, which reflects routes
// within an AS and passes them on between several.
func TestFRR(t *testing.T) {
	netnstest.Require(t)
	const bgpd = "/usr/lib/frr/bgpd"
	if _, err := os.Stat(bgpd); err != nil {
		t.Skip("there is no FRR (package frr): ", err)
	}
	for name, as := range map[string][3]uint32{"reflector": {65000, 65000, 65000}, "external": {65000, 65001, 65002}} {
		t.Run(name, func(t *testing.T) {
			netnstest.Try("", "ip addr add 192.0.2.9/32 dev lo")
			dir, err := os.MkdirTemp("", "frr")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			conf := fmt.Sprintf("router bgp %d\n bgp router-id 192.0.2.9\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n", as[0])
			for i := 1; i <= 2; i++ {
				conf += fmt.Sprintf(" neighbor 192.0.2.%d remote-as %d\n neighbor 192.0.2.%d password secret\n neighbor 192.0.2.%d port 1790\n neighbor 192.0.2.%d timers 1 3\n neighbor 192.0.2.%d timers connect 1\n", i, as[i], i, i, i, i)
				if as[i] != as[0] {
					conf += fmt.Sprintf(" neighbor 192.0.2.%d ebgp-multihop\n", i)
				}
			}
			conf += " address-family l2vpn evpn\n"
			for i := 1; i <= 2; i++ {
				conf += fmt.Sprintf("  neighbor 192.0.2.%d activate\n", i)
				if as[i] == as[0] {
					conf += fmt.Sprintf("  neighbor 192.0.2.%d route-reflector-client\n", i)
				} else {
					conf += fmt.Sprintf("  neighbor 192.0.2.%d attribute-unchanged next-hop\n", i)
				}
			}
			conf += " exit-address-family\n"
			file := filepath.Join(dir, "bgpd.conf")
			if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(bgpd, "-n", "-Z", "-S", "-l", "192.0.2.9", "-p", "1790", "-f", file, "-i", filepath.Join(dir, "pid"), "--vty_socket", dir, "-z", filepath.Join(dir, "zserv.api"), "--log", "file:"+filepath.Join(dir, "log"))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
				if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
					t.Logf("bgpd: %s", log)
				}
			}()
			frr := bgp.Neighbor{Address: address(9), AS: as[0], Password: "secret"}
			one, two := start(t, 1, as[1], nil, frr), start(t, 2, as[2], nil, frr)
			one.Announce([]bgp.Announcement{announcement("10.1.0.0/24", 100, 1), announcement("2001:db8:1::/64", 100, 1)})
			two.Announce([]bgp.Announcement{announcement("10.2.0.0/24", 100, 2), announcement("10.2.0.7/32", 100, 2)})
			one.has(t, 100, "10.2.0.0/24 via 192.0.2.2", "10.2.0.7/32 via 192.0.2.2")
			two.has(t, 100, "10.1.0.0/24 via 192.0.2.1", "2001:db8:1::/64 via 192.0.2.1")
			out, err := exec.Command("vtysh", "--vty_socket", dir, "-c", "show bgp l2vpn evpn").CombinedOutput()
			t.Logf("show bgp l2vpn evpn: %v\n%s", err, out)
			for _, want := range []string{"[5]:[0]:[24]:[10.1.0.0]", "[5]:[0]:[64]:[2001:db8:1::]", "[5]:[0]:[32]:[10.2.0.7]", fmt.Sprintf("RT:%d:100", as[1]), "ET:8", "Rmac:02:00:c0:00:02:01", "192.0.2.1:101"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("FRR does not show %s", want)
				}
			}
			one.Announce(nil)
			two.has(t, 100)
			two.Stop()
			one.has(t, 100)
		})
	}
}

// TestOscillation: a neighbor whose sessions end soon is called less and less often.
func TestOscillation(t *testing.T) {
	netnstest.Require(t)
	netnstest.Try("", "ip addr add 192.0.2.8/32 dev lo")
	l, err := net.Listen("tcp", "192.0.2.8:1790")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start(t, 1, 65000, nil, bgp.Neighbor{Address: address(8), AS: 65000})
	var began time.Time
	for range 6 {
		l.(*net.TCPListener).SetDeadline(time.Now().Add(deadline))
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if began.IsZero() {
			began = time.Now()
		}
		for _, m := range bgp.Recorded(65000, address(8)) {
			conn.Write(m)
		}
		// An OPEN within the session, which ends it.
		conn.Write(bgp.Recorded(65000, address(8))[0])
		conn.SetReadDeadline(time.Now().Add(deadline))
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	// Pauses of 50, 100, 200, 400 and 800 ms, each but for a quarter at most.
	if took := time.Since(began); took < time.Second {
		t.Errorf("six sessions within %s", took)
	}
}
