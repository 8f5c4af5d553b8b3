package packetlog

import (
	"bytes"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func frame(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.ReplaceAll(text, " ", ""), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	macs = "fa163eec3632 fa163e50aab5 "
	ipv4 = "4500003c 8f1e4000 3f06f277 ac180409 0a000004 "
	ipv6 = "60000000 00083a40 fd000000000000000000000000000001 fd000000000000000000000000000002 "
)

func TestDescribe(t *testing.T) {
	const ethernet = "ethernet(dst='fa:16:3e:ec:36:32',ethertype=2048,src='fa:16:3e:50:aa:b5'), "
	const ip = "ipv4(csum=62071,dst='10.0.0.4',flags=2,header_length=5,identification=36638,offset=0,option=None,proto=6,src='172.24.4.9',tos=0,total_length=60,ttl=63,version=4)"
	const ethernet6 = "ethernet(dst='fa:16:3e:ec:36:32',ethertype=34525,src='fa:16:3e:50:aa:b5'), "
	for name, c := range map[string]struct{ frame, want string }{
		"TCP": {macs + "0800" + ipv4 + "bad10050 c3ccb1ea 00000000 a0023908 3af90000 020405b4 0402080a 0bb51aa0 00000000 01030303", ethernet + ip +
			", tcp(ack=0,bits=2,csum=15097,dst_port=80,offset=10,option=[TCPOptionMaximumSegmentSize(kind=2,length=4,max_seg_size=1460), TCPOptionSACKPermitted(kind=4,length=2)" +
			", TCPOptionTimestamps(kind=8,length=10,ts_ecr=0,ts_val=196418208), TCPOptionNoOperation(kind=1,length=1), TCPOptionWindowScale(kind=3,length=3,shift_cnt=3)]" +
			",seq=3284972010,src_port=47825,urgent=0,window_size=14600)"},
		"TCP without options, of a tagged frame": {macs + "81002064 0800" + ipv4 + "00010002 00000003 00000004 50100005 00060007",
			"ethernet(dst='fa:16:3e:ec:36:32',ethertype=33024,src='fa:16:3e:50:aa:b5'), vlan(cfi=0,ethertype=2048,pcp=1,vid=100), " + ip +
				", tcp(ack=4,bits=16,csum=6,dst_port=2,offset=5,option=None,seq=3,src_port=1,urgent=7,window_size=5)"},
		"UDP": {macs + "0800" + "4500003c 00000000 40110000 0a000001 0a000002" + "00350036 00100007 73656372",
			ethernet + "ipv4(csum=0,dst='10.0.0.2',flags=0,header_length=5,identification=0,offset=0,option=None,proto=17,src='10.0.0.1',tos=0,total_length=60,ttl=64,version=4)" +
				", udp(csum=7,dst_port=54,src_port=53,total_length=16)"},
		"a later fragment": {macs + "0800" + "4500003c 00000001 40110000 0a000001 0a000002" + "00350036 00100007",
			ethernet + "ipv4(csum=0,dst='10.0.0.2',flags=0,header_length=5,identification=0,offset=1,option=None,proto=17,src='10.0.0.1',tos=0,total_length=60,ttl=64,version=4)"},
		"ICMP": {macs + "0800" + "46000020 00000000 40010000 0a000001 0a000002 94040000" + "08000102 00030004 2727",
			ethernet + `ipv4(csum=0,dst='10.0.0.2',flags=0,header_length=6,identification=0,offset=0,option=b'\x94\x04\x00\x00',proto=1,src='10.0.0.1',tos=0,total_length=32,ttl=64,version=4)` +
				", icmp(code=0,csum=258,data=echo(data=None,id=3,seq=4),type=8)"},
		"ARP": {macs + "0806" + "0001080006040001 fa163e50aab5 0a000001 000000000000 0a000002",
			"ethernet(dst='fa:16:3e:ec:36:32',ethertype=2054,src='fa:16:3e:50:aa:b5'), " +
				"arp(dst_ip='10.0.0.2',dst_mac='00:00:00:00:00:00',hlen=6,hwtype=1,opcode=1,plen=4,proto=2048,src_ip='10.0.0.1',src_mac='fa:16:3e:50:aa:b5')"},
		"ICMPv6": {macs + "86dd" + ipv6 + "80000001 00020003", ethernet6 +
			"ipv6(dst='fd00::2',ext_hdrs=[],flow_label=0,hop_limit=64,nxt=58,payload_length=8,src='fd00::1',traffic_class=0,version=6), icmpv6(code=0,csum=1,data=echo(data=None,id=2,seq=3),type_=128)"},
		"neighbour discovery": {macs + "86dd" + ipv6 + "87000001 00000000 fd000000000000000000000000000002", ethernet6 +
			"ipv6(dst='fd00::2',ext_hdrs=[],flow_label=0,hop_limit=64,nxt=58,payload_length=8,src='fd00::1',traffic_class=0,version=6), icmpv6(code=0,csum=1,data=nd_neighbor(dst='fd00::2',option=None,res=0),type_=135)"},
		"extension headers": {macs + "86dd" + "6abcdef1 00180040 fd000000000000000000000000000001 fd000000000000000000000000000002" + "2c00000000000000" + "11000001 00000009" + "00010002 00080000", ethernet6 +
			"ipv6(dst='fd00::2',ext_hdrs=[hop_opts(nxt=44,size=0), fragment(id_=9,more=1,nxt=17,offset=0)],flow_label=843505,hop_limit=64,nxt=0,payload_length=24,src='fd00::1',traffic_class=171,version=6)" +
			", udp(csum=0,dst_port=2,src_port=1,total_length=8)"},
		"SCTP":         {macs + "0800" + "4500003c 00000000 40840000 0a000001 0a000002" + "00010002 00000003 00000004", ethernet + "ipv4(csum=0,dst='10.0.0.2',flags=0,header_length=5,identification=0,offset=0,option=None,proto=132,src='10.0.0.1',tos=0,total_length=60,ttl=64,version=4), sctp(csum=4,dst_port=2,src_port=1,vtag=3)"},
		"another":      {macs + "88cc 0102", "ethernet(dst='fa:16:3e:ec:36:32',ethertype=35020,src='fa:16:3e:50:aa:b5')"},
		"no frame":     {"fa16", ""},
		"wrong option": {macs + "0800" + ipv4 + "00010002 00000003 00000004 60100005 00060007 fd0200ff", ethernet + ip + ", tcp(ack=4,bits=16,csum=6,dst_port=2,offset=6,option=[TCPOptionUnknown(kind=253,length=2,value=b''), TCPOptionEndOfOptionList(kind=0,length=1)],seq=3,src_port=1,urgent=7,window_size=5)"},
	} {
		if got := Describe(frame(t, c.frame)); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, c.want)
		}
	}
}

// Nothing that a guest sends breaks the reader, or the line.
func FuzzDescribe(f *testing.F) {
	for _, seed := range []string{"0800" + ipv4 + "bad10050c3ccb1ea00000000a00239083af90000020405b40402080a", "86dd" + ipv6 + "80000001", "8100206486dd", "0806"} {
		b, _ := hex.DecodeString(strings.ReplaceAll(macs+seed, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range Describe(b) {
			if c < ' ' || c > '~' {
				t.Fatalf("%q", Describe(b))
			}
		}
	})
}

// Records go to the file, also after logrotate has moved it; to the logger
// when there is no file, or none that can be written.
func TestWrite(t *testing.T) {
	var told bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&told, nil))
	path := filepath.Join(t.TempDir(), "packets.log")
	now := func() time.Time { return time.Date(2026, 11, 21, 9, 5, 7, 12e6, time.UTC) }
	l := New(Options{Path: path, Logger: logger, Now: now})
	defer l.Close()
	r := Record{Action: "DROP", ProjectID: "p1", Logs: []string{"l1", "l2"}, PortID: "vm", Frame: frame(t, macs+"88cc")}
	lines := func(path string) []string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	l.Write(r)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.Write(r)
	l.Write(r)
	const want = " INFO packet_log [-] action=DROP project_id=p1 log_resource_ids=['l1', 'l2'] vm_port=vm pkt=ethernet(dst='fa:16:3e:ec:36:32',ethertype=35020,src='fa:16:3e:50:aa:b5')"
	if old, present := lines(path+".1"), lines(path); len(old) != 1 || len(present) != 2 ||
		!strings.HasPrefix(old[0], "2026-11-21 09:05:07.012 ") || !strings.HasSuffix(present[1], want) {
		t.Errorf("%q, %q", old, present)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("others may read %v, %v", info, err)
	}
	if told.Len() > 0 {
		t.Errorf("the logger has %s", told.String())
	}

	for name, bad := range map[string]string{"no file": "", "no directory": filepath.Join(path, "below")} {
		told.Reset()
		l := New(Options{Path: bad, Logger: logger})
		l.Write(r)
		l.Write(r)
		text := told.String()
		if strings.Count(text, "msg=packet action=DROP project_id=p1 log_resource_ids=\"[l1 l2]\" vm_port=vm pkt=") != 2 || strings.Count(text, "level=ERROR") != len(bad)/max(1, len(bad)) {
			t.Errorf("%s: the logger has\n%s", name, text)
		}
	}
}
