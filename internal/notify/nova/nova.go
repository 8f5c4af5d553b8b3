// Package nova tells the compute service what happens to the ports of its
// instances: os-server-external-events of the Compute API.
//
// It must not know how notifications are kept or repeated.
package nova

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/port"
	"isospin/internal/notify/cloud"
	"isospin/internal/store"
)

var (
	statusChanges = config.Bool("DEFAULT", "notify_nova_on_port_status_changes", true,
		"Tell Nova when ports of instances become ACTIVE or DOWN. It waits for that before it starts an instance.")
	dataChanges = config.Bool("DEFAULT", "notify_nova_on_port_data_changes", true,
		"Tell Nova when addresses of instances change, and when their ports are deleted.")
	section = cloud.Declare("nova", "compute", "endpoint_override")
)

// Configured tells whether Nova is to be told anything.
func Configured(c *config.Config) bool {
	return section.Configured(c) && (statusChanges.Of(c) || dataChanges.Of(c))
}

// Event is one external event of an instance.
type Event struct {
	Name       string `json:"name"`
	ServerUUID string `json:"server_uuid"`
	Status     string `json:"status,omitempty"`
	Tag        string `json:"tag,omitempty"`
}

// Consumer tells Nova.
type Consumer struct {
	client       *cloud.Client
	log          *slog.Logger
	ports        *port.Service
	status, data bool
}

// Options of New.
type Options struct {
	Config *config.Config // required
	Ports  *port.Service  // required
	Logger *slog.Logger   // required
}

// New returns the consumer. Errors name the option to mend.
func New(o Options) (*Consumer, error) {
	client, err := section.Client(o.Config)
	if err != nil {
		return nil, err
	}
	return &Consumer{client: client, log: o.Logger, ports: o.Ports, status: statusChanges.Of(o.Config), data: dataChanges.Of(o.Config)}, nil
}

// Name implements notify.Consumer.
func (*Consumer) Name() string { return "nova" }

// Kinds implements notify.Consumer.
func (*Consumer) Kinds() []string { return []string{"port", "floatingip"} }

// kept is what is noted of a port or a floating IP.
type kept struct {
	Status string `json:"status,omitempty"`
	// Content stands for what an instance can see of its port.
	Content string `json:"content,omitempty"`
	PortID  string `json:"port_id,omitempty"`
	FixedIP string `json:"fixed_ip,omitempty"`
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$`)

func ofInstance(deviceOwner, deviceID string) bool {
	return strings.HasPrefix(deviceOwner, "compute:") && uuid.MatchString(deviceID)
}

// Plan implements notify.Consumer.
func (c *Consumer) Plan(tx *store.Tx, e store.Event, before []byte) ([]Event, []byte, error) {
	var was kept
	if before != nil {
		if err := json.Unmarshal(before, &was); err != nil {
			return nil, nil, fmt.Errorf("what is noted: %w", err)
		}
	}
	if e.Kind == "floatingip" {
		return c.planFloating(tx, e, was)
	}
	p := &port.Port{}
	if err := json.Unmarshal(e.Data, p); err != nil {
		return nil, nil, err
	}
	if !ofInstance(p.DeviceOwner, p.DeviceID) {
		return nil, nil, nil
	}
	if e.Op == store.Deleted {
		if c.data {
			return []Event{{Name: "network-vif-deleted", ServerUUID: p.DeviceID, Tag: p.ID}}, nil, nil
		}
		return nil, nil, nil
	}
	now := kept{Status: p.Status, Content: content(p)}
	var events []Event
	// A port that only now became an instance's changed its status before.
	if name := transition(was.Status, now.Status); c.status && name != "" && (before != nil || e.Op == store.Created) {
		events = append(events, Event{Name: name, ServerUUID: p.DeviceID, Status: outcome(p.Status), Tag: p.ID})
	}
	if c.data && e.Op == store.Updated && was.Content != now.Content {
		events = append(events, changed(p.DeviceID, p.ID))
	}
	keep, err := json.Marshal(now)
	return events, keep, err
}

// transition is the event of a change of status; empty: none.
func transition(from, to string) string {
	switch {
	case from == port.StatusActive && to == port.StatusDown:
		return "network-vif-unplugged"
	case from != port.StatusActive && from != port.StatusError && (to == port.StatusActive || to == port.StatusError):
		return "network-vif-plugged"
	}
	return ""
}

func outcome(status string) string {
	if status == port.StatusError {
		return "failed"
	}
	return "completed"
}

func changed(deviceID, portID string) Event {
	return Event{Name: "network-changed", ServerUUID: deviceID, Tag: portID}
}

// list is the same for no list and for one of nothing.
func list[T any](items []T) []T {
	if len(items) == 0 {
		return nil
	}
	return items
}

// content is a hash of what clients say of a port.
func content(p *port.Port) string {
	slots := map[string]json.RawMessage{}
	for name, value := range p.Slots {
		// What is derived, or says nothing.
		if name != "dns_assignment" && name != "qos_network_policy_id" && !slices.Contains([]string{`""`, "null", "[]", "{}"}, string(value)) {
			slots[name] = value
		}
	}
	profile := p.Profile
	if string(profile) == "null" || len(profile) == 0 {
		profile = json.RawMessage("{}")
	}
	raw, err := json.Marshal([]any{
		p.Name, p.AdminStateUp, p.MACAddress, list(p.FixedIPs), slices.Sorted(slices.Values(p.SecurityGroups)), p.PortSecurityEnabled, list(p.AllowedAddressPairs), list(p.ExtraDHCPOpts),
		p.DeviceID, p.DeviceOwner, p.HostID, p.VNICType, profile, slots, p.Description, slices.Sorted(slices.Values(p.Tags)),
	})
	if err != nil { // a profile that is not JSON cannot have come in
		raw = []byte(p.UpdatedAt)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12])
}

// planFloating tells of the instances that a floating IP came to and left.
func (c *Consumer) planFloating(tx *store.Tx, e store.Event, was kept) ([]Event, []byte, error) {
	if !c.data {
		return nil, nil, nil
	}
	var f struct {
		PortID         *string `json:"port_id"`
		FixedIPAddress string  `json:"fixed_ip_address"`
	}
	if err := json.Unmarshal(e.Data, &f); err != nil {
		return nil, nil, err
	}
	var now kept
	if f.PortID != nil && e.Op != store.Deleted {
		now = kept{PortID: *f.PortID, FixedIP: f.FixedIPAddress}
	}
	var events []Event
	if was.PortID != now.PortID || was.FixedIP != now.FixedIP {
		ids := []string{was.PortID, now.PortID}
		for _, id := range slices.Compact(ids) {
			if id == "" {
				continue
			}
			p, err := c.ports.Table.Get(tx, id)
			if errors.Is(err, store.ErrNoRow) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			if ofInstance(p.DeviceOwner, p.DeviceID) {
				events = append(events, changed(p.DeviceID, p.ID))
			}
		}
	}
	if now.PortID == "" {
		return events, nil, nil
	}
	keep, err := json.Marshal(now)
	return events, keep, err
}

// Send implements notify.Consumer.
func (c *Consumer) Send(ctx context.Context, events []Event) error {
	events = squeeze(events)
	a, err := c.client.Do(ctx, cloud.Request{
		Method: http.MethodPost, Path: "/os-server-external-events", Body: map[string]any{"events": events},
		Header: http.Header{"Openstack-Api-Version": {"compute 2.1"}, "X-Openstack-Nova-Api-Version": {"2.1"}},
	})
	if err != nil {
		return err
	}
	switch {
	case a.Status == http.StatusNotFound:
		// None of the instances is there (any more).
		c.log.Debug("nova: no instance of the events is known", "events", len(events))
	case a.Status/100 != 2 && len(events) > 1:
		// One that Nova cannot take keeps the others from nobody.
		for _, e := range events {
			if err := c.Send(ctx, []Event{e}); err != nil {
				return err
			}
		}
	case a.Status/100 != 2:
		c.log.Error("nova: an event is refused", "event", events[0].Name, "instance", events[0].ServerUUID, "port", events[0].Tag, "status", a.Status)
	default:
		c.note(a.Body)
	}
	return nil
}

// squeeze drops what later events make pointless: all about a port that is
// deleted in the end but that, and a change of an instance's network that is
// followed by another.
func squeeze(events []Event) []Event {
	deleted, seen := map[string]bool{}, map[Event]bool{}
	var kept []Event
	for _, e := range slices.Backward(events) {
		gone := e.Name == "network-vif-deleted"
		switch {
		case deleted[e.Tag] && !gone, e.Name == "network-changed" && seen[e]:
			continue
		}
		deleted[e.Tag] = deleted[e.Tag] || gone
		seen[e] = true
		kept = append(kept, e)
	}
	slices.Reverse(kept)
	return kept
}

// note logs what Nova did with each event (200, or 207 when they differ).
func (c *Consumer) note(raw []byte) {
	var answer struct {
		Events []struct {
			Event
			Code *int `json:"code"`
		} `json:"events"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		c.log.Error("nova: the answer to events cannot be read", "error", err)
		return
	}
	for _, e := range answer.Events {
		about := []any{"event", e.Name, "instance", e.ServerUUID, "port", e.Tag}
		switch {
		case e.Code == nil:
			c.log.Error("nova: an event was answered without a code", about...)
		case *e.Code != http.StatusOK:
			c.log.Warn("nova: an event was not taken", append(about, "code", *e.Code)...)
		default:
			c.log.Debug("nova: an event was taken", about...)
		}
	}
}
