package vswitch_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"isospin/internal/ovs/ovstest"
	"isospin/internal/ovs/vswitch"
)

func dial(t *testing.T, s *ovstest.Switch) *vswitch.Client {
	t.Helper()
	c, err := vswitch.Dial(t.Context(), vswitch.Options{Connection: s.Connection(), DatapathType: "netdev"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func find(c *vswitch.Client, name string) *vswitch.Interface {
	for _, i := range c.Interfaces() {
		if i.Name == name {
			return &i
		}
	}
	return nil
}

func TestBridgesAndPorts(t *testing.T) {
	l := ovstest.NewLab(t)
	ns := l.Namespace("h")
	s := l.Switch(ns)
	c := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.EnsureBridge(ctx, vswitch.Bridge{Name: "br0", FailMode: "secure", Protocols: []string{"OpenFlow13"}, ExternalIDs: map[string]string{"a": "1"}}))
	must(c.EnsureBridge(ctx, vswitch.Bridge{Name: "br0", FailMode: "secure", Protocols: []string{"OpenFlow14"}, ExternalIDs: map[string]string{"a": "2", "b": "3"}}))
	out, err := s.VSCtl(ctx, "get", "bridge", "br0", "fail_mode", "protocols", "external_ids", "datapath_type")
	must(err)
	if want := "secure\n[OpenFlow13, OpenFlow14]\n{a=\"2\", b=\"3\"}\nnetdev"; out != want {
		t.Errorf("bridge: %q, want %q", out, want)
	}

	var changes atomic.Int64
	c.Watch(func() { changes.Add(1) })
	p := vswitch.Port{Name: "v0", Type: "vxlan", Options: map[string]string{"remote_ip": "172.31.0.9", "key": "flow"},
		ExternalIDs: map[string]string{"iface-id": "x"}, OtherConfig: map[string]string{"net_uuid": "n"}, Tag: 7}
	must(c.EnsurePort(ctx, "br0", p))
	i := find(c, "v0")
	if i == nil || i.OFPort <= 0 || i.Bridge != "br0" || i.Type != "vxlan" || i.ExternalIDs["iface-id"] != "x" || i.Options["key"] != "flow" ||
		i.Tag != 7 || i.OtherConfig["net_uuid"] != "n" {
		t.Fatalf("interface %+v", i)
	}
	if changes.Load() == 0 {
		t.Error("no change was told")
	}
	// Once more is nothing: not even a transaction.
	before, _ := s.VSCtl(ctx, "get", "Open_vSwitch", ".", "next_cfg")
	must(c.EnsurePort(ctx, "br0", p))
	if after, _ := s.VSCtl(ctx, "get", "Open_vSwitch", ".", "next_cfg"); after != before {
		t.Errorf("a transaction for nothing: %s, %s", before, after)
	}
	// Options are replaced, other maps merged.
	p.Options = map[string]string{"remote_ip": "172.31.0.8", "key": "flow"}
	p.ExternalIDs = map[string]string{"iface-id": "y", "z": "1"}
	must(c.EnsurePort(ctx, "br0", p))
	if i = find(c, "v0"); i.Options["remote_ip"] != "172.31.0.8" || i.ExternalIDs["iface-id"] != "y" || i.ExternalIDs["z"] != "1" {
		t.Errorf("interface %+v", i)
	}

	// A device that does not exist is an error of that interface alone.
	err = c.EnsurePorts(ctx, "br0", []vswitch.Port{{Name: "absent"}, {Name: "v1", Type: "gre", Options: map[string]string{"remote_ip": "172.31.0.9"}}})
	var one *vswitch.InterfaceError
	if !errors.As(err, &one) || one.Interface != "absent" {
		t.Errorf("error %v", err)
	}
	if i = find(c, "v1"); i == nil || i.OFPort <= 0 {
		t.Errorf("interface %+v", i)
	}
	if err := c.EnsurePort(ctx, "br9", p); !errors.Is(err, vswitch.ErrNoBridge) {
		t.Errorf("error %v", err)
	}
	must(c.EnsureBridge(ctx, vswitch.Bridge{Name: "br1"}))
	if err := c.EnsurePort(ctx, "br1", p); err == nil {
		t.Error("a port on two bridges")
	}

	if err := c.EnsureBridge(ctx, vswitch.Bridge{Name: "br2", DatapathType: "nonsense"}); err == nil {
		t.Error("a bridge without a datapath")
	}

	must(c.AnnotatePorts(ctx, "br0", []vswitch.Port{{Name: "v1", Tag: 9, OtherConfig: map[string]string{"tag": "9"}}, {Name: "nobody", Tag: 3}}))
	if i = find(c, "v1"); i.Tag != 9 || i.OtherConfig["tag"] != "9" {
		t.Errorf("interface %+v", i)
	}
	must(c.DeletePort(ctx, "br0", "v0"))
	must(c.DeletePort(ctx, "br0", "v0"))
	if find(c, "v0") != nil {
		t.Error("v0 is still there")
	}
	must(c.DeletePort(ctx, "br0", "absent"))

	// What others do is seen.
	if _, err := s.VSCtl(ctx, "add-port", "br0", "theirs", "--", "set", "interface", "theirs", "type=internal", "external_ids:iface-id=p9"); err != nil {
		t.Fatal(err)
	}
	ovstest.Eventually(t, 5*time.Second, func() error {
		if i := find(c, "theirs"); i == nil || i.OFPort <= 0 || i.ExternalIDs["iface-id"] != "p9" {
			return errors.New("not seen")
		}
		return nil
	})
}

// The client outlives the server, and sees what changed meanwhile.
func TestReconnect(t *testing.T) {
	l := ovstest.NewLab(t)
	s := l.Switch(l.Namespace("h"))
	c := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.EnsureBridge(ctx, vswitch.Bridge{Name: "br0"}); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	ovstest.Eventually(t, 5*time.Second, func() error {
		if c.Connected() {
			return errors.New("still connected")
		}
		return nil
	})
	again, err := ovstest.Start(ctx, ovstest.Options{Netns: s.Netns, Dir: s.Dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Stop)
	if _, err := again.VSCtl(ctx, "add-br", "br7", "--", "set", "bridge", "br7", "datapath_type=netdev", "--", "del-br", "br0"); err != nil {
		t.Fatal(err)
	}
	ovstest.Eventually(t, 10*time.Second, func() error {
		if b := c.Bridges(); len(b) != 1 || b[0].Name != "br7" {
			return errors.New("old view")
		}
		return nil
	})
	if err := c.EnsurePort(ctx, "br7", vswitch.Port{Name: "i0", Type: "internal"}); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := c.EnsureBridge(ctx, vswitch.Bridge{Name: "br8"}); err == nil {
		t.Error("works after Close")
	}
}
