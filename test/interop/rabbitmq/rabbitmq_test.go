package rabbitmq

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"isospin/internal/store"
	"isospin/test/servertest"
)

type object = map[string]any

// patience with what other processes do on a busy machine.
const patience = 30 * time.Second

// heard is a notification as oslo.messaging hands it over.
type heard struct {
	Type, Publisher, Priority string
	Context                   object
	Payload                   object
	Metadata                  object
}

// listener is a process that listens.
type listener struct {
	mu    sync.Mutex
	heard []heard
	came  chan struct{}
	done  chan struct{}
	err   *bytes.Buffer
}

// listen starts one with the options that the server has; it ends with the test.
func listen(t *testing.T, options, topic string) *listener {
	t.Helper()
	file := filepath.Join(t.TempDir(), "listener.conf")
	if err := os.WriteFile(file, []byte("[DEFAULT]\nexecutor_thread_pool_size = 1\nlisten_topic = "+topic+"\n"+options), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "listener.py", file)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PYTHONWARNINGS=ignore", "HOME=" + t.TempDir()}
	l := &listener{came: make(chan struct{}, 1), done: make(chan struct{}), err: &bytes.Buffer{}}
	cmd.Stderr = l.err
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.done)
		for lines := json.NewDecoder(bufio.NewReader(out)); ; {
			var h heard
			if lines.Decode(&h) != nil {
				return
			}
			l.mu.Lock()
			l.heard = append(l.heard, h)
			l.mu.Unlock()
			select {
			case l.came <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		in.Close()
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		<-l.done
		_ = cmd.Wait() // what it said is what counts
		late.Stop()
		if t.Failed() {
			t.Logf("the listener: %s", l.err)
		}
	})
	l.wait(t, "the listener listens", func(all []heard) bool { return len(all) > 0 })
	return l
}

// wait waits until what was heard satisfies.
func (l *listener) wait(t *testing.T, what string, enough func([]heard) bool) []heard {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		all := slices.Clone(l.heard)
		l.mu.Unlock()
		if enough(all) {
			return all
		}
		select {
		case <-l.came:
		case <-deadline:
			t.Fatalf("it did not come to pass: %s; heard %v", what, types(all))
		}
	}
}

func types(all []heard) (names []string) {
	for _, h := range all {
		names = append(names, h.Type)
	}
	return names
}

func ofType(all []heard, name string) *heard {
	i := slices.IndexFunc(all, func(h heard) bool { return h.Type == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}

func has(name string) func([]heard) bool {
	return func(all []heard) bool { return ofType(all, name) != nil }
}

// log is what the server says.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs a server with options beside those that make it send.
func start(t *testing.T, options string) (*servertest.Server, *log) {
	t.Helper()
	said := &log{}
	s := servertest.StartLogged(t, t.TempDir(), servertest.Networks+"[DEFAULT]\nhost = controller1\n[oslo_messaging_notifications]\ndriver = messagingv2\n"+options,
		slog.New(slog.NewTextHandler(said, nil)))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server: %s", said)
		}
		if strings.Contains(said.String(), password) || strings.Contains(said.String(), encoded) {
			t.Error("the password is in the log")
		}
	})
	// The first time, what happened before the consumer began is not told.
	servertest.Eventually(t, "notifications begin", func() bool {
		cursor := int64(-1)
		if err := s.Store.View(t.Context(), func(tx *store.Tx) error {
			err := tx.Row("SELECT last_sequence FROM notification_cursor", nil, &cursor)
			if errors.Is(err, store.ErrNoRow) {
				return nil
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return cursor >= 0
	})
	return s, said
}

func (b *broker) url(more string) string {
	return fmt.Sprintf("rabbit://%s:%s@127.0.0.1:%d/a%%2Fcloud%s", name, encoded, b.plain, more)
}

// channel is one of the test itself.
func (b *broker) channel(t *testing.T) *amqp.Channel {
	t.Helper()
	connection, err := amqp.DialConfig(fmt.Sprintf("amqp://127.0.0.1:%d/", b.plain), amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{Username: name, Password: password}}, Vhost: "a/cloud"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.CloseDeadline(time.Now().Add(time.Second)) })
	c, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// take waits for a message in a queue.
func take(t *testing.T, c *amqp.Channel, queue string) amqp.Delivery {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		d, ok, err := c.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("no message came to %s", queue)
		}
	}
}

func TestRabbitMQ(t *testing.T) {
	b := startBroker(t)
	t.Run("what listeners get", func(t *testing.T) { whatListenersGet(t, b) })
	t.Run("TLS", func(t *testing.T) { overTLS(t, b) })
	t.Run("a queue that is gone", func(t *testing.T) { queueGone(t, b) })
	t.Run("refused", func(t *testing.T) { refused(t, b) })
	t.Run("away", func(t *testing.T) { away(t, b) })
}

// The first of two brokers is not there; two topics; queues of a quorum.
func whatListenersGet(t *testing.T, b *broker) {
	options := fmt.Sprintf("[DEFAULT]\ntransport_url = rabbit://%[1]s:%[2]s@127.0.0.1:%[3]d,%[1]s:%[2]s@127.0.0.1:%[4]d/a%%2Fcloud\ncontrol_exchange = openstack\n"+
		"[oslo_messaging_notifications]\ntopics = notifications,billing\n[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\nrabbit_quorum_delivery_limit = 7\n", name, encoded, freePorts(t, 1)[0], b.plain)
	s, _ := start(t, options)
	network := s.Must(t, 201, "POST", "/networks", `{"network": {"name": "n"}}`)
	// Nobody listened: the server made the queue.
	l := listen(t, options, "notifications")
	id := network["id"].(string)
	subnet := s.Must(t, 201, "POST", "/subnets", `{"subnet": {"network_id": "`+id+`", "ip_version": 4, "cidr": "10.0.0.0/24"}}`)["id"].(string)
	port := s.Must(t, 201, "POST", "/ports", `{"port": {"network_id": "`+id+`"}}`)["id"].(string)
	// A token in a request is in no notification.
	a, err := s.Do("PUT", "/ports/"+port, `{"port": {"name": "changed"}}`, "X-Auth-Token: gAAAA-not-to-be-told")
	if err != nil || a.Status != 200 {
		t.Fatal(a, err)
	}
	var updated object
	if err := a.Decode(&updated); err != nil {
		t.Fatal(err)
	}
	router := s.Must(t, 201, "POST", "/routers", `{"router": {}}`)["id"].(string)
	added := s.Must(t, 200, "PUT", "/routers/"+router+"/add_router_interface", `{"subnet_id": "`+subnet+`"}`)
	s.Must(t, 200, "PUT", "/routers/"+router+"/remove_router_interface", `{"subnet_id": "`+subnet+`"}`)
	bulk := s.Must(t, 201, "POST", "/networks", `{"networks": [{"name": "b1"}, {"name": "b2"}]}`)["networks"].([]any)
	if a, err := s.Do("POST", "/networks", `{"network": {"name": 7, "no": 1}}`); err != nil || a.Status != 400 {
		t.Fatal(a, err)
	}
	s.Must(t, 204, "DELETE", "/ports/"+port, "")
	s.Must(t, 204, "DELETE", "/networks/"+id, "")
	all := l.wait(t, "the network's end is told", has("network.delete.end"))

	for _, h := range all[1:] {
		if h.Publisher != "network.controller1" || h.Priority != "info" || h.Metadata["message_id"] == nil || h.Metadata["timestamp"] == nil {
			t.Errorf("%s has publisher %s, priority %s, metadata %v", h.Type, h.Publisher, h.Priority, h.Metadata)
		}
		if id, ok := h.Context["request_id"].(string); !ok || !strings.HasPrefix(id, "req-") {
			t.Errorf("the context of %s is %v", h.Type, h.Context)
		}
	}
	same := func(name string, have any, want any) {
		t.Helper()
		x, _ := json.Marshal(have)
		y, _ := json.Marshal(want)
		if !bytes.Equal(x, y) {
			t.Errorf("payload of %s is\n%s, want\n%s", name, x, y)
		}
	}
	same("network.create.end", ofType(all, "network.create.end").Payload, object{"network": network})
	same("port.update.end", ofType(all, "port.update.end").Payload, updated)
	if start := ofType(all, "port.update.start").Payload; start["id"] != port || start["port"].(object)["name"] != "changed" {
		t.Errorf("payload of port.update.start is %v", start)
	}
	for _, kind := range []string{"start", "end"} {
		same("port.delete."+kind, ofType(all, "port.delete."+kind).Payload, object{"port_id": port})
		same("network.delete."+kind, ofType(all, "network.delete."+kind).Payload, object{"network_id": id})
	}
	delete(added, "project_id") // which only answers have
	for _, what := range []string{"router.interface.create", "router.interface.delete"} {
		same(what, ofType(all, what).Payload["router_interface"], added)
	}
	for _, n := range bulk {
		if !slices.ContainsFunc(all, func(h heard) bool {
			o, _ := h.Payload["network"].(object)
			return h.Type == "network.create.end" && o["name"] == n.(object)["name"]
		}) {
			t.Errorf("%v of a bulk request is not told of", n)
		}
	}
	if c := ofType(all, "port.update.end").Context; c["project_id"] != network["project_id"] || c["tenant"] != network["project_id"] {
		t.Errorf("the context of a request is %v", c)
	}

	// The other topic has all of them too, in the envelope of version 2.0.
	c := b.channel(t)
	seen := map[string]bool{}
	// In the order of the changes; what else a request changed is between them.
	want := strings.Fields(`network.create.start network.create.end subnet.create.start subnet.create.end port.create.start port.create.end
		port.update.start port.update.end router.create.start router.create.end router.interface.create router.interface.delete
		network.create.start network.create.end network.create.start network.create.end port.delete.start port.delete.end network.delete.start network.delete.end`)
	for {
		d := take(t, c, "billing.info")
		if d.Exchange != "openstack" || d.RoutingKey != "billing.info" || d.ContentType != "application/json" || d.ContentEncoding != "utf-8" || d.DeliveryMode != amqp.Persistent {
			t.Errorf("a message came as %+v", d)
		}
		if bytes.Contains(d.Body, []byte("gAAAA")) || bytes.Contains(d.Body, []byte("auth_token")) {
			t.Errorf("a token is in %s", d.Body)
		}
		var envelope map[string]string
		if err := json.Unmarshal(d.Body, &envelope); err != nil || envelope["oslo.version"] != "2.0" || len(envelope) != 2 {
			t.Fatalf("an envelope is %s: %v", d.Body, err)
		}
		var inner object
		if err := json.Unmarshal([]byte(envelope["oslo.message"]), &inner); err != nil {
			t.Fatal(err)
		}
		unique, _ := inner["_unique_id"].(string)
		if len(unique) != 32 || seen[unique] {
			t.Errorf("the unique id is %q", unique)
		}
		seen[unique] = true
		if strings.HasPrefix(inner["event_type"].(string), "port.") && inner["payload"].(object)["port_id"] == nil && inner["payload"].(object)["port"].(object)["device_owner"] == "network:router_interface" {
			t.Errorf("a router's interface is told of as %v", inner)
		}
		if len(want) > 0 && inner["event_type"] == want[0] {
			want = want[1:]
		}
		if inner["priority"] != "INFO" {
			t.Errorf("a message is %v", inner)
		}
		if inner["event_type"] == "network.delete.end" {
			if n := len(all) - 1; len(seen) != n {
				t.Errorf("one topic had %d notifications, the other %d", n, len(seen))
			}
			if len(want) > 0 {
				t.Errorf("after others, there is no %s", want[0])
			}
			break
		}
	}
}

// With certificates of both sides, whose name is not that of the address.
func overTLS(t *testing.T, b *broker) {
	options := fmt.Sprintf("[DEFAULT]\ntransport_url = rabbit://%s:%s@%%s:%d/a%%%%2Fcloud%%s\ncontrol_exchange = secured\n[oslo_messaging_notifications]\ntopics = secured\n"+
		"[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = %[4]s/ca.pem\nssl_cert_file = %[4]s/client.pem\nssl_key_file = %[4]s/client.key\n", name, strings.ReplaceAll(encoded, "%", "%%"), b.tls, b.certificate)
	// A listener of oslo.messaging does not look at the name unless it is told to.
	l := listen(t, fmt.Sprintf(options, "127.0.0.1", ""), "secured")
	s, said := start(t, fmt.Sprintf(options, "127.0.0.1", ""))
	s.Must(t, 201, "POST", "/networks", `{"network": {}}`)
	servertest.Eventually(t, "a certificate of another name is refused", func() bool { return strings.Contains(said.String(), "x509: ") })
	s.Stop()
	s, _ = start(t, fmt.Sprintf(options, "127.0.0.1", "?ssl_enforce_hostname_verification=false"))
	s.Must(t, 201, "POST", "/networks", `{"network": {}}`)
	l.wait(t, "it is told over TLS", has("network.create.end"))
	s.Stop()
	s, _ = start(t, fmt.Sprintf(options, "localhost", ""))
	s.Must(t, 201, "POST", "/subnetpools", `{"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8"]}}`)
	l.wait(t, "it is told over TLS, by name", has("subnetpool.create.end"))
}

// A queue that an operator removes is made again, with what was to go there.
func queueGone(t *testing.T, b *broker) {
	s, _ := start(t, "[DEFAULT]\ntransport_url = "+b.url("?amqp_durable_queues=true")+"\n[oslo_messaging_notifications]\ntopics = fleeting\n")
	c := b.channel(t)
	s.Must(t, 201, "POST", "/networks", `{"network": {"name": "first"}}`)
	servertest.Eventually(t, "the queue is there", func() bool {
		// A question about a queue that is not there costs the channel.
		if _, err := c.QueueDeclarePassive("fleeting.info", true, false, false, false, nil); err != nil {
			c = b.channel(t)
			return false
		}
		return true
	})
	take(t, c, "fleeting.info")
	take(t, c, "fleeting.info")
	if _, err := c.QueueDelete("fleeting.info", false, false, false); err != nil {
		t.Fatal(err)
	}
	s.Must(t, 201, "POST", "/networks", `{"network": {"name": "second"}}`)
	servertest.Eventually(t, "the queue is there again", func() bool {
		if _, err := c.QueueDeclarePassive("fleeting.info", true, false, false, false, nil); err != nil {
			c = b.channel(t)
			return false
		}
		return true
	})
	if d := take(t, c, "fleeting.info"); !bytes.Contains(d.Body, []byte("second")) {
		t.Errorf("the message is %s", d.Body)
	}
}

// The log says why nothing is sent, without the password.
func refused(t *testing.T, b *broker) {
	c := b.channel(t)
	if err := c.ExchangeDeclare("odd", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ options, says string }{
		{"[DEFAULT]\ntransport_url = rabbit://" + name + ":0ther-" + encoded + fmt.Sprintf("@127.0.0.1:%d/a%%2Fcloud\n", b.plain), "username or password not allowed"},
		{"[DEFAULT]\ntransport_url = rabbit://" + name + ":" + encoded + fmt.Sprintf("@127.0.0.1:%d/elsewhere\n", b.plain), "vhost elsewhere not found"},
		{"[DEFAULT]\ntransport_url = " + b.url("") + "\ncontrol_exchange = odd\n", "amqp_durable_queues"},
	} {
		s, said := start(t, want.options)
		begun := time.Now()
		s.Must(t, 201, "POST", "/networks", `{"network": {}}`)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("the API took %v", took)
		}
		servertest.Eventually(t, "the log says "+want.says, func() bool {
			return strings.Contains(said.String(), want.says) && strings.Contains(said.String(), "oslo-notifications")
		})
		if strings.Contains(said.String(), "0ther-") {
			t.Errorf("the password is in the log: %s", said)
		}
		s.Stop()
	}
}

// While the broker is down, or there and mute, the API answers as ever; when it
// is back every change is told of, in order.
func away(t *testing.T, b *broker) {
	options := "[DEFAULT]\ntransport_url = " + b.url("") + "\ncontrol_exchange = kept\n[oslo_messaging_notifications]\ntopics = kept\n[oslo_messaging_rabbit]\namqp_durable_queues = true\n[quotas]\nquota_network = -1\n"
	s, _ := start(t, options)
	l := listen(t, options, "kept")
	var made []string
	var longest time.Duration
	write := func(n int) {
		t.Helper()
		for range n {
			name := fmt.Sprintf("net%03d", len(made))
			begun := time.Now()
			s.Must(t, 201, "POST", "/networks", `{"network": {"name": "`+name+`"}}`)
			longest = max(longest, time.Since(begun))
			made = append(made, name)
		}
	}
	told := func(all []heard) (names []string) {
		for _, h := range all {
			if h.Type == "network.create.end" {
				// At least once: what is told again is not told late.
				if name := h.Payload["network"].(object)["name"].(string); !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
		return names
	}
	arrived := func(what string) {
		t.Helper()
		all := l.wait(t, what, func(all []heard) bool { return len(told(all)) >= len(made) })
		if names := told(all); !slices.Equal(names, made) {
			t.Errorf("%s: told of %v, made were %v", what, names, made)
		}
	}
	write(10)
	arrived("with the broker")
	b.tell(t, "pause")
	write(50)
	b.tell(t, "resume")
	write(10)
	arrived("after the broker was mute")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.tell(t, "kill")
	}()
	write(100)
	<-ended
	write(10)
	b.tell(t, "start")
	write(20)
	b.await(t)
	arrived("after the broker was down")
	t.Logf("%d changes, the slowest answer took %v", len(made), longest)
	if longest > 5*time.Second {
		t.Errorf("the API took %v while the broker was away", longest)
	}
	// A server that ends while the broker is mute does not wait for it.
	b.tell(t, "pause")
	write(1)
	begun := time.Now()
	s.Stop()
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("the server took %v to end while the broker was mute", took)
	}
	b.tell(t, "resume")
}
