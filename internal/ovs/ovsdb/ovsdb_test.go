package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func mustColumn(t testing.TB, text string) column {
	t.Helper()
	var c column
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// Values as RFC 7047, section 5.1, has them, decoded by the column's type.
func TestDecode(t *testing.T) {
	const (
		optional = `{"key":"integer","min":0,"max":1}`
		strings  = `{"key":{"type":"string","enum":["set",["a","b"]]},"min":0,"max":"unlimited"}`
		uuids    = `{"key":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}`
		pairs    = `{"key":"string","value":"integer","min":0,"max":"unlimited"}`
	)
	for _, test := range []struct {
		column, text string
		want         any
	}{
		{`"string"`, `"x"`, "x"},
		{`"integer"`, `9007199254740993`, int64(9007199254740993)},
		{`"real"`, `1.5`, 1.5},
		{`"boolean"`, `true`, true},
		{`"uuid"`, `["uuid","u1"]`, UUID("u1")},
		{optional, `["set",[]]`, Set{}},
		{optional, `5`, Set{int64(5)}},
		{strings, `"a"`, Set{"a"}},
		{strings, `["set",["a","b"]]`, Set{"a", "b"}},
		{uuids, `["uuid","u1"]`, Set{UUID("u1")}},
		{uuids, `["set",[["uuid","u1"],["uuid","u2"]]]`, Set{UUID("u1"), UUID("u2")}},
		{pairs, `["map",[["a",1],["b",2]]]`, Map{"a": int64(1), "b": int64(2)}},
		{`"string"`, `5`, nil}, {`"integer"`, `1.5`, nil}, {pairs, `["set",[]]`, nil}, {uuids, `["named-uuid","x"]`, nil}, {strings, `["set",5]`, nil},
	} {
		got, err := mustColumn(t, test.column).decode(json.RawMessage(test.text))
		if test.want == nil {
			if err == nil {
				t.Errorf("%s as %s: %v, want an error", test.text, test.column, got)
			}
		} else if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s as %s: %#v, %v; want %#v", test.text, test.column, got, err, test.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`"x"`, `["set",[["uuid","a"]]]`, `["map",[["a","b"]]]`, `[[`, `["map",[[1]]]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range []column{{key: "string", min: 1, max: 1}, {key: "uuid", max: -1}, {key: "string", value: "uuid", max: -1}, {key: "integer", max: 1}} {
			if v, err := c.decode(json.RawMessage(text)); err == nil {
				if _, err := json.Marshal(v); err != nil {
					t.Errorf("%s: decoded to %#v, which cannot be encoded: %v", text, v, err)
				}
			}
		}
	})
}

func TestModify(t *testing.T) {
	set, pairs, optional := column{key: "string", max: -1}, column{key: "string", value: "string", max: -1}, column{key: "integer", max: 1}
	if got := set.modify(Set{"a", "b"}, Set{"b", "c"}); !reflect.DeepEqual(got, Set{"a", "c"}) {
		t.Error(got)
	}
	if got := pairs.modify(Map{"a": "1", "b": "2", "c": "3"}, Map{"a": "1", "b": "5", "d": "4"}); !reflect.DeepEqual(got, Map{"b": "5", "c": "3", "d": "4"}) {
		t.Error(got)
	}
	if got := optional.modify(Set{int64(1)}, Set{}); !reflect.DeepEqual(got, Set{}) {
		t.Error(got)
	}
}

func TestEncodeOperations(t *testing.T) {
	for _, test := range []struct {
		operation Operation
		want      string
	}{
		{Insert("T", "n", Row{"a": Set{}, "b": NamedUUID("m"), "c": StringMap(map[string]string{"k": "<v>"})}),
			`{"op":"insert","table":"T","row":{"a":["set",[]],"b":["named-uuid","m"],"c":["map",[["k","\u003cv\u003e"]]]},"uuid-name":"n"}`},
		{Insert("T", "", nil), `{"op":"insert","table":"T","row":{}}`},
		{Update("T", Row{"a": 1}, Is("u")), `{"op":"update","table":"T","where":[["_uuid","==",["uuid","u"]]],"row":{"a":1}}`},
		{Delete("T"), `{"op":"delete","table":"T","where":[]}`},
		{Mutate("T", []Mutation{{"n", "+=", 1}}), `{"op":"mutate","table":"T","where":[],"mutations":[["n","+=",1]]}`},
		{Wait("T", []string{"a"}, []Row{{"a": 1}}, Is("u")), `{"op":"wait","table":"T","where":[["_uuid","==",["uuid","u"]]],"columns":["a"],"until":"==","rows":[{"a":1}],"timeout":0}`},
	} {
		got, err := json.Marshal(test.operation)
		if err != nil || string(got) != test.want {
			t.Errorf("%s, %v\nwant %s", got, err, test.want)
		}
	}
}

// server is an ovsdb-server by script: each connection gets answers from
// reply, by method.
type server struct {
	listener net.Listener
	accepted atomic.Int64
}

func serve(t *testing.T, reply func(connection int64, encoder *json.Encoder, m message)) (*server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n := s.accepted.Add(1)
			go func() {
				defer conn.Close()
				decoder, encoder := json.NewDecoder(conn), json.NewEncoder(conn)
				for {
					var m message
					if decoder.Decode(&m) != nil {
						return
					}
					reply(n, encoder, m)
				}
			}()
		}
	}()
	return s, "unix:" + path
}

func answer(e *json.Encoder, id json.RawMessage, result string) {
	_ = e.Encode(map[string]any{"id": id, "result": json.RawMessage(result), "error": nil})
}

const testSchema = `{"tables":{"T":{"columns":{"n":{"type":"integer"},"s":{"type":{"key":"string","min":0,"max":"unlimited"}}}}}}`

// A server without monitor_cond_since is monitored all the same; one that
// falls silent is left and asked anew; after a reconnect the cache is what the
// server says then. Nothing is left running.
func TestMonitor(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	echoed := make(chan struct{}, 10)
	s, address := serve(t, func(n int64, e *json.Encoder, m message) {
		switch m.Method {
		case "get_schema":
			answer(e, m.ID, testSchema)
		case "monitor_cond_since":
			if n == 1 {
				_ = e.Encode(map[string]any{"id": m.ID, "result": nil, "error": "unknown method"})
				return
			}
			if !strings.Contains(string(m.Params), noTransaction) {
				t.Errorf("parameters %s: the transaction of another monitor method", m.Params)
			}
			answer(e, m.ID, `[false,"t7",{"T":{"b":{"initial":{"n":9}}}}]`)
		case "monitor_cond":
			answer(e, m.ID, `{"T":{"a":{"initial":{"n":1,"s":["set",["x","y"]]}},"c":{"initial":{}}}}`)
			_ = e.Encode(map[string]any{"method": "echo", "params": []any{}, "id": "e"})
			_ = e.Encode(map[string]any{"method": "update2", "params": json.RawMessage(`["isospin",{"T":{"a":{"modify":{"n":2,"s":"y"}},"c":{"delete":null}}}]`), "id": nil})
		case "transact":
			answer(e, m.ID, `[{"uuid":["uuid","z"]},{"error":"constraint violation","details":"why"}]`)
		case "":
			echoed <- struct{}{}
		case "echo": // silence
		}
	})
	var changes atomic.Int64
	c, err := Dial(t.Context(), Options{Address: address, Database: "D", Tables: map[string][]string{"T": {"n", "s", "absent"}},
		OnChange: func() { changes.Add(1) }, InactivityProbe: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	has := func(want Tables) {
		t.Helper()
		var last Tables
		if err := c.WaitFor(ctx, func(now Tables) bool { last = now; return reflect.DeepEqual(now, want) }); err != nil {
			t.Fatalf("%v: %v, want %v", err, last, want)
		}
	}
	has(Tables{"T": {"a": Row{"n": int64(2), "s": Set{"x"}}}})
	<-echoed
	var refused *Error
	if _, err := c.Transact(ctx, Insert("T", "", nil), Delete("T")); !errors.As(err, &refused) || refused.Operation != 1 || refused.Code != "constraint violation" {
		t.Errorf("error %v", err)
	}
	has(Tables{"T": {"b": Row{"n": int64(9), "s": Set{}}}})
	if s.accepted.Load() < 2 || changes.Load() < 3 {
		t.Errorf("%d connections, %d changes", s.accepted.Load(), changes.Load())
	}
	c.Close()
	if _, err := c.Transact(ctx, Delete("T")); err == nil {
		t.Error("a transaction after Close")
	}
	_ = s.listener.Close()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		stacks := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", n, goroutines, stacks[:runtime.Stack(stacks, true)])
	}
}

func TestDialGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for _, address := range []string{"unix:" + filepath.Join(t.TempDir(), "nobody"), "ssl:127.0.0.1:1", "nonsense"} {
		if _, err := Dial(ctx, Options{Address: address, Database: "D"}); err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: error %v", address, err)
		}
	}
	if fmt.Sprint((&Error{Code: "c", Details: "d", Operation: 1})) != "operation 1: c: d" {
		t.Error("error text")
	}
}

// FuzzUpdates: no notification brings the cache down, or leaves a row that
// cannot be read.
func FuzzUpdates(f *testing.F) {
	for _, s := range []string{
		`["cond",{"T":{"u":{"initial":{"name":"a","tags":["set",[1,2]],"external_ids":["map",[["k","v"]]]}}}}]`,
		`["cond",{"T":{"u":{"insert":{}},"v":{"delete":null}}}]`,
		`["cond",{"T":{"old":{"modify":{"tags":["set",[1]],"external_ids":["map",[["a","b"]]],"up":["set",[]]}}}}]`,
		`["cond",{"T":{"absent":{"modify":{}}}}]`, `["cond",{"X":{}}]`, `["cond",null]`, `[]`, `["cond",{"T":null}]`,
	} {
		f.Add("update2", s)
	}
	f.Add("update3", `["cond","00000000-0000-0000-0000-000000000000",{"T":{"old":{"modify":{"name":"b"}}}}]`)
	f.Fuzz(func(t *testing.T, method, params string) {
		c := &Client{changed: make(chan struct{}), schema: map[string]map[string]column{"T": {
			"name": {key: "string", min: 1, max: 1}, "tags": {key: "integer", max: -1}, "up": {key: "boolean", max: 1},
			"external_ids": {key: "string", value: "string", max: -1}, "other": {key: "uuid", max: -1},
		}}, tables: Tables{"T": {"old": {"name": "a", "tags": Set{int64(1)}, "up": Set{true}, "external_ids": StringMap(map[string]string{"a": "b"}), "other": Set{}}}}}
		for range 2 {
			_ = c.notified(method, json.RawMessage(params))
			for id, r := range c.tables["T"] {
				r.String("name")
				r.Ints("tags")
				r.Bool("up")
				r.StringMap("external_ids")
				if _, err := json.Marshal(r); err != nil {
					t.Errorf("row %s cannot be encoded: %v", id, err)
				}
			}
		}
	})
}
