package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"isospin/internal/config"
	"isospin/internal/server"
	"isospin/internal/store"
	"isospin/internal/telemetry"
)

// ownFile is for what is to differ from the files of Neutron, which may stay in use.
const ownFile = "/etc/neutron/isospin.conf"

// serverFiles are where Neutron's server has its options.
var serverFiles = []string{"/etc/neutron/neutron.conf", "/etc/neutron/plugins/ml2/ml2_conf.ini", ownFile}

func newServerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the API server",
		Long:  "Run the API server: the Neutron v2.0 API for clients, and the feed for the agents of the hosts.",
		Args:  cobra.NoArgs,
	}
	flags := addConfigFlags(cmd, serverFiles...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, logger, err := flags.load()
		if err != nil {
			return err
		}
		return runServer(cmd.Context(), cfg, flags.reload, logger)
	}
	return cmd
}

func runServer(ctx context.Context, cfg *config.Config, reload func() error, logger *slog.Logger) error {
	registry := telemetry.NewRegistry()
	manager := newServiceManager(logger, reload)
	s, err := server.New(ctx, server.Options{Config: cfg, Logger: logger, Metrics: registry})
	if err != nil {
		return err
	}
	api, agents := s.Addresses()
	logger.Info("server starts", "api", api.String(), "feed", agents.String(), "configuration", cfg, "build", telemetry.ReadBuild().String())
	var background sync.WaitGroup
	defer background.Wait()
	metrics, endMetrics := context.WithCancel(context.WithoutCancel(ctx))
	defer endMetrics()
	databaseAnswers := func() error {
		ctx, cancel := context.WithTimeout(metrics, 5*time.Second)
		defer cancel()
		return s.Store.View(ctx, func(tx *store.Tx) error {
			var one int
			return tx.Row("SELECT 1", nil, &one)
		})
	}
	background.Go(func() {
		if err := telemetry.Serve(metrics, telemetry.Options{Registry: registry, Ready: databaseAnswers, Address: metricsListen.Of(cfg), Logger: logger}); err != nil {
			logger.Error("metrics are not served", "error", err)
		}
	})
	// Whether the database is there does not matter: a restart brings none back.
	background.Go(func() {
		manager.run(metrics, func(ctx context.Context) error { return answers(ctx, api, config.UseSSL.Of(cfg)) })
	})
	manager.tell("READY=1")
	defer context.AfterFunc(ctx, func() { manager.tell("STOPPING=1") })()
	err = s.Run(ctx)
	logger.Info("server ends")
	return err
}
