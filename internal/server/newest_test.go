package server_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"isospin/internal/store/storetest"
	"isospin/test/servertest"
)

// shownPort is what readers look at: a row, and rows of another table.
type shownPort struct {
	ID, Name, Description string
	Revision              int64 `json:"revision_number"`
	FixedIPs              []struct {
		Address string `json:"ip_address"`
	} `json:"fixed_ips"`
}

// newest is the newest revision of each port that anybody has been answered.
type newest struct {
	mu        sync.Mutex
	revisions map[string]int64
}

func (n *newest) known() map[string]int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.revisions)
}

// answered compares an answer with what was known before it was asked for.
func (n *newest) answered(before map[string]int64, shown ...shownPort) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range shown {
		if p.Revision < before[p.ID] {
			return fmt.Errorf("port %s is of revision %d, after %d", p.ID, p.Revision, before[p.ID])
		}
		if p.Name != p.Description || len(p.FixedIPs) != 1 || p.FixedIPs[0].Address != p.Name {
			return fmt.Errorf("port %+v is of no revision", p)
		}
		n.revisions[p.ID] = max(n.revisions[p.ID], p.Revision)
	}
	return nil
}

// TestNewest: whoever reads a port, through any server, finds it as it was
// written, and never older than anybody has found it before.
func TestNewest(t *testing.T) {
	dir := t.TempDir()
	c := newCloud(t, "")
	text := servertest.Networks + c.keystone.Config()
	c.server.Stop()
	c.server = servertest.StartIn(t, dir, text)
	servers := []*servertest.Server{c.server}
	if storetest.Kind() != storetest.SQLite { // which has one server
		servers = append(servers, servertest.StartIn(t, dir, text))
	}
	network := c.create("member1", "/networks", `{"network":{}}`)
	c.create("member1", "/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.0.0.0/16"}}`, network))
	const updates = 40
	var ports []string
	var seen = newest{revisions: map[string]int64{}}
	body := func(port, n int) string {
		a := fmt.Sprintf("10.0.%d.%d", 1+port, 1+n)
		return fmt.Sprintf(`{"port":{"name":%q,"description":%q,"fixed_ips":[{"ip_address":%q}]}}`, a, a, a)
	}
	for i := range 3 {
		ports = append(ports, c.create("member1", "/ports", strings.Replace(body(i, 0), `{"port":{`, `{"port":{"network_id":"`+network+`",`, 1)))
	}
	ask := func(i int, token, method, path, body string, shown any) error {
		a, err := servers[i%len(servers)].Do(method, path, body, "X-Auth-Token: "+token)
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%s", a)
		}
		if err == nil {
			err = a.Decode(shown)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		return nil
	}
	written := make(chan struct{})
	var writers, readers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range updates {
				before, port := seen.known(), i%len(ports)
				var o struct{ Port shownPort }
				err := ask(w+i/2, "member1", "PUT", "/ports/"+ports[port], body(port, 2*i+w), &o)
				if err == nil {
					err = seen.answered(before, o.Port)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for r, token := range []string{"member1", "reader1", "admin", "admin"} {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-written:
					return
				default:
				}
				before := seen.known()
				var o struct{ Port shownPort }
				var list struct{ Ports []shownPort }
				var err error
				switch i % 3 {
				case 0:
					err = ask(i/3, token, "GET", "/ports?network_id="+network, "", &list)
				case 1:
					err = ask(i/3, token, "GET", "/ports?limit=2&sort_key=name&sort_dir=desc&id="+strings.Join(ports, "&id="), "", &list)
				default:
					err = ask(i/3, token, "GET", "/ports/"+ports[i/3%len(ports)], "", &o)
					list.Ports = []shownPort{o.Port}
				}
				if i%3 == 0 && err == nil && len(list.Ports) != len(ports) {
					err = fmt.Errorf("%d ports", len(list.Ports))
				}
				if err == nil {
					err = seen.answered(before, slices.DeleteFunc(list.Ports, func(p shownPort) bool { return !slices.Contains(ports, p.ID) })...)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(written)
	readers.Wait()
	for id, revision := range seen.known() {
		if revision == 0 {
			t.Errorf("port %s was not changed", id)
		}
	}
}
