package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/lab/simulate"
)

// simulation is what the command was asked for.
type simulation struct {
	fleet                 simulate.FleetOptions
	ports                 int
	api                   string
	authority, signingKey string
}

func newSimulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use: "simulate", Args: cobra.NoArgs,
		Short: "Attach hosts without a data path to a server",
		Long: "Attach hosts without a data path to a server: they show as agents, ports are bound to them and routers\n" +
			"scheduled, and whatever they are told of they report as applied. With --ports-per-host, make networks and\n" +
			"ports for them, tell how long each port took to reach its host, and delete them at the end.\n" +
			"If the API asks for tokens, that of an administrator is taken from the environment, OS_TOKEN.",
		Example: "  isospin lab simulate --hosts 2 --bridge-mapping physnet1=br-phys\n" +
			"  isospin lab simulate --hosts 1000 --ports-per-host 50 --api http://127.0.0.1:9696",
	}
	flags := addConfigFlags(cmd, "/etc/neutron/neutron.conf")
	cmd.Flags().IntVar(&s.fleet.Hosts, "hosts", 2, "how `many`")
	cmd.Flags().StringVar(&s.fleet.NamePrefix, "name-prefix", "simulated-", "begins their names; a number from 1 ends them")
	cmd.Flags().StringToStringVar(&s.fleet.BridgeMappings, "bridge-mapping", nil, "`physical-network=bridge` that every host has; may be repeated")
	cmd.Flags().IntVar(&s.ports, "ports-per-host", 0, "make so `many` ports for each host")
	cmd.Flags().StringVar(&s.api, "api", "http://127.0.0.1:9696", "where the API is; for --ports-per-host")
	cmd.Flags().StringVar(&s.authority, "ca-cert-file", "", "PEM `file` of the authority of the feed's certificates; with --ca-key-file a certificate is made for each host")
	cmd.Flags().StringVar(&s.signingKey, "ca-key-file", "", "PEM `file` of that authority's key")
	cmd.MarkFlagsRequiredTogether("ca-cert-file", "ca-key-file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, logger, err := flags.load()
		if err != nil {
			return err
		}
		s.fleet.Logger, s.fleet.Servers = logger, config.FeedServer.Of(cfg)
		switch cert := config.FeedCertFile.Of(cfg); {
		case s.authority != "":
			issuer, err := simulate.NewIssuer(s.authority, s.signingKey)
			if err != nil {
				return err
			}
			s.fleet.Certificates = issuer.Certificates
		case cert != "":
			files := &runtime.TLS{CertFile: cert, KeyFile: config.FeedKeyFile.Of(cfg), CAFile: config.FeedCAFile.Of(cfg)}
			s.fleet.Certificates = func(string) (*tls.Config, error) { return files.Load() }
		}
		return s.run(cmd.Context(), cmd.OutOrStdout(), logger)
	}
	return cmd
}

// run attaches the hosts, makes their ports, and stays until ctx ends.
func (s *simulation) run(ctx context.Context, out io.Writer, logger *slog.Logger) error {
	arrivals := simulate.NewArrivals()
	if s.ports > 0 {
		s.fleet.Told = arrivals.Told
	}
	fleet, err := simulate.NewFleet(s.fleet)
	if err != nil {
		return err
	}
	logger.Info("simulated hosts attach", "hosts", s.fleet.Hosts, "servers", s.fleet.Servers)
	hosts, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fleet.Run(hosts)
	}()
	defer func() {
		end()
		<-ended
	}()
	if s.ports > 0 {
		cloud, err := s.load(ctx, out, fleet, arrivals)
		if cloud != nil {
			defer func() {
				logger.Info("what was made is deleted", "networks", len(cloud.Networks), "ports", len(cloud.Answered))
				undo, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
				defer stop()
				if err := cloud.Remove(undo); err != nil {
					logger.Error("not all of it could be deleted", "error", err)
				}
			}()
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// load makes the ports and prints how long they took.
func (s *simulation) load(ctx context.Context, out io.Writer, fleet *simulate.Fleet, arrivals *simulate.Arrivals) (*simulate.Cloud, error) {
	begin := time.Now()
	for fleet.Synced() < s.fleet.Hosts {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	fmt.Fprintf(out, "%d hosts are attached after %v\n", s.fleet.Hosts, time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	cloud, err := simulate.Load(ctx, simulate.LoadOptions{
		API: s.api, Token: os.Getenv("OS_TOKEN"), Layout: simulate.Layout{Hosts: s.fleet.Hosts, PortsPerHost: s.ports}, Host: fleet.Name,
	})
	if err != nil {
		return cloud, err
	}
	wait, stop := context.WithTimeoutCause(ctx, time.Minute, errors.New("a minute has passed"))
	defer stop()
	var late []time.Duration
	for id, answered := range cloud.Answered {
		at, err := arrivals.At(wait, id)
		if err != nil {
			return cloud, err
		}
		late = append(late, max(at.Sub(answered), 0))
	}
	took := time.Since(begin)
	slices.Sort(late)
	slices.Sort(cloud.Requests)
	of := func(list []time.Duration, share float64) time.Duration {
		return list[int(share*float64(len(list)-1))].Round(10 * time.Microsecond)
	}
	fmt.Fprintf(out, "%d ports in %d networks took %v, %.0f a second\n", len(late), len(cloud.Networks), took.Round(time.Millisecond), float64(len(late))/took.Seconds())
	fmt.Fprintf(out, "request for up to 100 ports: p50 %v, p99 %v\n", of(cloud.Requests, 0.5), of(cloud.Requests, 0.99))
	fmt.Fprintf(out, "from its answer to the host: p50 %v, p99 %v\n", of(late, 0.5), of(late, 0.99))
	return cloud, nil
}
