package ovstest

import (
	"strings"
	"testing"
	"time"
)

// Two hosts with a VXLAN tunnel between their switches reach each other.
func TestTwoHosts(t *testing.T) {
	l := NewLab(t)
	u := l.Underlay("ul")
	var guests []string
	for n, host := range []string{"h1", "h2"} {
		ns := l.Namespace(host)
		s := l.Switch(ns)
		addresses := []string{"172.31.0.1", "172.31.0.2"}
		u.TunnelEndpoint(s, addresses[n]+"/24")
		guest := l.Namespace("g" + host)
		guests = append(guests, guest)
		l.Veth(ns, "tap0", guest, "eth0")
		l.Run("ip", "-n", guest, "addr", "add", []string{"10.0.0.1/24", "10.0.0.2/24"}[n], "dev", "eth0")
		ctx, cancel := l.context()
		defer cancel()
		out, err := s.VSCtl(ctx, "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "--", "add-port", "br0", "tap0",
			"--", "add-port", "br0", "v0", "--", "set", "interface", "v0", "type=vxlan", "options:remote_ip="+addresses[1-n])
		if err != nil {
			t.Fatal(out, err)
		}
		if out, err := s.OFCtl(ctx, "show", "br0"); err != nil || !strings.Contains(out, "(v0)") {
			t.Fatal(out, err)
		}
	}
	Eventually(t, 10*time.Second, func() error {
		_, err := l.Try(guests[0], "ping", "-c1", "-W1", "10.0.0.2")
		return err
	})
}
