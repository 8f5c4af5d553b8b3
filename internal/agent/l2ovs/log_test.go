package l2ovs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/internal/ovs/openflow"
	"isospin/internal/ovs/ovstest"
)

func packetLog(id, project, event string, ports ...string) *feed.Log {
	return &feed.Log{Id: id, ProjectId: project, ResourceType: "security_group", Event: event, Enabled: true, PortIds: ports}
}

// What is recorded of a port's packets: by project, and of filtered ports only.
func TestLogged(t *testing.T) {
	want, f := example()
	p := planned(want, f)
	got := map[string]string{}
	for _, flow := range p.integration.Flows() {
		if r, ok := p.logged[flow.Cookie(flowMark)]; ok {
			got[fmt.Sprintf("%d %s", flow.Table, flow.Match)] = fmt.Sprint(r)
		} else if strings.Contains(flow.Actions, "controller") {
			t.Errorf("nobody knows what %s sends", flow)
		}
	}
	const accept, drop = "{ACCEPT vm [{admin [all]}]}", "{DROP vm [{admin [all]} {tenant [dropped]}]}"
	expected := map[string]string{
		"133 in_port=11,ct_state=+trk+new": accept, "133 in_port=11,reg7=0x80000000/0x80000000": accept,
		"163 reg5=0xb,ct_state=+trk+new": accept, "163 reg5=0xb,reg8=0x80000000/0x80000000": accept,
		"134 in_port=11": drop, "164 reg5=0xb": drop,
		"134 in_port=12": "{DROP vm2 [{tenant [dropped]}]}", "164 reg5=0xc": "{DROP vm2 [{tenant [dropped]}]}",
	}
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("recorded:\n%v\nwant:\n%v", got, expected)
	}
}

// A switch that does not take the meter, or the flows, has no packet logs and
// nothing else changes.
func TestLogsRefused(t *testing.T) {
	for name, refuse := range map[string]func(*planner) bool{
		"meter": func(p *planner) bool { return p.refuseMeter(logMeter, errors.New("no meters")) },
		"flow": func(p *planner) bool {
			want, _ := example()
			for _, flow := range p.integration.Flows() {
				if strings.Contains(flow.Actions, "controller") {
					return p.refuse(want, openflow.Refusal{Flow: flow, Err: errors.New("no")})
				}
			}
			return false
		},
	} {
		want, f := example()
		p := planned(want, f)
		if !refuse(p) {
			t.Errorf("%s: nothing changes", name)
		}
		p.planLogs(want)
		without, _ := example()
		without.Logs = nil
		if got, expected := text(p.integration), text(planned(without, f).integration); got != expected || len(p.logged) > 0 {
			t.Errorf("%s:\n%s", name, difference(got, expected))
		}
		if refuse(p) {
			t.Errorf("%s: no end of it", name)
		}
	}
}

// Packets that groups accept and drop are recorded, the accepted ones once for
// each connection; so after a restart too, which changes no flow.
func TestPacketLogs(t *testing.T) {
	l := ovstest.NewLab(t)
	file := filepath.Join(t.TempDir(), "packets.log")
	h := newHost(t, l, nil, "h", "", func(o *Options) { o.LogFile, o.LogRate, o.LogBurst = file, 1000, 1000 })
	c := newCloud()
	c.networks["n"] = &feed.Network{Id: "n", AdminStateUp: true, Mtu: 1500, Segment: &feed.Segment{NetworkType: "local"}}
	c.groups["open"] = group("open", append(egressAll(), rule("ingress", "IPv4", 6, 80, 80, ""))...)
	c.port(h, "client", "n", []string{"open"}, "10.0.0.1")
	c.port(h, "server", "n", []string{"open"}, "10.0.0.2")
	c.logs = map[string]*feed.Log{
		"all":      packetLog("all", "p1", "ALL", "server"),
		"accepted": packetLog("accepted", "p1", "ACCEPT", "client"),
		"dropped":  packetLog("dropped", "p2", "DROP", "server", "client"),
	}
	client := l.Guest(h.s, "br-int", "client", "client", macOf(1), "10.0.0.1/24")
	server := l.Guest(h.s, "br-int", "server", "server", macOf(2), "10.0.0.2/24")
	c.push(h)
	h.expect("server", feed.State_STATE_ACTIVE)

	records := func() []string {
		b, _ := os.ReadFile(file)
		var list []string
		for line := range bytes.Lines(b) {
			_, record, _ := strings.Cut(strings.TrimSpace(string(line)), " [-] ")
			list = append(list, record)
		}
		return list
	}
	// count the records that begin with prefix and hold what.
	count := func(prefix, what string) int {
		n := 0
		for _, r := range records() {
			if strings.HasPrefix(r, prefix) && strings.Contains(r, what) {
				n++
			}
		}
		return n
	}
	refused := func(port int) {
		conn, err := client.Dial(fmt.Sprintf("10.0.0.2:%d", port), 200*time.Millisecond)
		if err == nil {
			conn.Close()
			t.Error("a port without a rule answers")
		}
	}
	// The first ones may be lost, until the switch knows of us.
	ovstest.Eventually(t, 20*time.Second, func() error {
		refused(81)
		if len(records()) == 0 {
			return errors.New("no record")
		}
		return nil
	})
	const (
		drop1 = "action=DROP project_id=p1 log_resource_ids=['all'] vm_port=server pkt=ethernet(dst='fa:16:3e:00:00:02',ethertype=2048,src='fa:16:3e:00:00:01'), ipv4("
		drop2 = "action=DROP project_id=p2 log_resource_ids=['dropped'] vm_port=server pkt="
		in    = "action=ACCEPT project_id=p1 log_resource_ids=['all'] vm_port=server pkt="
		out   = "action=ACCEPT project_id=p1 log_resource_ids=['accepted'] vm_port=client pkt="
	)
	session := func(port int) {
		t.Helper()
		conn, err := client.Dial(fmt.Sprintf("10.0.0.2:%d", port), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 5 {
			if err := ovstest.Echo(conn, 5*time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	server.Listen(t, "10.0.0.2:80")
	round := func() {
		t.Helper()
		for i, r := range []string{drop1, drop2, in, out} {
			before, port := count(r, "dst_port=8"), 82
			if i >= 2 {
				port = 80
			}
			ovstest.Eventually(t, 20*time.Second, func() error {
				if port == 80 {
					session(port)
				} else {
					refused(port)
				}
				if count(r, fmt.Sprintf("dst_port=%d,", port)) == before {
					return fmt.Errorf("no record %s… in\n%s", r, strings.Join(records(), "\n"))
				}
				return nil
			})
		}
	}
	session(80)
	ovstest.Eventually(t, 20*time.Second, func() error {
		if in, out := count(in, "dst_port=80,"), count(out, "dst_port=80,"); in != 1 || out != 1 {
			return fmt.Errorf("%d and %d records of one connection:\n%s", in, out, strings.Join(records(), "\n"))
		}
		return nil
	})
	if n := count("action=DROP", "dst_port=80,"); n > 0 {
		t.Errorf("%d records of dropped packets of an open port", n)
	}
	// Not its own address.
	spoofed := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 80}
	l.Exec(client.Netns, "ip", "address", "add", "10.0.0.99/32", "dev", "eth0")
	ovstest.Eventually(t, 20*time.Second, func() error {
		_ = ovstest.In(client.Netns, func() error {
			conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 0, 99)}, spoofed)
			if err == nil {
				_, err = conn.Write([]byte("x"))
				conn.Close()
			}
			return err
		})
		if count("action=DROP project_id=p2 log_resource_ids=['dropped'] vm_port=client pkt=", "src='10.0.0.99'") == 0 {
			return errors.New("no record of a packet from another's address")
		}
		return nil
	})

	// A crash and a start change no flow, and records go on. The limit is another one now, which only the meter knows.
	before, stopped := h.flowsOf("br-int"), time.Now()
	h.stop()
	h.o.LogRate, h.o.LogBurst = 100, 25
	h.start()
	h.all()
	if after := h.flowsOf("br-int"); after != before {
		t.Errorf("flows after a restart:\n%s", difference(after, before))
	}
	h.untouched("br-int", stopped)
	round()

	// Many packets make few records.
	const many = 3000
	begin := time.Now()
	if err := ovstest.In(client.Netns, func() error {
		conn, err := net.Dial("udp4", "10.0.0.2:99")
		if err != nil {
			return err
		}
		defer conn.Close()
		for range many {
			if _, err := conn.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	round()
	if n, most := count(drop1, "dst_port=99,"), int(100*time.Since(begin).Seconds())+25; n == 0 || n > most || most >= many {
		t.Errorf("%d records of %d packets in %v, want at most %d", n, many, time.Since(begin), most)
	}

	// Without logs nothing is sent here any more.
	c.logs = nil
	c.push(h)
	if flows := h.flowText("br-int", ""); strings.Contains(flows, "controller") {
		t.Errorf("flows of logs that are gone:\n%s", flows)
	}
	meters, err := h.s.OFCtl(context.Background(), "-O", "OpenFlow14", "dump-meters", "br-int")
	if err != nil || strings.Contains(meters, "pktps") {
		t.Errorf("meters of logs that are gone: %s, %v", meters, err)
	}
}
