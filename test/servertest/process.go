package servertest

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"isospin/internal/config"
	"isospin/internal/server"
)

// Serve is an API server in a process of its own: until SIGTERM, or until the
// program that started it, and has the other end of its standard input, ends.
func Serve(file string) error {
	c, err := config.Load(config.LoadOptions{Files: []string{file}})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what counts
		os.Exit(1)
	}()
	s, err := server.New(ctx, server.Options{Config: c, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
