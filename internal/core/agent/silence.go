package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"isospin/internal/store"
)

// silence is when no heartbeat could be stored, because the database or all
// servers were away: agents did not miss those. Afterwards they have a moment
// to report.
type silence struct {
	mu sync.Mutex
	// heard is when the database answered last; zero: nobody notes it.
	heard time.Time
	// The last silence was so long, and ended then.
	length time.Duration
	ended  time.Time
}

const (
	// shortest is a silence that matters.
	shortest = 5 * time.Second
	// grace is how long agents may take to come back and report after it: twice
	// the longest pause between two attempts to attach.
	grace = 20 * time.Second
)

// at is by how much agents may be behind.
func (s *silence) at(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard.IsZero() {
		return 0
	}
	if since := now.Sub(s.heard); since > shortest {
		return since // it goes on
	}
	if now.Sub(s.ended) < grace {
		return s.length
	}
	return 0
}

func (s *silence) note(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since := now.Sub(s.heard); !s.heard.IsZero() && since > shortest {
		s.length, s.ended = since, now
	}
	s.heard = now
}

// Reachable notes that the database answers now: call it every second or so.
// What lies between two calls that are further apart is no agent's fault.
func (s *Service) Reachable() { s.silence.note(s.Now()) }

// Resume begins to note whether the database answers. If nobody has stored a
// heartbeat lately there was no server: agents have a moment to come back.
func (s *Service) Resume(ctx context.Context) error {
	newest := ""
	if err := s.Store.View(ctx, func(tx *store.Tx) error {
		return tx.Row("SELECT COALESCE(MAX(heartbeat_timestamp), '') FROM agent", nil, &newest)
	}); err != nil {
		return fmt.Errorf("agents: %w", err)
	}
	if at, err := time.Parse(TimeFormat, newest); err == nil && at.Before(s.Now()) {
		s.silence.note(at)
	}
	s.Reachable()
	return nil
}
