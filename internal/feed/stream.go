package feed

import (
	"context"
	"errors"

	"isospin/api/feed"
)

// ErrSuperseded: another stream of the same host has taken it over.
var ErrSuperseded = errors.New("another stream has taken this host over")

// syncMessage is about how many bytes the messages have that bring a host up to
// date: a thousand hosts may come with nothing at once.
const syncMessage = 128 << 10

// Stream is a host's view that is followed in this process: what the host's
// stream carries, message by message. One goroutine at a time.
type Stream struct {
	hub  *Hub
	view *view
}

// Open begins a host's stream, for one that holds have; the message brings it
// up to date. Close it.
func (h *Hub) Open(host string, have []*feed.Held) (*Stream, *feed.ServerMessage) {
	s := h.open(host, have)
	m := s.Due()
	if m == nil { // another stream came for the host in this very moment
		m = &feed.ServerMessage{}
	}
	return s, m
}

// open begins a host's stream; next brings it up to date, in several messages if there is much.
func (h *Hub) open(host string, have []*feed.Held) *Stream {
	return &Stream{h, h.attach(host, have)}
}

// next waits for what the host must be told next; ErrSuperseded, or ctx's error
// if endsWith was called with it: waiting for one thing is cheaper than for two.
func (s *Stream) next(ctx context.Context) (*told, error) {
	for {
		if !s.view.syncing { // only this goroutine ends it
			<-s.view.wake
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if m, err := s.hub.next(s.view, syncMessage); m != nil || err != nil {
			return m, err
		}
	}
}

// endsWith makes next return when ctx ends, until stop.
func (s *Stream) endsWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, s.view.rouse)
}

// Due is what the host must be told now; nil: nothing. It does not wait. Others
// may have the same message: it is not to be changed.
func (s *Stream) Due() *feed.ServerMessage {
	m, err := s.hub.next(s.view, 0)
	if m == nil || err != nil { // nothing, or nothing any more
		return nil
	}
	return m.ServerMessage
}

// Close ends the stream.
func (s *Stream) Close() { s.hub.detach(s.view) }
