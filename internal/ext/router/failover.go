package router

import (
	"context"
	"time"

	"isospin/internal/config"
	"isospin/internal/core/agent"
	"isospin/internal/identity"
	"isospin/internal/store"
)

// failover moves routers away from hosts that are not heard of, until ctx ends:
// those with ha, and all with allow_automatic_l3agent_failover. It begins when
// the database has been there for so long that every host could report to one
// of the servers, and asks often.
func (s *service) failover(ctx context.Context, reachable time.Time) {
	down := time.Duration(config.AgentDownTime.Of(s.core.Config)) * time.Second
	tick := time.NewTimer(max(0, down-time.Since(reachable)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tick.Reset(min(down/4, 2*time.Second))
		if err := s.failOver(ctx); err != nil && ctx.Err() == nil {
			s.core.Logger.Error("routers cannot be moved away from hosts that are not heard of", "error", err)
		}
	}
}

// failOver moves each router that must go in a transaction of its own.
func (s *service) failOver(ctx context.Context) error {
	ctx = identity.System(ctx)
	var ids []string
	err := s.core.Store.View(ctx, func(tx *store.Tx) error {
		agents, err := s.core.Agents.Table.SelectBare(tx, "WHERE t.agent_type = ? ORDER BY t.host", agent.L3)
		if err != nil {
			return err
		}
		for _, a := range agents {
			if s.core.Agents.IsAlive(a) {
				continue
			}
			err := tx.Query(func(scan func(...any) error) error {
				var id string
				err := scan(&id)
				ids = append(ids, id)
				return err
			}, "SELECT t.id FROM router t JOIN router_binding b ON b.router_id = t.id WHERE b.host = ? AND (t.ha OR ?) ORDER BY t.created_at, t.id",
				a.Host, config.AllowAutomaticL3AgentFailover.Of(s.core.Config))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.core.Store.Tx(ctx, func(tx *store.Tx) error { return s.rescue(ctx, tx, id) }); err != nil {
			return err
		}
	}
	return nil
}

// rescue moves a router to another host if its own is still not heard of. With
// no other host that would do it stays: its own may well go on forwarding.
func (s *service) rescue(ctx context.Context, tx *store.Tx, id string) error {
	rows, err := s.routers.Table.Select(tx, "WHERE t.id = ?", id)
	if err != nil || len(rows) == 0 || rows[0].HostID == "" {
		return err
	}
	r := rows[0]
	agents, err := s.core.Agents.OnHost(tx, r.HostID)
	if err != nil {
		return err
	}
	for _, a := range agents {
		if a.AgentType == agent.L3 && s.core.Agents.IsAlive(a) {
			return nil
		}
	}
	from := r.HostID
	host, err := s.choose(tx, r, nil, from)
	if err != nil || host == "" {
		return err
	}
	if err := s.bind(ctx, tx, r, host); err != nil {
		return err
	}
	s.core.Logger.Warn("router moved: its host is not heard of", "router", r.ID, "from", from, "to", host)
	return s.touch(ctx, tx, r)
}
