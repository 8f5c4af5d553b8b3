package server

import (
	"isospin/internal/config"
	"isospin/internal/watch"
)

var (
	watchLimit = config.Int("isospin", "watch_limit", 1000,
		"Most watches of changes (GET /v2.0/watch) at a time, of all callers.", config.Min(1))
	watchProjectLimit = config.Int("isospin", "watch_limit_per_project", 100,
		"Most watches of changes at a time by callers of one project.", config.Min(1))
	watchBuffer = config.Int("isospin", "watch_buffer", 16384,
		"Changes that are kept in memory, once for all watches; a watch whose client falls further behind ends, and can be resumed.", config.Min(1))
)

// newWatch makes the service that shows changes to clients; the hub, which has been started, tells it of them.
func (s *Server) newWatch(policy watch.Policy) {
	s.watch = watch.New(watch.Options{
		Store: s.Store, Registry: s.Core.Registry, Policy: policy, Logger: s.log, Sequence: s.Hub.Sequence(),
		Buffer: watchBuffer.Of(s.config), Limit: watchLimit.Of(s.config), ProjectLimit: watchProjectLimit.Of(s.config),
	})
	s.Hub.Observe(s.watch.Observe)
	s.Hub.OnSkip(s.watch.Skip)
}
