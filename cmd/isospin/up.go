package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"isospin/internal/lab"
	"isospin/internal/lab/up"
)

func newUpCommand() *cobra.Command {
	var (
		once, verbose bool
		dataDir       string
		port, hosts   int
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring up a whole cloud on this machine, prove with real packets that it works, and stay",
		Long: "Bring up a whole cloud on this machine: the API server, emulated hypervisors (network namespaces with\n" +
			"an Open vSwitch and an agent each), an underlay, an outside network and some instances. Show with real\n" +
			"packets that it works, and stay until Ctrl-C, which removes everything. Needs root.",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&once, "once", false, "end after the checks; the exit status tells whether all passed")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log what the lab does; server and agents log at debug level")
	flags.StringVar(&dataDir, "data-dir", "", "keep database, configuration and logs in this new or empty folder (default: gone with the lab)")
	flags.IntVar(&port, "port", 9696, "port of the API on 127.0.0.1; 0 takes a free one")
	flags.IntVar(&hosts, "hosts", 2, "number of hypervisors")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		executable, err := os.Executable()
		if err != nil {
			return fmt.Errorf("path of this program: %w", err)
		}
		level := slog.LevelError
		var config lab.Settings
		if verbose {
			level = slog.LevelDebug
			config = lab.Settings{"DEFAULT": {"debug": "true"}}
		}
		logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
		// A terminal that is closed ends the cloud too.
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
		defer stop()
		// When nobody reads any more (up | head), writing fails instead of
		// ending this program with everything still there.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		// Removing takes an instant and must not be cut short.
		ignore := func() { signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) }
		context.AfterFunc(ctx, ignore)
		return up.Run(ctx, up.Options{
			Out: cmd.OutOrStdout(), Logger: logger, Once: once,
			Lab: lab.Options{
				Logger: logger, Executable: executable, Hosts: hosts, DataDir: dataDir,
				Listen:       net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
				ServerConfig: config, AgentConfig: config,
			},
			Ending: ignore,
		})
	}
	return cmd
}
