package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// The callers of the figures with tokens. The second is also the project's name.
const (
	adminToken  = "token-of-the-administrator"
	memberToken = "token-of-a-member"
	quietToken  = "token-of-another-project"
)

// ownToken is that of the server itself.
const ownToken = "token-of-the-server"

// keystone stands in for Keystone: it knows the tokens above.
type keystone struct {
	http.Server
	url   string
	ended chan struct{}
}

func startKeystone() (*keystone, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &keystone{url: "http://" + l.Addr().String(), ended: make(chan struct{})}
	expires := time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	token := func(project string, roles ...string) map[string]any {
		domain := map[string]any{"id": "default", "name": "Default"}
		named := []any{}
		for _, r := range roles {
			named = append(named, map[string]any{"id": r, "name": r})
		}
		return map[string]any{
			"expires_at": expires, "methods": []string{"password"}, "roles": named,
			"user":    map[string]any{"id": "user-of-" + project, "name": project, "domain": domain},
			"project": map[string]any{"id": project, "name": project, "domain": domain},
			"catalog": []any{map[string]any{"type": "identity", "endpoints": []any{map[string]any{"interface": "internal", "region": "RegionOne", "region_id": "RegionOne", "url": k.url + "/v3"}}}},
		}
	}
	tokens := map[string]map[string]any{
		adminToken:  token("administration", "admin", "manager", "member", "reader"),
		memberToken: token("project", "member", "reader"),
		quietToken:  token("another", "member", "reader"),
		ownToken:    token("service", "service"),
	}
	answer := func(w http.ResponseWriter, status int, token map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token}) // the server is gone, if not
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", ownToken)
		answer(w, http.StatusCreated, tokens[ownToken])
	})
	mux.HandleFunc("GET /v3/auth/tokens", func(w http.ResponseWriter, r *http.Request) {
		if t := tokens[r.Header.Get("X-Subject-Token")]; t != nil && r.Header.Get("X-Auth-Token") == ownToken {
			answer(w, http.StatusOK, t)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	k.Handler, k.ReadHeaderTimeout = mux, 10*time.Second
	go func() {
		defer close(k.ended)
		_ = k.Serve(l) // ends by stop
	}()
	return k, nil
}

func (k *keystone) stop() {
	_ = k.Close()
	<-k.ended
}

// use changes a server's configuration so that it asks this Keystone.
func (k *keystone) use(text string) string {
	return strings.Replace(text, "auth_strategy = noauth", "auth_strategy = keystone", 1) + fmt.Sprintf(`[keystone_authtoken]
auth_url = %s
username = neutron
password = password
project_name = service
`, k.url)
}

// unlimited changes a server's configuration so that requests do not wait for each other.
func unlimited(text string) string { return text + "[isospin]\nrequest_limit = 0\n" }

// as makes a request that of the owner of a token.
func as(token string, request []byte) []byte {
	return []byte(strings.Replace(string(request), "\r\n", "\r\nX-Auth-Token: "+token+"\r\n", 1))
}

// caller makes requests with one token, at one server.
type caller struct {
	*requests
	token   string // empty: none is asked for
	network string
}

func (c *caller) as(request []byte) []byte {
	if c.token == "" {
		return request
	}
	return as(c.token, request)
}

// prepare makes a network with n ports.
func (c *caller) prepare(cidr string, n int) error {
	post := func(path, format string, args ...any) ([]byte, error) {
		var out []byte
		_, err := c.load.run(c.ctx, work{clients: 1, n: 1, status: 201,
			request: func(int) []byte { return c.as(request("POST", path, fmt.Sprintf(format, args...))) },
			answer:  func(_ int, body []byte) error { out = append(out, body...); return nil }})
		return out, err
	}
	body, err := post("networks", `{"network":{"name":"bench"}}`)
	if err != nil {
		return err
	}
	if c.network, err = id(body); err != nil {
		return err
	}
	if _, err = post("subnets", `{"subnet":{"network_id":%q,"ip_version":4,"cidr":%q}}`, c.network, cidr); err != nil {
		return err
	}
	for ; n > 0; n -= 100 {
		var list []string
		for range min(n, 100) {
			list = append(list, c.port())
		}
		if _, err := post("ports", `{"ports":[%s]}`, strings.Join(list, ",")); err != nil {
			return err
		}
	}
	return nil
}

func (c *caller) port() string {
	c.made++
	return fmt.Sprintf(`{"network_id":%q,"name":"port-%d","device_id":"device-%d","device_owner":"compute:nova"}`, c.network, c.made, c.made/10)
}

// create is work that makes n ports.
func (c *caller) create(n int) work {
	return work{clients: 1, n: n, status: 201, request: prepare(n, func(int) []byte {
		return c.as(request("POST", "ports", `{"port":`+c.port()+`}`))
	})}
}

// lists is work that lists all ports n times.
func (c *caller) lists(n int) work {
	list := c.as(request("GET", "ports", ""))
	return work{clients: 1, n: n, status: 200, request: func(int) []byte { return list }}
}

// inTurns runs blocks of two works, so that whatever else happens on the
// machine meets both; the first block of each only warms.
func (b *bench) inTurns(blocks int, first, second func() (samples, error)) (one, two samples, err error) {
	for i := range blocks + 1 {
		for _, of := range []struct {
			run func() (samples, error)
			all *samples
		}{{first, &one}, {second, &two}} {
			s, err := of.run()
			if err != nil {
				return one, two, err
			}
			if i > 0 {
				of.all.add(s)
			}
		}
	}
	return one, two, nil
}

// identity measures what tokens and policy cost, and what a project notices of
// another that asks for more than the server can do.
func (b *bench) identity(ctx context.Context, start starter) (err error) {
	k, err := startKeystone()
	if err != nil {
		return err
	}
	defer k.stop()
	run := func(alter func(string) string) (*requests, func() error, error) {
		dir, err := os.MkdirTemp(b.dir, "server")
		if err != nil {
			return nil, nil, err
		}
		s, err := start(ctx, dir, alter)
		if err != nil {
			return nil, nil, err
		}
		l := &load{address: s.address}
		return &requests{bench: b, ctx: ctx, load: l}, func() error { l.close(); return s.stop() }, nil
	}
	open, stopOpen, err := run(unaltered)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopOpen()) }()
	guarded, stopGuarded, err := run(k.use)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopGuarded()) }()

	anybody, member := &caller{requests: open}, &caller{requests: guarded, token: memberToken}
	for _, c := range []*caller{anybody, member} {
		if err := c.prepare("10.0.0.0/16", b.page); err != nil {
			return err
		}
	}
	admin := &caller{requests: guarded, token: adminToken}
	each := max(b.lists/10, 1)
	all, own, err := b.inTurns(10,
		func() (samples, error) {
			return admin.run("list of 1,000 ports by the administrator", admin.lists(each))
		},
		func() (samples, error) { return member.run("list of 1,000 ports by a member", member.lists(each)) })
	if err != nil {
		return err
	}
	b.times("list of 1,000 ports by the administrator", all)
	b.times("list of 1,000 ports by a member", own)
	b.value("list of 1,000 ports, member over administrator", own.percentile(50)/all.percentile(50), len(own.durations), "of the medians")
	free, asked, err := b.inTurns(b.blocks,
		func() (samples, error) { return anybody.run("port create without tokens", anybody.create(b.block)) },
		func() (samples, error) { return member.run("port create by a member", member.create(b.block)) })
	if err != nil {
		return err
	}
	b.times("port create by a member", asked)
	b.value("port create, member over noauth", asked.percentile(50)/free.percentile(50), len(asked.durations), "of the medians")
	if b.profile != nil {
		return nil
	}

	boundless, stopBoundless, err := run(func(text string) string { return unlimited(k.use(text)) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopBoundless()) }()
	if err := (&caller{requests: boundless, token: memberToken}).prepare("10.0.0.0/16", b.page); err != nil {
		return err
	}
	for _, f := range []struct {
		server *requests
		suffix string
	}{{guarded, ""}, {boundless, ", without limits"}} {
		if err := f.server.flooded(f.suffix); err != nil {
			return err
		}
	}
	return nil
}

// floodClients send one project's requests at a time.
const floodClients = 48

// flooded measures a project's requests while another sends more than can be done.
func (r *requests) flooded(suffix string) error {
	quiet := &caller{requests: r, token: quietToken}
	if err := quiet.prepare("10.1.0.0/16", 0); err != nil {
		return err
	}
	measure := func(name string) error {
		s, err := r.load.run(r.ctx, quiet.create(r.quiet))
		if err == nil {
			r.times(name, s)
		}
		return err
	}
	if suffix == "" {
		if err := measure("quiet project: port create, alone"); err != nil {
			return err
		}
	}
	list := as(memberToken, request("GET", "ports", ""))
	name := as(memberToken, request("POST", "networks", `{"network":{"name":"flood"}}`))
	for _, f := range []struct {
		name    string
		request []byte
	}{
		{"quiet project: port create, another lists (48 clients)", list},
		{"quiet project: port create, another creates networks (48 clients)", name},
	} {
		end, err := flood(r.ctx, r.load.address, f.request)
		if err != nil {
			return err
		}
		err = measure(f.name + suffix)
		if err = errors.Join(err, end()); err != nil {
			return err
		}
	}
	return nil
}

// flood sends one request again and again with many clients, until end is
// called. 503 is an answer that it must expect.
func flood(ctx context.Context, address string, request []byte) (end func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	errs := make([]error, floodClients)
	end = func() error {
		cancel()
		group.Wait()
		return errors.Join(errs...)
	}
	for i := range floodClients {
		c, err := dial(address)
		if err != nil {
			return nil, errors.Join(err, end())
		}
		group.Go(func() {
			defer c.Close()
			for ctx.Err() == nil {
				status, body, err := c.do(request)
				if err == nil && status >= 400 && status != http.StatusServiceUnavailable {
					err = fmt.Errorf("flood: status %d: %.300s", status, body)
				}
				if errs[i] = err; err != nil {
					return
				}
			}
		})
	}
	return end, nil
}
