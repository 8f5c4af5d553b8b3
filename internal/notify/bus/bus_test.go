package bus_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/core/agent"
	"isospin/internal/ext/exttest"
	"isospin/internal/notify"
	"isospin/internal/notify/bus"
	"isospin/internal/notify/cloud/cloudtest"
)

var _ notify.Consumer[bus.Notification] = (*bus.Consumer)(nil)

// broker speaks as much of AMQP 0-9-1 as a publisher with confirmations needs.
// The first connection ends before it is open.
type broker struct {
	net.Listener
	t       *testing.T
	serving sync.WaitGroup

	mu       sync.Mutex
	calls    []string // what was declared and bound
	messages []string // "exchange key body"
	login    string
}

func newBroker(t *testing.T) *broker {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{Listener: l, t: t}
	b.serving.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if n == 0 {
				conn.Close()
				continue
			}
			b.serving.Go(func() {
				defer conn.Close()
				if err := b.serve(conn); err != nil && err != io.EOF {
					t.Errorf("broker: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); b.serving.Wait() })
	return b
}

func short(s string) []byte { return append([]byte{byte(len(s))}, s...) }
func long(s string) []byte  { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }

func (b *broker) serve(conn net.Conn) error {
	r := bufio.NewReader(conn)
	send := func(channel, class, method uint16, parts ...[]byte) error {
		payload := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, class), method)
		payload = append(payload, slices.Concat(parts...)...)
		frame := binary.BigEndian.AppendUint16([]byte{1}, channel)
		frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(payload))), payload...)
		_, err := conn.Write(append(frame, 0xce))
		return err
	}
	var preface [8]byte
	if _, err := io.ReadFull(r, preface[:]); err != nil {
		return err
	}
	if err := send(0, 10, 10, []byte{0, 9}, long(""), long("PLAIN"), long("en_US")); err != nil {
		return err
	}
	var exchange, key, body string
	var left, tag uint64
	for {
		var head [7]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		channel := binary.BigEndian.Uint16(head[1:])
		payload := make([]byte, int(binary.BigEndian.Uint32(head[3:]))+1)
		if _, err := io.ReadFull(r, payload); err != nil {
			return err
		}
		payload = payload[:len(payload)-1]
		text := func() (s string) {
			n := int(payload[0])
			s, payload = string(payload[1:1+n]), payload[1+n:]
			return s
		}
		var err error
		b.mu.Lock()
		switch head[0] {
		case 2:
			left, body = binary.BigEndian.Uint64(payload[4:]), ""
		case 3:
			body += string(payload)
			if left -= uint64(len(payload)); left == 0 {
				tag++
				b.messages = append(b.messages, exchange+" "+key+" "+body)
				err = send(channel, 60, 80, binary.BigEndian.AppendUint64(nil, tag), []byte{0})
			}
		case 1:
			class, method := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])
			payload = payload[4:]
			switch [2]uint16{class, method} {
			case [2]uint16{10, 11}:
				b.login = string(payload[4+binary.BigEndian.Uint32(payload):])
				err = send(0, 10, 30, []byte{0, 10, 0, 0, 0x10, 0, 0, 0})
			case [2]uint16{10, 31}:
			case [2]uint16{10, 40}:
				b.calls = append(b.calls, "open "+text())
				err = send(0, 10, 41, short(""))
			case [2]uint16{20, 10}:
				err = send(channel, 20, 11, long(""))
			case [2]uint16{85, 10}:
				err = send(channel, 85, 11)
			case [2]uint16{40, 10}:
				payload = payload[2:]
				b.calls = append(b.calls, "exchange "+text()+" "+text())
				err = send(channel, 40, 11)
			case [2]uint16{50, 10}:
				payload = payload[2:]
				name := text()
				b.calls = append(b.calls, "queue "+name)
				err = send(channel, 50, 11, short(name), make([]byte, 8))
			case [2]uint16{50, 20}:
				payload = payload[2:]
				b.calls = append(b.calls, "bind "+text()+" "+text()+" "+text())
				err = send(channel, 50, 21)
			case [2]uint16{60, 40}:
				payload = payload[2:]
				exchange, key = text(), text()
			case [2]uint16{20, 40}:
				err = send(channel, 20, 41)
			case [2]uint16{10, 50}:
				err = send(0, 10, 51)
			default:
				err = fmt.Errorf("method %d.%d", class, method)
			}
		}
		b.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// Calls of clients become notifications, twice each; reports of hosts do not.
func TestNotifications(t *testing.T) {
	b := newBroker(t)
	w := cloudtest.NewWorld(t, fmt.Sprintf("[DEFAULT]\ntransport_url = rabbit://neutron:secret@%s/cloud\n[oslo_messaging_notifications]\ndriver = messagingv2\n", b.Addr()))
	if !bus.Configured(w.Config) {
		t.Fatal("notifications are not configured")
	}
	c, err := bus.New(bus.Options{Config: w.Config, Registry: w.Registry, Logger: w.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cloudtest.Run(w, w.Options("one"), c)
	w.Host("host1", exttest.HostOptions{Agents: []string{agent.OpenVSwitch}})
	project := w.As("p1")
	n := project.Create("network", `{"name": "n", "dns_domain": "example.org."}`)
	id := n.ID()
	project.Update("network", id, `{"name": "m"}`)
	p := w.Admin().Create("port", `{"network_id": %q, "binding:host_id": "host1"}`, id).ID()
	at := w.LastSequence()
	w.Report("host1", &message.Applied{Kind: message.Kind_KIND_PORT, Id: p, Revision: 1, State: message.State_STATE_ACTIVE, AgentType: agent.OpenVSwitch})
	if w.LastSequence() == at {
		t.Fatal("the report changed nothing")
	}
	w.Admin().Delete("port", p)
	project.Delete("network", id)
	w.Reached(c.Name(), w.LastSequence())

	b.mu.Lock()
	defer b.mu.Unlock()
	if want := []string{"open cloud", "exchange neutron topic", "queue notifications.info", "bind notifications.info neutron notifications.info"}; !slices.Equal(b.calls, want) {
		t.Errorf("the broker was asked for %q, want %q", b.calls, want)
	}
	if !strings.Contains(b.login, "\x00neutron\x00secret") {
		t.Errorf("the log in was %q", b.login)
	}
	var types []string
	for _, m := range b.messages {
		raw, ok := strings.CutPrefix(m, "neutron notifications.info ")
		var envelope map[string]string
		if err := json.Unmarshal([]byte(raw), &envelope); err != nil || !ok || envelope["oslo.version"] != "2.0" {
			t.Fatalf("a message is %s: %v", m, err)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(envelope["oslo.message"]), &got); err != nil {
			t.Fatal(err)
		}
		name := got["event_type"].(string)
		if strings.HasPrefix(name, "network.") || strings.HasPrefix(name, "port.") {
			types = append(types, name)
		}
		payload, _ := json.Marshal(got["payload"])
		switch name {
		case "network.create.end":
			network := got["payload"].(map[string]any)["network"].(map[string]any)
			for name, want := range n {
				if fmt.Sprint(network[name]) != fmt.Sprint(want) {
					t.Errorf("%s in the payload is %v, in the answer %v", name, network[name], want)
				}
			}
			if got["priority"] != "INFO" || got["_context_project_id"] != "p1" || !strings.HasPrefix(fmt.Sprint(got["publisher_id"]), "network.") || !strings.HasPrefix(fmt.Sprint(got["_context_request_id"]), "req-") {
				t.Errorf("network.create.end is %v", got)
			}
		case "network.delete.start", "network.delete.end":
			if string(payload) != `{"network_id":"`+id+`"}` {
				t.Errorf("payload of %s is %s", name, payload)
			}
		case "network.update.start":
			if !strings.Contains(string(payload), `"id":"`+id+`"`) || !strings.Contains(string(payload), `"name":"m"`) {
				t.Errorf("payload of %s is %s", name, payload)
			}
		}
	}
	want := []string{"network.create.start", "network.create.end", "network.update.start", "network.update.end", "port.create.start", "port.create.end", "port.delete.start", "port.delete.end", "network.delete.start", "network.delete.end"}
	if !slices.Equal(types, want) {
		t.Errorf("notifications are %q, want %q", types, want)
	}
}
