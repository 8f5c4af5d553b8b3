package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"isospin/internal/config"
	"isospin/internal/server"
	"isospin/internal/store"
)

func newDatabaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "db", Short: "Look at the database's tables and bring them up to date",
		Long: "Look at the database's tables and bring them up to date. Each module has its own version; a server brings\n" +
			"them up when it starts, too. A database that a newer release has changed is refused.",
	}
	add := func(use, short string, changes bool, run func(ctx context.Context, out io.Writer, s *store.Store, schemas []store.Schema) error) {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
		flags := addConfigFlags(c, serverFiles...)
		c.RunE = func(c *cobra.Command, _ []string) error {
			cfg, logger, err := flags.load()
			if err != nil {
				return err
			}
			return withStore(c.Context(), cfg, logger, changes, func(s *store.Store, schemas []store.Schema) error {
				return run(c.Context(), c.OutOrStdout(), s, schemas)
			})
		}
		cmd.AddCommand(c)
	}
	add("upgrade", "Bring all tables to the newest version", true, func(ctx context.Context, out io.Writer, s *store.Store, schemas []store.Schema) error {
		if err := s.Upgrade(ctx, schemas...); err != nil {
			return err
		}
		return printVersions(ctx, out, s, schemas)
	})
	add("current", "Print the version of each module's tables, and what this program needs", false, printVersions)
	add("check", "Tell whether this program fits the database; it fails if an upgrade is needed or the database is newer", false, checkVersions)
	return cmd
}

// withStore opens the database that is configured. What changes nothing does
// not make SQLite's file either: an empty database in memory is in its place.
func withStore(ctx context.Context, cfg *config.Config, logger *slog.Logger, changes bool, do func(*store.Store, []store.Schema) error) (err error) {
	schemas, err := server.Schemas()
	if err != nil {
		return err
	}
	open := server.OpenStore
	if path, ok := strings.CutPrefix(config.DatabaseConnection.Of(cfg), "sqlite:///"); ok && path != "" && !changes {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			logger.Info("there is no database yet", "file", path)
			open = func(ctx context.Context, _ *config.Config, logger *slog.Logger) (*store.Store, error) {
				return store.Open(ctx, store.Options{Connection: "sqlite://", Logger: logger})
			}
		}
	}
	s, err := open(ctx, cfg, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s, schemas)
}

func printVersions(ctx context.Context, out io.Writer, s *store.Store, schemas []store.Schema) error {
	versions, err := s.Versions(ctx, schemas...)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODULE\tDATABASE\tPROGRAM")
	for _, v := range versions {
		fmt.Fprintf(table, "%s\t%d\t%d\n", v.Module, v.Have, v.Want)
	}
	return table.Flush()
}

func checkVersions(ctx context.Context, out io.Writer, s *store.Store, schemas []store.Schema) error {
	versions, err := s.Versions(ctx, schemas...)
	if err != nil {
		return err
	}
	older, newer := 0, 0
	for _, v := range versions {
		switch {
		case v.Want == 0:
			fmt.Fprintf(out, "%s: the database has version %d; this program does not have the module, and leaves it alone\n", v.Module, v.Have)
		case v.Have < v.Want:
			older++
			fmt.Fprintf(out, "%s: the database has version %d, this program needs %d\n", v.Module, v.Have, v.Want)
		case v.Have > v.Want:
			newer++
			fmt.Fprintf(out, "%s: the database has version %d, newer than this program's %d\n", v.Module, v.Have, v.Want)
		}
	}
	switch {
	case newer > 0:
		return fmt.Errorf("%d modules are newer than this program: run the newer release", newer)
	case older > 0:
		return fmt.Errorf("%d modules are to be upgraded: run \"isospin db upgrade\", or start a server", older)
	}
	_, err = fmt.Fprintln(out, "the database fits this program")
	return err
}
