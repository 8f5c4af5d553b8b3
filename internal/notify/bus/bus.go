// Package bus sends oslo.messaging notifications of committed changes
// (network.create.end and the like) to a message broker, for telemetry and
// billing that listen there.
//
// Of each change that a client's request made there are two, start and end, at
// once: a request that fails makes none.
//
// It must not know resources, nor how notifications are kept or repeated.
package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"isospin/internal/config"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

const group = "oslo_messaging_notifications"

var (
	drivers = config.Multi(group, "driver", nil,
		"How notifications of changes are sent: messagingv2 or messaging (to transport_url), log, or noop. May be repeated. Without one, none are sent.",
		config.Choices("", "messaging", "messagingv2", "log", "noop", "test"))
	notificationURL = config.String(group, "transport_url", "",
		"Broker of notifications, rabbit://user:password@host:port/virtual_host. Empty is [DEFAULT] transport_url.", config.Secret())
	topics = config.Strings(group, "topics", []string{"notifications"},
		"Topics of notifications; queues are named TOPIC.info.")
	retry = config.Int(group, "retry", -1,
		"How often a notification that cannot be sent is tried again; -1 is until it can.", config.Min(-1))
	transportURL = config.String("DEFAULT", "transport_url", "rabbit://",
		"Message broker. Only notifications use it, and only with [oslo_messaging_notifications] driver.", config.Secret())
	exchange = config.String("DEFAULT", "control_exchange", "neutron",
		"Exchange that notifications are published on.")
)

// Configured tells whether anything is to be sent.
func Configured(c *config.Config) bool {
	return slices.ContainsFunc(drivers.Of(c), func(d string) bool { return d == "messaging" || d == "messagingv2" || d == "log" })
}

// Notification is one of oslo.messaging.
type Notification struct {
	MessageID   string          `json:"message_id"`
	PublisherID string          `json:"publisher_id"`
	EventType   string          `json:"event_type"`
	Priority    string          `json:"priority"`
	Payload     json.RawMessage `json:"payload"`
	Timestamp   string          `json:"timestamp"`
	UniqueID    string          `json:"_unique_id"`
	RequestID   string          `json:"_context_request_id"`
	ProjectID   string          `json:"_context_project_id"`
	TenantID    string          `json:"_context_tenant"`
}

// Consumer sends notifications.
type Consumer struct {
	registry  *resource.Registry
	log       *slog.Logger
	drivers   []string
	topics    []string
	publisher string
	retries   int
	failed    int
	broker    *broker
}

// Options of New.
type Options struct {
	Config   *config.Config     // required
	Registry *resource.Registry // required
	Logger   *slog.Logger       // required
}

// New returns the consumer; it connects when it first sends. Errors name the option to mend.
func New(o Options) (*Consumer, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	c := &Consumer{registry: o.Registry, log: o.Logger, drivers: drivers.Of(o.Config), topics: topics.Of(o.Config), publisher: "network." + host, retries: retry.Of(o.Config)}
	if slices.Contains(c.drivers, "messaging") || slices.Contains(c.drivers, "messagingv2") {
		at := notificationURL.Of(o.Config)
		if at == "" {
			at = transportURL.Of(o.Config)
		}
		if c.broker, err = newBroker(o.Config, at, exchange.Of(o.Config)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close ends the connection to the broker.
func (c *Consumer) Close() {
	if c.broker != nil {
		c.broker.close()
	}
}

// Name implements notify.Consumer.
func (*Consumer) Name() string { return "oslo-notifications" }

// Kinds implements notify.Consumer.
func (c *Consumer) Kinds() []string {
	var kinds []string
	for _, r := range c.registry.Resources() {
		kinds = append(kinds, r.Name)
	}
	return kinds
}

// decoder is a collection that reads the objects of its events.
type decoder interface {
	// Decode makes an object, as one that List returns, from an event's data.
	Decode(ctx context.Context, data []byte) (resource.Object, error)
}

// Plan implements notify.Consumer.
func (c *Consumer) Plan(_ *store.Tx, e store.Event, _ []byte) ([]Notification, []byte, error) {
	r := c.registry.Named(e.Kind)
	if r == nil || r.Service == nil || !identity.Asked(e.RequestID) {
		return nil, nil, nil
	}
	var start, end []byte
	if e.Op == store.Deleted {
		raw, err := json.Marshal(map[string]string{e.Kind + "_id": e.ID})
		if err != nil {
			return nil, nil, err
		}
		start, end = raw, raw
	} else {
		d, ok := r.Service.(decoder)
		if !ok {
			return nil, nil, nil
		}
		o, err := d.Decode(identity.System(context.Background()), e.Data)
		if err != nil {
			return nil, nil, err
		}
		form := map[string]json.RawMessage{e.Kind: r.Service.Encode(nil, o, nil)}
		if end, err = json.Marshal(form); err != nil {
			return nil, nil, err
		}
		start = end
		if e.Op == store.Updated {
			form["id"] = json.RawMessage(fmt.Sprintf("%q", e.ID))
			if start, err = json.Marshal(form); err != nil {
				return nil, nil, err
			}
		}
	}
	phase := func(name string, payload []byte) Notification {
		return Notification{
			// The same when it is sent again, so that listeners can tell.
			MessageID: fmt.Sprintf("%s-%d-%s", e.ID, e.Sequence, name), UniqueID: fmt.Sprintf("%d-%s", e.Sequence, name), PublisherID: c.publisher,
			EventType: fmt.Sprintf("%s.%s.%s", e.Kind, e.Op, name), Priority: "INFO", Payload: payload,
			Timestamp: time.UnixMilli(e.At).UTC().Format("2006-01-02 15:04:05.000000"), RequestID: e.RequestID, ProjectID: e.ProjectID, TenantID: e.ProjectID,
		}
	}
	return []Notification{phase("start", start), phase("end", end)}, nil, nil
}

// Send implements notify.Consumer.
func (c *Consumer) Send(ctx context.Context, list []Notification) error {
	bodies := map[string][][]byte{}
	for _, n := range list {
		plain, err := json.Marshal(n)
		if err != nil {
			return fmt.Errorf("notification %s: %w", n.EventType, err)
		}
		envelope, err := json.Marshal(map[string]string{"oslo.version": "2.0", "oslo.message": string(plain)})
		if err != nil {
			return fmt.Errorf("notification %s: %w", n.EventType, err)
		}
		bodies["log"], bodies["messaging"], bodies["messagingv2"] = append(bodies["log"], plain), append(bodies["messaging"], plain), append(bodies["messagingv2"], envelope)
	}
	for _, d := range c.drivers {
		switch d {
		case "messaging", "messagingv2":
			for _, topic := range c.topics {
				if err := c.broker.publish(ctx, topic+".info", bodies[d]); err != nil {
					if c.failed++; c.retries >= 0 && c.failed > c.retries {
						c.log.Error("notifications are given up", "number", len(list), "error", err)
						c.failed = 0
						return nil
					}
					return fmt.Errorf("message broker: %w", err)
				}
			}
		case "log":
			for i, n := range list {
				c.log.Info("notification", "event_type", n.EventType, "notification", json.RawMessage(bodies[d][i]))
			}
		}
	}
	c.failed = 0
	return nil
}
