package main

import (
	"github.com/spf13/cobra"

	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/lab/simulate"
)

func newSimulateCommand() *cobra.Command {
	var o simulate.Options
	cmd := &cobra.Command{
		Use: "simulate", Args: cobra.NoArgs,
		Short: "Attach hosts without a data path to a server",
		Long: "Attach hosts without a data path to a server: they show as agents, ports are bound to them and routers\n" +
			"scheduled, and whatever they are told of they report as applied. For tests of the API and its clients.",
		Example: "  isospin lab simulate --hosts 2 --bridge-mapping physnet1=br-phys",
	}
	flags := addConfigFlags(cmd, "/etc/neutron/neutron.conf")
	cmd.Flags().IntVar(&o.Hosts, "hosts", 2, "how `many`")
	cmd.Flags().StringVar(&o.NamePrefix, "name-prefix", "simulated-", "begins their names; a number from 1 ends them")
	cmd.Flags().StringToStringVar(&o.BridgeMappings, "bridge-mapping", nil, "`physical-network=bridge` that every host has; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, logger, err := flags.load()
		if err != nil {
			return err
		}
		o.Config, o.Logger, o.Servers = cfg, logger, config.FeedServer.Of(cfg)
		if cert := config.FeedCertFile.Of(cfg); cert != "" {
			o.TLS = &runtime.TLS{CertFile: cert, KeyFile: config.FeedKeyFile.Of(cfg), CAFile: config.FeedCAFile.Of(cfg)}
		}
		logger.Info("simulated hosts attach", "hosts", o.Hosts, "servers", o.Servers)
		return simulate.Run(cmd.Context(), o)
	}
	return cmd
}
