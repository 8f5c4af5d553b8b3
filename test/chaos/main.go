// Command chaos runs several API servers on one database with simulated hosts
// and clients, and meanwhile kills, pauses and cuts off what it can: servers,
// the database, connections. Then it compares what was acknowledged to clients
// with the database, what hosts hold with a fresh computation, and what
// consumers of changes got with the changes. Faults are drawn from a seed.
//
//	go run ./test/chaos -database postgresql -seed 7
//
// It must not know how servers do what they do: it talks to them as clients,
// hosts and other services do, and reads the database's events and leases.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"isospin/test/servertest"
)

// roleVariable of the environment makes the program be a server with that configuration file.
const roleVariable = "ISOSPIN_CHAOS_SERVER"

func main() {
	if file := os.Getenv(roleVariable); file != "" {
		if err := servertest.Serve(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o := Options{Out: os.Stdout}
	runs := flag.Int("runs", 1, "how often, each time with the next seed")
	databases := flag.String("database", "postgresql,mariadb", "kinds of databases")
	flag.Uint64Var(&o.Seed, "seed", 0, "of the faults; 0: a random one")
	flag.DurationVar(&o.Load, "load", time.Minute, "how long there is load, and faults")
	flag.DurationVar(&o.Settle, "settle", 90*time.Second, "how long everything may take to be well again")
	flag.IntVar(&o.Replicas, "replicas", 3, "API servers")
	flag.IntVar(&o.Hosts, "hosts", 50, "simulated hosts")
	flag.IntVar(&o.Clients, "clients", 8, "clients that write")
	flag.StringVar(&o.Executable, "executable", "", "isospin binary of the servers; default: this program's own code")
	flag.StringVar(&o.From, "upgrade-from", "", "older isospin binary, or \"self\": no faults, but servers are replaced by the present one, one after the other, and the schema grows meanwhile")
	flag.StringVar(&o.Keep, "keep", "", "directory for logs of runs with findings")
	only := flag.String("faults", "", "only faults whose names contain this")
	flag.Parse()
	o.Only = *only
	// Servers run in directories of their own.
	for _, path := range []*string{&o.Executable, &o.From} {
		if *path != "" && *path != "self" {
			absolute, err := filepath.Abs(*path)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			*path = absolute
		}
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1e9)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var results []*Result
	bad := false
	for i := range *runs {
		for kind := range strings.SplitSeq(*databases, ",") {
			run := o
			run.Seed, run.Database = o.Seed+uint64(i), kind
			r, err := Run(ctx, run)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s, seed %d: %v\n", kind, run.Seed, err)
				os.Exit(1)
			}
			results = append(results, r)
			bad = bad || len(r.Findings) > 0
		}
	}
	table(os.Stdout, results)
	if bad {
		os.Exit(1)
	}
}

// table prints one line a run.
func table(out io.Writer, results []*Result) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\ndatabase\tseed\tfaults\twrites acknowledged\tof unknown fate\t503\tchanges\tnotifications\trepeated\tlease moved, slowest\twell again after\tfindings")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%d\n", r.Database, r.Seed, r.Faults, r.Acknowledged, r.Unknown, r.Unavailable, r.Changes, r.Notifications, r.Repeated,
			r.Moved.Round(100*time.Millisecond), r.Settled.Round(100*time.Millisecond), len(r.Findings))
	}
	w.Flush()
}
