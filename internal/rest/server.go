package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Server is an http.Server with bounds on how long and how much a client may
// take, and an end that loses no request.
type Server struct {
	http.Server
	// Drain is how long Serve waits for requests that are under way when it ends.
	Drain time.Duration
}

// NewServer returns a server of the handler. Its fields may be changed before Serve.
func NewServer(handler http.Handler, logger *slog.Logger) *Server {
	return &Server{
		Server: http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       time.Minute,
			WriteTimeout:      5 * time.Minute,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    maxQuery + 64<<10,
			ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		},
		Drain: 30 * time.Second,
	}
}

// Serve answers requests from the listener until ctx ends. Then it accepts no
// more, waits at most Drain for the requests under way, and cuts off the rest,
// which is an error. It closes the listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.Server.Serve(listener) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Drain)
	defer cancel()
	err := s.Shutdown(wait)
	if err != nil {
		err = fmt.Errorf("drain %s: %w", listener.Addr(), errors.Join(err, s.Close()))
	}
	<-stopped
	return err
}
