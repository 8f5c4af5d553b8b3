package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"isospin/internal/config"
	"isospin/internal/telemetry"
)

// configFlags are --config-file and --config-dir of a command.
type configFlags struct {
	files, dirs []string
	// defaults are read if neither flag is given, those that exist.
	defaults []string
	// level of the logger that load made.
	level slog.LevelVar
}

// addConfigFlags gives the command the flags that oslo.config's programs have.
func addConfigFlags(cmd *cobra.Command, defaults ...string) *configFlags {
	f := &configFlags{defaults: defaults}
	cmd.Flags().StringArrayVar(&f.files, "config-file", nil, "INI `file` to read; may be repeated, a later one wins")
	cmd.Flags().StringArrayVar(&f.dirs, "config-dir", nil, "`directory` whose *.conf files are read after the files; may be repeated")
	return f
}

// load reads the configuration and makes the logger that it asks for, which is
// then told what is odd in it.
func (f *configFlags) load() (*config.Config, *slog.Logger, error) {
	options := f.options()
	cfg, err := config.Load(options)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration: %w", err)
	}
	options.Logger = telemetry.NewLogger(telemetry.LogOptions{Output: os.Stderr, JSON: config.UseJSON.Of(cfg), Debug: config.Debug.Of(cfg), Level: &f.level})
	if cfg, err = config.Load(options); err != nil {
		return nil, nil, fmt.Errorf("configuration: %w", err)
	}
	return cfg, options.Logger, nil
}

// reload reads the configuration anew, and takes from it what can change in a
// running process: the level of the log.
func (f *configFlags) reload() error {
	cfg, err := config.Load(f.options())
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	telemetry.SetDebug(&f.level, config.Debug.Of(cfg))
	return nil
}

func (f *configFlags) options() config.LoadOptions {
	options := config.LoadOptions{Files: f.files, Dirs: f.dirs, Environ: os.Environ()}
	if len(f.files) == 0 && len(f.dirs) == 0 {
		for _, file := range f.defaults {
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				options.Files = append(options.Files, file)
			}
		}
	}
	return options
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Describe and check configuration"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "reference", Short: "Print every option as Markdown", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return config.Reference(cmd.OutOrStdout()) },
		},
		&cobra.Command{
			Use: "sample", Short: "Print a configuration file with every option at its default, commented out", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return config.Sample(cmd.OutOrStdout()) },
		},
		newConfigCheckCommand(),
	)
	return cmd
}

func newConfigCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Args: cobra.NoArgs,
		Short: "Read configuration as a server or an agent would, and print what differs from the defaults",
		Long: "Read configuration as a server or an agent would, and print what differs from the defaults.\n" +
			"Values that no option takes are errors; unknown options are warnings. Secrets are masked.",
	}
	flags := addConfigFlags(cmd, slices.Insert(slices.Clone(agentFiles), 1, serverFiles[1])...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, _, err := flags.load()
		if err != nil {
			return err
		}
		for _, file := range cfg.Files() {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), "#", file); err != nil {
				return err
			}
		}
		return cfg.Effective(cmd.OutOrStdout())
	}
	return cmd
}
