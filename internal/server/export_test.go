package server

import "time"

// Limits bound how long clients may take.
type Limits struct{ ReadHeader, Read, Write, Idle time.Duration }

// Watches is how many are open.
func (s *Server) Watches() int { return s.watch.Watches() }

// Limits returns those of the API.
func (s *Server) Limits() Limits {
	return Limits{s.edge.ReadHeaderTimeout, s.edge.ReadTimeout, s.edge.WriteTimeout, s.edge.IdleTimeout}
}

// SetLimits changes them, before Run.
func (s *Server) SetLimits(l Limits) {
	s.edge.ReadHeaderTimeout, s.edge.ReadTimeout, s.edge.WriteTimeout, s.edge.IdleTimeout = l.ReadHeader, l.Read, l.Write, l.Idle
}
