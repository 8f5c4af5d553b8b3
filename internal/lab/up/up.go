// Package up brings up a lab, makes a small cloud in it through the public API
// and shows with real packets that it does what a cloud must: the program behind
// `isospin up`.
//
// It speaks to the server by the API alone, and to hosts and instances by what
// package lab offers.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"isospin/internal/lab"
)

// Options of Run.
type Options struct {
	Lab    lab.Options  // required; Executable and Logger must be set
	Out    io.Writer    // required; for people
	Logger *slog.Logger // required
	// Once ends the lab after the checks instead of waiting for ctx to end.
	Once bool // optional
	// Ending is called when the lab is about to be removed.
	Ending func() // optional
}

// ErrChecks says that the lab came up but some of it does not work; which has
// been printed.
var ErrChecks = errors.New("not everything works")

// Run does it all and returns when everything is removed again. With Once it
// returns ErrChecks if a check failed; else it stays until ctx ends, also
// with failed checks, so that these can be looked into.
func Run(ctx context.Context, o Options) (err error) {
	if err := lab.Check(); err != nil {
		return err
	}
	began := time.Now()
	removed, err := lab.RemoveLeftovers(o.Lab.RunDir, o.Logger)
	for _, id := range removed {
		fmt.Fprintf(o.Out, "Removed what lab %s left behind when it was killed.\n", id)
	}
	if err != nil {
		return err
	}
	r := &run{out: o.Out}
	fmt.Fprintln(o.Out)
	starting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	l, err := lab.Start(starting, o.Lab)
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	defer func() {
		if o.Ending != nil {
			o.Ending()
		}
		before := time.Now()
		if e := l.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("remove the lab: %w", e))
			return
		}
		fmt.Fprintf(o.Out, "Everything removed in %s.\n", seconds(time.Since(before)))
	}()
	r.report(fmt.Sprintf("lab %s: %d hosts with switch and agent, API server, outside network", l.ID, len(l.Hosts())), "", time.Since(began), nil)

	c := &cloud{lab: l, api: l.Client(), run: r}
	if err := c.build(ctx); err == nil {
		c.check(ctx)
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	fmt.Fprintf(o.Out, "\n%d of %d passed in %s.\n", r.passed, r.passed+r.failed, seconds(time.Since(began)))
	if r.failed > 0 {
		r.logs(l)
	}
	if o.Once {
		if r.failed > 0 {
			return ErrChecks
		}
		return nil
	}
	usage(o.Out, l, c)
	select {
	case <-ctx.Done():
		fmt.Fprintln(o.Out)
		return nil
	case <-l.Ended():
		return l.ServerFailure()
	}
}

var errInterrupted = errors.New("interrupted")

// usage tells what can be done with a lab that is up.
func usage(w io.Writer, l *lab.Lab, c *cloud) {
	fmt.Fprintf(w, `
The cloud is up. Ctrl-C ends it and removes everything.

  the topology     %[1]s/topology/
  the API          %[1]s
  a client         openstack --os-auth-type none --os-endpoint %[1]s network list
  what is there    isospin lab status
  on a host        isospin lab exec host1 -- ovs-vsctl show
  in an instance   isospin lab exec %[2]s -- ping -c 3 %[3]s
  logs             %[4]s
`, l.Endpoint, c.instanceName(), lab.OutsideAddress.Addr(), filepath.Join(l.DataDir, "*.log")+" "+filepath.Join(l.DataDir, "*", "*.log"))
}

// run prints and counts what was done.
type run struct {
	out            io.Writer
	passed, failed int
}

// step does one thing that must work, with a deadline of its own, and prints a
// line. fn's text is shown behind the name.
func (r *run) step(ctx context.Context, name string, limit time.Duration, fn func(ctx context.Context) (string, error)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before := time.Now()
	detail, err := fn(limited)
	if ctx.Err() != nil {
		return ctx.Err() // interrupted, not failed
	}
	r.report(name, detail, time.Since(before), err)
	return err
}

func (r *run) report(name, detail string, took time.Duration, err error) {
	word := "ok  "
	if err != nil {
		word, detail = "FAIL", err.Error()
		r.failed++
	} else {
		r.passed++
	}
	if detail != "" {
		detail = " (" + strings.ReplaceAll(detail, "\n", "; ") + ")"
	}
	fmt.Fprintf(r.out, "  %s %8s  %s%s\n", word, seconds(took), name, detail)
}

// logs prints the last warnings and errors of server and agents.
func (r *run) logs(l *lab.Lab) {
	for _, path := range l.Logs() {
		if lines := complaints(path, 10); len(lines) > 0 {
			fmt.Fprintf(r.out, "\n%s:\n  %s\n", path, strings.Join(lines, "\n  "))
		}
	}
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
