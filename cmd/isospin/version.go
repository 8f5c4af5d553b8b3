package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"isospin/internal/telemetry"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "isospin", telemetry.ReadBuild())
			return err
		},
	}
}
