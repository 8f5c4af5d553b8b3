package migration

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"isospin/internal/store/storetest"
)

// client calls one server.
type client struct {
	t   *testing.T
	url string
}

// do returns the answer's status and body.
func (c client) do(method, path, body string) (int, []byte, error) {
	r, err := http.NewRequest(method, c.url+"/v2.0/"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// must is do for what has to succeed.
func (c client) must(method, path, body string) []byte {
	c.t.Helper()
	status, text, err := c.do(method, path, body)
	if err != nil || status/100 != 2 {
		c.t.Fatalf("%s %s: %d %s %v", method, path, status, text, err)
	}
	return text
}

// make creates an object and returns its id.
func (c client) make(path, name, format string, args ...any) string {
	c.t.Helper()
	var doc map[string]struct{ ID string }
	if err := json.Unmarshal(c.must("POST", path, fmt.Sprintf(`{%q:%s}`, name, fmt.Sprintf(format, args...))), &doc); err != nil {
		c.t.Fatal(err)
	}
	return doc[name].ID
}

// made ports are asked of the API; more are copies of them.
const (
	made       = 400
	perNetwork = 100
)

// fill makes so many ports, each with two addresses, a binding and groups, and
// some of what else there is. It returns a network with a subnet for clients to come.
func fill(c client, ports int) (network string) {
	group := c.make("security-groups", "security_group", `{"name":"web"}`)
	for port := range 20 {
		c.make("security-group-rules", "security_group_rule", `{"security_group_id":%q,"direction":"ingress","protocol":"tcp","port_range_min":%d,"port_range_max":%d}`, group, port+1, port+1)
	}
	policy := c.make("qos/policies", "policy", `{"name":"slow"}`)
	c.make("qos/policies/"+policy+"/bandwidth_limit_rules", "bandwidth_limit_rule", `{"max_kbps":1000}`)
	external := c.make("networks", "network", `{"name":"external","router:external":true}`)
	c.make("subnets", "subnet", `{"network_id":%q,"ip_version":4,"cidr":"203.0.113.0/24"}`, external)
	router := c.make("routers", "router", `{"name":"r","external_gateway_info":{"network_id":%q}}`, external)
	for first := 0; first < ports; first += perNetwork {
		n := first / perNetwork
		network = c.make("networks", "network", `{"name":"n%d","description":"of the old release"}`, n)
		four := c.make("subnets", "subnet", `{"network_id":%q,"ip_version":4,"cidr":"10.%d.0.0/12","allocation_pools":[{"start":"10.%d.0.10","end":"10.%d.255.254"}]}`, network, n*16, n*16, n*16+7)
		six := c.make("subnets", "subnet", `{"network_id":%q,"ip_version":6,"cidr":"fd00:%x::/64","ipv6_address_mode":"dhcpv6-stateful","ipv6_ra_mode":"dhcpv6-stateful"}`, network, n+1)
		if n < 20 {
			c.must("PUT", "networks/"+network+"/tags", fmt.Sprintf(`{"tags":["tag-%d","all"]}`, n))
			c.must("PUT", "routers/"+router+"/add_router_interface", fmt.Sprintf(`{"subnet_id":%q}`, four))
		}
		for at := first; at < min(ports, first+perNetwork); at += 100 {
			var list []string
			for i := at; i < min(ports, at+100); i++ {
				more := ""
				switch i % 10 {
				case 1:
					more = `,"allowed_address_pairs":[{"ip_address":"192.0.2.0/24"}]`
				case 2:
					more = `,"extra_dhcp_opts":[{"opt_name":"bootfile-name","opt_value":"é \"quoted\" 'text'"}]`
				case 3:
					more = fmt.Sprintf(`,"qos_policy_id":%q`, policy)
				case 4:
					more = fmt.Sprintf(`,"security_groups":[%q]`, group)
				}
				list = append(list, fmt.Sprintf(`{"network_id":%q,"name":"port-%d","device_id":"server-%d","device_owner":"compute:nova","binding:host_id":"host-%d","fixed_ips":[{"subnet_id":%q},{"subnet_id":%q}]%s}`,
					network, i, i/2, i%500, four, six, more))
			}
			var answer struct{ Ports []struct{ ID string } }
			if err := json.Unmarshal(c.must("POST", "ports", `{"ports":[`+strings.Join(list, ",")+`]}`), &answer); err != nil {
				c.t.Fatal(err)
			}
			if at == first && n < 20 {
				for _, p := range answer.Ports[:10] {
					c.make("floatingips", "floatingip", `{"floating_network_id":%q,"port_id":%q}`, external, p.ID)
					c.must("PUT", "ports/"+p.ID+"/tags", `{"tags":["first"]}`)
				}
				parent := c.make("ports", "port", `{"network_id":%q,"name":"parent"}`, network)
				c.make("trunks", "trunk", `{"port_id":%q,"sub_ports":[{"port_id":%q,"segmentation_type":"vlan","segmentation_id":5}]}`, parent, c.make("ports", "port", `{"network_id":%q}`, network))
			}
		}
	}
	return network
}

// listed are all objects that are compared: path → id → JSON. Those whose name begins with beside are left out.
func listed(c client) map[string]map[string]json.RawMessage {
	c.t.Helper()
	all := map[string]map[string]json.RawMessage{}
	for _, path := range []string{"networks", "subnets", "ports", "security-groups", "security-group-rules", "routers", "floatingips", "trunks", "qos/policies"} {
		found := map[string]json.RawMessage{}
		for marker := ""; ; {
			query := path + "?limit=1000&sort_key=id&sort_dir=asc"
			if marker != "" {
				query += "&marker=" + marker
			}
			var doc map[string]json.RawMessage
			if err := json.Unmarshal(c.must("GET", query, ""), &doc); err != nil {
				c.t.Fatal(err)
			}
			var list []json.RawMessage
			for name, text := range doc {
				if !strings.HasSuffix(name, "_links") {
					if err := json.Unmarshal(text, &list); err != nil {
						c.t.Fatal(err)
					}
				}
			}
			for _, text := range list {
				var object struct{ ID, Name string }
				if err := json.Unmarshal(text, &object); err != nil {
					c.t.Fatal(err)
				}
				if marker = object.ID; !strings.HasPrefix(object.Name, beside) {
					found[object.ID] = text
				}
			}
			if len(list) < 1000 {
				break
			}
		}
		all[path] = found
	}
	return all
}

// same compares objects. A release may have added attributes.
func same(t *testing.T, what string, before, after map[string]map[string]json.RawMessage) {
	t.Helper()
	wrong := 0
	for path, objects := range before {
		if len(objects) != len(after[path]) {
			t.Errorf("%s: there were %d %s, and are %d", what, len(objects), path, len(after[path]))
		}
		for id, text := range objects {
			if bytes.Equal(text, after[path][id]) {
				continue
			}
			var old, now map[string]any
			if err := json.Unmarshal(text, &old); err != nil {
				t.Fatal(err)
			}
			if after[path][id] != nil {
				if err := json.Unmarshal(after[path][id], &now); err != nil {
					t.Fatal(err)
				}
			}
			for attribute, value := range old {
				if !reflect.DeepEqual(value, now[attribute]) && wrong < 10 {
					wrong++
					t.Errorf("%s: %s of %s %s was %v, and is %v", what, attribute, path, id, value, now[attribute])
				}
			}
		}
	}
}

// kept compares rows: columns may have been added at the end.
func kept(t *testing.T, what string, before, after map[string]map[string]string) {
	t.Helper()
	wrong := 0
	for table, rows := range before {
		for key, row := range rows {
			if now, ok := after[table][key]; (!ok || !strings.HasPrefix(now, row)) && wrong < 10 {
				wrong++
				t.Errorf("%s: table %s, row %s was\n%s\nand is (%t)\n%s", what, table, key, row, ok, now)
			}
		}
	}
}

// copyRows fills the tables of one database with what another of the same kind
// has in columns of the same name.
func copyRows(t *testing.T, from, to string) {
	t.Helper()
	driver, source := storetest.Source(t, from)
	in, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_, target := storetest.Source(t, to)
	out, err := sql.Open(driver, target)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// One connection: what is set holds for all that follows.
	out.SetMaxOpenConns(1)
	list := "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
	loose := []string{"SET foreign_key_checks = 0", "SET autocommit = 0"}
	switch driver {
	case "sqlite":
		list = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
		loose = []string{"PRAGMA foreign_keys = OFF", "PRAGMA synchronous = OFF", "BEGIN"}
	case "pgx":
		list = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema()"
		loose = []string{"SET session_replication_role = replica", "BEGIN"}
	}
	for _, statement := range loose {
		if _, err := out.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	have := texts(t, in, list)
	for _, table := range texts(t, out, list) {
		if strings.HasPrefix(table, "schema_") || !slices.Contains(have, table) {
			continue
		}
		if _, err := out.Exec("DELETE FROM " + table); err != nil {
			t.Fatal(err)
		}
		copyTable(t, driver, table, in, out)
	}
	if _, err := out.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
}

func texts(t *testing.T, db *sql.DB, query string) (list []string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func columns(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.Query("SELECT * FROM " + table + " WHERE 1 = 0")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func copyTable(t *testing.T, driver, table string, in, out *sql.DB) {
	t.Helper()
	common := slices.DeleteFunc(columns(t, out, table), func(c string) bool {
		// A column that the database computes.
		return strings.HasSuffix(c, "_only") || !slices.Contains(columns(t, in, table), c)
	})
	i := &inserter{t: t, db: out, driver: driver, table: table, columns: common}
	read(t, in, "SELECT "+strings.Join(common, ", ")+" FROM "+table, i.add)
	i.flush()
}

// read calls row for each row of a query.
func read(t *testing.T, db *sql.DB, query string, row func(values []any)) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		row(values)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// inserter writes many rows with few statements.
type inserter struct {
	t             *testing.T
	db            *sql.DB
	driver, table string
	columns       []string
	args          []any
}

func (i *inserter) add(values []any) {
	if i.args = append(i.args, values...); len(i.args) > 3000 {
		i.flush()
	}
}

func (i *inserter) flush() {
	if len(i.args) == 0 {
		return
	}
	var text strings.Builder
	fmt.Fprintf(&text, "INSERT INTO %s (%s) VALUES ", i.table, strings.Join(i.columns, ", "))
	for n := range i.args {
		switch {
		case n == 0:
			text.WriteString("(")
		case n%len(i.columns) == 0:
			text.WriteString("), (")
		default:
			text.WriteString(", ")
		}
		if i.driver == "pgx" {
			fmt.Fprintf(&text, "$%d", n+1)
		} else {
			text.WriteString("?")
		}
	}
	text.WriteString(")")
	if _, err := i.db.Exec(text.String(), i.args...); err != nil {
		i.t.Fatalf("table %s: %v", i.table, err)
	}
	i.args = i.args[:0]
}

// multiply copies instances' ports, with all that they have, until there are so many.
func multiply(t *testing.T, connection string, ports int) {
	t.Helper()
	driver, source := storetest.Source(t, connection)
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	run := func(statement string) {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	text := func(v any) string {
		if b, ok := v.([]byte); ok {
			return string(b)
		}
		return v.(string)
	}
	run(map[string]string{"sqlite": "BEGIN", "pgx": "BEGIN", "mysql": "SET autocommit = 0"}[driver])
	addresses := 0
	for _, table := range []struct{ name, of string }{{"port", "id"}, {"ip_allocation", "port_id"}, {"port_security_group", "port_id"}, {"qos_port_policy", "port_id"}} {
		names := columns(t, db, table.name)
		var rows [][]any
		read(t, db, "SELECT "+strings.Join(names, ", ")+" FROM "+table.name+" WHERE "+table.of+" IN (SELECT id FROM port WHERE device_owner = 'compute:nova' AND mac_address LIKE 'fa:%')", func(values []any) { rows = append(rows, values) })
		i := &inserter{t: t, db: db, driver: driver, table: table.name, columns: names}
		for n := 1; n < ports/made; n++ {
			for _, row := range rows {
				row = slices.Clone(row)
				for c, name := range names {
					switch name {
					case table.of:
						row[c] = fmt.Sprintf("%08x%s", n, text(row[c])[8:])
					case "mac_address":
						row[c] = fmt.Sprintf("02:%02x:%02x%s", n>>8, n&255, text(row[c])[8:])
					case "ip_address":
						addresses++ // in the upper half, of which the server gives none, or of IPv6 beside what it gives by chance
						address := netip.MustParseAddr(text(row[c]))
						a := address.As16()
						low := binary.BigEndian.Uint32(a[12:])&0xfff00000 | 1<<19 | uint32(addresses)
						if address.Is6() {
							low ^= 1 << 31
						}
						binary.BigEndian.PutUint32(a[12:], low)
						row[c] = netip.AddrFrom16(a).Unmap().String()
					}
				}
				i.add(row)
			}
		}
		i.flush()
	}
	run("COMMIT")
	if driver == "pgx" {
		run("ANALYZE") // the test's server does not do it by itself
	}
}
