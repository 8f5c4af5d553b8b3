// Command isospin is OpenStack Networking in one binary: the API server, the
// agent of a host, and the tools around them. This directory only wires
// packages together.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal stops in good order, a second one at once.
	context.AfterFunc(ctx, stop)
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "isospin:", err)
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "isospin",
		Short:         "OpenStack Networking: the Neutron API, its agents and services in one binary",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newAgentCommand(),
		newConfigCommand(),
		newDatabaseCommand(),
		newDoctorCommand(),
		newLabCommand(),
		newServerCommand(),
		newUpCommand(),
		newVersionCommand(),
	)
	return root
}
