// Package bus sends oslo.messaging notifications of committed changes
// (network.create.end and the like) to a message broker, for telemetry and
// billing that listen there.
//
// Of each change that a client's request made there are two, start and end, at
// once: a request that fails makes none. A port that becomes or ceases to be a
// router's interface is told of as router.interface.create and .delete instead,
// as listeners expect it.
//
// It must not know other resources, nor how notifications are kept or repeated.
package bus

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

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

// Notification is one of oslo.messaging. The context has what is known of the
// request that made the change.
type Notification struct {
	MessageID   string          `json:"message_id"`
	PublisherID string          `json:"publisher_id"`
	EventType   string          `json:"event_type"`
	Priority    string          `json:"priority"`
	Payload     json.RawMessage `json:"payload"`
	Timestamp   string          `json:"timestamp"`
	// UniqueID is by what oslo.messaging knows messages that come twice: of each topic another.
	UniqueID  string  `json:"_unique_id"`
	RequestID string  `json:"_context_request_id"`
	UserID    *string `json:"_context_user_id"`
	User      *string `json:"_context_user"`
	ProjectID *string `json:"_context_project_id"`
	Project   *string `json:"_context_project"`
	TenantID  *string `json:"_context_tenant_id"`
	Tenant    *string `json:"_context_tenant"`
	At        string  `json:"_context_timestamp"`
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
	c := &Consumer{registry: o.Registry, log: o.Logger, drivers: drivers.Of(o.Config), topics: topics.Of(o.Config),
		publisher: "network." + config.Host.Of(o.Config), retries: retry.Of(o.Config)}
	if slices.Contains(c.drivers, "messaging") || slices.Contains(c.drivers, "messagingv2") {
		at := notificationURL.Of(o.Config)
		if at == "" {
			at = transportURL.Of(o.Config)
		}
		var err error
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

// names is what message ids are made from, with what they are about: the same
// when a message is sent again, so that listeners can tell.
var names = uuid.MustParse("5d0c6b3e-54c8-4d0c-9c0f-6a4f1d8f6a0e")

// Plan implements notify.Consumer.
func (c *Consumer) Plan(_ *store.Tx, e store.Event, kept []byte) ([]Notification, []byte, error) {
	r := c.registry.Named(e.Kind)
	if r == nil || r.Service == nil {
		return nil, nil, nil
	}
	d, ok := r.Service.(decoder)
	asked := identity.Asked(e.RequestID)
	if !ok || !asked && e.Kind != portKind {
		return nil, nil, nil
	}
	var object json.RawMessage
	if e.Op != store.Deleted || e.Kind == portKind {
		o, err := d.Decode(identity.System(context.Background()), e.Data)
		if err != nil {
			return nil, nil, err
		}
		object = r.Service.Encode(nil, o, nil)
	}
	var keep []byte
	if e.Kind == portKind {
		i, err := interfaceOf(object)
		if err != nil {
			return nil, nil, err
		}
		if i != nil && e.Op != store.Deleted {
			keep = []byte("interface")
		}
		if i != nil && asked && (e.Op == store.Deleted || kept == nil) {
			what := "create"
			if e.Op == store.Deleted {
				what = "delete"
			}
			payload, err := json.Marshal(map[string]*routerInterface{"router_interface": i})
			return []Notification{c.notification(e, "router.interface."+what, payload)}, keep, err
		}
	}
	if !asked {
		return nil, keep, nil
	}
	var start, end []byte
	var err error
	if e.Op == store.Deleted {
		if end, err = json.Marshal(map[string]string{e.Kind + "_id": e.ID}); err != nil {
			return nil, nil, err
		}
		start = end
	} else {
		form := map[string]json.RawMessage{e.Kind: object}
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
	name := fmt.Sprintf("%s.%s.", e.Kind, e.Op)
	return []Notification{c.notification(e, name+"start", start), c.notification(e, name+"end", end)}, keep, nil
}

func (c *Consumer) notification(e store.Event, name string, payload []byte) Notification {
	at := time.UnixMilli(e.At).UTC().Format("2006-01-02 15:04:05.000000")
	n := Notification{
		// The time, for numbers of events are given again after a restore.
		MessageID:   uuid.NewSHA1(names, fmt.Appendf(nil, "%s %d %d %s", e.ID, e.Sequence, e.At, name)).String(),
		PublisherID: c.publisher, EventType: name, Priority: "INFO", Payload: payload, Timestamp: at, At: at, RequestID: e.RequestID,
	}
	user, project := e.UserID, e.UserProject
	if project == "" {
		project = e.ProjectID
	}
	if user != "" {
		n.UserID, n.User = &user, &user
	}
	if project != "" {
		n.ProjectID, n.Project, n.TenantID, n.Tenant = &project, &project, &project, &project
	}
	return n
}

const portKind = "port"

// routerInterface is what is told of a router's interface.
type routerInterface struct {
	ID        string   `json:"id"` // the router's
	TenantID  string   `json:"tenant_id"`
	PortID    string   `json:"port_id"`
	NetworkID string   `json:"network_id"`
	SubnetID  string   `json:"subnet_id"`
	SubnetIDs []string `json:"subnet_ids"`
}

// interfaceOf reads a port; nil: it is no router's interface.
func interfaceOf(object []byte) (*routerInterface, error) {
	var p struct {
		ID          string `json:"id"`
		ProjectID   string `json:"project_id"`
		NetworkID   string `json:"network_id"`
		DeviceID    string `json:"device_id"`
		DeviceOwner string `json:"device_owner"`
		FixedIPs    []struct {
			SubnetID string `json:"subnet_id"`
		} `json:"fixed_ips"`
	}
	if err := json.Unmarshal(object, &p); err != nil {
		return nil, fmt.Errorf("port: %w", err)
	}
	if p.DeviceOwner != "network:ha_router_replicated_interface" && !strings.HasPrefix(p.DeviceOwner, "network:router_interface") {
		return nil, nil
	}
	i := &routerInterface{ID: p.DeviceID, TenantID: p.ProjectID, PortID: p.ID, NetworkID: p.NetworkID}
	for _, f := range p.FixedIPs {
		i.SubnetIDs = append(i.SubnetIDs, f.SubnetID)
	}
	if len(i.SubnetIDs) > 0 {
		i.SubnetID = i.SubnetIDs[0]
	}
	return i, nil
}

// Send implements notify.Consumer.
func (c *Consumer) Send(ctx context.Context, list []Notification) error {
	for _, d := range c.drivers {
		switch d {
		case "messaging", "messagingv2":
			for _, topic := range c.topics {
				bodies, err := written(list, topic, d == "messagingv2")
				if err != nil {
					return err
				}
				if err := c.broker.publish(ctx, topic+".info", bodies); err != nil {
					if c.failed++; c.retries >= 0 && c.failed > c.retries && ctx.Err() == nil {
						c.log.Error("notifications are given up", "number", len(list), "error", err)
						c.failed = 0
						return nil
					}
					return fmt.Errorf("message broker: %w", err)
				}
			}
		case "log":
			bodies, err := written(list, "", false)
			if err != nil {
				return err
			}
			for i, n := range list {
				c.log.Info("notification", "event_type", n.EventType, "notification", json.RawMessage(bodies[i]))
			}
		}
	}
	c.failed = 0
	return nil
}

// written are notifications as they are sent to a topic, with or without the envelope of version 2.0.
func written(list []Notification, topic string, envelope bool) ([][]byte, error) {
	bodies := make([][]byte, len(list))
	for i, n := range list {
		id := uuid.NewSHA1(names, []byte(n.MessageID+topic))
		n.UniqueID = hex.EncodeToString(id[:])
		body, err := json.Marshal(n)
		if err == nil && envelope {
			body, err = json.Marshal(map[string]string{"oslo.version": "2.0", "oslo.message": string(body)})
		}
		if err != nil {
			return nil, fmt.Errorf("notification %s: %w", n.EventType, err)
		}
		bodies[i] = body
	}
	return bodies, nil
}
