// Package agent is the agents resource: one row for each function of a host,
// made by the host's own reports, never by clients.
//
// It must not know the stream over which reports come, nor what a function does.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Agent types that other packages ask for.
const (
	OpenVSwitch = "Open vSwitch agent"
	DHCP        = "DHCP agent"
	L3          = "L3 agent"
	Metadata    = "Metadata agent"
)

// Agent is one function of a host.
type Agent struct {
	resource.Standard
	AgentType          string          `json:"agent_type" db:"agent_type"`
	Binary             string          `json:"binary" db:"binary_name"`
	Topic              string          `json:"topic" db:"topic"`
	Host               string          `json:"host" db:"host"`
	AvailabilityZone   *string         `json:"availability_zone" db:"availability_zone"`
	AdminStateUp       bool            `json:"admin_state_up" db:"admin_state_up"`
	Configurations     json.RawMessage `json:"configurations" db:"configurations,json"`
	StartedAt          string          `json:"started_at" db:"started_at"`
	HeartbeatTimestamp string          `json:"heartbeat_timestamp" db:"heartbeat_timestamp"`
	RegisteredAt       string          `json:"registered_at" db:"registered_at"`

	// What follows is only shown.
	Alive bool `json:"alive"`
	// ResourcesSynced tells whether Placement knows of the agent's resources; nil: it reports none there.
	ResourcesSynced *bool `json:"resources_synced"`
}

// Configuration is what the server itself reads of an agent's configurations.
type Configuration struct {
	BridgeMappings map[string]string `json:"bridge_mappings"`
	TunnelTypes    []string          `json:"tunnel_types"`
	TunnelingIP    string            `json:"tunneling_ip"`
	DatapathType   string            `json:"datapath_type"`
	OVSHybridPlug  bool              `json:"ovs_hybrid_plug"`
	Bridge         string            `json:"integration_bridge"`
	AgentMode      string            `json:"agent_mode"`
}

// Configuration decodes the agent's configurations; what is malformed reads as empty.
func (a *Agent) Configuration() Configuration {
	var c Configuration
	if err := json.Unmarshal(a.Configurations, &c); err != nil {
		return Configuration{}
	}
	return c
}

// TimeFormat is that of agents' times, which differs from other resources'.
const TimeFormat = "2006-01-02 15:04:05"

// Schema of the package's table.
var Schema = store.Schema{Module: "core/agent", Steps: [][]string{{
	`CREATE TABLE agent (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, description VARCHAR(255) NOT NULL,
		revision_number BIGINT NOT NULL, created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL,
		agent_type VARCHAR(255) NOT NULL, binary_name VARCHAR(255) NOT NULL, topic VARCHAR(255) NOT NULL, host VARCHAR(255) NOT NULL,
		availability_zone VARCHAR(255), admin_state_up BOOLEAN NOT NULL, configurations TEXT NOT NULL,
		started_at VARCHAR(32) NOT NULL, heartbeat_timestamp VARCHAR(32) NOT NULL, registered_at VARCHAR(32) NOT NULL,
		UNIQUE (host, agent_type))`,
}, {
	attachmentTable,
}}}

// Options of New.
type Options struct {
	Store *store.Store // required
	// DownTime is [DEFAULT] agent_down_time. Required.
	DownTime time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Service is the agents collection.
type Service struct {
	*collection.Collection[Agent, *Agent]
	down    time.Duration
	silence silence
	// OnReport hooks run in the transaction of a host's first report of an
	// agent, when its configuration changes, when it comes back, and when an
	// administrator enables it.
	OnReport []func(ctx context.Context, tx *store.Tx, a *Agent) error
	// BeforeDelete hooks run before an agent is removed.
	BeforeDelete []func(ctx context.Context, tx *store.Tx, a *Agent) error
}

const (
	put     = resource.Put
	visible = resource.Visible
	filter  = resource.Filter
	sortKey = resource.Sort
)

func newResource() *resource.Resource {
	r := &resource.Resource{
		Name: "agent", Collection: "agents", Path: "agents", Older: true, NoBulk: true,
		Aside:    []string{"heartbeat_timestamp", "alive", "resources_synced"},
		NotFound: "AgentNotFound", NotFoundText: "Agent %s could not be found.",
	}
	r.Add(
		resource.Attribute{Name: "id", Flags: visible | filter | sortKey, Validate: resource.Rules{"type:uuid": nil}, Type: "string"},
		resource.Attribute{Name: "agent_type", Flags: visible | filter | sortKey, Type: "string"},
		resource.Attribute{Name: "binary", Flags: visible | filter | sortKey, Type: "string"},
		resource.Attribute{Name: "topic", Flags: visible | filter | sortKey, Type: "string"},
		resource.Attribute{Name: "host", Flags: visible | filter | sortKey, Type: "string"},
		resource.Attribute{Name: "availability_zone", Flags: visible | filter, Type: "string|null"},
		resource.Attribute{Name: "admin_state_up", Flags: put | visible | filter | sortKey, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "created_at", Flags: visible | sortKey, Type: "timestamp"},
		resource.Attribute{Name: "started_at", Flags: visible | sortKey, Type: "timestamp"},
		resource.Attribute{Name: "heartbeat_timestamp", Flags: visible | sortKey, Type: "timestamp"},
		resource.Attribute{Name: "alive", Flags: visible | filter | sortKey, Convert: "convert_to_boolean", Type: "bool"},
		resource.Attribute{Name: "configurations", Flags: visible, Type: "object"},
		// agent-resources-synced
		resource.Attribute{Name: "resources_synced", Flags: visible, Default: resource.Unspecified, Type: "bool|null"},
		resource.Attribute{Name: "description", Flags: put | visible | filter | sortKey, Validate: resource.Rules{"type:string_or_none": 255}, Type: "string|null"},
	)
	return r
}

// New returns the agents collection.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{down: o.DownTime}
	table := store.NewTable[Agent]("agent", store.TableOptions[Agent]{
		Columns: map[string]string{"binary": "binary_name", "alive": "heartbeat_timestamp", "created_at": "registered_at"},
		Conditions: map[string]func([]any) (string, []any){
			"alive": func(values []any) (string, []any) {
				if len(values) == 0 || slices.Contains(values, any(true)) && slices.Contains(values, any(false)) {
					return "1 = 1", nil
				}
				since := s.since()
				if values[0] == true {
					return "t.heartbeat_timestamp >= ?", []any{since}
				}
				return "t.heartbeat_timestamp < ?", []any{since}
			},
		},
	})
	s.Collection = collection.New[Agent](collection.Options[Agent]{
		Store: o.Store, Resource: newResource(), Table: table, Now: o.Now,
		Create: func(context.Context, *store.Tx, *Agent, *resource.Body) error {
			return fault.New(fault.Invalid, "BadRequest", "Bad agent request: Agent creation using API is not supported..")
		},
		Update: func(ctx context.Context, tx *store.Tx, old, want *Agent, _ *resource.Body) error {
			if err := s.Save(ctx, tx, want); err != nil || old.AdminStateUp || !want.AdminStateUp {
				return err
			}
			return s.reported(ctx, tx, want)
		},
		Delete: func(ctx context.Context, tx *store.Tx, a *Agent) error {
			for _, hook := range s.BeforeDelete {
				if err := hook(ctx, tx, a); err != nil {
					return err
				}
			}
			return s.Remove(ctx, tx, a)
		},
		Scope: func(context.Context) (string, []any) { return "1 = 0", nil },
		Present: func(_ context.Context, rows []*Agent) {
			since := s.since()
			for _, a := range rows {
				a.Alive, a.CreatedAt = a.HeartbeatTimestamp >= since, a.RegisteredAt
			}
		},
	})
	return s
}

// since is the oldest heartbeat of an agent that is alive.
func (s *Service) since() string {
	now := s.Now()
	return now.Add(-s.down - s.silence.at(now)).UTC().Format(TimeFormat)
}

// IsAlive tells whether the agent was heard of lately.
func (s *Service) IsAlive(a *Agent) bool { return a.HeartbeatTimestamp >= s.since() }

// OnHost returns the agents of a host.
func (s *Service) OnHost(tx *store.Tx, host string) ([]*Agent, error) {
	return s.Table.SelectBare(tx, "WHERE t.host = ?", host)
}

// OfType returns the agents of a type that are alive and administratively up.
func (s *Service) OfType(tx *store.Tx, agentType string) ([]*Agent, error) {
	return s.Table.SelectBare(tx, "WHERE t.agent_type = ? AND t.admin_state_up AND t.heartbeat_timestamp >= ? ORDER BY t.host", agentType, s.since())
}

// CheckZones refuses availability zones of which no agent of the type is.
func (s *Service) CheckZones(tx *store.Tx, agentType string, zones []string) error {
	for _, z := range zones {
		var n int
		if err := tx.Row("SELECT COUNT(*) FROM (SELECT 1 FROM agent WHERE agent_type = ? AND availability_zone = ? LIMIT 1) x", []any{agentType, z}, &n); err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone %s could not be found.", z)
		}
	}
	return nil
}

// Report notes that a host's function lives. fresh says that the agent has just
// started, or at report's StartedAt if there is one.
func (s *Service) Report(ctx context.Context, tx *store.Tx, report *Agent, fresh bool) (*Agent, error) {
	now := s.Now().UTC().Format(TimeFormat)
	said := *report
	report = &said
	// As it is stored: other white space is no other configuration.
	if raw, err := json.Marshal(report.Configurations); err == nil && len(report.Configurations) > 0 {
		report.Configurations = raw
	}
	rows, err := s.Table.SelectBare(tx, "WHERE t.host = ? AND t.agent_type = ?", report.Host, report.AgentType)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		a := *report
		a.AdminStateUp, a.RegisteredAt, a.HeartbeatTimestamp = true, now, now
		if a.StartedAt == "" {
			a.StartedAt = now
		}
		if err := s.Insert(ctx, tx, &a); err != nil {
			return nil, err
		}
		return &a, s.reported(ctx, tx, &a)
	}
	a := rows[0]
	revived := !s.IsAlive(a)
	a.HeartbeatTimestamp = now
	if fresh {
		a.StartedAt = now
		if report.StartedAt != "" {
			a.StartedAt = report.StartedAt
		}
	}
	changed := string(a.Configurations) != string(report.Configurations) || a.Binary != report.Binary || a.Topic != report.Topic ||
		report.AvailabilityZone != nil && (a.AvailabilityZone == nil || *a.AvailabilityZone != *report.AvailabilityZone)
	a.Configurations, a.Binary, a.Topic = report.Configurations, report.Binary, report.Topic
	if report.AvailabilityZone != nil {
		a.AvailabilityZone = report.AvailabilityZone
	}
	if !changed {
		// A heartbeat is no change of intent: no revision and no event.
		if err := s.Table.Update(tx, a); err != nil {
			return nil, err
		}
	} else if err := s.Save(ctx, tx, a); err != nil {
		return nil, err
	}
	if changed || fresh || revived {
		return a, s.reported(ctx, tx, a)
	}
	return a, nil
}

func (s *Service) reported(ctx context.Context, tx *store.Tx, a *Agent) error {
	for _, hook := range s.OnReport {
		if err := hook(ctx, tx, a); err != nil {
			return err
		}
	}
	return nil
}

// Beat notes that the functions of hosts live, configurations unchanged.
func (s *Service) Beat(ctx context.Context, tx *store.Tx, hosts ...string) error {
	if len(hosts) == 0 {
		return nil
	}
	values := make([]any, len(hosts))
	for i, host := range hosts {
		values[i] = host
	}
	in, args := store.In("host", values)
	back, err := s.Table.SelectBare(tx, "WHERE t."+in+" AND t.heartbeat_timestamp < ? ORDER BY t.host, t.id", append(slices.Clone(args), s.since())...)
	if err != nil {
		return err
	}
	now := s.Now().UTC().Format(TimeFormat)
	if err := tx.Put("UPDATE agent SET heartbeat_timestamp = ? WHERE "+in, append([]any{now}, args...)...); err != nil {
		return err
	}
	for _, a := range back {
		a.HeartbeatTimestamp = now
		if err := s.reported(ctx, tx, a); err != nil {
			return err
		}
	}
	return nil
}

// Find returns an agent; AgentNotFound when there is none.
func (s *Service) Find(tx *store.Tx, id string) (*Agent, error) {
	a, err := s.Load(tx, id)
	if errors.Is(err, store.ErrNoRow) {
		return nil, fault.New(fault.NotFound, "AgentNotFound", "Agent %s could not be found.", id)
	}
	return a, err
}
