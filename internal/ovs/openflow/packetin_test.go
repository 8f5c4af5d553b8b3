package openflow_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"testing"
	"time"

	"isospin/internal/ovs/openflow"
)

// A packet that a flow sends to our controller number arrives, with the
// cookie of the flow; one for another controller does not.
// After a restart of the switch they arrive again.
func TestPacketIns(t *testing.T) {
	s, open, _ := bridge(t)
	b := open()
	const controller = 0x1505
	ours := openflow.Flow{Table: 0, Priority: 2, Match: "ip", Actions: "controller(id=5381)"}
	set := openflow.NewSet()
	set.Put("ours", []openflow.Flow{ours})
	set.Put("others", []openflow.Flow{{Table: 0, Priority: 1, Match: "arp", Actions: "controller(id=7)"}})
	apply(t, b, set)

	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan openflow.PacketIn, 16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.PacketIns(ctx, controller, func(p openflow.PacketIn) {
			select {
			case got <- p:
			default:
			}
		})
	}()
	ethernet := "fa163e000002fa163e000001"
	arp := ethernet + "08060001080006040001fa163e0000010a0000010000000000000a000002"
	ip := ethernet + "0800" + "4500003c000040004011" + "0000" + "0a0000010a000002" + "00350035002800000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
	await := func() openflow.PacketIn {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			// Until the connection is there, packets for it are lost.
			for _, frame := range []string{arp, ip} {
				if _, err := s.OFCtl(ctx, "-O", "OpenFlow14", "packet-out", "br0", "in_port=LOCAL,packet="+frame+",actions=resubmit(,0)"); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case p := <-got:
				return p
			case <-time.After(100 * time.Millisecond):
			case <-deadline:
				t.Fatal("no packet")
			}
		}
	}
	p := await()
	frame, _ := hex.DecodeString(ip)
	if p.Cookie != ours.Cookie(mark) || !bytes.Equal(p.Packet, frame) {
		t.Errorf("packet-in: cookie %#x, packet %x; want %#x, %x", p.Cookie, p.Packet, ours.Cookie(mark), frame)
	}
	s.KillVSwitchd()
	if err := s.StartVSwitchd(ctx); err != nil {
		t.Fatal(err)
	}
	for len(got) > 0 {
		<-got
	}
	b.Forget()
	apply(t, b, set)
	if p := await(); p.Cookie != ours.Cookie(mark) {
		t.Errorf("after the restart: %+v", p)
	}
	cancel()
	<-ended
}
