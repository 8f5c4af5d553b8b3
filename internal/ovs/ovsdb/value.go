package ovsdb

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// UUID is the id of a row.
type UUID string

// NamedUUID refers, within one transaction, to the row that an Insert with
// that name makes.
type NamedUUID string

// Set is a value of a column that holds any number of atoms, or an optional
// one. An atom is a string, int64, float64, bool or UUID; when encoding, int
// and NamedUUID too. The order means nothing.
type Set []any

// Map is a value of a map column; keys and values are atoms.
type Map map[any]any

// StringMap makes a Map of strings.
func StringMap(m map[string]string) Map {
	out := make(Map, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// MarshalJSON encodes as RFC 7047, section 5.1.
func (u UUID) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{"uuid", string(u)}) }

// MarshalJSON encodes as RFC 7047, section 5.1.
func (u NamedUUID) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]string{"named-uuid", string(u)})
}

// MarshalJSON encodes as RFC 7047, section 5.1.
func (s Set) MarshalJSON() ([]byte, error) {
	if s == nil {
		s = Set{}
	}
	return json.Marshal([2]any{"set", []any(s)})
}

// MarshalJSON encodes as RFC 7047, section 5.1.
func (m Map) MarshalJSON() ([]byte, error) {
	pairs := make([][2]any, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, [2]any{k, v})
	}
	return json.Marshal([2]any{"map", pairs})
}

// Row is a row as map of column to value: an atom, a Set or a Map, as the
// schema says. Rows of the cache are shared: they must not be changed. The
// accessors return the zero value when the column is absent, empty or of
// another type.
type Row map[string]any

func (r Row) atom(column string) any {
	v := r[column]
	if s, ok := v.(Set); ok {
		if len(s) != 1 {
			return nil
		}
		return s[0]
	}
	return v
}

// String returns a string, or the string in an optional column.
func (r Row) String(column string) string { s, _ := r.atom(column).(string); return s }

// Bool returns a boolean, or the boolean in an optional column.
func (r Row) Bool(column string) bool { b, _ := r.atom(column).(bool); return b }

// Int returns an integer, or the integer in an optional column, and whether
// there is one.
func (r Row) Int(column string) (int64, bool) { n, ok := r.atom(column).(int64); return n, ok }

// UUIDs returns the row ids in a column.
func (r Row) UUIDs(column string) []UUID { return atoms[UUID](r[column]) }

// Strings returns the strings in a column.
func (r Row) Strings(column string) []string { return atoms[string](r[column]) }

// Ints returns the integers in a column.
func (r Row) Ints(column string) []int64 { return atoms[int64](r[column]) }

// StringMap returns a map column of strings. The result is the caller's.
func (r Row) StringMap(column string) map[string]string {
	m, _ := r[column].(Map)
	out := make(map[string]string, len(m))
	for k, v := range m {
		ks, ok1 := k.(string)
		vs, ok2 := v.(string)
		if ok1 && ok2 {
			out[ks] = vs
		}
	}
	return out
}

func atoms[T any](v any) []T {
	switch v := v.(type) {
	case T:
		return []T{v}
	case Set:
		out := make([]T, 0, len(v))
		for _, a := range v {
			if t, ok := a.(T); ok {
				out = append(out, t)
			}
		}
		return out
	}
	return nil
}

// column is the type of a column (RFC 7047, section 3.2, <type>).
type column struct {
	key, value string // base types; value is empty unless the column is a map
	min, max   int    // max -1: unlimited
}

func (c column) isMap() bool    { return c.value != "" }
func (c column) isScalar() bool { return c.value == "" && c.min == 1 && c.max == 1 }

func (c *column) UnmarshalJSON(b []byte) error {
	var simple string
	if json.Unmarshal(b, &simple) == nil {
		*c = column{key: simple, min: 1, max: 1}
		return nil
	}
	var t struct {
		Key, Value, Min, Max json.RawMessage
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return fmt.Errorf("column type: %w", err)
	}
	*c = column{key: baseType(t.Key), value: baseType(t.Value), min: 1, max: 1}
	if n, err := strconv.Atoi(string(t.Min)); err == nil {
		c.min = n
	}
	if n, err := strconv.Atoi(string(t.Max)); err == nil {
		c.max = n
	} else if len(t.Max) > 0 {
		c.max = -1
	}
	return nil
}

func baseType(b json.RawMessage) string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	var t struct{ Type string }
	_ = json.Unmarshal(b, &t)
	return t.Type
}

// zero is the value of a column that a row update leaves out (RFC 7047,
// section 5.2.1).
func (c column) zero() any {
	switch {
	case c.isMap():
		return Map{}
	case !c.isScalar():
		return Set{}
	}
	switch c.key {
	case "integer":
		return int64(0)
	case "real":
		return float64(0)
	case "boolean":
		return false
	case "uuid":
		return UUID("00000000-0000-0000-0000-000000000000")
	}
	return ""
}

// decode turns a value on the wire into an atom, Set or Map.
func (c column) decode(b json.RawMessage) (any, error) {
	if c.isMap() {
		var tagged [2]json.RawMessage
		var pairs [][2]json.RawMessage
		if err := json.Unmarshal(b, &tagged); err != nil || string(tagged[0]) != `"map"` {
			return nil, fmt.Errorf("not a map: %.60s", b)
		}
		if err := json.Unmarshal(tagged[1], &pairs); err != nil {
			return nil, fmt.Errorf("map: %w", err)
		}
		m := make(Map, len(pairs))
		for _, p := range pairs {
			k, err := decodeAtom(c.key, p[0])
			if err != nil {
				return nil, err
			}
			v, err := decodeAtom(c.value, p[1])
			if err != nil {
				return nil, err
			}
			m[k] = v
		}
		return m, nil
	}
	if c.isScalar() {
		return decodeAtom(c.key, b)
	}
	var tagged [2]json.RawMessage
	if len(b) > 0 && b[0] == '[' && json.Unmarshal(b, &tagged) == nil && string(tagged[0]) == `"set"` {
		var elements []json.RawMessage
		if err := json.Unmarshal(tagged[1], &elements); err != nil {
			return nil, fmt.Errorf("set: %w", err)
		}
		s := make(Set, 0, len(elements))
		for _, e := range elements {
			a, err := decodeAtom(c.key, e)
			if err != nil {
				return nil, err
			}
			s = append(s, a)
		}
		return s, nil
	}
	a, err := decodeAtom(c.key, b)
	if err != nil {
		return nil, err
	}
	return Set{a}, nil
}

func decodeAtom(base string, b json.RawMessage) (any, error) {
	var err error
	switch base {
	case "string":
		var v string
		err = json.Unmarshal(b, &v)
		return v, err
	case "integer":
		var v int64
		err = json.Unmarshal(b, &v)
		return v, err
	case "real":
		var v float64
		err = json.Unmarshal(b, &v)
		return v, err
	case "boolean":
		var v bool
		err = json.Unmarshal(b, &v)
		return v, err
	case "uuid":
		var v []string
		if err = json.Unmarshal(b, &v); err == nil && (len(v) != 2 || v[0] != "uuid") {
			err = fmt.Errorf("not a uuid: %.60s", b)
		}
		if err != nil {
			return nil, err
		}
		return UUID(v[1]), nil
	}
	return nil, fmt.Errorf("unknown base type %q", base)
}

// modify applies a diff of an update2 or update3 notification: for a set or a
// map the elements that come or go, for anything else the new value.
func (c column) modify(old, diff any) any {
	switch {
	case c.isMap():
		o, _ := old.(Map)
		d, _ := diff.(Map)
		out := make(Map, len(o)+len(d))
		for k, v := range o {
			out[k] = v
		}
		for k, v := range d {
			if was, ok := out[k]; ok && was == v {
				delete(out, k)
			} else {
				out[k] = v
			}
		}
		return out
	case c.max == 1:
		return diff
	default:
		o, _ := old.(Set)
		d, _ := diff.(Set)
		toggled := make(map[any]bool, len(d))
		for _, a := range d {
			toggled[a] = true
		}
		out := make(Set, 0, len(o)+len(d))
		for _, a := range o {
			if toggled[a] {
				delete(toggled, a)
			} else {
				out = append(out, a)
			}
		}
		for _, a := range d {
			if toggled[a] {
				out = append(out, a)
			}
		}
		return out
	}
}
