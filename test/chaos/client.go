package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// outcome is what a client knows of a request.
type outcome int

const (
	acknowledged outcome = iota
	refused              // with an answer of the client's fault: nothing has changed
	unknown              // no answer, or 503: it may have happened or not
)

// object is what one client knows of an object that it made. Only this client writes to it.
type object struct {
	collection, kind, id string
	// name is unlike any other; it finds an object whose creation was not answered.
	name string
	// made tells whether the creation was acknowledged.
	made bool
	// descriptions that the object may have: one if the last update was answered.
	descriptions []string
	// deleted: acknowledged, or of unknown fate.
	deleted, maybeDeleted bool
	// together are the names of objects that were created by one request.
	together []string
	// host of a port of an instance.
	host            string
	network, subnet string
	// parent is the object with which this one ends.
	parent *object
}

// client writes through all servers in turn and notes what it was told.
type client struct {
	w       *world
	number  int
	random  *rand.Rand
	http    *http.Client
	objects []*object
	counts  struct{ acknowledged, refused, unknown, unavailable int }
}

func newClient(w *world, number int) *client {
	return &client{w: w, number: number, random: rand.New(rand.NewPCG(w.o.Seed, uint64(number))), http: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
}

// run writes until ctx ends.
func (c *client) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		c.step(ctx, n)
	}
}

func (c *client) some(kind string) *object {
	var list []*object
	for _, o := range c.objects {
		if o.kind == kind && o.made && !o.deleted && !o.maybeDeleted {
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[c.random.IntN(len(list))]
}

func (c *client) name(n int) string { return fmt.Sprintf("c%d-%d", c.number, n) }

func (c *client) host() string {
	return fmt.Sprintf("%s%d", hostPrefix, 1+c.random.IntN(c.w.o.Hosts))
}

func (c *client) step(ctx context.Context, n int) {
	switch k := c.random.IntN(100); {
	case k < 32:
		c.create(ctx, "port", c.portBody(n, c.name(n), c.host()))
	case k < 40:
		c.createTogether(ctx, n)
	case k < 55:
		if o := c.some([]string{"port", "network", "router", "security_group"}[c.random.IntN(4)]); o != nil {
			c.describe(ctx, o, c.name(n))
		}
	case k < 60:
		if o := c.some("port"); o != nil && o.host != "" {
			c.move(ctx, o, c.host())
		}
	case k < 75:
		if o := c.some("port"); o != nil && o.host != "" {
			c.remove(ctx, o)
		}
	case k < 82:
		c.network(ctx, n)
	case k < 86:
		c.router(ctx, n)
	case k < 91:
		o := c.create(ctx, "security_group", map[string]any{"name": c.name(n)})
		if o.made {
			rule := c.create(ctx, "security_group_rule", map[string]any{"security_group_id": o.id, "direction": "ingress", "protocol": "tcp", "port_range_min": 1 + c.random.IntN(1000), "port_range_max": 2000, "description": c.name(n)})
			rule.parent = o
		}
	case k < 93:
		if o := c.some("security_group"); o != nil {
			c.remove(ctx, o)
		}
	default:
		if o := c.some("port"); o != nil {
			c.look(ctx, o)
		}
	}
}

func (c *client) portBody(n int, name, host string) map[string]any {
	return map[string]any{"name": name, "network_id": c.w.networks[c.random.IntN(len(c.w.networks))], "description": c.name(n), "device_owner": "compute:nova", "device_id": uuid.NewString(), "binding:host_id": host}
}

// createTogether makes several ports by one request: all of them or none.
func (c *client) createTogether(ctx context.Context, n int) {
	var bodies []map[string]any
	var names []string
	for i := range 3 {
		name := fmt.Sprintf("%s-%d", c.name(n), i)
		bodies, names = append(bodies, c.portBody(n, name, c.host())), append(names, name)
	}
	result, answer := c.do(ctx, http.MethodPost, "/ports", map[string]any{"ports": bodies})
	if result == refused {
		return
	}
	var got struct{ Ports []struct{ ID, Name string } }
	if result == acknowledged {
		if err := json.Unmarshal(answer, &got); err != nil || len(got.Ports) != len(bodies) {
			c.w.find("creating %d ports together was answered by %s", len(bodies), answer)
			return
		}
	}
	for i, body := range bodies {
		o := &object{collection: "ports", kind: "port", name: names[i], together: names, host: body["binding:host_id"].(string), network: body["network_id"].(string), descriptions: []string{c.name(n)}}
		if result == acknowledged {
			j := slices.IndexFunc(got.Ports, func(p struct{ ID, Name string }) bool { return p.Name == names[i] })
			if j < 0 {
				c.w.find("the answer has no port %s", names[i])
				continue
			}
			o.id, o.made = got.Ports[j].ID, true
		}
		c.objects = append(c.objects, o)
	}
}

func plural(kind string) string { return kind + "s" }

// create makes one object; it is noted unless it was refused.
func (c *client) create(ctx context.Context, kind string, body map[string]any) *object {
	o := &object{collection: plural(kind), kind: kind}
	o.name, _ = body["name"].(string)
	description, _ := body["description"].(string)
	o.descriptions = []string{description}
	o.host, _ = body["binding:host_id"].(string)
	o.network, _ = body["network_id"].(string)
	path := "/" + strings.ReplaceAll(o.collection, "_", "-")
	result, answer := c.do(ctx, http.MethodPost, path, map[string]any{kind: body})
	if result == refused {
		return o
	}
	c.objects = append(c.objects, o)
	if result == acknowledged {
		var got map[string]struct{ ID string }
		if err := json.Unmarshal(answer, &got); err != nil || got[kind].ID == "" {
			c.w.find("creating a %s was answered by %s", kind, answer)
			return o
		}
		o.id, o.made = got[kind].ID, true
		if c.random.IntN(3) == 0 {
			c.look(ctx, o)
		}
	}
	return o
}

func (o *object) path() string {
	return "/" + strings.ReplaceAll(o.collection, "_", "-") + "/" + o.id
}

// describe changes the description.
func (c *client) describe(ctx context.Context, o *object, text string) {
	result, _ := c.do(ctx, http.MethodPut, o.path(), map[string]any{o.kind: map[string]any{"description": text}})
	switch result {
	case acknowledged:
		o.descriptions = []string{text}
	case unknown:
		o.descriptions = append(o.descriptions, text)
	}
	if result == acknowledged && c.random.IntN(3) == 0 {
		c.look(ctx, o)
	}
}

// move binds a port to another host.
func (c *client) move(ctx context.Context, o *object, host string) {
	result, _ := c.do(ctx, http.MethodPut, o.path(), map[string]any{"port": map[string]any{"binding:host_id": host}})
	if result != refused {
		o.host = host
	}
}

func (c *client) remove(ctx context.Context, o *object) {
	result, _ := c.do(ctx, http.MethodDelete, o.path(), nil)
	switch result {
	case acknowledged:
		o.deleted = true
		if c.random.IntN(3) == 0 {
			c.look(ctx, o)
		}
	case unknown:
		o.maybeDeleted = true
	}
}

// network makes a network with a subnet, or deletes one.
func (c *client) network(ctx context.Context, n int) {
	if o := c.some("network"); o != nil && c.random.IntN(3) == 0 && o.subnet == "" {
		c.remove(ctx, o)
		return
	}
	o := c.create(ctx, "network", map[string]any{"name": c.name(n)})
	if o.made && c.random.IntN(2) == 0 {
		s := c.create(ctx, "subnet", map[string]any{"name": c.name(n) + "-subnet", "network_id": o.id, "ip_version": 4, "cidr": fmt.Sprintf("10.%d.%d.0/24", c.number, n%256)})
		o.subnet = "unknown"
		if s.made {
			o.subnet = s.id
		}
	}
}

// router makes a router with an interface.
func (c *client) router(ctx context.Context, n int) {
	o := c.create(ctx, "router", map[string]any{"name": c.name(n)})
	network := c.some("network")
	if !o.made || network == nil || len(network.subnet) != 36 {
		return
	}
	result, _ := c.do(ctx, http.MethodPut, o.path()+"/add_router_interface", map[string]any{"subnet_id": network.subnet})
	if result != refused {
		network.subnet = "used"
	}
}

// look asks another server for an object whose state is known: it must be that.
func (c *client) look(ctx context.Context, o *object) {
	result, answer := c.do(ctx, http.MethodGet, o.path(), nil)
	switch {
	case result == acknowledged && o.deleted:
		c.w.find("%s %s is there after its deletion was answered", o.kind, o.id)
	case result == refused && !o.deleted && !o.maybeDeleted && ctx.Err() == nil:
		c.w.find("%s %s was acknowledged and another server answers %s", o.kind, o.id, answer)
	case result == acknowledged && !o.maybeDeleted:
		var got map[string]struct{ Description string }
		if err := json.Unmarshal(answer, &got); err != nil || !slices.Contains(o.descriptions, got[o.kind].Description) {
			c.w.find("%s %s has the description %q, one of %q was written", o.kind, o.id, got[o.kind].Description, o.descriptions)
		}
	}
}

// do sends a request to one of the servers.
func (c *client) do(ctx context.Context, method, path string, body any) (outcome, []byte) {
	if ctx.Err() != nil {
		return refused, nil
	}
	r := c.w.replicas[c.random.IntN(len(c.w.replicas))]
	begin := time.Now()
	status, header, answer, err := request(context.WithoutCancel(ctx), c.http, method, "http://"+r.api.address()+"/v2.0"+path, body)
	write := method != http.MethodGet
	switch {
	case err != nil || status == http.StatusServiceUnavailable:
		if err == nil {
			c.counts.unavailable++
			if header.Get("Retry-After") == "" {
				c.w.find("%s %s on %s: 503 without Retry-After: %s", method, path, r.name, answer)
			}
		}
		if write {
			c.counts.unknown++
		}
		// Nobody hurries to ask a server that is away.
		pause(ctx, 50*time.Millisecond)
		return unknown, nil
	case status >= 500:
		c.w.find("%s %s on %s: %d %s", method, path, r.name, status, answer)
		return unknown, nil
	case status >= 400:
		c.counts.refused++
		// Nobody else writes to these objects: only what was deleted is not there.
		if method != http.MethodGet {
			c.w.find("%s %s on %s after %v: %d %s", method, path, r.name, time.Since(begin).Round(time.Millisecond), status, answer)
		}
		return refused, answer
	}
	if write {
		c.counts.acknowledged++
	}
	return acknowledged, answer
}

// request asks once.
func request(ctx context.Context, h *http.Client, method, url string, body any) (int, http.Header, []byte, error) {
	var reader io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, nil, nil, err
		}
		reader = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	// A request that is sent again by the client's library would be acknowledged as if it were one.
	r.GetBody = nil
	answer, err := h.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, bytes.TrimSpace(raw), err
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
