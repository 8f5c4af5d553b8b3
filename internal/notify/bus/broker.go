package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"isospin/internal/config"
)

const rabbit = "oslo_messaging_rabbit"

var (
	useTLS   = config.Bool(rabbit, "ssl", false, "Speak TLS with the broker.", config.Deprecated(rabbit, "rabbit_use_ssl"))
	caFile   = config.String(rabbit, "ssl_ca_file", "", "PEM file of the authorities that the broker's certificate must be signed by. Empty: those of the machine.")
	certFile = config.String(rabbit, "ssl_cert_file", "", "PEM file of the certificate that the server shows the broker.")
	keyFile  = config.String(rabbit, "ssl_key_file", "", "PEM file of the key of ssl_cert_file.")
	hostName = config.Bool(rabbit, "ssl_enforce_hostname_verification", true,
		"The broker's certificate must be of the host that transport_url names. Its authority is checked in any case.")
	durable    = config.Bool(rabbit, "amqp_durable_queues", false, "Declare exchange and queues durable. It must be as those that listen have it.")
	autoDelete = config.Bool(rabbit, "amqp_auto_delete", false, "Declare exchange and queues as ones that go with their last user. It must be as those that listen have it.")
	quorum     = config.Bool(rabbit, "rabbit_quorum_queue", false, "Declare queues as quorum queues, which are durable. It must be as those that listen have it.")
	delivery   = config.Int(rabbit, "rabbit_quorum_delivery_limit", 0, "How often a quorum queue delivers a message; 0: as the broker has it.", config.Min(0))
	// The names are those of oslo.messaging.
	memoryLength = config.Int(rabbit, "rabbit_quroum_max_memory_length", 0, "Messages of a quorum queue that are kept in memory; 0: as the broker has it.", config.Min(0))
	memoryBytes  = config.Int(rabbit, "rabbit_quroum_max_memory_bytes", 0, "Bytes of a quorum queue's messages that are kept in memory; 0: as the broker has it.", config.Min(0))
	mirrored     = config.Bool(rabbit, "rabbit_ha_queues", false, "Declare queues with x-ha-policy all, which brokers before RabbitMQ 3 heed. It must be as those that listen have it.")
)

const (
	// patience with a broker that takes a connection and then says nothing.
	dialPatience    = 10 * time.Second
	publishPatience = 30 * time.Second
	closePatience   = 2 * time.Second
	// inFlight is how many messages are sent before their confirmations are awaited.
	inFlight = 128
)

// address of a broker.
type address struct{ host, user, password string }

// broker is a connection to the first broker that answers.
type broker struct {
	addresses []address
	virtual   string
	exchange  string
	tls       *tls.Config // nil: none
	names     bool        // certificates must be of the host
	durable   bool
	auto      bool
	arguments amqp.Table // of queues

	connection *amqp.Connection
	socket     net.Conn
	channel    *amqp.Channel
	returned   chan amqp.Return
	queues     map[string]bool
}

// newBroker reads rabbit://user:password@host:port,user2:password2@host2:port/virtual_host;
// what follows a ? takes precedence over options of those names.
func newBroker(c *config.Config, text, exchange string) (*broker, error) {
	// The cause of an error may show the password.
	wrong := errors.New("transport_url: write rabbit://user:password@host:port/virtual_host")
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "rabbit" && scheme != "kombu+amqp" && scheme != "amqp" {
		return nil, wrong
	}
	rest, extra, _ := strings.Cut(rest, "?")
	query, err := url.ParseQuery(extra)
	if err != nil {
		return nil, wrong
	}
	hosts, virtual, _ := strings.Cut(rest, "/")
	b := &broker{exchange: exchange, virtual: "/", arguments: amqp.Table{}}
	if virtual != "" {
		if b.virtual, err = url.PathUnescape(virtual); err != nil {
			return nil, wrong
		}
	}
	is := func(o *config.Option[bool], name string) bool {
		value := o.Of(c)
		if query.Has(name) {
			v, bad := strconv.ParseBool(strings.ToLower(query.Get(name)))
			if bad != nil {
				err = fmt.Errorf("transport_url: %s is true or false", name)
			}
			value = v
		}
		return value
	}
	number := func(o *config.Option[int], name, argument string) {
		value := o.Of(c)
		if query.Has(name) {
			v, bad := strconv.Atoi(query.Get(name))
			if bad != nil || v < 0 {
				err = fmt.Errorf("transport_url: %s is a number", name)
			}
			value = v
		}
		if value > 0 {
			b.arguments[argument] = int64(value)
		}
	}
	path := func(o *config.Option[string], name string) string {
		if query.Has(name) {
			return query.Get(name)
		}
		return o.Of(c)
	}
	b.durable, b.auto = is(durable, "amqp_durable_queues"), is(autoDelete, "amqp_auto_delete")
	ha := is(mirrored, "rabbit_ha_queues")
	if is(quorum, "rabbit_quorum_queue") {
		if ha {
			return nil, fmt.Errorf("[%s] rabbit_quorum_queue, rabbit_ha_queues: a queue is one or the other", rabbit)
		}
		b.durable = true
		b.arguments["x-queue-type"] = "quorum"
		number(delivery, "rabbit_quorum_delivery_limit", "x-delivery-limit")
		number(memoryLength, "rabbit_quroum_max_memory_length", "x-max-in-memory-length")
		number(memoryBytes, "rabbit_quroum_max_memory_bytes", "x-max-in-memory-bytes")
	} else if ha {
		b.arguments["x-ha-policy"] = "all"
	}
	port := "5672"
	if is(useTLS, "ssl") {
		port = "5671"
		b.tls, b.names = &tls.Config{MinVersion: tls.VersionTLS12}, is(hostName, "ssl_enforce_hostname_verification")
		if file := path(caFile, "ssl_ca_file"); file != "" {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("[%s] ssl_ca_file: %w", rabbit, err)
			}
			b.tls.RootCAs = x509.NewCertPool()
			if !b.tls.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("[%s] ssl_ca_file: there is no certificate in %s", rabbit, file)
			}
		}
		if file := path(certFile, "ssl_cert_file"); file != "" {
			pair, err := tls.LoadX509KeyPair(file, path(keyFile, "ssl_key_file"))
			if err != nil {
				return nil, fmt.Errorf("[%s] ssl_cert_file, ssl_key_file: %w", rabbit, err)
			}
			b.tls.Certificates = []tls.Certificate{pair}
		}
	}
	if err != nil {
		return nil, err
	}
	for text := range strings.SplitSeq(hosts, ",") {
		if text == "" && hosts != "" {
			continue
		}
		a, ok := parseAddress(text, port)
		if !ok {
			return nil, wrong
		}
		b.addresses = append(b.addresses, a)
	}
	return b, nil
}

// parseAddress reads user:password@host:port, of which each part may be missing.
// User and password may be percent-encoded.
func parseAddress(text, port string) (a address, ok bool) {
	a = address{user: "guest", password: "guest"}
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		user, password, _ := strings.Cut(text[:at], ":")
		var err, err2 error
		a.user, err = url.PathUnescape(user)
		a.password, err2 = url.PathUnescape(password)
		if err != nil || err2 != nil {
			return a, false
		}
		text = text[at+1:]
	}
	host, named, err := net.SplitHostPort(text)
	if err != nil { // without a port
		host, named = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), ""
		if strings.Contains(host, ":") != strings.HasPrefix(text, "[") {
			return a, false
		}
	}
	if named == "" {
		named = port
	}
	if host == "" {
		host = "localhost"
	}
	if _, err := strconv.ParseUint(named, 10, 16); err != nil {
		return a, false
	}
	a.host = net.JoinHostPort(host, named)
	return a, true
}

// close lets go of the broker, which is not waited for for long.
func (b *broker) close() {
	if b.connection != nil {
		// What was published has been confirmed.
		_ = b.connection.CloseDeadline(time.Now().Add(closePatience))
	}
	b.connection, b.socket, b.channel, b.returned, b.queues = nil, nil, nil, nil, nil
}

func (b *broker) connect(ctx context.Context) error {
	if b.channel != nil && !b.channel.IsClosed() {
		return nil
	}
	b.close()
	var failures []error
	for _, a := range b.addresses {
		err := b.open(ctx, a)
		if err == nil {
			return nil
		}
		b.close()
		failures = append(failures, fmt.Errorf("%s: %w", a.host, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failures...)
}

// open connects to one broker.
func (b *broker) open(ctx context.Context, a address) error {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", a.host)
	if err != nil {
		return err
	}
	// Neither the handshakes nor the declaration know of a context.
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	conn := socket
	if b.tls != nil {
		secured := tls.Client(socket, b.verifying(a))
		if err := secured.HandshakeContext(ctx); err != nil {
			socket.Close()
			return err
		}
		conn = secured
	}
	b.connection, err = amqp.Open(conn, amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: a.user, Password: a.password}}, Vhost: b.virtual,
		Heartbeat: 10 * time.Second, Locale: "en_US", Properties: amqp.Table{"connection_name": "isospin"},
	})
	if err != nil {
		b.connection = nil
		socket.Close()
		return silent(ctx, err)
	}
	b.socket, b.queues, b.returned = socket, map[string]bool{}, make(chan amqp.Return, inFlight)
	if b.channel, err = b.connection.Channel(); err != nil {
		return silent(ctx, err)
	}
	if err := b.channel.Confirm(false); err != nil {
		return silent(ctx, err)
	}
	b.channel.NotifyReturn(b.returned)
	if err := b.channel.ExchangeDeclare(b.exchange, "topic", b.durable, b.auto, false, false, nil); err != nil {
		return silent(ctx, fmt.Errorf("exchange %s: %w", b.exchange, declared(err)))
	}
	return nil
}

// verifying is the TLS configuration for one broker.
func (b *broker) verifying(a address) *tls.Config {
	c := b.tls.Clone()
	c.ServerName, _, _ = net.SplitHostPort(a.host)
	if !b.names {
		c.InsecureSkipVerify = true // but for what follows
		c.VerifyConnection = func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: c.RootCAs, Intermediates: x509.NewCertPool()}
			for _, more := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(more)
			}
			_, err := s.PeerCertificates[0].Verify(o)
			return err
		}
	}
	return c
}

// silent says so when an error is that the broker did not answer in time.
func silent(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the broker does not answer in time: %w", err)
	}
	return err
}

// declared adds what to do when an exchange or queue is there in another form.
func declared(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.PreconditionFailed {
		return fmt.Errorf("it is there in another form; [%s] amqp_durable_queues, amqp_auto_delete and rabbit_quorum_queue must be as those that listen have them: %w", rabbit, err)
	}
	return err
}

// publish sends messages to a queue, in order, and waits until the broker has them.
func (b *broker) publish(ctx context.Context, queue string, bodies [][]byte) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishPatience)
	defer cancel()
	socket := b.socket
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	for len(bodies) > 0 {
		n := min(len(bodies), inFlight)
		if err := b.send(ctx, queue, bodies[:n]); err != nil {
			b.close()
			return silent(ctx, err)
		}
		bodies = bodies[n:]
	}
	return nil
}

// send sends up to inFlight messages. A queue that has gone meanwhile is made
// again, for messages that no queue took.
func (b *broker) send(ctx context.Context, queue string, bodies [][]byte) error {
	for range 3 {
		if !b.queues[queue] {
			if _, err := b.channel.QueueDeclare(queue, b.durable, b.auto, false, false, b.arguments); err != nil {
				return fmt.Errorf("queue %s: %w", queue, declared(err))
			}
			if err := b.channel.QueueBind(queue, queue, b.exchange, false, nil); err != nil {
				return fmt.Errorf("queue %s: %w", queue, err)
			}
			b.queues[queue] = true
		}
		confirmations := make([]*amqp.DeferredConfirmation, len(bodies))
		for i, body := range bodies {
			var err error
			confirmations[i], err = b.channel.PublishWithDeferredConfirmWithContext(ctx, b.exchange, queue, true, false, amqp.Publishing{
				ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Body: body,
			})
			if err != nil {
				return err
			}
		}
		for _, c := range confirmations {
			ok, err := c.WaitContext(ctx)
			if err != nil {
				return err
			}
			switch {
			case !ok && b.channel.IsClosed():
				return errors.New("the connection ended before the broker had confirmed a message")
			case !ok:
				return errors.New("the broker does not take a message")
			}
		}
		// A message is returned before it is confirmed.
		var back [][]byte
		for len(b.returned) > 0 {
			back = append(back, (<-b.returned).Body)
		}
		if len(back) == 0 {
			return nil
		}
		b.queues[queue], bodies = false, back
	}
	return fmt.Errorf("queue %s: it takes no messages", queue)
}
