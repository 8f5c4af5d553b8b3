package server

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/ext"
	"isospin/internal/lease"
	"isospin/internal/notify"
	"isospin/internal/store"
)

// OpenStore opens the database that is configured; its schema is not touched.
func OpenStore(ctx context.Context, c *config.Config, logger *slog.Logger) (*store.Store, error) {
	return openStore(ctx, c, logger, nil)
}

func openStore(ctx context.Context, c *config.Config, logger *slog.Logger, metrics prometheus.Registerer) (*store.Store, error) {
	seconds := func(o *config.Option[int]) time.Duration { return time.Duration(o.Of(c)) * time.Second }
	return store.Open(ctx, store.Options{
		Connection: config.DatabaseConnection.Of(c), Logger: logger, Metrics: metrics,
		Pool: store.Pool{
			Size: config.DatabasePoolSize.Of(c),
			// 0 is a value here, and the default there.
			Overflow: cmp.Or(config.DatabaseOverflow.Of(c), -1), Wait: seconds(config.DatabasePoolTimeout), Recycle: cmp.Or(seconds(config.DatabaseRecycle), -1),
			Retries: cmp.Or(config.DatabaseRetries.Of(c), store.NoRetries), RetryInterval: seconds(config.DatabaseRetryInterval), Repeats: config.DatabaseRepeats.Of(c),
		},
	})
}

// Schemas are the tables of everything that is built in.
func Schemas() ([]store.Schema, error) {
	modules, err := ext.Modules()
	if err != nil {
		return nil, err
	}
	schemas := append(core.Schemas(), lease.Schema, notify.Schema)
	for _, m := range modules {
		schemas = append(schemas, m.Schemas...)
	}
	return schemas, nil
}
