package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"isospin/internal/config"
	"isospin/internal/server"
	"isospin/internal/telemetry"
)

func newServerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the API server",
		Long:  "Run the API server: the Neutron v2.0 API for clients, and the feed for the agents of the hosts.",
		Args:  cobra.NoArgs,
	}
	flags := addConfigFlags(cmd, "/etc/neutron/neutron.conf", "/etc/neutron/plugins/ml2/ml2_conf.ini")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, logger, err := flags.load()
		if err != nil {
			return err
		}
		return runServer(cmd.Context(), cfg, logger)
	}
	return cmd
}

func runServer(ctx context.Context, cfg *config.Config, logger *slog.Logger) error {
	registry := telemetry.NewRegistry()
	s, err := server.New(ctx, server.Options{Config: cfg, Logger: logger, Metrics: registry})
	if err != nil {
		return err
	}
	api, agents := s.Addresses()
	logger.Info("server starts", "api", api.String(), "feed", agents.String(), "configuration", cfg, "build", telemetry.ReadBuild().String())
	notify := func(state string) {
		if err := notifySystemd(state); err != nil {
			logger.Warn("the service manager was not told", "state", state, "error", err)
		}
	}
	var background sync.WaitGroup
	defer background.Wait()
	metrics, endMetrics := context.WithCancel(context.WithoutCancel(ctx))
	defer endMetrics()
	background.Go(func() {
		if err := telemetry.Serve(metrics, telemetry.Options{Registry: registry, Address: metricsListen.Of(cfg), Logger: logger}); err != nil {
			logger.Error("metrics are not served", "error", err)
		}
	})
	notify("READY=1")
	defer context.AfterFunc(ctx, func() { notify("STOPPING=1") })()
	err = s.Run(ctx)
	logger.Info("server ends")
	return err
}
