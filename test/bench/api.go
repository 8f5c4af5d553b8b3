package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"isospin/internal/store/storetest"
)

// sizes of the run.
type sizes struct {
	networks, lists, blocks, block, creates, gets, changes, rules, routers int
	ports, starts, page, quiet                                             int
	idle                                                                   time.Duration
	plugs, restarts, few, many                                             int
}

var (
	full = sizes{networks: 200, lists: 50, blocks: 10, block: 100, creates: 4000, gets: 4000, changes: 1000, rules: 500, routers: 100,
		ports: 10000, starts: 7, page: 1000, quiet: 100, idle: 5 * time.Second, plugs: 20, restarts: 5, few: 10, many: 200}
	quick = sizes{networks: 16, lists: 3, blocks: 2, block: 20, creates: 100, gets: 100, changes: 16, rules: 16, routers: 5,
		ports: 1500, starts: 1, page: 100, quiet: 10, idle: 100 * time.Millisecond, plugs: 2, restarts: 1, few: 3, many: 8}
)

// bench is one run.
type bench struct {
	*results
	sizes
	executable string
	dir        string
	quick      bool
	// kind of the database; databases is its server, nil for SQLite.
	kind      string
	databases *storetest.Server
	places    map[string]place // by directory of the server
	size      int
	// profile, if set, writes a CPU profile from now until the function it returns is called.
	profile func(figure string) (stop func() error, err error)
	// heap, if set, writes a profile of the memory of this process.
	heap func() error
	// onlyMemory: nothing but the server's memory and starts.
	onlyMemory bool
}

// starter runs a server whose database is in dir; alter changes its configuration.
type starter func(ctx context.Context, dir string, alter func(text string) string) (*subject, error)

func unaltered(text string) string { return text }

// api measures one server by its API, and then its memory and starts.
func (b *bench) api(ctx context.Context, start starter) error {
	dir, err := os.MkdirTemp(b.dir, "server")
	if err != nil {
		return err
	}
	s, err := start(ctx, dir, unaltered)
	if err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			_ = s.stop() // there is an error already
		}
	}()
	l := &load{address: s.address}
	defer l.close()
	r := &requests{bench: b, ctx: ctx, load: l}
	steps := []func() error{
		r.networks, r.firstThousand, func() error { return r.createAndFloor(s) }, func() error { return r.ports(s) }, r.rules, r.routersIfLoaded, r.large,
	}
	if b.onlyMemory {
		steps = steps[:1]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	if b.size > 0 {
		b.missing("server ", "not with -size")
		running = false
		return s.stop()
	}
	if s.pid == 0 {
		if err := r.fill(); err != nil {
			return err
		}
		if err := b.heap(); err != nil {
			return err
		}
		b.missing("server ", "the server runs in the process of the bench")
	} else if err := b.memory(ctx, r, s); err != nil {
		return err
	}
	l.close()
	running = false
	if err := s.stop(); err != nil || s.pid == 0 {
		return err
	}
	return b.startTimes(ctx, start, dir)
}

// requests are the figures of the API.
type requests struct {
	*bench
	ctx  context.Context
	load *load

	network, group string   // of the ports
	networkIDs     []string // with a subnet each, for routers
	subnetIDs      []string
	portIDs        []string
	made           int
	create1        float64 // the median with few ports
}

// measure runs the work with one client and, if eight, also with eight. The
// numbers of the requests go on from one to the other.
func (r *requests) measure(name string, w work, n, eight int) error {
	w.clients, w.n = 1, n
	s, err := r.run(name+", 1 client", w)
	if err != nil {
		return err
	}
	r.times(name+", 1 client", s)
	if eight == 0 {
		return nil
	}
	request, answer := w.request, w.answer
	w.clients, w.n = 8, eight
	w.request = func(i int) []byte { return request(n + i) }
	if answer != nil {
		w.answer = func(i int, body []byte) error { return answer(n+i, body) }
	}
	if s, err = r.run(name+", 8 clients", w); err != nil {
		return err
	}
	r.times(name+", 8 clients", s)
	return nil
}

// run carries out work, with a profile if one is wanted.
func (r *requests) run(name string, w work) (s samples, err error) {
	if r.profile != nil {
		stop, failed := r.profile(name)
		if failed != nil {
			return s, failed
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	return r.load.run(r.ctx, w)
}

// prepare makes n requests ahead of their measurement.
func prepare(n int, one func(i int) []byte) func(i int) []byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = one(i)
	}
	return func(i int) []byte { return list[i] }
}

func post(path, format string, args ...any) []byte {
	return request("POST", path, fmt.Sprintf(format, args...))
}

// keep notes the ids of answers in list[i].
func keep(list []string) func(i int, body []byte) error {
	return func(i int, body []byte) (err error) {
		list[i], err = id(body)
		return err
	}
}

func (r *requests) networks() error {
	n := r.sizes.networks
	r.networkIDs, r.subnetIDs = make([]string, 2*n), make([]string, n)
	err := r.measure("network create", work{status: 201, answer: keep(r.networkIDs), request: prepare(2*n, func(i int) []byte {
		return post("networks", `{"network":{"name":"net-%d"}}`, i)
	})}, n, n)
	if err != nil {
		return err
	}
	err = r.measure("subnet create", work{status: 201, answer: keep(r.subnetIDs), request: prepare(n, func(i int) []byte {
		return post("subnets", `{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.%d.%d.0/24"}}`, r.networkIDs[i], 100+i/256, i%256)
	})}, n, 0)
	if err != nil {
		return err
	}
	body, err := r.load.one(r.ctx, "POST", "networks", `{"network":{"name":"bench"}}`, 201)
	if err == nil {
		r.network, err = id(body)
	}
	if err == nil {
		_, err = r.load.one(r.ctx, "POST", "subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.0.0.0/16"}}`, r.network), 201)
	}
	return err
}

// bulk is a request for 100 ports.
func (r *requests) bulk() []byte {
	var list []string
	for range 100 {
		r.made++
		list = append(list, r.port())
	}
	return request("POST", "ports", `{"ports":[`+strings.Join(list, ",")+`]}`)
}

func (r *requests) port() string {
	return fmt.Sprintf(`{"network_id":%q,"name":"port-%d","device_id":"device-%d","device_owner":"compute:nova"}`, r.network, r.made, r.made/10)
}

// firstThousand makes the first 1,000 ports in bulk and lists them.
func (r *requests) firstThousand() error {
	var made []string
	err := r.measure("port create in bulk of 100", work{status: 201, items: 100, request: prepare(10, func(int) []byte { return r.bulk() }),
		answer: func(_ int, body []byte) error {
			made = append(made, ids(body)...)
			return nil
		}}, 10, 0)
	if err != nil {
		return err
	}
	if len(made) != 1000 {
		return fmt.Errorf("bulk requests made %d ports, not 1,000", len(made))
	}
	list := request("GET", "ports", "")
	return r.measure("list of 1,000 ports", work{status: 200, request: func(int) []byte { return list }, answer: ports(1000)}, r.lists, r.lists)
}

// ports checks that lists have n ports, and the same length each time: counting
// takes the processor from who is measured.
func ports(n int) func(int, []byte) error {
	var length atomic.Int64
	return func(_ int, body []byte) error {
		if length.Load() == int64(len(body)) {
			return nil
		}
		if have := bytes.Count(body, []byte(`"mac_address":"`)); have != n {
			return fmt.Errorf("the list has %d ports, not %d", have, n)
		}
		if !length.CompareAndSwap(0, int64(len(body))) && length.Load() != int64(len(body)) {
			return fmt.Errorf("the list has %d bytes, and had %d", len(body), length.Load())
		}
		return nil
	}
}

// create makes ports one by one and returns their ids.
func (r *requests) create(figure string, clients, n int) (samples, []string, error) {
	made := make([]string, n)
	s, err := r.run(figure, work{clients: clients, n: n, status: 201, answer: keep(made), request: prepare(n, func(int) []byte {
		r.made++
		return request("POST", "ports", `{"port":`+r.port()+`}`)
	})})
	return s, made, err
}

// createAndFloor makes ports with one client, and writes the same rows by bare
// SQL: in turns, so that whatever else happens on the machine meets both.
func (r *requests) createAndFloor(s *subject) error {
	replay := func(made []string) (samples, error) { return r.replay(s, made, 1) }
	if s.source == "" {
		f, err := openFloor(r.ctx, s.database, filepath.Join(r.dir, "floor.sqlite"))
		if err != nil {
			return err
		}
		defer f.close()
		replay = func(made []string) (samples, error) { return f.replay(r.ctx, made) }
	}
	count, err := counter(r.ctx, s)
	if err != nil {
		return err
	}
	var statements float64
	var ours, floor samples
	for i := range r.blocks + 1 {
		before, err := count()
		if err != nil {
			return err
		}
		s, made, err := r.create("port create, 1 client", 1, r.block)
		if err != nil {
			return err
		}
		after, err := count()
		if err != nil {
			return err
		}
		bare, err := replay(made)
		if err != nil {
			return err
		}
		if i > 0 { // the first warms both
			ours.add(s)
			statements += after - before
			floor.add(bare)
		}
		r.portIDs = append(r.portIDs, made...)
	}
	r.times("port create, 1 client", ours)
	r.times("port create, bare SQL of the same rows", floor)
	r.value("port create over bare SQL", ours.percentile(50)/floor.percentile(50), len(ours.durations), "of the medians")
	if r.create1 = ours.percentile(50); statements > 0 {
		r.value("port create, statements by the database's count", statements/float64(len(ours.durations)), len(ours.durations), "with those of the feed and of the answer")
	} else {
		r.missing("port create, statements", "this database counts none")
	}
	return nil
}

func (r *requests) ports(s0 *subject) error {
	s, made, err := r.create("port create, 8 clients", 8, r.creates)
	if err != nil {
		return err
	}
	r.times("port create, 8 clients", s)
	r.portIDs = append(r.portIDs, made...)
	if s0.source == "" {
		r.missing("port create, bare SQL of the same rows, 8 clients", "SQLite has one writer")
		r.missing("port create over bare SQL, 8 clients", "SQLite has one writer")
	} else {
		bare, err := r.replay(s0, made, 8)
		if err != nil {
			return err
		}
		r.times("port create, bare SQL of the same rows, 8 clients", bare)
		rate := func(s samples) float64 { return float64(len(s.durations)) / s.wall.Seconds() }
		r.value("port create over bare SQL, 8 clients", 100*rate(s)/rate(bare), len(made), "of the rates")
	}
	at := func(i int) string { return r.portIDs[i%len(r.portIDs)] }
	err = r.measure("port get", work{status: 200, request: prepare(2*r.gets, func(i int) []byte {
		return request("GET", "ports/"+at(i*7919), "")
	})}, r.gets, r.gets)
	if err != nil {
		return err
	}
	err = r.measure("port update", work{status: 200, request: prepare(2*r.changes, func(i int) []byte {
		return request("PUT", "ports/"+at(i), fmt.Sprintf(`{"port":{"name":"renamed-%d"}}`, i))
	})}, r.changes, r.changes)
	if err != nil {
		return err
	}
	if len(r.portIDs) < 2*r.changes {
		return fmt.Errorf("%d ports are too few to delete %d", len(r.portIDs), 2*r.changes)
	}
	err = r.measure("port delete", work{status: 204, request: prepare(2*r.changes, func(i int) []byte {
		return request("DELETE", "ports/"+at(i), "")
	})}, r.changes, r.changes)
	r.portIDs = r.portIDs[2*r.changes:]
	return err
}

// large fills the store, and measures again.
func (r *requests) large() error {
	if r.bench.size == 0 {
		r.missing("port create, 1 client, in a large", "without -size")
		r.missing("port create in a large", "without -size")
		r.missing("port get, 1 client, in a large", "without -size")
		r.missing("port get in a large", "without -size")
		r.missing("page of 1,000 ports", "without -size")
		return nil
	}
	small := r.figures["port get, 1 client"].P50
	have, err := r.count()
	if err != nil {
		return err
	}
	for network := 0; have < r.bench.size; have += 100 {
		if network++; network%300 == 1 { // 30,000 ports each
			body, err := r.load.one(r.ctx, "POST", "networks", `{"network":{"name":"large"}}`, 201)
			if err == nil {
				r.network, err = id(body)
			}
			if err == nil {
				_, err = r.load.one(r.ctx, "POST", "subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.0.0.0/16"}}`, r.network), 201)
			}
			if err != nil {
				return err
			}
		}
		if _, err := r.load.run(r.ctx, work{clients: 1, n: 1, status: 201, request: func(int) []byte { return r.bulk() }}); err != nil {
			return err
		}
	}
	note := fmt.Sprintf("%d ports", have)
	s, made, err := r.create("port create, 1 client, in a large store", 1, r.block)
	if err != nil {
		return err
	}
	s.note = note
	r.times("port create, 1 client, in a large store", s)
	r.value("port create in a large store over one of 1,000 ports", s.percentile(50)/r.create1, len(made), "of the medians")
	body, err := r.load.one(r.ctx, "GET", "ports?fields=id", "", 200)
	if err != nil {
		return err
	}
	all := ids(body)
	slices.Sort(all)
	if s, err = r.run("port get, 1 client, in a large store", work{clients: 1, n: r.gets, status: 200, request: prepare(r.gets, func(i int) []byte {
		return request("GET", "ports/"+all[i*7919%len(all)], "")
	})}); err != nil {
		return err
	}
	s.note = note
	r.times("port get, 1 client, in a large store", s)
	r.value("port get in a large store over one of 1,000 ports", s.percentile(50)/small, r.gets, "of the medians")
	for _, page := range []struct {
		name string
		at   int
	}{{"first", 0}, {"in the middle", len(all) / 2}, {"last", max(0, len(all)-1001)}} {
		path := "ports?limit=1000&sort_key=id&sort_dir=asc"
		if page.at > 0 {
			path += "&marker=" + all[page.at]
		}
		get := request("GET", path, "")
		if s, err = r.run("page of 1,000 ports, "+page.name+", in a large store", work{clients: 1, n: r.lists, status: 200, request: func(int) []byte { return get },
			answer: ports(min(1000, len(all)))}); err != nil {
			return err
		}
		s.note = note
		r.times("page of 1,000 ports, "+page.name+", in a large store", s)
	}
	return nil
}

func (r *requests) rules() error {
	body, err := r.load.one(r.ctx, "POST", "security-groups", `{"security_group":{"name":"bench"}}`, 201)
	if err == nil {
		r.group, err = id(body)
	}
	if err != nil {
		return err
	}
	return r.measure("security-group rule create", work{status: 201, request: prepare(2*r.sizes.rules, func(i int) []byte {
		return post("security-group-rules", `{"security_group_rule":{"security_group_id":%q,"direction":"ingress","ethertype":"IPv4","protocol":"tcp","port_range_min":%d,"port_range_max":%d}}`, r.group, i+1, i+1)
	})}, r.sizes.rules, r.sizes.rules)
}

// loaded tells whether the server has an extension.
func (r *requests) loaded(alias string) (bool, error) {
	body, err := r.load.one(r.ctx, "GET", "extensions", "", 200)
	if err != nil {
		return false, err
	}
	var doc struct{ Extensions []struct{ Alias string } }
	if err := json.Unmarshal(body, &doc); err != nil {
		return false, err
	}
	for _, x := range doc.Extensions {
		if x.Alias == alias {
			return true, nil
		}
	}
	return false, nil
}

func (r *requests) routersIfLoaded() error {
	ok, err := r.loaded("router")
	if err != nil {
		return err
	}
	if !ok {
		r.missing("router ", "extension not loaded")
		return nil
	}
	n := min(r.routers, len(r.subnetIDs))
	made := make([]string, n)
	err = r.measure("router create", work{status: 201, answer: keep(made), request: prepare(n, func(i int) []byte {
		return post("routers", `{"router":{"name":"router-%d"}}`, i)
	})}, n, 0)
	if err != nil {
		return err
	}
	for _, action := range []string{"add", "remove"} {
		err = r.measure("router interface "+action, work{status: 200, request: prepare(n, func(i int) []byte {
			return request("PUT", "routers/"+made[i]+"/"+action+"_router_interface", fmt.Sprintf(`{"subnet_id":%q}`, r.subnetIDs[i]))
		})}, n, 0)
		if err != nil {
			return err
		}
	}
	return nil
}

// count returns how many ports there are.
func (r *requests) count() (int, error) {
	body, err := r.load.one(r.ctx, "GET", "ports?fields=id", "", 200)
	return len(ids(body)), err
}

// fill brings the server to its full number of ports.
func (r *requests) fill() error {
	have, err := r.count()
	if err != nil {
		return err
	}
	for ; have+100 <= r.sizes.ports; have += 100 {
		if _, err := r.load.run(r.ctx, work{clients: 1, n: 1, status: 201, request: func(int) []byte { return r.bulk() }}); err != nil {
			return err
		}
	}
	return nil
}

// memory reads the size of the server with all its ports.
func (b *bench) memory(ctx context.Context, r *requests, s *subject) error {
	if err := r.fill(); err != nil {
		return err
	}
	note := ""
	if b.quick {
		note = fmt.Sprintf("in fact %d ports", b.sizes.ports)
	}
	size, err := resident(s.pid)
	if err != nil {
		return err
	}
	b.value("server memory, 10,000 ports", size, 0, note)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.idle):
	}
	if size, err = resident(s.pid); err != nil {
		return err
	}
	b.value("server memory, 10,000 ports, 5 s idle", size, 0, note)
	return nil
}

// startTimes starts servers, on new databases and on that of the load.
func (b *bench) startTimes(ctx context.Context, start starter, loaded string) error {
	for _, f := range []struct {
		name string
		dir  func() (string, error)
	}{
		{"server start, new database", func() (string, error) { return os.MkdirTemp(b.dir, "new") }},
		{"server start, 10,000 ports", func() (string, error) { return loaded, nil }},
	} {
		var s samples
		for range b.starts {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			server, err := start(ctx, dir, unaltered)
			if err != nil {
				return err
			}
			s.durations = append(s.durations, server.took)
			if err := server.stop(); err != nil {
				return err
			}
		}
		b.times(f.name, s)
	}
	return nil
}
