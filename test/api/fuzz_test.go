package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // reads the server's rows

	"isospin/internal/resource"
	"isospin/internal/store/storetest"
	"isospin/test/servertest"
)

// Requests that follow the model of the API, with values that are right, nearly
// right and absurd: none is answered with 5xx or not at all, and one that is
// refused changes no row.
//
//	ISOSPIN_FUZZ=10m           for how long, with another seed each time; default: 2,000 requests, always the same
//	ISOSPIN_FUZZ_SEED=42       the seed that a failure has printed
func TestSchemaFuzz(t *testing.T) {
	seed := uint64(1)
	if os.Getenv("ISOSPIN_FUZZ") != "" {
		seed = uint64(time.Now().UnixNano())
	}
	if text := os.Getenv("ISOSPIN_FUZZ_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	var until time.Time
	requests := 2000
	if text := os.Getenv("ISOSPIN_FUZZ"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		until, requests = time.Now().Add(d), 1<<40
	}
	if testing.Short() {
		requests = 300
	}
	if kind := storetest.Kind(); kind != storetest.SQLite {
		t.Skipf("it compares the rows of a file, and there is none with %s", kind)
	}
	s := servertest.Start(t, servertest.Networks)
	f := newFuzzer(t, s, seed)
	for _, r := range []string{
		`networks {"network": {"router:external": true}}`, `networks {"network": {"name": "n"}}`, `security-groups {"security_group": {"name": "g"}}`,
	} {
		collection, body, _ := strings.Cut(r, " ")
		o := s.Must(t, http.StatusCreated, "POST", "/"+collection, body)
		f.learn(strings.ReplaceAll(strings.TrimSuffix(collection, "s"), "-", "_"), o)
	}
	statuses := map[int]int{}
	done := 0
	for ; done < requests && (until.IsZero() || time.Now().Before(until)); done++ {
		statuses[f.one()]++
		if t.Failed() {
			t.Fatalf("seed %d, request %d: ISOSPIN_FUZZ_SEED=%d go test ./test/api -run SchemaFuzz", seed, done, seed)
		}
	}
	t.Logf("seed %d: %d requests to %d routes, by status %v", seed, done, len(f.routes), statuses)
	if statuses[http.StatusCreated] == 0 || statuses[http.StatusBadRequest] == 0 || statuses[http.StatusOK] == 0 {
		t.Errorf("the requests are of one kind only")
	}
}

// fuzzRoute is a call of the API.
type fuzzRoute struct {
	method, path string
	// of a resource, with what of its attributes the body has.
	resource *resource.Resource
	flag     resource.Flags
}

type fuzzer struct {
	t      *testing.T
	server *servertest.Server
	random *rand.Rand
	client *http.Client
	rows   *sql.DB
	routes []fuzzRoute
	tables []string
	// ids of objects that were made, by the name of their resource; and of all.
	ids map[string][]string
	all []string
}

func newFuzzer(t *testing.T, s *servertest.Server, seed uint64) *fuzzer {
	rows, err := sql.Open("sqlite", "file:"+s.Database+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rows.Close() })
	f := &fuzzer{t: t, server: s, random: rand.New(rand.NewPCG(seed, 1)), rows: rows, ids: map[string][]string{},
		client: &http.Client{Timeout: 20 * time.Second}}
	for _, r := range s.Core.Registry.Resources() {
		path := r.URL()
		add := func(o resource.Operation, method, path string, flag resource.Flags) {
			if r.Serves(o) {
				f.routes = append(f.routes, fuzzRoute{method, path, r, flag})
			}
		}
		add(resource.List, "GET", path, 0)
		add(resource.Create, "POST", path, resource.Post)
		add(resource.Create, "POST", path, resource.Post)
		add(resource.Show, "GET", path+"/{id}", 0)
		add(resource.Update, "PUT", path+"/{id}", resource.Put)
		add(resource.Delete, "DELETE", path+"/{id}", 0)
		for _, a := range r.Actions {
			f.routes = append(f.routes, fuzzRoute{a.Method, path + "/{id}/" + a.Name, r, 0})
		}
		if r.Taggable {
			f.routes = append(f.routes, fuzzRoute{"PUT", path + "/{id}/tags", r, 0}, fuzzRoute{"PUT", path + "/{id}/tags/{tag}", r, 0})
		}
	}
	for _, r := range s.Core.Registry.Routes() {
		f.routes = append(f.routes, fuzzRoute{method: r.Method, path: r.Path})
	}
	found, err := rows.Query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		var name string
		if err := found.Scan(&name); err != nil {
			t.Fatal(err)
		}
		f.tables = append(f.tables, name)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fuzzer) pick(n int) int { return f.random.IntN(n) }

func choose[T any](f *fuzzer, of ...T) T { return of[f.pick(len(of))] }

// one makes a request and returns the status of the answer.
func (f *fuzzer) one() int {
	r := f.routes[f.pick(len(f.routes))]
	path := f.fill(r)
	var body []byte
	if r.method != "GET" && (r.method != "DELETE" || f.pick(50) == 0) {
		body = f.body(r)
	}
	if r.method == "GET" {
		path += f.query(r)
	}
	before := f.state()
	request, err := http.NewRequestWithContext(context.Background(), r.method, f.server.URL+"/v2.0"+path, bytes.NewReader(body))
	if err != nil {
		return http.StatusBadRequest // no URL: no client would send it
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if f.pick(20) == 0 {
		request.Header.Set("If-Match", choose(f, "revision_number=1", "revision_number=x", "*", `"a"`))
	}
	answer, err := f.client.Do(request)
	if err != nil {
		f.t.Errorf("%s %s %s: %v", r.method, path, body, err)
		return 0
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		f.t.Errorf("%s %s %s: %v", r.method, path, body, err)
	}
	// 503 is Neutron's answer when no segment or number is left, 500 and 504 never.
	if answer.StatusCode >= 500 && !known5xx(raw) {
		f.t.Errorf("%s %s %s: %d %s", r.method, path, body, answer.StatusCode, raw)
	}
	if answer.StatusCode >= 400 && r.method != "GET" {
		after := f.state()
		for table := range after {
			if after[table] != before[table] {
				f.t.Errorf("%s %s %s: refused with %d %s, but rows of %s have changed", r.method, path, body, answer.StatusCode, raw, table)
			}
		}
	}
	if answer.StatusCode == http.StatusCreated && r.resource != nil {
		var made map[string]json.RawMessage
		if json.Unmarshal(raw, &made) == nil {
			var o map[string]any
			if json.Unmarshal(made[r.resource.Name], &o) == nil {
				f.learn(r.resource.Name, o)
			}
		}
	}
	return answer.StatusCode
}

// known5xx are those of the contract: Neutron answers so, and so do we.
func known5xx(raw []byte) bool {
	for _, name := range []string{"HTTPNotImplemented", "Invalid", "NoNetworkAvailable", "SubnetAllocationError", "HostMacAddressGenerationFailure",
		"UnableToAddGateways", "UnableToMatchGateways", "UnableToRemoveGateways", "PortBindingError", "NetworkTunnelRangeError", "NetworkVlanRangeError", "ObjectActionError"} {
		if bytes.Contains(raw, []byte(`"`+name+`"`)) {
			return true
		}
	}
	return false
}

func (f *fuzzer) learn(kind string, o map[string]any) {
	if id, ok := o["id"].(string); ok {
		f.ids[kind] = append(f.ids[kind], id)
		f.all = append(f.all, id)
	}
}

// state is a digest of all rows that clients' requests may change, by table.
func (f *fuzzer) state() map[string]string {
	digests := map[string]string{}
	for _, table := range f.tables {
		// What servers and hosts write of themselves, at any time.
		if table == "agent" || table == "lease" {
			continue
		}
		h := sha256.New()
		rows, err := f.rows.Query("SELECT * FROM " + table)
		if err != nil {
			f.t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			f.t.Fatal(err)
		}
		var lines []string
		values := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				f.t.Fatal(err)
			}
			lines = append(lines, fmt.Sprint(values...))
		}
		if err := rows.Err(); err != nil {
			f.t.Fatal(err)
		}
		rows.Close()
		sort.Strings(lines)
		for _, l := range lines {
			fmt.Fprintln(h, l)
		}
		digests[table] = string(h.Sum(nil))
	}
	return digests
}

// fill replaces the parameters of a path.
func (f *fuzzer) fill(r fuzzRoute) string {
	parts := strings.Split(r.path, "/")
	for i, part := range parts {
		name, ok := strings.CutPrefix(part, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, "}")
		kind := strings.TrimSuffix(name, "_id")
		if name == "id" && r.resource != nil {
			kind = r.resource.Name
		}
		parts[i] = url.PathEscape(f.id(kind))
	}
	return strings.Join(parts, "/")
}

// id is mostly one of an object of the kind.
func (f *fuzzer) id(kind string) string {
	if list := f.ids[kind]; len(list) > 0 && f.pick(8) > 0 {
		return list[f.pick(len(list))]
	}
	if len(f.all) > 0 && f.pick(3) == 0 {
		return f.all[f.pick(len(f.all))]
	}
	return choose(f, "00000000-0000-4000-8000-000000000000", "x", "a.json", "é", "fake_project_id", "*", strings.Repeat("a", 300), " ", "..", "%00")
}

func (f *fuzzer) query(r fuzzRoute) string {
	if f.pick(2) == 0 {
		return ""
	}
	names := []string{"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields", "tags", "not-tags-any", "changed_since", "nonsense", "details"}
	if r.resource != nil {
		for _, a := range r.resource.Attributes() {
			names = append(names, a.Name)
		}
	}
	q := url.Values{}
	for range 1 + f.pick(4) {
		name := choose(f, names...)
		q.Add(name, fmt.Sprint(choose[any](f, f.id("network"), "1", "true", "asc", "name", "", "a=b", "ip_address=10.0.0.1", "subnet_id=", "-1", "99999999999999999999", "2026-01-01T00:00:00Z", "'", "\x00", "日本")))
	}
	return "?" + q.Encode()
}

func (f *fuzzer) body(r fuzzRoute) []byte {
	if f.pick(40) == 0 {
		return []byte(choose(f, "", "{", "null", "[]", `"x"`, "1e999", `{"a":`, strings.Repeat("[", 5000), "\xff\xfe", `{"network":{"name":"\u0000"}}`))
	}
	var doc any
	switch {
	case r.flag != 0:
		doc = map[string]any{r.resource.Name: f.object(r)}
		if r.flag == resource.Post && f.pick(10) == 0 {
			doc = map[string]any{r.resource.Collection: []any{f.object(r), f.object(r)}}
		}
	default:
		m := map[string]any{}
		for _, name := range []string{"subnet_id", "port_id", "router_id", "network_id", "routes", "prefixes", "tags", "sub_ports", "addresses", "agent_id", "fixed_ips",
			"external_gateways", "router", "quota", "network", "port", "name", "service_profile", "host"} {
			if f.pick(5) == 0 {
				m[name] = f.named(name)
			}
		}
		doc = m
		if f.pick(3) == 0 && r.resource != nil {
			doc = map[string]any{r.resource.Name: m}
		}
		if parts := strings.Split(r.path, "/"); f.pick(3) == 0 {
			doc = map[string]any{strings.ReplaceAll(parts[len(parts)-1], "-", "_"): m}
		}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

func (f *fuzzer) object(r fuzzRoute) map[string]any {
	m := map[string]any{}
	for _, a := range r.resource.Attributes() {
		if !a.Flags.Has(r.flag) {
			if f.pick(100) == 0 {
				m[a.Name] = f.value(a)
			}
			continue
		}
		if a.Required && f.pick(30) > 0 || f.pick(6) == 0 {
			m[a.Name] = f.value(a)
		}
	}
	if f.pick(100) == 0 {
		m["nonsense"] = 1
	}
	return m
}

// value is mostly one that the attribute takes.
func (f *fuzzer) value(a *resource.Attribute) any {
	if f.pick(12) == 0 {
		return f.absurd(0)
	}
	for rule, argument := range a.Validate {
		if v, ok := f.valid(a, rule, argument); ok {
			return v
		}
	}
	return f.named(a.Name)
}

func (f *fuzzer) valid(a *resource.Attribute, rule string, argument any) (any, bool) {
	switch {
	case rule == "type:values":
		raw, _ := json.Marshal(argument)
		var list []any
		if json.Unmarshal(raw, &list) == nil && len(list) > 0 {
			return list[f.pick(len(list))], true
		}
	case strings.HasPrefix(rule, "type:range"):
		raw, _ := json.Marshal(argument)
		var list []int64
		if json.Unmarshal(raw, &list) == nil && len(list) == 2 && list[1] >= list[0] {
			return choose(f, list[0], list[1], list[0]-1, list[1]+1), true
		}
	case strings.HasPrefix(rule, "type:dict"):
		if specs, ok := argument.(map[string]any); ok {
			return f.dict(specs), true
		}
	case strings.HasPrefix(rule, "type:list_of_any_key_specs"):
		return []any{}, true
	}
	return nil, false
}

func (f *fuzzer) dict(specs map[string]any) map[string]any {
	m := map[string]any{}
	names := make([]string, 0, len(specs))
	for name := range specs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if f.pick(2) == 0 {
			m[name] = f.named(name)
		}
	}
	return m
}

// named is a value for something of this name.
func (f *fuzzer) named(name string) any {
	short := name[strings.LastIndex(name, ":")+1:]
	address := choose(f, "10.0.0.5", "10.0.0.0", "fd00::5", "224.0.0.1", "0.0.0.0", "10.0.0.1/24", "::1", "203.0.113.7")
	prefix := choose(f, "10.0.0.0/24", "10.0.0.0/31", "fd00::/64", "0.0.0.0/0", "10.0.0.5/24", "fe80::/64", "::/0", "10.0.0.0/33")
	switch {
	case strings.HasSuffix(short, "_ids"), short == "security_groups":
		return []any{f.id("security_group"), f.id("security_group")}[:f.pick(3)]
	case short == "fixed_ips", short == "external_fixed_ips":
		return []any{map[string]any{choose(f, "ip_address", "subnet_id", "x"): choose(f, address, f.id("subnet"))}}
	case short == "allowed_address_pairs":
		return []any{map[string]any{"ip_address": choose(f, address, prefix), "mac_address": choose(f, "fa:16:3e:00:00:01", "x")}}
	case short == "routes", short == "host_routes":
		return []any{map[string]any{"destination": prefix, "nexthop": address}}
	case short == "allocation_pools":
		return []any{map[string]any{"start": "10.0.0.10", "end": choose(f, "10.0.0.20", "10.0.0.2")}}
	case short == "prefixes", short == "addresses":
		return []any{prefix, choose(f, prefix, address)}
	case short == "dns_nameservers":
		return []any{address}
	case short == "sub_ports":
		return []any{map[string]any{"port_id": f.id("port"), "segmentation_type": "vlan", "segmentation_id": f.pick(5000)}}
	case short == "tags":
		return []any{"a", choose(f, "b", "a", strings.Repeat("t", 256))}
	case short == "segments":
		return []any{map[string]any{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 100 + f.pick(120)}}
	case strings.HasSuffix(short, "gateway_info"), short == "external_gateways":
		one := map[string]any{"network_id": f.id("network"), "enable_snat": f.pick(2) == 0}
		if short == "external_gateways" {
			return []any{one}
		}
		return one
	case short == "tenant_id", short == "project_id", strings.HasPrefix(short, "target_"):
		return choose(f, "fake_project_id", "other", "*", f.id("network"))
	case strings.HasSuffix(short, "_id"):
		return f.id(strings.TrimSuffix(short, "_id"))
	case strings.Contains(short, "address"), strings.HasSuffix(short, "_ip"), short == "nexthop", short == "gateway_ip":
		return choose(f, address, "fa:16:3e:00:00:0"+strconv.Itoa(f.pick(10)))
	case strings.Contains(short, "prefixlen"):
		return f.pick(140)
	case strings.Contains(short, "cidr"), strings.Contains(short, "prefix"), short == "destination":
		return prefix
	case short == "ip_version":
		return choose[any](f, 4, 6, "4", 5)
	case short == "mtu":
		return choose(f, 0, 1400, 9000, 67)
	case strings.HasPrefix(short, "port_range"), strings.HasSuffix(short, "_port"):
		return choose(f, 0, 22, 80, 65535, 65536, -1)
	case strings.HasSuffix(short, "port_range"):
		return choose(f, "22:22", "80:90", "90:80", "a")
	case short == "protocol":
		return choose[any](f, "tcp", "udp", "icmp", 6, "ipv6-icmp", "255", "nonsense")
	case strings.HasPrefix(short, "enable"), strings.HasPrefix(short, "is_"), short == "shared", short == "admin_state_up":
		return choose[any](f, true, false, "true", 1)
	}
	return choose[any](f, "a", 1, true, "", "name", 4094)
}

// absurd is anything that JSON can say.
func (f *fuzzer) absurd(depth int) any {
	if depth > 2 {
		return nil
	}
	switch f.pick(9) {
	case 0:
		return nil
	case 1:
		return json.Number(choose(f, "1e400", "-1", "99999999999999999999999", "1.5", "-0"))
	case 2:
		return strings.Repeat("x", 70000)
	case 3:
		return []any{f.absurd(depth + 1), f.absurd(depth + 1)}
	case 4:
		return map[string]any{choose(f, "id", "", "x", "ip_address"): f.absurd(depth + 1)}
	case 5:
		return choose(f, "\x00", "\u202e", "'; DROP TABLE port; --", "%s%n", "{{7*7}}", "../../etc/passwd", "\U0001f984")
	case 6:
		return []any{}
	case 7:
		return map[string]any{}
	}
	return true
}
