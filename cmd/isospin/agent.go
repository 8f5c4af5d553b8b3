package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	_ "isospin/internal/agent/all"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/telemetry"
)

var (
	resyncInterval = config.Float("agent", "resync_interval", 300,
		"Seconds between full comparisons of the host with what it must be, give or take a tenth.", config.Min(1))
	metricsListen = config.String("isospin", "metrics_listen", "",
		"Address:port where a server or an agent answers /metrics (Prometheus), /healthz and /readyz without authentication; empty is nowhere.")
)

// agentFiles are where Neutron's agents have their options.
var agentFiles = []string{
	"/etc/neutron/neutron.conf", "/etc/neutron/plugins/ml2/openvswitch_agent.ini",
	"/etc/neutron/l3_agent.ini", "/etc/neutron/dhcp_agent.ini", "/etc/neutron/metadata_agent.ini", ownFile,
}

func newAgentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this host: layer 2, routers, DHCP and metadata",
		Long: "Run the agent of this host: layer 2, routers, DHCP and metadata.\n" +
			"It brings the host up from the last known state, follows the server, and leaves the data path as it is when it stops.",
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd, agentFiles...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, logger, err := flags.load()
		if err != nil {
			return err
		}
		return runAgent(cmd.Context(), cfg, flags.reload, logger)
	}
	return cmd
}

func runAgent(ctx context.Context, cfg *config.Config, reload func() error, logger *slog.Logger) error {
	build := telemetry.ReadBuild()
	registry := telemetry.NewRegistry()
	registry.MustRegister(telemetry.NewCertificateCollector(map[string]string{
		"feed": config.FeedCertFile.Of(cfg), "feed_authority": config.FeedCAFile.Of(cfg),
	}))
	manager := newServiceManager(logger, reload)
	options := runtime.Options{
		Environment: runtime.Environment{
			Config: cfg, Host: config.Host.Of(cfg), StateDir: config.StatePath.Of(cfg), Logger: logger,
		},
		Features:       config.AgentFeatures.Of(cfg),
		Servers:        config.FeedServer.Of(cfg),
		BinaryVersion:  build.Version,
		ReportInterval: seconds(config.AgentReportInterval.Of(cfg)),
		ResyncInterval: seconds(resyncInterval.Of(cfg)),
		Metrics:        registry,
		Started:        func() { manager.tell("READY=1") },
	}
	if cert := config.FeedCertFile.Of(cfg); cert != "" {
		options.TLS = &runtime.TLS{CertFile: cert, KeyFile: config.FeedKeyFile.Of(cfg), CAFile: config.FeedCAFile.Of(cfg)}
	}
	agent, err := runtime.New(options)
	if err != nil {
		return err
	}
	logger.Info("agent starts", "host", options.Host, "features", options.Features, "configuration", cfg, "build", build.String())

	// The metrics end after the agent has: what it does at the end shows in them.
	metrics, endMetrics := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer endMetrics()
	background.Go(func() {
		err := telemetry.Serve(metrics, telemetry.Options{
			Registry: registry, Ready: agent.Ready, Address: metricsListen.Of(cfg), Logger: logger,
		})
		if err != nil { // no reason to leave the host without its agent
			logger.Error("metrics are not served", "error", err)
		}
	})
	// Counting the host's objects takes the locks that everything else takes.
	background.Go(func() {
		manager.run(metrics, func(context.Context) error {
			_, err := registry.Gather()
			return err
		})
	})
	defer context.AfterFunc(ctx, func() { manager.tell("STOPPING=1") })()
	err = agent.Run(ctx)
	logger.Info("agent ends, the data path stays")
	return err
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
