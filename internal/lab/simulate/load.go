package simulate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"isospin/api/feed"
)

// Layout says which ports there are, and where: networks whose ports are each
// on another host, and projects with a few networks on the same hosts. All
// ports of a project are in its default security group.
type Layout struct {
	// Hosts and ports of each. // required
	Hosts, PortsPerHost int
	// PortsPerNetwork is at most the number of hosts and 250. // optional, 50
	PortsPerNetwork int
	// NetworksPerProject of the many projects. // optional, 5
	NetworksPerProject int
	// Large is the least number of ports of a project on all hosts. // optional, none
	Large int
}

func (l Layout) filled() Layout {
	l.PortsPerNetwork = min(cmp.Or(l.PortsPerNetwork, 50), l.Hosts, 250)
	l.NetworksPerProject = cmp.Or(l.NetworksPerProject, 5)
	return l
}

// classes of networks: those of one are on the same hosts.
func (l Layout) classes() int { return max(l.Hosts/l.PortsPerNetwork, 1) }

// Networks is how many there are.
func (l Layout) Networks() int {
	l = l.filled()
	return (l.Hosts*l.PortsPerHost + l.PortsPerNetwork - 1) / l.PortsPerNetwork
}

// Host of a network's port, by their numbers from 0.
func (l Layout) Host(network, port int) int {
	l = l.filled()
	k := l.classes()
	return (network%k + k*port) % l.Hosts
}

// LargeNetworks is how many networks the large project has; they are the first.
func (l Layout) LargeNetworks() int {
	l = l.filled()
	row := l.classes() * l.PortsPerNetwork
	return min((l.Large+row-1)/row*l.classes(), l.Networks())
}

// project of a network.
func (l Layout) project(network int) string {
	l = l.filled()
	if network < l.LargeNetworks() {
		return "simulated-large"
	}
	k := l.classes()
	return fmt.Sprintf("simulated-%d-%d", network%k, (network-l.LargeNetworks())/k/l.NetworksPerProject)
}

// LoadOptions of Load.
type LoadOptions struct {
	// API is the server's, "http://127.0.0.1:9696". // required
	API string
	// Token of an administrator; without one the API must not ask for any. // optional
	Token  string
	Layout Layout
	// Host names hosts by their number from 0. // required
	Host func(number int) string
	// Bulk is how many ports one request makes. // optional, 100
	Bulk int
	// Clients that make requests at the same time. // optional, 4
	Clients int
	// Client of HTTP. // optional
	Client *http.Client
}

// Cloud is what Load made.
type Cloud struct {
	api    *API
	layout Layout
	// Projects, and networks with the project of each, by number.
	Projects []string
	Networks []string
	Project  []string
	// Ports of each network, in the order of their numbers.
	Ports [][]string
	// Answered is when the API answered the request that made a port.
	Answered map[string]time.Time
	// Requests are how long those took that made ports.
	Requests []time.Duration
}

// API is a client of the API that is told what to do in whole bodies.
type API struct {
	base, token string
	client      *http.Client
}

// NewAPI returns a client.
func NewAPI(base, token string, client *http.Client) *API {
	if client == nil {
		client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	}
	return &API{base: base, token: token, client: client}
}

// Do sends a request, path below /v2.0/, and decodes the answer into into if
// there is one. An answer that is no success is an error.
func (a *API) Do(ctx context.Context, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.base+"/v2.0/"+path, reader)
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		r.Header.Set("X-Auth-Token", a.token)
	}
	answer, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if answer.StatusCode > 299 {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, answer.Status, raw)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

type object = map[string]any

// bulk makes objects of a collection in one request and returns their ids.
func (a *API) bulk(ctx context.Context, collection string, list []object) ([]string, error) {
	var answer map[string][]struct {
		ID string `json:"id"`
	}
	if err := a.Do(ctx, "POST", collection, object{collection: list}, &answer); err != nil {
		return nil, err
	}
	var ids []string
	for _, o := range answer[collection] {
		ids = append(ids, o.ID)
	}
	if len(ids) != len(list) {
		return nil, fmt.Errorf("POST %s: %d objects were asked for, %d came", collection, len(list), len(ids))
	}
	return ids, nil
}

// Load makes the networks and ports of a layout, bound to hosts. On an error
// the cloud is what was made until then.
func Load(ctx context.Context, o LoadOptions) (*Cloud, error) {
	l := o.Layout.filled()
	o.Bulk, o.Clients = cmp.Or(o.Bulk, 100), cmp.Or(o.Clients, 4)
	c := &Cloud{api: NewAPI(o.API, o.Token, o.Client), layout: l, Answered: map[string]time.Time{}}
	if l.Hosts < 1 || l.PortsPerHost < 1 || l.Networks() > 1<<16 {
		return c, fmt.Errorf("simulate: a layout of %d hosts with %d ports each cannot be", l.Hosts, l.PortsPerHost)
	}
	for n := range l.Networks() {
		c.Project = append(c.Project, l.project(n))
	}
	seen := map[string]bool{}
	for _, project := range c.Project {
		if !seen[project] {
			seen[project] = true
			c.Projects = append(c.Projects, project)
			if err := c.api.Do(ctx, "PUT", "quotas/"+project, object{"quota": object{"network": -1, "subnet": -1, "port": -1}}, nil); err != nil {
				return c, err
			}
		}
	}
	for first := 0; first < len(c.Project); first += 50 {
		var networks, subnets []object
		last := min(first+50, len(c.Project))
		for n := first; n < last; n++ {
			networks = append(networks, object{"name": fmt.Sprintf("simulated-%d", n), "project_id": c.Project[n]})
		}
		ids, err := c.api.bulk(ctx, "networks", networks)
		if err != nil {
			return c, err
		}
		c.Networks = append(c.Networks, ids...)
		for n := first; n < last; n++ {
			subnets = append(subnets, object{"network_id": c.Networks[n], "project_id": c.Project[n], "ip_version": 4, "cidr": fmt.Sprintf("10.%d.%d.0/24", n/256, n%256)})
		}
		if _, err := c.api.bulk(ctx, "subnets", subnets); err != nil {
			return c, err
		}
	}
	return c, c.ports(ctx, o, l)
}

// ports makes all of them.
func (c *Cloud) ports(ctx context.Context, o LoadOptions, l Layout) error {
	type place struct{ network, port int }
	var all []place
	for n := range c.Networks {
		c.Ports = append(c.Ports, make([]string, 0, l.PortsPerNetwork))
		for p := 0; p < l.PortsPerNetwork && len(all) < l.Hosts*l.PortsPerHost; p++ {
			all = append(all, place{n, p})
			c.Ports[n] = append(c.Ports[n], "")
		}
	}
	var mu sync.Mutex
	var clients sync.WaitGroup
	var errs []error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range o.Clients {
		clients.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				mine := all[:min(o.Bulk, len(all))]
				all = all[len(mine):]
				mu.Unlock()
				if len(mine) == 0 {
					return
				}
				var list []object
				for _, at := range mine {
					list = append(list, object{
						"network_id": c.Networks[at.network], "project_id": c.Project[at.network], "binding:host_id": o.Host(l.Host(at.network, at.port)),
						"device_owner": "compute:nova", "device_id": fmt.Sprintf("simulated-%d-%d", at.network, at.port),
					})
				}
				begin := time.Now()
				ids, err := c.api.bulk(ctx, "ports", list)
				now := time.Now()
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
					cancel()
				} else {
					c.Requests = append(c.Requests, now.Sub(begin))
					for i, at := range mine {
						c.Ports[at.network][at.port] = ids[i]
						c.Answered[ids[i]] = now
					}
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	if len(errs) > 0 {
		return errs[0] // the others were stopped by it
	}
	return ctx.Err()
}

// Remove deletes what was made.
func (c *Cloud) Remove(ctx context.Context) error {
	var errs []error
	for n, network := range c.Networks {
		if n < len(c.Ports) {
			for _, id := range c.Ports[n] {
				if id != "" {
					errs = append(errs, c.api.Do(ctx, "DELETE", "ports/"+id, nil, nil))
				}
			}
		}
		errs = append(errs, c.api.Do(ctx, "DELETE", "networks/"+network, nil, nil))
		if ctx.Err() != nil {
			break
		}
	}
	for _, project := range c.Projects {
		errs = append(errs, c.api.Do(ctx, "DELETE", "quotas/"+project, nil, nil))
	}
	return errors.Join(errs...)
}

// Arrivals notes when ports first reach their hosts.
type Arrivals struct {
	mu   sync.Mutex
	at   map[string]time.Time
	more chan struct{}
}

// NewArrivals returns one that has noted nothing.
func NewArrivals() *Arrivals {
	return &Arrivals{at: map[string]time.Time{}, more: make(chan struct{})}
}

// Told is for FleetOptions.
func (a *Arrivals) Told(_ int, m *feed.ServerMessage) {
	if len(m.Upserts) == 0 {
		return
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	some := false
	for _, o := range m.Upserts {
		if p := o.GetPort(); p != nil {
			if _, ok := a.at[p.Id]; !ok {
				a.at[p.Id] = now
				some = true
			}
		}
	}
	if some {
		close(a.more)
		a.more = make(chan struct{})
	}
}

// Forget begins anew.
func (a *Arrivals) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.at)
}

// At is when a port reached its host, waiting for it if need be.
func (a *Arrivals) At(ctx context.Context, id string) (time.Time, error) {
	for {
		a.mu.Lock()
		at, ok := a.at[id]
		more := a.more
		a.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return at, fmt.Errorf("port %s did not reach its host: %w", id, context.Cause(ctx))
		}
	}
}
