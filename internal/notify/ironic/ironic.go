// Package ironic tells the bare metal service when ports of its nodes are
// wired, unwired and deleted: POST /v1/events of the Bare Metal API.
//
// It must not know how notifications are kept or repeated.
package ironic

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/port"
	"isospin/internal/notify/cloud"
	"isospin/internal/store"
)

var (
	enabled = config.Bool("ironic", "enable_notifications", false,
		"Tell Ironic when ports with binding:vnic_type baremetal are wired, unwired and deleted.")
	section = cloud.Declare("ironic", "baremetal", "endpoint_override")
)

// Configured tells whether Ironic is to be told anything.
func Configured(c *config.Config) bool { return enabled.Of(c) }

// Event is one event of a port.
type Event struct {
	Event      string `json:"event"`
	PortID     string `json:"port_id"`
	MACAddress string `json:"mac_address"`
	Status     string `json:"status"`
	DeviceID   string `json:"device_id,omitempty"`
	HostID     string `json:"binding:host_id,omitempty"`
	VNICType   string `json:"binding:vnic_type"`
}

// Consumer tells Ironic.
type Consumer struct {
	client *cloud.Client
	log    *slog.Logger
}

// New returns the consumer. Errors name the option to mend.
func New(c *config.Config, log *slog.Logger) (*Consumer, error) {
	client, err := section.Client(c)
	if err != nil {
		return nil, err
	}
	return &Consumer{client, log}, nil
}

// Name implements notify.Consumer.
func (*Consumer) Name() string { return "ironic" }

// Kinds implements notify.Consumer.
func (*Consumer) Kinds() []string { return []string{"port"} }

// Plan implements notify.Consumer; a port's status is what is kept.
func (*Consumer) Plan(_ *store.Tx, e store.Event, kept []byte) ([]Event, []byte, error) {
	p := &port.Port{}
	if err := json.Unmarshal(e.Data, p); err != nil {
		return nil, nil, err
	}
	if p.VNICType != "baremetal" {
		return nil, nil, nil
	}
	event := Event{PortID: p.ID, MACAddress: p.MACAddress, Status: p.Status, DeviceID: p.DeviceID, HostID: p.HostID, VNICType: p.VNICType}
	if e.Op == store.Deleted {
		event.Event, event.Status = "network.delete_port", "DELETED"
		return []Event{event}, nil, nil
	}
	switch was := string(kept); {
	case was == port.StatusActive && (p.Status == port.StatusDown || p.Status == port.StatusError):
		event.Event = "network.unbind_port"
	case (was == port.StatusDown || was == port.StatusBuild) && (p.Status == port.StatusActive || p.Status == port.StatusError):
		event.Event = "network.bind_port"
	default:
		return nil, []byte(p.Status), nil
	}
	return []Event{event}, []byte(p.Status), nil
}

// Send implements notify.Consumer.
func (c *Consumer) Send(ctx context.Context, events []Event) error {
	a, err := c.client.Do(ctx, cloud.Request{
		Method: http.MethodPost, Path: "/v1/events", Versioned: "/v1", Body: map[string]any{"events": events},
		Header: http.Header{"Openstack-Api-Version": {"baremetal 1.54"}, "X-Openstack-Ironic-Api-Version": {"1.54"}},
	})
	switch {
	case err != nil:
		return err
	case a.Status/100 == 2:
		return nil
	case len(events) > 1:
		for _, e := range events {
			if err := c.Send(ctx, []Event{e}); err != nil {
				return err
			}
		}
		return nil
	}
	c.log.Error("ironic: an event is refused", "event", events[0].Event, "port", events[0].PortID, "status", a.Status, "answer", fmt.Sprintf("%.200s", strings.TrimSpace(string(a.Body))))
	return nil
}
