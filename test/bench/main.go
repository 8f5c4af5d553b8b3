// Package main measures the product and prints its figures with targets, and
// those of its peer beside them: requests to the API, memory, starts, and a
// host on which instances are plugged.
//
//	go run ./test/bench [-quick] [-json FILE] [-only api|memory|tokens|host] [-database sqlite|postgresql|mariadb] [-size PORTS]
//
// It knows the API, what a lab offers, the schema's table names, and what an
// agent tells of itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"

	"isospin/internal/store/storetest"
)

type options struct {
	executable, dir, json, profile, only, database string
	quick                                          bool
	size                                           int
	out, progress                                  io.Writer
}

func main() {
	o := options{out: os.Stdout, progress: os.Stderr}
	flag.StringVar(&o.executable, "executable", "", "the isospin `program`; empty builds it")
	flag.StringVar(&o.dir, "dir", "", "`directory` for databases, on the disk that is to be measured; empty is the system's for temporary files")
	flag.StringVar(&o.json, "json", "", "also write the figures to this `file`")
	flag.StringVar(&o.profile, "cpuprofile", "", "run the server in this process, with more requests, and write a CPU profile of each figure of the API, and one of the memory, into this `directory`")
	flag.StringVar(&o.only, "only", "", "measure one part: api, memory (of a server that has done nothing else), tokens (and policy), or host")
	flag.StringVar(&o.database, "database", storetest.SQLite, "`kind` of database: sqlite, or postgresql or mariadb with a server of its own whose commits are durable; those measure the API only")
	flag.IntVar(&o.size, "size", 0, "also measure with this number of `ports` in the store; 0: do not")
	flag.BoolVar(&o.quick, "quick", false, "small numbers: shows that all can be measured, not how fast it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var storage = map[string]string{
	storetest.SQLite:     "SQLite with a flush at each commit (WAL, synchronous=FULL)",
	storetest.PostgreSQL: "PostgreSQL with a flush at each commit (fsync, synchronous_commit=on), by a local socket",
	storetest.MariaDB:    "MariaDB with a flush at each commit (innodb_flush_log_at_trx_commit=1), by a local socket",
}

// run measures everything and prints the table.
func run(ctx context.Context, o options) (err error) {
	p, err := readPeer()
	if err != nil {
		return err
	}
	b := &bench{sizes: full, executable: o.executable, quick: o.quick, kind: o.database, size: o.size}
	if o.quick {
		b.sizes = quick
	}
	b.results = &results{peer: p, figures: map[string]*figure{}, server: o.database != storetest.SQLite, progress: func(f *figure) {
		switch {
		case f.Missing != "":
			fmt.Fprintf(o.progress, "%s: %s\n", f.Name, f.Missing)
		case f.spec.by == byValue:
			fmt.Fprintf(o.progress, "%s: %s %s\n", f.Name, number(f.Value), f.Unit)
		default:
			rate := ""
			if f.PerSecond > 0 {
				rate = ", " + number(f.PerSecond) + "/s"
			}
			fmt.Fprintf(o.progress, "%s: p50 %s ms, p99 %s ms%s\n", f.Name, number(f.P50), number(f.P99), rate)
		}
	}}
	if b.dir, err = os.MkdirTemp(o.dir, "isospin-bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.executable == "" && o.profile == "" {
		b.executable = filepath.Join(b.dir, "isospin")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", b.executable, "isospin/cmd/isospin")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w: %s", err, out)
		}
	} else if b.executable, err = filepath.Abs(b.executable); err != nil {
		return err
	}
	if o.database != storetest.SQLite {
		if b.databases, err = storetest.Serve(o.database, o.dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.databases.Close()) }()
	}
	fmt.Fprintln(o.out)
	if err := machine(o.out, b.dir); err != nil {
		return err
	}
	if o.quick {
		fmt.Fprintln(o.out, "Quick: numbers are too small for figures to be quoted.")
	}
	if err := b.measure(ctx, o); err != nil {
		return err
	}
	fmt.Fprintln(o.out)
	if err := b.table(o.out); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "\nThis server: one process, %s, auth_strategy = noauth: no token is checked.\nThe peer: %s. %s\n", storage[o.database], p.Peer, p.Conditions)
	if o.json == "" {
		return nil
	}
	list := []*figure{}
	for _, s := range specs {
		if f := b.figures[s.name]; f != nil {
			list = append(list, f)
		}
	}
	text, err := json.MarshalIndent(map[string]any{"quick": o.quick, "peer": p.Peer, "figures": list}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(text, '\n'), 0o644)
}

// parts of the run that -only names; memory is one of api.
var parts = []string{"api", "memory", "tokens", "host"}

func (b *bench) measure(ctx context.Context, o options) error {
	if o.only != "" && !slices.Contains(parts, o.only) {
		return fmt.Errorf("-only %s: there are %s", o.only, strings.Join(parts, ", "))
	}
	b.onlyMemory = o.only == "memory"
	wants := func(names ...string) bool {
		return (o.only == "" || slices.Contains(names, o.only)) && (b.databases == nil || names[0] == "api")
	}
	run := b.start
	if o.profile != "" {
		if err := b.profileInto(o.profile); err != nil {
			return err
		}
		run = b.startHere
	} else if err := b.programSize(); err != nil {
		return err
	}
	if wants("api", "memory") {
		if err := b.api(ctx, run); err != nil {
			return err
		}
	}
	if wants("tokens") {
		if err := b.identity(ctx, run); err != nil {
			return err
		}
	}
	if wants("host") && o.profile == "" {
		return b.host(ctx)
	}
	return nil
}

func (b *bench) programSize() error {
	file, err := os.Stat(b.executable)
	if err == nil {
		b.value("size of the program", float64(file.Size())/1e6, 0, "")
	}
	return err
}

// profileInto prepares for servers in this process, and makes the work long
// enough for profiles to have samples.
func (b *bench) profileInto(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if !b.quick {
		b.lists, b.creates, b.gets, b.changes = 4*b.lists, 4*b.creates, 10*b.gets, 4*b.changes
		b.blocks, b.block = 1, 40*b.block // a block is one profile
	}
	b.profile = func(figure string) (func() error, error) {
		f, err := os.Create(filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(figure)+".prof"))
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		return func() error { pprof.StopCPUProfile(); return f.Close() }, err
	}
	b.heap = func() error {
		f, err := os.Create(filepath.Join(dir, "memory.prof"))
		if err != nil {
			return err
		}
		runtime.GC() // what is in use is counted by the collector
		return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
	}
	return nil
}
