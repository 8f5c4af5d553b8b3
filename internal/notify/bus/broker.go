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
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"isospin/internal/config"
)

const rabbit = "oslo_messaging_rabbit"

var (
	useTLS      = config.Bool(rabbit, "ssl", false, "Speak TLS with the broker.", config.Deprecated(rabbit, "rabbit_use_ssl"))
	caFile      = config.String(rabbit, "ssl_ca_file", "", "PEM file of the authorities that the broker's certificate must be signed by. Empty: those of the machine.")
	certFile    = config.String(rabbit, "ssl_cert_file", "", "PEM file of the certificate that the server shows the broker.")
	keyFile     = config.String(rabbit, "ssl_key_file", "", "PEM file of the key of ssl_cert_file.")
	durable     = config.Bool(rabbit, "amqp_durable_queues", false, "Declare exchange and queues durable. It must be as those that listen have it.")
	autoDelete  = config.Bool(rabbit, "amqp_auto_delete", false, "Declare exchange and queues as ones that go with their last user. It must be as those that listen have it.")
	dialTimeout = 10 * time.Second
)

// broker is a connection to the first broker that answers.
type broker struct {
	addresses []string // AMQP URLs; they have passwords
	exchange  string
	tls       *tls.Config // nil: none
	durable   bool
	auto      bool

	connection *amqp.Connection
	channel    *amqp.Channel
	queues     map[string]bool
}

// newBroker reads rabbit://user:password@host:port,user2:password2@host2:port/virtual_host.
func newBroker(c *config.Config, text, exchange string) (*broker, error) {
	wrong := errors.New("transport_url: write rabbit://user:password@host:port/virtual_host")
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "rabbit" && scheme != "kombu+amqp" && scheme != "amqp" {
		return nil, wrong
	}
	rest, _, _ = strings.Cut(rest, "?")
	hosts, virtual, _ := strings.Cut(rest, "/")
	b := &broker{exchange: exchange, durable: durable.Of(c), auto: autoDelete.Of(c)}
	protocol := "amqp"
	if useTLS.Of(c) {
		protocol, b.tls = "amqps", &tls.Config{MinVersion: tls.VersionTLS12}
		if file := caFile.Of(c); file != "" {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("[%s] ssl_ca_file: %w", rabbit, err)
			}
			b.tls.RootCAs = x509.NewCertPool()
			if !b.tls.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("[%s] ssl_ca_file: there is no certificate in %s", rabbit, file)
			}
		}
		if file := certFile.Of(c); file != "" {
			pair, err := tls.LoadX509KeyPair(file, keyFile.Of(c))
			if err != nil {
				return nil, fmt.Errorf("[%s] ssl_cert_file, ssl_key_file: %w", rabbit, err)
			}
			b.tls.Certificates = []tls.Certificate{pair}
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		u, err := url.Parse(protocol + "://" + host)
		if err != nil {
			return nil, wrong // the cause would show the password
		}
		if u.Host == "" {
			u.Host = "localhost"
		}
		if virtual != "" {
			u.Path = "/" + virtual
		}
		b.addresses = append(b.addresses, u.String())
	}
	return b, nil
}

func (b *broker) close() {
	if b.connection != nil {
		// What was published has been confirmed.
		_ = b.connection.Close()
	}
	b.connection, b.channel, b.queues = nil, nil, nil
}

func (b *broker) connect() error {
	if b.channel != nil && !b.channel.IsClosed() {
		return nil
	}
	b.close()
	var failures []error
	for i, at := range b.addresses {
		connection, err := amqp.DialConfig(at, amqp.Config{
			TLSClientConfig: b.tls, Heartbeat: 10 * time.Second, Locale: "en_US", Properties: amqp.Table{"connection_name": "isospin"},
			Dial: func(network, address string) (net.Conn, error) {
				conn, err := net.DialTimeout(network, address, dialTimeout)
				if err != nil {
					return nil, err
				}
				// For the handshake; the library lifts it then.
				return conn, conn.SetDeadline(time.Now().Add(dialTimeout))
			},
		})
		if err != nil {
			failures = append(failures, fmt.Errorf("broker %d: %w", i+1, err))
			continue
		}
		b.connection, b.queues = connection, map[string]bool{}
		if b.channel, err = connection.Channel(); err == nil {
			if err = b.channel.Confirm(false); err == nil {
				err = b.channel.ExchangeDeclare(b.exchange, "topic", b.durable, b.auto, false, false, nil)
			}
		}
		if err == nil {
			return nil
		}
		b.close()
		failures = append(failures, fmt.Errorf("broker %d: %w", i+1, err))
	}
	return errors.Join(failures...)
}

// publish sends messages to a queue, and waits until the broker has them.
func (b *broker) publish(ctx context.Context, queue string, bodies [][]byte) error {
	if err := b.connect(); err != nil {
		return err
	}
	if err := b.send(ctx, queue, bodies); err != nil {
		b.close()
		return err
	}
	return nil
}

func (b *broker) send(ctx context.Context, queue string, bodies [][]byte) error {
	if !b.queues[queue] {
		if _, err := b.channel.QueueDeclare(queue, b.durable, b.auto, false, false, nil); err != nil {
			return fmt.Errorf("queue %s: %w", queue, err)
		}
		if err := b.channel.QueueBind(queue, queue, b.exchange, false, nil); err != nil {
			return fmt.Errorf("queue %s: %w", queue, err)
		}
		b.queues[queue] = true
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, body := range bodies {
		confirmation, err := b.channel.PublishWithDeferredConfirmWithContext(ctx, b.exchange, queue, false, false, amqp.Publishing{
			ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Body: body,
		})
		if err != nil {
			return err
		}
		ok, err := confirmation.WaitContext(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("the broker does not take a message")
		}
	}
	return nil
}
