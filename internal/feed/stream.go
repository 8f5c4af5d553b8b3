package feed

import (
	"context"
	"errors"

	"isospin/api/feed"
)

// ErrSuperseded: another stream of the same host has taken it over.
var ErrSuperseded = errors.New("another stream has taken this host over")

// Stream is a host's view that is followed in this process: what the host's
// stream carries, message by message. One goroutine at a time.
type Stream struct {
	hub  *Hub
	view *view
}

// Open begins a host's stream, for one that holds have; the first message
// brings it up to date. Close it.
func (h *Hub) Open(host string, have []*feed.Held) (*Stream, *feed.ServerMessage) {
	v, m := h.attach(host, have)
	return &Stream{h, v}, m
}

// Next waits for what the host must be told next; ErrSuperseded, or ctx's error.
func (s *Stream) Next(ctx context.Context) (*feed.ServerMessage, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-s.view.wake:
		}
		if s.hub.superseded(s.view) {
			return nil, ErrSuperseded
		}
		if m := s.hub.next(s.view); m != nil {
			return m, nil
		}
	}
}

// Due is what the host must be told now; nil: nothing. It does not wait.
func (s *Stream) Due() *feed.ServerMessage { return s.hub.next(s.view) }

// Close ends the stream.
func (s *Stream) Close() { s.hub.detach(s.view) }
