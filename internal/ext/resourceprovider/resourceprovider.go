// Package resourceprovider is what makes the agent-resources-synced extension
// true: Placement is told of the bandwidth and packet rates that agents say
// their hosts have, and agents show whether it knows.
//
// Reports are made until they succeed, one for each state of an agent: a failed
// one again with the agent's next heartbeat. Reporting twice does no harm.
//
// It must not know Placement's API, nor who asks for the resources.
package resourceprovider

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/core/agent"
	"isospin/internal/ext"
	"isospin/internal/feed"
	"isospin/internal/identity"
	"isospin/internal/notify/placement"
	"isospin/internal/store"
)

func init() {
	ext.Register(ext.Module{Name: "resourceprovider", Schemas: []store.Schema{schema}, Install: install})
}

var schema = store.Schema{Module: "ext/resourceprovider", Steps: [][]string{{
	// revision_number, started_at and heartbeat_timestamp are the agent's, as of the report.
	`CREATE TABLE resource_provider_report (
		agent_id VARCHAR(36) PRIMARY KEY REFERENCES agent (id) ON DELETE CASCADE,
		revision_number BIGINT NOT NULL, started_at VARCHAR(32) NOT NULL, heartbeat_timestamp VARCHAR(32) NOT NULL,
		outcome VARCHAR(16) NOT NULL)`,
}}}

// Outcomes of reports.
const (
	nothing = "nothing" // the agent has no resources
	synced  = "synced"
	failed  = "failed"
)

const (
	// interval between looks for agents to report.
	interval = time.Second
	// timeout of one report.
	timeout = 30 * time.Second
)

// vnicTypes of the ports that the Open vSwitch driver binds.
var vnicTypes = []string{"normal"}

// reporter tells Placement of providers.
type reporter interface {
	Report(ctx context.Context, providers []placement.Provider) error
}

type service struct {
	core      *core.Core
	placement reporter
	log       *slog.Logger
	tunnelled string
}

func install(c *core.Core, _ *feed.Hub) error {
	if !placement.Configured(c.Config) {
		return nil
	}
	client, err := placement.NewClient(c.Config)
	if err != nil {
		return err
	}
	s := &service{core: c, placement: client, log: c.Logger, tunnelled: config.ML2TunnelledProvider.Of(c.Config)}
	before := c.Agents.Present
	c.Agents.Present = func(ctx context.Context, rows []*agent.Agent) {
		if before != nil {
			before(ctx, rows)
		}
		s.present(ctx, rows)
	}
	c.Background = append(c.Background, s.run)
	return nil
}

// present shows the outcomes of reports.
func (s *service) present(ctx context.Context, rows []*agent.Agent) {
	by, ids := map[string]*agent.Agent{}, []string{}
	for _, a := range rows {
		if a.AgentType == agent.OpenVSwitch {
			by[a.ID], ids = a, append(ids, a.ID)
		}
	}
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		return store.Child(tx, "SELECT agent_id, outcome FROM resource_provider_report WHERE %s", "agent_id", ids, func(scan func(...any) error) error {
			var id, outcome string
			err := scan(&id, &outcome)
			if outcome != nothing {
				done := outcome == synced
				by[id].ResourcesSynced = &done
			}
			return err
		})
	})
	if err != nil {
		s.log.ErrorContext(ctx, "agents are shown without resources_synced", "error", err)
	}
}

func (s *service) run(ctx context.Context, _ time.Time) {
	ctx = identity.System(ctx)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := s.pass(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "resources of agents are not reported to Placement", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// pass reports the agents that are not, or otherwise, reported.
func (s *service) pass(ctx context.Context) error {
	due, err := s.due(ctx)
	if err != nil {
		return err
	}
	var away error
	for _, a := range due {
		if ctx.Err() != nil {
			return nil
		}
		outcome, err := s.report(ctx, a, away)
		if errors.Is(err, placement.ErrUnavailable) {
			away = err // nor will it answer about the others
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := s.note(ctx, a, outcome); err != nil {
			return err
		}
	}
	return nil
}

// due are the living agents of which Placement does not have what they last
// said.
func (s *service) due(ctx context.Context) ([]*agent.Agent, error) {
	var list []*agent.Agent
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		list = nil
		rows, err := s.core.Agents.Table.SelectBare(tx, `LEFT JOIN resource_provider_report r ON r.agent_id = t.id WHERE t.agent_type = ?
			AND (r.agent_id IS NULL OR r.revision_number <> t.revision_number OR r.started_at <> t.started_at
				OR r.outcome = ? AND r.heartbeat_timestamp <> t.heartbeat_timestamp) ORDER BY t.host`, agent.OpenVSwitch, failed)
		for _, a := range rows {
			if s.core.Agents.IsAlive(a) {
				list = append(list, a)
			}
		}
		return err
	})
	return list, err
}

func (s *service) report(ctx context.Context, a *agent.Agent, away error) (outcome string, err error) {
	r, err := placement.Read(a.Host, a.Configurations)
	switch {
	case err != nil:
	case r.None():
		return nothing, nil
	case away != nil:
		err = away
	default:
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err = s.placement.Report(ctx, r.Providers(placement.Form{AgentType: a.AgentType, VNICTypes: vnicTypes, Tunnelled: s.tunnelled}))
	}
	if err != nil {
		s.log.WarnContext(ctx, "Placement does not have the resources of an agent; they are reported again at its next heartbeat", "host", a.Host, "agent_type", a.AgentType, "error", err)
		return failed, err
	}
	s.log.InfoContext(ctx, "Placement has the resources of an agent", "host", a.Host, "agent_type", a.AgentType)
	return synced, nil
}

// note stores the outcome of a report.
func (s *service) note(ctx context.Context, a *agent.Agent, outcome string) error {
	err := s.core.Store.Tx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec("UPDATE resource_provider_report SET revision_number = ?, started_at = ?, heartbeat_timestamp = ?, outcome = ? WHERE agent_id = ?",
			a.Revision, a.StartedAt, a.HeartbeatTimestamp, outcome, a.ID)
		if err != nil || n > 0 {
			return err
		}
		err = tx.Put("INSERT INTO resource_provider_report (agent_id, revision_number, started_at, heartbeat_timestamp, outcome) VALUES (?, ?, ?, ?, ?)",
			a.ID, a.Revision, a.StartedAt, a.HeartbeatTimestamp, outcome)
		return err
	})
	if errors.Is(err, store.ErrReferenced) {
		return nil // the agent was deleted meanwhile
	}
	return err
}
