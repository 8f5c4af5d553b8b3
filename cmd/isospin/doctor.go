package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isospin/internal/config"
	"isospin/internal/doctor"
)

func newDoctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look whether a server or an agent has what it needs, and say how to get what is missing",
		Long: "Look whether a server or an agent has what it needs, and say how to get what is missing. Nothing is changed.\n" +
			"Run it as the user of the service. The exit status is 0 when nothing is bad, and 1 otherwise.",
	}
	add := func(use, short string, files []string, checks func(*config.Config) []doctor.Check) {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
		flags := addConfigFlags(c, files...)
		c.RunE = func(c *cobra.Command, _ []string) error {
			var odd oddities
			options := flags.options()
			options.Environ = slices.Concat(options.Environ, doctor.Settings())
			options.Logger = slog.New(&odd)
			cfg, err := config.Load(options)
			if err != nil {
				return fmt.Errorf("configuration: %w", err)
			}
			all := append([]doctor.Check{{Name: "configuration", Look: func(context.Context) []doctor.Finding { return odd.findings(cfg.Files()) }}}, checks(cfg)...)
			bad, err := doctor.Run(c.Context(), c.OutOrStdout(), all)
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d of what was looked at is bad, see above", bad)
			}
			return err
		}
		cmd.AddCommand(c)
	}
	add("server", "Look at the database, Keystone, certificates and this machine as a server would", serverFiles, doctor.Server)
	add("agent", "Look at Open vSwitch, the kernel, the server and this host as an agent would", agentFiles, doctor.Host)
	return cmd
}

// oddities are what loading the configuration warns of.
type oddities struct{ warnings []string }

func (o *oddities) findings(files []string) []doctor.Finding {
	var all []doctor.Finding
	for _, w := range o.warnings {
		all = append(all, doctor.Finding{Grade: doctor.Note, Text: w})
	}
	if len(files) == 0 {
		all = append(all, doctor.Finding{Grade: doctor.Note, Text: "no file was read: everything has its default", Cure: "write /etc/neutron/neutron.conf, or name files by --config-file"})
	}
	if len(all) == 0 {
		all = append(all, doctor.Finding{Text: "read " + strings.Join(files, ", ")})
	}
	return all
}

// Enabled implements slog.Handler.
func (*oddities) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (o *oddities) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	o.warnings = append(o.warnings, text)
	return nil
}

// WithAttrs implements slog.Handler.
func (o *oddities) WithAttrs([]slog.Attr) slog.Handler { return o }

// WithGroup implements slog.Handler.
func (o *oddities) WithGroup(string) slog.Handler { return o }
