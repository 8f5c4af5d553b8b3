package feed

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"isospin/api/feed"
	"isospin/api/feed/feedconnect"
	"isospin/internal/core/agent"
	"isospin/internal/identity"
	"isospin/internal/store"
)

// Server speaks the agents' side of the feed (api/feed).
type Server struct {
	hub    *Hub
	store  *store.Store
	agents *agent.Service
	log    *slog.Logger
}

// ServerOptions of NewServer.
type ServerOptions struct {
	Hub    *Hub           // required
	Store  *store.Store   // required
	Agents *agent.Service // required
	Logger *slog.Logger   // required
}

// NewServer returns the service of the agents' streams.
func NewServer(o ServerOptions) *Server {
	return &Server{hub: o.Hub, store: o.Store, agents: o.Agents, log: o.Logger}
}

// Handler returns the path and handler of the service.
func (s *Server) Handler() (string, http.Handler) { return feedconnect.NewFeedHandler(s) }

type peerKey struct{}

// WithPeer notes the host name of the client's certificate: the stream may speak for that host only.
func WithPeer(ctx context.Context, host string) context.Context {
	return context.WithValue(ctx, peerKey{}, host)
}

// Attach implements feedconnect.FeedHandler: one stream of one host.
func (s *Server) Attach(ctx context.Context, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil || hello.Host == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must be a hello that names the host"))
	}
	if peer, ok := ctx.Value(peerKey{}).(string); ok && peer != hello.Host {
		return connect.NewError(connect.CodePermissionDenied, errors.New("the certificate is of another host"))
	}
	ctx = identity.System(ctx)
	if err := s.report(ctx, hello.Host, hello.Functions, true); err != nil {
		s.log.Error("agents cannot be registered", "host", hello.Host, "error", err)
		return connect.NewError(connect.CodeUnavailable, errors.New("the agents cannot be registered now"))
	}
	view, message := s.hub.Open(hello.Host, hello.Have)
	defer view.Close()
	s.log.Info("host attached", "host", hello.Host, "held", len(hello.Have), "sent", len(message.Upserts), "deleted", len(message.Deletes), "sequence", message.Sequence)
	defer s.log.Info("host detached", "host", hello.Host)
	if err := stream.Send(message); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(s.receive(ctx, hello.Host, stream)) }()
	err = s.send(ctx, view, stream)
	cancel(err)
	// The receiver ends with the stream, which ends when this function returns:
	// waiting for it here would be waiting for ever.
	return err
}

func (s *Server) send(ctx context.Context, view *Stream, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage]) error {
	for {
		m, err := view.Next(ctx)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, context.Canceled):
			return nil
		case errors.Is(err, ErrSuperseded):
			return connect.NewError(connect.CodeAborted, err)
		case err != nil:
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

func (s *Server) receive(ctx context.Context, host string, stream *connect.BidiStream[feed.AgentMessage, feed.ServerMessage]) error {
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		switch body := m.Body.(type) {
		case *feed.AgentMessage_Report:
			err = s.hub.Report(ctx, host, body.Report.Applied)
		case *feed.AgentMessage_Heartbeat:
			err = s.store.Tx(ctx, func(tx *store.Tx) error { return s.agents.Beat(tx, host) })
			if err == nil && len(body.Heartbeat.Functions) > 0 {
				err = s.report(ctx, host, body.Heartbeat.Functions, false)
			}
		}
		if err != nil {
			// Reports are repeated by an agent that attaches again: ending the stream loses none.
			s.log.Error("a host's report cannot be stored", "host", host, "error", err)
			return connect.NewError(connect.CodeUnavailable, errors.New("the report cannot be stored now"))
		}
	}
}

func (s *Server) report(ctx context.Context, host string, functions []*feed.Function, fresh bool) error {
	return s.store.Tx(ctx, func(tx *store.Tx) error {
		for _, f := range functions {
			configurations := json.RawMessage(f.Configurations)
			if !json.Valid(configurations) {
				configurations = json.RawMessage("{}")
			}
			a := &agent.Agent{Host: host, AgentType: f.AgentType, Binary: f.Binary, Topic: f.Topic, Configurations: configurations}
			if f.AvailabilityZone != "" {
				a.AvailabilityZone = &f.AvailabilityZone
			}
			if _, err := s.agents.Report(ctx, tx, a, fresh); err != nil {
				return err
			}
		}
		return nil
	})
}
