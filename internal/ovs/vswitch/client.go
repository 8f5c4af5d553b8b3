package vswitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"

	"isospin/internal/ovs/ovsdb"
)

// Options of a Client.
type Options struct {
	Connection   string       // required: "unix:/path/db.sock" or "tcp:127.0.0.1:6640"
	Logger       *slog.Logger // optional
	DatapathType string       // optional: "system" or "netdev" for bridges that EnsureBridge makes; empty is "system"
	// ConnectTimeout limits how long Dial waits; the end of its context does so anyway.
	ConnectTimeout time.Duration // optional: no limit
}

// Client is a connection to one Open vSwitch, made anew when it is lost.
// Methods may be called from any goroutine.
type Client struct {
	options Options
	db      *ovsdb.Client

	mu       sync.Mutex
	watchers []func()
}

// Bridge is what EnsureBridge makes be. Maps are merged into what is there.
type Bridge struct {
	Name         string            // required
	DatapathType string            // optional: for a bridge that does not exist yet; empty: Options.DatapathType
	FailMode     string            // optional: "secure" or "standalone"; empty leaves it as it is
	Protocols    []string          // optional: "OpenFlow10", ... to be enabled besides those that are; ignored if the bridge enables all
	ExternalIDs  map[string]string // optional
	OtherConfig  map[string]string // optional
}

// Port is what EnsurePort makes be: a port with one interface of the same
// name.
type Port struct {
	Name        string            // required
	Type        string            // optional: "", "internal", "patch", "vxlan", ...; of the interface
	Options     map[string]string // optional: of the interface; replaces what is there, unless nil
	ExternalIDs map[string]string // optional: of the interface, merged: iface-id, attached-mac, iface-status, ...
	OtherConfig map[string]string // optional: of the port, merged
	// InterfaceOtherConfig is the interface's, merged by AnnotatePorts; a key without value is removed.
	InterfaceOtherConfig map[string]string // optional
	Tag                  int               // optional: access VLAN of the port, 1 to 4094; 0 leaves it as it is
	Trunks               []int             // optional: VLANs of a port without Tag, 0 being frames without a tag; nil leaves it as it is, which is all VLANs of a new port
	MTURequest           int               // optional: of the interface; 0 leaves it as it is
	PortExternalIDs      map[string]string // optional: of the port, merged
}

// Interface is an interface of a port of a bridge.
type Interface struct {
	Name        string
	Bridge      string
	Port        string
	OFPort      int // OpenFlow port number; 0: none yet; -1: could not be opened, see Error
	Type        string
	ExternalIDs map[string]string
	Options     map[string]string
	Error       string
	MACInUse    string
	// InterfaceOtherConfig is the interface's own other_config.
	InterfaceOtherConfig map[string]string
	// Of the port.
	Tag         int
	Trunks      []int
	OtherConfig map[string]string
}

// BridgeInfo is a bridge that is there.
type BridgeInfo struct {
	Name         string
	DatapathType string // "" is "system"
	FailMode     string
	ExternalIDs  map[string]string
	OtherConfig  map[string]string
}

// ErrNoBridge is returned for a port of a bridge that does not exist.
var ErrNoBridge = errors.New("no such bridge")

// InterfaceError is what ovs-vswitchd says of an interface that it could not
// bring into being. The rows stay in the database.
type InterfaceError struct {
	Interface, Text string
}

func (e *InterfaceError) Error() string { return fmt.Sprintf("interface %s: %s", e.Interface, e.Text) }

// Dial connects and returns when the view is complete. The connection is kept
// up until Close or the end of ctx.
func Dial(ctx context.Context, o Options) (*Client, error) {
	c := &Client{options: o}
	wait := ctx
	if o.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, o.ConnectTimeout)
		defer cancel()
	}
	db, err := ovsdb.Dial(wait, ovsdb.Options{
		Address:  o.Connection,
		Database: "Open_vSwitch",
		Logger:   o.Logger,
		OnChange: c.changed,
		Tables: map[string][]string{
			"Open_vSwitch": {"bridges", "cur_cfg", "external_ids", "other_config", "datapath_types", "iface_types", "ovs_version"},
			"Bridge":       {"name", "ports", "datapath_type", "fail_mode", "protocols", "external_ids", "other_config"},
			"Port":         {"name", "interfaces", "tag", "trunks", "external_ids", "other_config"},
			"Interface":    {"name", "type", "options", "external_ids", "ofport", "error", "mac_in_use", "mtu_request", "other_config"},
		},
	})
	if err != nil {
		return nil, err
	}
	c.db = db
	context.AfterFunc(ctx, db.Close)
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() { c.db.Close() }

// Watch makes f be called after any change of what the client sees, among them
// the loss of nothing more than stale data after a reconnect. f must not block
// nor call methods of the client.
func (c *Client) Watch(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers = append(c.watchers, f)
}

func (c *Client) changed() {
	c.mu.Lock()
	watchers := c.watchers
	c.mu.Unlock()
	for _, f := range watchers {
		f()
	}
}

// Connected tells whether the view follows the database now.
func (c *Client) Connected() bool { return c.db.Connected() }

// Interfaces returns the interfaces of all bridges, sorted by name.
func (c *Client) Interfaces() []Interface {
	var out []Interface
	c.db.View(func(t ovsdb.Tables) {
		out = make([]Interface, 0, len(t["Interface"]))
		for _, bridge := range t["Bridge"] {
			for _, p := range bridge.UUIDs("ports") {
				port := t["Port"][p]
				for _, i := range port.UUIDs("interfaces") {
					row, ok := t["Interface"][i]
					if !ok {
						continue
					}
					ofport, _ := row.Int("ofport")
					tag, _ := port.Int("tag")
					out = append(out, Interface{
						Name: row.String("name"), Bridge: bridge.String("name"), Port: port.String("name"),
						OFPort: int(ofport), Type: row.String("type"),
						ExternalIDs: row.StringMap("external_ids"), Options: row.StringMap("options"),
						Error: row.String("error"), MACInUse: row.String("mac_in_use"), InterfaceOtherConfig: row.StringMap("other_config"),
						Tag: int(tag), Trunks: integers(port, "trunks"), OtherConfig: port.StringMap("other_config"),
					})
				}
			}
		}
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Bridges returns the bridges, sorted by name.
func (c *Client) Bridges() []BridgeInfo {
	var out []BridgeInfo
	c.db.View(func(t ovsdb.Tables) {
		for _, b := range t["Bridge"] {
			out = append(out, BridgeInfo{
				Name: b.String("name"), DatapathType: b.String("datapath_type"), FailMode: b.String("fail_mode"),
				ExternalIDs: b.StringMap("external_ids"), OtherConfig: b.StringMap("other_config"),
			})
		}
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Capabilities returns the datapath and interface types that ovs-vswitchd
// knows.
func (c *Client) Capabilities() (datapathTypes, interfaceTypes []string) {
	c.db.View(func(t ovsdb.Tables) {
		for _, row := range t["Open_vSwitch"] {
			datapathTypes, interfaceTypes = row.Strings("datapath_types"), row.Strings("iface_types")
		}
	})
	sort.Strings(datapathTypes)
	sort.Strings(interfaceTypes)
	return datapathTypes, interfaceTypes
}
