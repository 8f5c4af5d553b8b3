package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"isospin/api/feed"
	"isospin/internal/lab/simulate"
)

// world is one server with its hosts.
type world struct {
	options
	dir, connection string
	out             io.Writer
	figures         []figure

	port, pid int
	stop      func(syscall.Signal) error // of the server; nil: it does not run
	api       *simulate.API
	fleet     *simulate.Fleet
	arrivals  *simulate.Arrivals
	cloud     *simulate.Cloud
	endFleet  func()

	// group is the large one; reached counts the hosts that were told of a new member.
	group   atomic.Pointer[string]
	reached atomic.Int64
	whole   chan struct{}
}

func (w *world) close() {
	if w.endFleet != nil {
		w.endFleet()
	}
	if w.stop != nil {
		if err := w.stop(syscall.SIGTERM); err != nil {
			fmt.Fprintln(w.out, "scale: server:", err)
		}
	}
}

// patience bounds every wait.
const patience = 3 * time.Minute

func (w *world) measure(ctx context.Context) error {
	if err := w.start(ctx); err != nil {
		return err
	}
	w.api = simulate.NewAPI(w.base(), "", nil)
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"attach", w.attach}, {"fill", w.fill}, {"idle", w.idle}, {"bind", w.bind}, {"member", w.member}, {"restart", w.restart}, {"memory", w.memory}} {
		if err := w.profiled(step.name, func() error { return step.do(ctx) }); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// told is called for each message of each host.
func (w *world) told(number int, m *feed.ServerMessage) {
	w.arrivals.Told(number, m)
	group := w.group.Load()
	if group == nil {
		return
	}
	for _, d := range m.AddressSetDeltas {
		if d.Id == *group && w.reached.Add(int64(len(d.Adds))) == int64(w.layout.Hosts) {
			w.whole <- struct{}{}
		}
	}
}

// until waits for a condition.
func (w *world) until(ctx context.Context, what string, ok func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it did not come to pass in %v: %s", patience, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) synced(ctx context.Context) error {
	return w.until(ctx, "all hosts are in sync", func() (bool, error) { return w.fleet.Synced() == w.layout.Hosts, nil })
}

func (w *world) attach(ctx context.Context) error {
	w.whole = make(chan struct{}, 1)
	var err error
	w.fleet, err = simulate.NewFleet(simulate.FleetOptions{
		Hosts: w.layout.Hosts, NamePrefix: "scale-", Servers: []string{"unix:" + w.feed()}, Told: w.told, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	hosts, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.fleet.Run(hosts)
	}()
	w.endFleet = func() { cancel(); <-ended }
	begin := time.Now()
	if err := w.synced(ctx); err != nil {
		return err
	}
	w.figure("hosts that nobody knew attach, all at once", "%.1f s", time.Since(begin).Seconds())
	return nil
}

// fill makes the ports.
func (w *world) fill(ctx context.Context) error {
	begin, busy := time.Now(), w.busy()
	var err error
	w.cloud, err = simulate.Load(ctx, simulate.LoadOptions{API: w.base(), Layout: w.layout, Host: w.fleet.Name})
	if err != nil {
		return err
	}
	made := time.Since(begin)
	wait, cancel := context.WithTimeoutCause(ctx, patience, errors.New("too late"))
	defer cancel()
	for id := range w.cloud.Answered {
		if _, err := w.arrivals.At(wait, id); err != nil {
			return err
		}
	}
	if err := w.active(ctx); err != nil {
		return err
	}
	n := float64(len(w.cloud.Answered))
	w.figure("ports made and bound in bulk", "%.0f /s", n/made.Seconds())
	w.figure("until the last of them is ACTIVE", "%.1f s", time.Since(begin).Seconds())
	w.figure("server, for each port until then", "%.2f ms CPU", w.since(busy)/n*1000)
	return nil
}

// active waits until no port of the cloud is anything else.
func (w *world) active(ctx context.Context) error {
	return w.until(ctx, "all ports are ACTIVE", func() (bool, error) {
		for _, status := range []string{"DOWN", "BUILD"} {
			var list struct{ Ports []struct{ ID string } }
			if err := w.api.Do(ctx, "GET", "ports?fields=id&limit=1&device_owner=compute:nova&status="+status, nil, &list); err != nil {
				return false, err
			}
			if len(list.Ports) > 0 {
				time.Sleep(50 * time.Millisecond)
				return false, nil
			}
		}
		return true, nil
	})
}

// busy is the server's processor time; since is what it has used more, in seconds.
func (w *world) busy() time.Duration {
	d, err := cpu(w.pid)
	if err != nil {
		return 0
	}
	return d
}

func (w *world) since(before time.Duration) float64 { return (w.busy() - before).Seconds() }

// idle is what it costs that nothing happens.
func (w *world) idle(ctx context.Context) error {
	before, busy := w.fleet.Counts(), w.busy()
	span := 10 * time.Second
	if w.quick {
		span = time.Second
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(span):
	}
	w.figure("server while nothing happens but heartbeats", "%.1f %% of a CPU", w.since(busy)/span.Seconds()*100)
	w.figure("messages to hosts meanwhile", "%d", w.fleet.Counts().Less(before).Messages)
	rss, err := memory(w.pid, "VmRSS")
	w.judged("server memory with all hosts and ports", rss, 1024, "MiB")
	return err
}

func (w *world) large() []string {
	var ports []string
	for n := range w.layout.LargeNetworks() {
		ports = append(ports, w.cloud.Ports[n]...)
	}
	return ports
}

type object = map[string]any

func (w *world) create(ctx context.Context, list []object) ([]string, error) {
	var ids []string
	for chunk := range slices.Chunk(list, 100) {
		var answer struct{ Ports []struct{ ID string } }
		if err := w.api.Do(ctx, "POST", "ports", object{"ports": chunk}, &answer); err != nil {
			return nil, err
		}
		for _, p := range answer.Ports {
			ids = append(ids, p.ID)
		}
	}
	return ids, nil
}

// bind binds ports that are there, at a constant rate, to hosts anywhere.
func (w *world) bind(ctx context.Context) error {
	n := int(w.bindTime.Seconds() * float64(w.binds))
	var list []object
	for i := range n {
		at := w.layout.LargeNetworks() + i%(len(w.cloud.Networks)-w.layout.LargeNetworks())
		list = append(list, object{"network_id": w.cloud.Networks[at], "project_id": w.cloud.Project[at], "device_owner": "compute:nova", "device_id": fmt.Sprint("bind-", i)})
	}
	ids, err := w.create(ctx, list)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var answers, reaches, lags []float64
	var failed error
	var refused atomic.Int64
	var clients sync.WaitGroup
	wait, cancel := context.WithTimeoutCause(ctx, patience, errors.New("too late"))
	defer cancel()
	busy := w.busy()
	tick := time.NewTicker(time.Second / time.Duration(w.binds))
	defer tick.Stop()
	for _, id := range ids {
		select {
		case <-tick.C:
		case <-wait.Done():
		}
		if wait.Err() != nil {
			break // the reason is told below
		}
		host := w.fleet.Name(rand.IntN(w.layout.Hosts))
		clients.Go(func() {
			begin := time.Now()
			var err error
			for {
				err = w.api.Do(wait, "PUT", "ports/"+id, object{"port": object{"binding:host_id": host}}, nil)
				if err == nil || !strings.Contains(err.Error(), "503 ") {
					break
				}
				// The server has too much to do; what that costs counts.
				refused.Add(1)
				time.Sleep(100 * time.Millisecond)
			}
			answered := time.Now()
			var at time.Time
			if err == nil {
				at, err = w.arrivals.At(wait, id)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if failed == nil { // the others are stopped by it
					failed = err
				}
				cancel()
				return
			}
			answers = append(answers, answered.Sub(begin).Seconds()*1000)
			reaches = append(reaches, at.Sub(begin).Seconds()*1000)
			lags = append(lags, max(at.Sub(answered).Seconds()*1000, 0))
		})
	}
	clients.Wait()
	if err := errors.Join(failed, ctx.Err()); err != nil {
		return err
	}
	used := w.since(busy) / float64(n) * 1000
	w.figure(fmt.Sprintf("bind at %d/s, request to answer: p50, p99", w.binds), "%s, %s ms", number(share(answers, 0.5)), number(share(answers, 0.99)))
	w.figure("bind, answer to the host having it: p50, p99", "%s, %s ms", number(share(lags, 0.5)), number(share(lags, 0.99)))
	w.figure("bind, request to the host having it: p50", "%s ms", number(share(reaches, 0.5)))
	w.judged("bind, request to the host having it: p99", share(reaches, 0.99), 100, "ms")
	if n := refused.Load(); n > 0 {
		w.figure("binds that were refused for the server's load, and repeated", "%d", n)
	}
	w.figure("server, for each bind and its status", "%.2f ms CPU", used)
	return w.active(ctx)
}

func share(list []float64, of float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[int(of*float64(len(list)-1)+0.5)]
}

// member adds ports to the large group. What the same change without the group
// costs is taken off: what is left is telling the hosts.
func (w *world) member(ctx context.Context) error {
	networks := w.layout.LargeNetworks()
	if networks == 0 {
		return nil
	}
	var groups struct {
		SecurityGroups []struct{ ID string } `json:"security_groups"`
	}
	if err := w.api.Do(ctx, "GET", "security-groups?name=default&project_id="+w.cloud.Project[0], nil, &groups); err != nil || len(groups.SecurityGroups) != 1 {
		return errors.Join(err, errors.New("the large project has no default security group"))
	}
	group := groups.SecurityGroups[0].ID
	var list []object
	for i := range w.members {
		at := i % networks
		list = append(list, object{"network_id": w.cloud.Networks[at], "project_id": w.cloud.Project[at], "security_groups": []string{}, "device_owner": "compute:nova",
			"device_id": fmt.Sprint("member-", i), "binding:host_id": w.fleet.Name(w.layout.Host(at, i))})
	}
	ids, err := w.create(ctx, list)
	if err != nil {
		return err
	}
	if err := w.active(ctx); err != nil {
		return err
	}
	if err := w.quiet(ctx); err != nil {
		return err
	}
	change := func(id string, port object) error {
		return w.api.Do(ctx, "PUT", "ports/"+id, object{"port": port}, nil)
	}
	// Each is put into a group that is nowhere, then into the large one too.
	var alone struct {
		SecurityGroup struct{ ID string } `json:"security_group"`
	}
	if err := w.api.Do(ctx, "POST", "security-groups", object{"security_group": object{"name": "alone", "project_id": w.cloud.Project[0]}}, &alone); err != nil {
		return err
	}
	busy := w.busy()
	for _, id := range ids {
		if err := change(id, object{"security_groups": []string{alone.SecurityGroup.ID}}); err != nil {
			return err
		}
	}
	if err := w.quiet(ctx); err != nil {
		return err
	}
	without := w.since(busy)
	w.group.Store(&group)
	defer w.group.Store(nil)
	var took []float64
	before, busy := w.fleet.Counts(), w.busy()
	for _, id := range ids {
		w.reached.Store(0)
		begin := time.Now()
		if err := change(id, object{"security_groups": []string{alone.SecurityGroup.ID, group}}); err != nil {
			return err
		}
		select {
		case <-w.whole:
			took = append(took, time.Since(begin).Seconds()*1000)
		case <-time.After(patience):
			return fmt.Errorf("of a new member %d hosts were told", w.reached.Load())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := w.quiet(ctx); err != nil {
		return err
	}
	n := float64(len(ids))
	counts := w.fleet.Counts().Less(before)
	perHost := n * float64(w.layout.Hosts)
	w.judged("new member of the large group: set elements to each host", float64(counts.Elements)/perHost, 1, "elements")
	w.figure("messages, bytes to each host", "%.2f, %.0f", float64(counts.Messages)/perHost, float64(counts.Bytes)/perHost)
	w.judged("server, to tell all hosts of a member", max(w.since(busy)-without, 0)/n*1000, 20, "ms CPU")
	w.figure("request to the last host having it: p50, p99", "%s, %s ms", number(share(took, 0.5)), number(share(took, 0.99)))
	return nil
}

// quiet waits until no host has been told anything for a while.
func (w *world) quiet(ctx context.Context) error {
	last, since := w.fleet.Counts(), time.Now()
	return w.until(ctx, "nothing is left to tell", func() (bool, error) {
		if now := w.fleet.Counts(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond, nil
	})
}

// restart kills the server and starts it again.
func (w *world) restart(ctx context.Context) error {
	var up, all, used []float64
	var counts simulate.Counts
	for range w.restarts {
		before := w.fleet.Counts()
		if err := w.stop(syscall.SIGKILL); err != nil {
			return err
		}
		w.stop = nil
		begin := time.Now()
		if err := w.start(ctx); err != nil {
			return err
		}
		up = append(up, time.Since(begin).Seconds())
		if err := w.until(ctx, "all hosts attach again", func() (bool, error) {
			return w.fleet.Counts().Less(before).Attaches >= int64(w.layout.Hosts) && w.fleet.Synced() == w.layout.Hosts, nil
		}); err != nil {
			return err
		}
		all = append(all, time.Since(begin).Seconds())
		// What they have to report comes after.
		if err := w.quiet(ctx); err != nil {
			return err
		}
		if w.pid != os.Getpid() {
			used = append(used, w.busy().Seconds())
		}
		counts = w.fleet.Counts().Less(before)
	}
	n := float64(w.layout.Hosts)
	w.figure("server killed: until the API answers again", "%.1f s", share(up, 0.5))
	w.judged("server killed: until all hosts are in sync", share(all, 0.5), 10, "s")
	w.judged("messages to each host", float64(counts.Messages)/n, 1, "messages")
	w.judged("bytes to each host", float64(counts.Bytes)/n, 256, "bytes")
	w.judged("objects to all hosts", float64(counts.Objects+counts.Elements), 0, "objects")
	w.figure("server, from its start until then", "%.1f s CPU", share(used, 0.5))
	return nil
}

func (w *world) memory(context.Context) error {
	now, err := memory(w.pid, "VmRSS")
	if err != nil {
		return err
	}
	most, err := memory(w.pid, "VmHWM")
	w.judged("server memory after all this; at most", now, 1024, "MiB")
	w.figures[len(w.figures)-1].value = fmt.Sprintf("%.0f; %.0f MiB", now, most)
	own, _ := memory(os.Getpid(), "VmRSS") // only told
	w.figure("memory of the simulated hosts", "%.0f MiB", own)
	return err
}
