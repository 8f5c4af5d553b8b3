// Package main measures a server with a thousand hosts: they speak the agents'
// protocol, but have no data path, so that one machine has room for all of them.
// It prints figures with targets.
//
//	go run ./test/scale [-quick] [-hosts N] [-ports N] [-database sqlite|postgresql|URL]
//
// It knows the API, the feed by internal/lab/simulate, and how to start a server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"isospin/internal/lab/simulate"
)

type options struct {
	executable, dir, database, profile string
	layout                             simulate.Layout
	// binds a second, for how long; members that are added to the large group; restarts.
	binds, members, restarts int
	bindTime                 time.Duration
	quick                    bool
}

func main() {
	o := options{binds: 100}
	flag.StringVar(&o.executable, "executable", "", "the isospin `program`; empty builds it")
	flag.StringVar(&o.dir, "dir", "", "`directory` for the database; empty is the system's for temporary files")
	flag.StringVar(&o.database, "database", "", "sqlite, postgresql (started for this), or the `URL` of an empty database; empty: postgresql if it is installed, else sqlite")
	flag.StringVar(&o.profile, "cpuprofile", "", "run the server in this process, and write a CPU profile of each step into this `directory`")
	flag.IntVar(&o.layout.Hosts, "hosts", 1000, "how `many` hosts")
	flag.IntVar(&o.layout.PortsPerHost, "ports", 50, "how `many` ports each has")
	flag.IntVar(&o.layout.Large, "group", 10_000, "members of the large security group, which is on all hosts")
	flag.IntVar(&o.members, "members", 40, "how `many` members are added to it")
	flag.IntVar(&o.restarts, "restarts", 3, "how `often` the server is killed and started again")
	flag.DurationVar(&o.bindTime, "bind-time", 20*time.Second, "how long ports are bound, 100 a second")
	flag.BoolVar(&o.quick, "quick", false, "50 hosts with 2,000 ports: shows that all can be measured, not how fast it is")
	flag.Parse()
	if o.quick {
		o.layout = simulate.Layout{Hosts: 50, PortsPerHost: 40, Large: 400, PortsPerNetwork: 10}
		o.members, o.restarts, o.bindTime = 10, 1, 3*time.Second
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	met, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
	if !met && !o.quick {
		os.Exit(2)
	}
}

// run measures everything, prints the table and tells whether the targets are met.
func run(ctx context.Context, o options) (met bool, err error) {
	begin := time.Now()
	dir, err := os.MkdirTemp(o.dir, "isospin-scale")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The database server has an account of its own.
	if err := os.Chmod(dir, 0o711); err != nil {
		return false, err
	}
	if o.executable == "" && o.profile == "" {
		o.executable = filepath.Join(dir, "isospin")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", o.executable, "isospin/cmd/isospin")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("build: %w: %s", err, out)
		}
	}
	connection, name, end, err := openDatabase(ctx, o.database, dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, end()) }()
	w := &world{options: o, dir: dir, connection: connection, out: os.Stderr, arrivals: simulate.NewArrivals()}
	defer w.close()
	fmt.Printf("%s; server, hosts and database share them\n", machine())
	if err := w.measure(ctx); err != nil {
		return false, err
	}
	fmt.Printf("\n%d hosts, %d ports, %d networks; a security group with %d members on all hosts; %s\n\n", o.layout.Hosts, o.layout.Hosts*o.layout.PortsPerHost,
		o.layout.Networks(), len(w.large()), name)
	met = w.print(os.Stdout)
	fmt.Printf("\nall of it took %v\n", time.Since(begin).Round(time.Second))
	return met, nil
}

// figure is one line of the table.
type figure struct {
	name, value string
	// target in words; empty: there is none.
	target string
	met    bool
}

func (w *world) figure(name, format string, args ...any) {
	w.figures = append(w.figures, figure{name: name, value: fmt.Sprintf(format, args...)})
	fmt.Fprintf(w.out, "%s: %s\n", name, w.figures[len(w.figures)-1].value)
}

// judged is a figure with a target: at most most.
func (w *world) judged(name string, value, most float64, unit string) {
	f := figure{name: name, value: number(value) + " " + unit, target: "≤ " + number(most) + " " + unit, met: value <= most}
	w.figures = append(w.figures, f)
	fmt.Fprintf(w.out, "%s: %s\n", name, f.value)
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// print writes the table and tells whether all targets are met.
func (w *world) print(out io.Writer) bool {
	all := true
	for _, f := range w.figures {
		verdict := ""
		if f.target != "" {
			verdict = "met"
			if !f.met {
				verdict, all = "NO", false
			}
		}
		fmt.Fprintf(out, "%-58s %16s  %-12s %s\n", f.name, f.value, f.target, verdict)
	}
	return all
}
