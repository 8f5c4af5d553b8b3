package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isospin/api/neutron"
	"isospin/internal/identity/keystone/keystonetest"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
	"isospin/test/servertest"
)

// The projects of the members whose watches are looked at: entries of RBAC name projects as Keystone does.
const (
	one = "11111111-1111-4111-8111-111111111111"
	two = "22222222-2222-4222-8222-222222222222"
)

func newWatchedCloud(t *testing.T, text string) *cloud {
	c := newCloud(t, text+"[quotas]\nquota_port = -1\nquota_network = -1\nquota_subnet = -1\nquota_security_group = -1\nquota_security_group_rule = -1\n")
	c.keystone.Add("member1", keystonetest.Token{UserID: "u1", ProjectID: one, Roles: []string{"member", "reader"}})
	c.keystone.Add("member2", keystonetest.Token{UserID: "u2", ProjectID: two, Roles: []string{"member", "reader"}})
	return c
}

func (c *cloud) client(token string) *neutron.Client {
	return &neutron.Client{Endpoint: c.server.URL, Token: token}
}

// sequence is where the token's list of networks says it is.
func (c *cloud) sequence(token string) int64 {
	c.t.Helper()
	c.server.Settle(c.t)
	_, _, h := c.call(token, "GET /networks", "")
	var n int64
	if _, err := fmt.Sscan(h.Get("X-Isospin-Sequence"), &n); err != nil {
		c.t.Fatalf("X-Isospin-Sequence %q: %v", h.Get("X-Isospin-Sequence"), err)
	}
	return n
}

// watched is what a watch has told so far.
type watched struct {
	mu    sync.Mutex
	lines []neutron.Change
	err   error
	done  chan struct{}
}

func (w *watched) all() []neutron.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

// watch follows changes until the test ends, or the server ends it.
func (c *cloud) watch(token string, since int64, kinds ...string) *watched {
	c.t.Helper()
	w := &watched{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	began := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(w.done)
		err := c.client(token).Watch(ctx, neutron.WatchOptions{Since: &since, Kinds: kinds}, func(change *neutron.Change) error {
			once.Do(func() { close(began) })
			if change.Kind != "" {
				w.mu.Lock()
				w.lines = append(w.lines, *change)
				w.mu.Unlock()
			}
			return nil
		})
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
	}()
	c.t.Cleanup(func() { cancel(); <-w.done })
	select {
	case <-began:
	case <-w.done:
		c.t.Fatalf("the watch of %s ended: %v", token, w.err)
	case <-time.After(15 * time.Second):
		c.t.Fatal("the watch does not begin")
	}
	return w
}

// reached waits for a number of lines: what is opened brings what is below it
// only as long as it is open.
func (w *watched) reached(t *testing.T, n int) {
	t.Helper()
	servertest.Eventually(t, fmt.Sprintf("%d lines", n), func() bool { return len(w.all()) >= n })
}

// expect waits for as many lines and compares them: "op kind name-or-id".
func (w *watched) expect(t *testing.T, names map[string]string, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got = nil
		for _, l := range w.all() {
			name := names[l.ID]
			if name == "" {
				name = l.ID
			}
			got = append(got, fmt.Sprintf("%s %s %s", l.Op, l.Kind, name))
		}
		if len(got) >= len(want) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// A member sees what is of its project and what is shared with it, as lists
// show it; what is shared no longer is as if it were deleted.
func TestWatchShowsWhatListsShow(t *testing.T) {
	c := newWatchedCloud(t, "")
	since := c.sequence("admin")
	theirs := c.create("admin", "/networks", `{"network":{"name":"theirs","project_id":"`+two+`"}}`)
	subnet := c.create("admin", "/subnets", `{"subnet":{"project_id":"`+two+`","network_id":"`+theirs+`","ip_version":4,"cidr":"10.0.0.0/24"}}`)
	names := map[string]string{theirs: "theirs", subnet: "subnet"}
	member := c.watch("member1", c.sequence("admin"), "network", "subnet")
	admin := c.watch("admin", since, "network")

	own := c.create("member1", "/networks", `{"network":{"name":"own"}}`)
	names[own] = "own"
	c.expect("admin", "PUT /networks/"+theirs, `{"network":{"shared":true}}`, 200)
	member.reached(t, 3)
	c.expect("admin", "PUT /networks/"+theirs, `{"network":{"name":"renamed"}}`, 200)
	c.expect("admin", "PUT /networks/"+theirs, `{"network":{"shared":false}}`, 200)
	c.expect("admin", "PUT /networks/"+theirs, `{"network":{"name":"hidden"}}`, 200)
	policy := c.create("admin", "/rbac-policies", `{"rbac_policy":{"object_type":"network","object_id":"`+theirs+`","action":"access_as_shared","target_tenant":"`+one+`"}}`)
	member.reached(t, 8)
	c.expect("admin", "DELETE /rbac-policies/"+policy, "", 204)
	c.expect("member1", "DELETE /networks/"+own, "", 204)
	want := []string{
		"create network own",
		"create network theirs", "create subnet subnet", "update network theirs", "delete network theirs", "delete subnet subnet",
		"create network theirs", "create subnet subnet", "delete network theirs", "delete subnet subnet",
		"delete network own",
	}
	member.expect(t, names, want...)
	// What is read of the past is what was told at the time.
	c.watch("member1", since, "network", "subnet").expect(t, names, want...)
	for _, l := range member.all() {
		if (l.Op == "delete") != (string(l.Object) == "null") {
			t.Errorf("%s of %s has the object %s", l.Op, l.Kind, l.Object)
		}
		for _, hidden := range []string{"provider:", "shared_with", "external_with"} {
			if strings.Contains(string(l.Object), hidden) {
				t.Errorf("a member is shown %s: %s", hidden, l.Object)
			}
		}
		if !strings.HasPrefix(l.RequestID, "req-") || l.At.IsZero() || l.Sequence <= since {
			t.Errorf("line %+v", l)
		}
	}
	admin.expect(t, names, "create network theirs", "update network theirs", "create network own", "update network theirs", "update network theirs",
		"update network theirs", "update network theirs", "update network theirs", "update network theirs", "delete network own")
	if l := admin.all()[0]; !strings.Contains(string(l.Object), `"provider:network_type":"vxlan"`) || l.ProjectID != two {
		t.Errorf("an administrator is shown %+v", l)
	}
}

// What is seen through another object is told as that was at the time, also to
// a client that was away: not before the other, and its end though the other
// has been closed, or is gone, since.
func TestWatchOfThePast(t *testing.T) {
	c := newWatchedCloud(t, "")
	begin := c.sequence("admin")
	network := c.create("admin", "/networks", `{"network":{"project_id":"`+two+`"}}`)
	names := map[string]string{network: "network"}
	subnet := func(name, cidr string) string {
		id := c.create("admin", "/subnets", `{"subnet":{"project_id":"`+two+`","network_id":"`+network+`","ip_version":4,"cidr":"`+cidr+`"}}`)
		names[id] = name
		return id
	}
	early := subnet("early", "10.0.0.0/24")
	c.expect("admin", "PUT /networks/"+network, `{"network":{"shared":true}}`, 200)
	c.watch("member1", begin, "network", "subnet").expect(t, names, "create network network", "create subnet early")
	away := c.sequence("admin")
	late := subnet("late", "10.0.1.0/24")
	c.expect("admin", "DELETE /subnets/"+early, "", 204)
	c.expect("admin", "PUT /networks/"+network, `{"network":{"shared":false}}`, 200)
	hidden := subnet("hidden", "10.0.2.0/24")
	c.sequence("admin")
	// A network is changed along with its subnets.
	past := []string{"create subnet late", "update network network", "delete subnet early", "update network network", "delete network network", "delete subnet late"}
	c.watch("member1", away, "network", "subnet").expect(t, names, past...)
	for _, id := range []string{late, hidden} {
		c.expect("admin", "DELETE /subnets/"+id, "", 204)
	}
	c.expect("admin", "DELETE /networks/"+network, "", 204)
	c.sequence("admin")
	c.watch("member1", away, "network", "subnet").expect(t, names, past...)
}

// What policy did not show while it was there it does not show when all that
// could decide about it has gone.
func TestWatchOfThePastShowsNoMore(t *testing.T) {
	c := newWatchedCloud(t, "")
	for _, token := range []string{"member1", "member2"} {
		c.expect(token, "GET /security-groups", "", 200) // the default groups are there from now on
	}
	begin := c.sequence("admin")
	group := c.create("member2", "/security-groups", `{"security_group":{"name":"g"}}`)
	entry := c.create("admin", "/rbac-policies", `{"rbac_policy":{"object_type":"security_group","object_id":"`+group+`","action":"access_as_shared","target_tenant":"`+one+`"}}`)
	rule := c.create("member2", "/security-group-rules", `{"security_group_rule":{"security_group_id":"`+group+`","direction":"ingress"}}`)
	c.expect("member2", "DELETE /security-group-rules/"+rule, "", 204)
	c.expect("admin", "DELETE /rbac-policies/"+entry, "", 204)
	c.expect("member2", "DELETE /security-groups/"+group, "", 204)
	c.sequence("admin")
	c.watch("member1", begin, "security_group", "security_group_rule").expect(t, map[string]string{group: "g"},
		"create security_group g", "update security_group g", "update security_group g", "delete security_group g")
	owner := c.watch("member2", begin, "security_group_rule")
	servertest.Eventually(t, "the owner is told of the rule's end", func() bool {
		return slices.ContainsFunc(owner.all(), func(l neutron.Change) bool { return l.ID == rule && l.Op == "delete" })
	})
}

// Of every kind that can be opened to one project: it is told of it, of what is
// below it, and of the end; others are told nothing. A rule that comes and goes
// leaves a group shared.
func TestWatchOfWhatIsOpened(t *testing.T) {
	c := newWatchedCloud(t, "")
	for _, token := range []string{"member1", "member2", "reader1"} {
		c.expect(token, "GET /security-groups", "", 200) // the default groups are there from now on
	}
	for _, kind := range []struct {
		name, objectType, path, body string
		below                        func(id string) (kind string)
	}{
		{"network", "network", "/networks", `{"network":{"project_id":"` + two + `"}}`, func(id string) string {
			c.create("admin", "/subnets", `{"subnet":{"network_id":"`+id+`","ip_version":4,"cidr":"10.0.0.0/24"}}`)
			return "subnet"
		}},
		{"policy", "qos_policy", "/qos/policies", `{"policy":{"name":"q","project_id":"` + two + `"}}`, func(id string) string {
			c.create("admin", "/qos/policies/"+id+"/dscp_marking_rules", `{"dscp_marking_rule":{"dscp_mark":8}}`)
			return "dscp_marking_rule" // which policy shows to nobody else
		}},
		{"security_group", "security_group", "/security-groups", `{"security_group":{"name":"g","project_id":"` + two + `"}}`, func(string) string { return "security_group_rule" }}, // the same
		{"address_group", "address_group", "/address-groups", `{"address_group":{"name":"g","project_id":"` + two + `"}}`, nil},
		{"address_scope", "address_scope", "/address-scopes", `{"address_scope":{"name":"s","ip_version":4,"project_id":"` + two + `"}}`, nil},
		{"subnetpool", "subnetpool", "/subnetpools", `{"subnetpool":{"name":"p","prefixes":["10.0.0.0/8"],"project_id":"` + two + `"}}`, nil},
	} {
		t.Run(kind.name, func(t *testing.T) {
			id := c.create("admin", kind.path, kind.body)
			kinds := []string{kind.name}
			want := []string{"create " + kind.name}
			gone := []string{"delete " + kind.name}
			if kind.below != nil {
				kinds = append(kinds, kind.below(id))
				if kind.name == "network" {
					want, gone = append(want, "create subnet"), append(gone, "delete subnet")
				}
			}
			// From now on: what is below it might else be read of the past when it has just been opened.
			since := c.sequence("admin")
			opened, other, owner := c.watch("member1", since, kinds...), c.watch("reader1", since, kinds...), c.watch("member2", since, kinds...)
			entry := c.create("admin", "/rbac-policies", `{"rbac_policy":{"object_type":"`+kind.objectType+`","object_id":"`+id+`","action":"access_as_shared","target_tenant":"`+one+`"}}`)
			opened.reached(t, len(want))
			if kind.name == "security_group" {
				rule := c.create("admin", "/security-group-rules", `{"security_group_rule":{"security_group_id":"`+id+`","direction":"ingress"}}`)
				c.expect("admin", "DELETE /security-group-rules/"+rule, "", 204)
				want = append(want, "update security_group", "update security_group")
			}
			c.expect("admin", "DELETE /rbac-policies/"+entry, "", 204)
			c.expect("admin", "DELETE "+kind.path+"/"+id, "", 204)
			want = append(want, gone...)
			told := func(w *watched) (list []string) {
				for _, l := range w.all() {
					list = append(list, l.Op+" "+l.Kind)
					if (l.Kind == "dscp_marking_rule") != (l.ParentID == id) {
						t.Errorf("%s is below %q", l.Kind, l.ParentID)
					}
				}
				return list
			}
			servertest.Eventually(t, "the owner is told of the end", func() bool { return slices.Contains(told(owner), "delete "+kind.name) })
			for deadline := time.Now().Add(20 * time.Second); len(told(opened)) < len(want) && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond)
			}
			if diff := cmp.Diff(want, told(opened)); diff != "" {
				t.Errorf("told to whom it is opened (-want +got):\n%s", diff)
			}
			if list := told(other); len(list) > 0 {
				t.Errorf("told to another project: %v", list)
			}
		})
	}
}

// Clients that list once and then watch, whose connections break again and
// again, end with what lists show, whoever they are; and of those who see all,
// each is told of every change once, in order.
func TestWatchResumesWithRacingWriters(t *testing.T) {
	c := newWatchedCloud(t, "[isospin]\nwatch_buffer = 64\n")
	kinds := map[string]string{"network": "/networks", "subnet": "/subnets", "port": "/ports", "security_group": "/security-groups", "security_group_rule": "/security-group-rules"}
	tokens := []string{"admin", "member1", "member2"}
	for _, token := range tokens {
		c.expect(token, "GET /security-groups", "", 200) // the default groups are there from now on
	}
	since := c.sequence("admin")
	lists := func(token string) map[string]string {
		have := map[string]string{}
		for kind, path := range kinds {
			_, text, _ := c.call(token, "GET "+path, "")
			var doc map[string][]struct {
				ID       string
				Revision int64 `json:"revision_number"`
			}
			if err := json.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			for _, list := range doc {
				for _, o := range list {
					have[kind+" "+o.ID] = fmt.Sprint(o.Revision)
				}
			}
		}
		return have
	}
	before := map[string]map[string]string{}
	for _, token := range tokens {
		before[token] = lists(token)
	}

	var writers, watchers sync.WaitGroup
	work, stop := context.WithCancel(t.Context())
	defer stop()
	got := map[string][]neutron.Change{}
	var mu sync.Mutex
	for _, token := range tokens {
		watchers.Go(func() {
			at := since
			for work.Err() == nil {
				ctx, cancel := context.WithCancel(work)
				n := 0
				err := c.client(token).Watch(ctx, neutron.WatchOptions{Since: &at, Kinds: slices.Sorted(maps.Keys(kinds))}, func(l *neutron.Change) error {
					at = l.Sequence
					if l.Kind != "" {
						mu.Lock()
						got[token] = append(got[token], *l)
						mu.Unlock()
						if n++; n%7 == 0 {
							cancel() // and what is on its way is lost
							return io.ErrUnexpectedEOF
						}
					}
					return nil
				})
				cancel()
				var fault *neutron.Error
				if errors.As(err, &fault) && fault.Type != "WatchTooSlow" {
					t.Errorf("watch of %s: %v", token, err)
					return
				}
			}
		})
	}
	for i := range 3 {
		writers.Go(func() {
			for n := range 6 {
				network := c.create("member1", "/networks", fmt.Sprintf(`{"network":{"name":"n%d-%d"}}`, i, n))
				subnet := c.create("member1", "/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.%d.%d.0/24"}}`, network, i, n))
				group := c.create("member2", "/security-groups", `{"security_group":{"name":"g"}}`)
				c.expect("admin", "PUT /networks/"+network, `{"network":{"shared":true}}`, 200)
				port := c.create("member2", "/ports", fmt.Sprintf(`{"port":{"network_id":%q,"security_groups":[%q]}}`, network, group))
				c.expect("member2", "PUT /ports/"+port, `{"port":{"name":"x"}}`, 200)
				opened := c.create("admin", "/rbac-policies", fmt.Sprintf(`{"rbac_policy":{"object_type":"security_group","object_id":%q,"action":"access_as_shared","target_tenant":%q}}`, group, one))
				if n%2 == 0 {
					c.expect("member2", "DELETE /ports/"+port, "", 204)
					c.expect("admin", "PUT /networks/"+network, `{"network":{"shared":false}}`, 200)
					c.expect("admin", "DELETE /rbac-policies/"+opened, "", 204)
				}
				if n%3 == 0 {
					c.expect("admin", "PUT /subnets/"+subnet, `{"subnet":{"name":"s"}}`, 200)
				}
			}
		})
	}
	writers.Wait()
	for _, token := range tokens {
		want := lists(token)
		have := func() map[string]string {
			mu.Lock()
			defer mu.Unlock()
			whole := maps.Clone(before[token])
			for _, l := range got[token] {
				if key := l.Kind + " " + l.ID; l.Op == "delete" {
					delete(whole, key)
				} else {
					whole[key] = fmt.Sprint(l.Revision)
				}
			}
			return whole
		}
		deadline := time.Now().Add(20 * time.Second)
		for !maps.Equal(have(), want) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if diff := cmp.Diff(want, have()); diff != "" {
			t.Errorf("%s lists and watches (-list +watch):\n%s", token, diff)
		}
	}
	stop()
	watchers.Wait()
	// An administrator's lines are the events.
	last := int64(0)
	for _, l := range got["admin"] {
		if l.Sequence <= last {
			t.Errorf("%s of %s %s at %d comes after %d", l.Op, l.Kind, l.ID, l.Sequence, last)
		}
		last = l.Sequence
	}
	var all []int64
	for _, l := range got["admin"] {
		all = append(all, l.Sequence)
	}
	var stored []int64
	for _, e := range c.events(since) {
		if kinds[e.Kind] != "" && e.Sequence <= last {
			stored = append(stored, e.Sequence)
		}
	}
	if diff := cmp.Diff(stored, all); diff != "" {
		t.Errorf("sequences (-stored +told):\n%s", diff)
	}
}

// What a client has taken from one server it does not get again from the next
// one on the database, nor from another beside it, and it misses nothing; one
// that lists at a server and watches at another misses nothing either.
func TestWatchGoesOnAtAnotherServer(t *testing.T) {
	dir := t.TempDir()
	c := newWatchedCloud(t, "")
	text := servertest.Networks + c.keystone.Config()
	c.server = servertest.StartIn(t, dir, text)
	var got []neutron.Change
	follow := func(since int64, n int) int64 {
		t.Helper()
		w := c.watch("member1", since, "network")
		servertest.Eventually(t, fmt.Sprintf("%d lines", n), func() bool { return len(w.all()) >= n })
		got = append(got, w.all()...)
		return got[len(got)-1].Sequence
	}
	begin := c.sequence("member1")
	write := func(name string) {
		id := c.create("member1", "/networks", `{"network":{"name":"`+name+`"}}`)
		c.expect("member1", "PUT /networks/"+id, `{"network":{"name":"`+name+`2"}}`, 200)
		c.create("member2", "/networks", `{"network":{}}`)
	}
	write("a")
	at := follow(begin, 2)
	write("b") // nobody watches
	c.server.Stop()
	c.server = servertest.StartIn(t, dir, text)
	write("c")
	at = follow(at, 4)                        // what comes later is of member2
	if storetest.Kind() != storetest.SQLite { // which has one server
		first := c.server
		listed := c.sequence("member1")
		write("d")
		c.server = servertest.StartIn(t, dir, text)
		write("e")
		c.server, first = first, c.server
		write("f")
		c.server = first
		if listed < at {
			t.Errorf("the list says %d, the last line %d", listed, at)
		}
		follow(listed, 6)
	}
	var want []string
	for _, e := range c.events(begin) {
		if e.Kind == "network" && e.ProjectID == one {
			want = append(want, fmt.Sprintf("%d %s %s", e.Sequence, e.Op, e.ID))
		}
	}
	var have []string
	for _, l := range got {
		have = append(have, fmt.Sprintf("%d %s %s", l.Sequence, l.Op, l.ID))
	}
	if diff := cmp.Diff(want, have); diff != "" || len(want) < 6 {
		t.Errorf("lines (-events +told):\n%s", diff)
	}
}

// A client that does not read costs no memory: its watch ends with a line that
// says so, or with the connection, and can be resumed.
func TestWatchOfASlowClient(t *testing.T) {
	c := newWatchedCloud(t, "[isospin]\nwatch_buffer = 8\n")
	since := c.sequence("admin")
	network := c.create("admin", "/networks", `{"network":{}}`)
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /v2.0/watch?since=%d HTTP/1.1\r\nHost: x\r\nX-Auth-Token: admin\r\n\r\n", since)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	// It takes a little now and then: one that takes nothing at all is cut off
	// after a while, and how long the requests take is the machine's business.
	var begun bytes.Buffer
	written, sipping := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sipping)
		for {
			select {
			case <-written:
				return
			case <-time.After(500 * time.Millisecond):
				if _, err := io.CopyN(&begun, answer.Body, 16<<10); err != nil {
					return // so will be said below
				}
			}
		}
	}()
	// Long enough for the sockets' buffers to be full: descriptions of 250 letters, in 120 ports of one request.
	item := fmt.Sprintf(`{"network_id":%q,"description":%q}`, network, strings.Repeat("x", 250))
	for range 60 {
		c.expect("admin", "POST /ports", `{"ports":[`+strings.TrimSuffix(strings.Repeat(item+",", 120), ",")+`]}`, 201)
	}
	c.server.Settle(t)
	close(written)
	<-sipping
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(io.MultiReader(&begun, answer.Body))
	lines.Buffer(nil, 1<<20)
	last, told := "", since
	for lines.Scan() {
		last = lines.Text()
		var l neutron.Change
		if err := json.Unmarshal([]byte(last), &l); err == nil && l.Sequence > told {
			told = l.Sequence
		}
	}
	if !strings.Contains(last, `"error":{"type":"WatchTooSlow"`) {
		t.Fatalf("the last line is %.200s (%v)", last, lines.Err())
	}
	rest := c.watch("admin", told, "port")
	want := 0
	for _, e := range c.events(told) {
		if e.Kind == "port" {
			want++
		}
	}
	if want == 0 {
		t.Error("nothing was left to resume")
	}
	began := time.Now()
	for deadline := began.Add(2 * time.Minute); len(rest.all()) < want && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-rest.done:
			t.Fatalf("of %d changes that were left %d were told before the watch ended with %v", want, len(rest.all()), rest.err)
		default:
		}
	}
	if n := len(rest.all()); n != want {
		t.Errorf("of %d changes that were left %d were told in %v", want, n, time.Since(began))
	}
}

// A stop of the server ends watches at once, with a line that says so.
func TestWatchEndsWithTheServer(t *testing.T) {
	c := newCloud(t, "")
	w := c.watch("member1", c.sequence("member1"))
	began := time.Now()
	c.server.Stop()
	select {
	case <-w.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the watch goes on")
	}
	var fault *neutron.Error
	if !errors.As(w.err, &fault) || fault.Type != "ServiceUnavailable" {
		t.Errorf("the watch ended with %v", w.err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the server took %s to stop", took)
	}
}

func TestWatchRefusals(t *testing.T) {
	c := newCloud(t, "[isospin]\nwatch_limit = 3\nwatch_limit_per_project = 2\n")
	c.expect("unknown", "GET /watch", "", 401)
	c.expect("member1", "GET /watch?since=x", "", 400, "since must be a whole number")
	c.expect("member1", "GET /watch?kind=nothing", "", 400, "'nothing' is no kind of object", "security_group_rule")
	c.expect("member1", "GET /watch?name=x", "", 400, "['name'] is invalid")
	c.expect("member1", "GET /watch?since=4611686018427387904", "", 410, "WatchSequenceGone", "list anew")
	c.create("admin", "/networks", `{"network":{}}`)
	since := c.sequence("admin")
	c.watch("member1", since)
	c.watch("member1", since)
	c.expect("member1", "GET /watch", "", 429, "TooManyWatches", "a project")
	c.watch("member2", since)
	c.expect("admin", "GET /watch", "", 503, "TooManyWatches", "the server")
	status, _, h := c.call("admin", "GET /watch", "")
	if status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("%d %v", status, h)
	}
}

// What is not kept any more cannot be resumed. Of what is shared, the last state
// is kept, so that its end for others is told however long it was shared.
func TestWatchOfWhatIsNotKept(t *testing.T) {
	c := newCloud(t, "[isospin]\nwatch_buffer = 1\n")
	since := c.sequence("admin")
	shared := c.create("admin", "/networks", `{"network":{"shared":true}}`)
	gone := c.create("admin", "/networks", `{"network":{}}`)
	port := c.create("admin", "/ports", `{"port":{"network_id":"`+shared+`"}}`)
	c.expect("admin", "DELETE /networks/"+gone, "", 204)
	c.create("admin", "/networks", `{"network":{}}`)
	at := c.sequence("admin")
	if err := c.server.Store.Tx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.TrimEvents(time.Now().Add(time.Hour).UnixMilli(), 1000, "network")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, e := range c.events(0) {
		kept = append(kept, string(e.Op)+" "+e.Kind)
	}
	if diff := cmp.Diff([]string{"create network", "create network"}, kept); diff != "" {
		t.Errorf("kept events (-want +got):\n%s", diff)
	}
	c.expect("admin", fmt.Sprintf("GET /watch?since=%d", since), "", 410, "WatchSequenceGone", "list anew")
	c.expect("admin", "GET /ports/"+port+"/history", "", 200, `{"history":[]}`)
	w := c.watch("member1", at, "network")
	c.expect("admin", "PUT /networks/"+shared, `{"network":{"shared":false}}`, 200)
	w.expect(t, map[string]string{shared: "shared"}, "delete network shared")
}

// events are those after a sequence.
func (c *cloud) events(since int64) (list []store.Event) {
	c.t.Helper()
	if err := c.server.Store.View(c.t.Context(), func(tx *store.Tx) (err error) {
		list, err = tx.Events(since, 1<<20)
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return list
}

// past is one line of a history.
type past struct {
	Op        string
	UserID    *string `json:"user_id"`
	ProjectID *string `json:"project_id"`
	RequestID string  `json:"request_id"`
	Sequence  int64
	Revision  int64
	Changes   map[string]struct{ Old, New any }
}

func (c *cloud) history(token, path string) (list []past, next int64) {
	c.t.Helper()
	var doc struct {
		History []past
		Next    int64
	}
	text := c.expect(token, "GET "+path, "", 200)
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return doc.History, doc.Next
}

// The history of a port says when, by whom and what was changed; what a caller
// may not see of the port, it does not see of its past, and what is deleted has one, too.
func TestHistory(t *testing.T) {
	c := newCloud(t, "")
	network := c.create("member1", "/networks", `{"network":{}}`)
	port := c.create("member1", "/ports", `{"port":{"network_id":"`+network+`","name":"a"}}`)
	c.expect("member1", "PUT /ports/"+port, `{"port":{"name":"b","description":"d"}}`, 200)
	c.expect("admin", "PUT /ports/"+port, `{"port":{"binding:host_id":"h1"}}`, 200)
	c.expect("admin", "PUT /ports/"+port+"/tags/blue", "", 201)
	history := "/ports/" + port + "/history"
	text := func(list []past) []string {
		var lines []string
		for _, p := range list {
			who := "nobody"
			if p.UserID != nil && p.ProjectID != nil {
				who = *p.UserID + "@" + *p.ProjectID
			}
			line := fmt.Sprintf("%s by %s", p.Op, who)
			if p.Op == "update" {
				for _, name := range slices.Sorted(maps.Keys(p.Changes)) {
					if name != "updated_at" { // the test may take less than a second
						line += fmt.Sprintf(" %s:%v→%v", name, p.Changes[name].Old, p.Changes[name].New)
					}
				}
			}
			lines = append(lines, line)
		}
		return lines
	}
	check := func(token string, want ...string) {
		t.Helper()
		list, _ := c.history(token, history)
		if diff := cmp.Diff(want, text(list)); diff != "" {
			t.Errorf("history for %s (-want +got):\n%s", token, diff)
		}
	}
	member := []string{
		"create by u1@p1",
		"update by u1@p1 description:→d name:a→b revision_number:0→1",
		"update by nobody revision_number:1→2",
		"update by nobody revision_number:2→3 tags:[]→[blue]",
	}
	check("member1", member...)
	admin := []string{
		"create by u1@p1",
		"update by u1@p1 description:→d name:a→b revision_number:0→1",
		"update by root@admin binding:host_id:→h1 binding:vif_type:unbound→binding_failed revision_number:1→2",
		"update by root@admin revision_number:2→3 tags:[]→[blue]",
	}
	check("admin", admin...)
	c.expect("member2", "GET "+history, "", 404)
	if list, _ := c.history("member1", history); list[0].Changes["name"].New != "a" || list[0].Changes["name"].Old != nil || !strings.HasPrefix(list[0].RequestID, "req-") {
		t.Errorf("created: %+v", list[0])
	}
	// Page by page it is the same.
	var paged []past
	for at, more := int64(0), true; more; {
		list, next := c.history("admin", fmt.Sprintf("%s?limit=1&since=%d", history, at))
		paged = append(paged, list...)
		at, more = next, next != 0
	}
	if diff := cmp.Diff(admin, text(paged)); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}

	c.expect("member1", "DELETE /ports/"+port, "", 204)
	c.expect("member1", "DELETE /networks/"+network, "", 204)
	check("member1", append(member, "delete by u1@p1")...)
	check("admin", append(admin, "delete by u1@p1")...)
	c.expect("member2", "GET "+history, "", 404)
	c.expect("member1", "GET /ports/00000000-0000-4000-8000-000000000000/history", "", 404, "PortNotFound")
	c.expect("member1", "GET "+history+"?limit=x", "", 400, "limit must be a whole number")

	// What was before it was shared is no concern of those it is shared with.
	theirs := c.create("admin", "/networks", `{"network":{"name":"secret"}}`)
	c.expect("admin", "PUT /networks/"+theirs, `{"network":{"name":"public","shared":true}}`, 200)
	c.expect("admin", "PUT /networks/"+theirs, `{"network":{"name":"plain"}}`, 200)
	list, _ := c.history("member1", "/networks/"+theirs+"/history")
	if len(list) != 2 || list[0].Changes != nil || list[1].Changes["name"].Old != "public" || list[1].UserID != nil {
		t.Errorf("shared: %+v", list)
	}
	// A sub-resource has one below its parent only.
	policy := c.create("admin", "/qos/policies", `{"policy":{"name":"q"}}`)
	rule := c.create("admin", "/qos/policies/"+policy+"/bandwidth_limit_rules", `{"bandwidth_limit_rule":{"max_kbps":1000}}`)
	below := "/bandwidth_limit_rules/" + rule + "/history"
	c.expect("admin", "GET /qos/policies/"+policy+below, "", 200, `"op":"create"`)
	c.expect("admin", "GET /qos/policies/"+theirs+below, "", 404)
}
