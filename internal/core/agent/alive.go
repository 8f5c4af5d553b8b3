package agent

// AliveSince is the oldest heartbeat_timestamp of an agent that is alive.
func (s *Service) AliveSince() string { return s.since() }
