package runtime

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"isospin/api/feed"
)

// Agents spread over the servers; those of one that ends go on at another, and
// tell it what they hold.
func TestFailover(t *testing.T) {
	dir := t.TempDir()
	servers := map[string]*server{}
	var addresses []string
	for _, name := range []string{"a", "b"} {
		socket := filepath.Join(dir, name)
		servers[name] = newServer(t, socket)
		addresses = append(addresses, "unix://"+socket)
	}
	either := func() (string, *conversation) {
		t.Helper()
		select {
		case c := <-servers["a"].streams:
			return "a", c
		case c := <-servers["b"].streams:
			return "b", c
		case <-time.After(deadline):
			t.Fatal("the agent attaches nowhere")
			return "", nil
		}
	}
	chosen := map[string]int{}
	for i := range 20 {
		h := newHost(t, t.TempDir(), "", func(o *Options) { o.Servers, o.Host = addresses, fmt.Sprint("host-", i) })
		name, _ := either()
		chosen[name]++
		if i < 19 {
			h.stop()
			continue
		}
		// The last one loses its server.
		other := map[string]string{"a": "b", "b": "a"}[name]
		servers[name].stop()
		second := servers[other].accept()
		second.send(&feed.ServerMessage{Sequence: 1, Synced: true, Upserts: []*feed.Object{{Version: 7, Body: &feed.Object_Port{Port: &feed.Port{Id: "p", Revision: 3}}}}})
		second.report()
		servers[other].stop()
		servers[name].listen()
		third := servers[name].accept()
		if have := third.hello.Have; len(have) != 1 || have[0].Id != "p" || have[0].Version != 7 {
			t.Errorf("the agent says it holds %v", have)
		}
	}
	if chosen["a"] == 0 || chosen["b"] == 0 {
		t.Errorf("20 agents chose %v", chosen)
	}
}
