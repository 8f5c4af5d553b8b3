package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// message is a JSON-RPC 1.0 request, response or notification.
type message struct {
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
	ID     json.RawMessage `json:"id,omitempty"`
}

// session is one JSON-RPC connection. serve reads until the connection ends;
// call may be used from any goroutine meanwhile.
type session struct {
	conn   net.Conn
	notify func(method string, params json.RawMessage) error
	heard  atomic.Int64 // when the peer last said something, in Unix nanoseconds

	writing sync.Mutex
	encoder *json.Encoder

	mu      sync.Mutex
	nextID  uint64
	pending map[string]func(message, error)
	err     error // why the session ended
}

var errClosed = errors.New("connection closed")

// dial opens "unix:/path" or "tcp:host:port".
func dial(ctx context.Context, address string) (net.Conn, error) {
	network, where, ok := strings.Cut(address, ":")
	if !ok || (network != "unix" && network != "tcp") {
		return nil, fmt.Errorf("OVSDB address %q is neither unix:PATH nor tcp:HOST:PORT", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, where)
}

func newSession(conn net.Conn, notify func(string, json.RawMessage) error) *session {
	s := &session{conn: conn, notify: notify, encoder: json.NewEncoder(conn), pending: map[string]func(message, error){}}
	s.encoder.SetEscapeHTML(false)
	s.heard.Store(time.Now().UnixNano())
	return s
}

// serve handles what the peer says until the connection ends. Notifications
// and answers are handled in the order in which they come.
func (s *session) serve() error {
	decoder := json.NewDecoder(s.conn)
	for {
		var m message
		if err := decoder.Decode(&m); err != nil {
			return s.end(fmt.Errorf("reading: %w", err))
		}
		s.heard.Store(time.Now().UnixNano())
		switch {
		case m.Method == "echo":
			if err := s.write(map[string]any{"id": m.ID, "result": m.Params, "error": nil}); err != nil {
				return s.end(err)
			}
		case m.Method != "":
			if err := s.notify(m.Method, m.Params); err != nil {
				return s.end(fmt.Errorf("notification %s: %w", m.Method, err))
			}
		default:
			s.mu.Lock()
			reply := s.pending[string(m.ID)]
			delete(s.pending, string(m.ID))
			s.mu.Unlock()
			if reply != nil {
				reply(m, nil)
			}
		}
	}
}

// end closes the connection and fails every call that waits.
func (s *session) end(err error) error {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	err = s.err
	waiting := s.pending
	s.pending = nil
	s.mu.Unlock()
	s.conn.Close()
	for _, reply := range waiting {
		reply(message{}, fmt.Errorf("%w: %w", errClosed, err))
	}
	return err
}

func (s *session) write(v any) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	// A peer that does not read must not hold us for ever.
	_ = s.conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
	if err := s.encoder.Encode(v); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// rpcError is an error in a JSON-RPC response.
type rpcError struct{ text string }

func (e *rpcError) Error() string { return e.text }

// call sends a request and waits for its answer. install, which may be nil, is
// called with the result by the goroutine that serves: before anything that
// the peer said later is handled.
func (s *session) call(ctx context.Context, method string, params any, install func(json.RawMessage) error) (json.RawMessage, error) {
	type answer struct {
		result json.RawMessage
		err    error
	}
	answers := make(chan answer, 1)
	reply := func(m message, err error) {
		if err == nil && len(m.Error) > 0 && string(m.Error) != "null" {
			err = &rpcError{text: string(m.Error)}
		}
		if err == nil && install != nil {
			err = install(m.Result)
		}
		answers <- answer{m.Result, err}
	}
	s.mu.Lock()
	if s.pending == nil {
		err := s.err
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", errClosed, err)
	}
	s.nextID++
	id := fmt.Sprint(s.nextID)
	s.pending[id] = reply
	s.mu.Unlock()
	if err := s.write(map[string]any{"method": method, "params": params, "id": json.RawMessage(id)}); err != nil {
		_ = s.end(err)
	}
	select {
	case a := <-answers:
		return a.result, a.err
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.pending, id)
		s.mu.Unlock()
		return nil, ctx.Err()
	}
}

// probe ends the session when the peer is silent for twice the interval, and
// sends an echo when it is silent for once. It returns when ctx ends.
func (s *session) probe(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		silent := time.Since(time.Unix(0, s.heard.Load()))
		switch {
		case silent > 2*interval:
			_ = s.end(fmt.Errorf("no word from the server for %v", silent.Round(time.Second)))
			return
		case silent > interval:
			// Only a sign of life is wanted; the answer is read by serve, which drops it.
			if err := s.write(map[string]any{"method": "echo", "params": []any{}, "id": "echo"}); err != nil {
				_ = s.end(err)
				return
			}
		}
	}
}
