package resource

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"isospin/internal/resource/value"
)

// Model knows where the attributes of a resource live in its Go type: in the
// field with that json tag (also of embedded structs), else in its Slots.
type Model struct {
	typ    reflect.Type
	fields map[string][]int
	// omit: the member is left out when it is zero (omitempty).
	omit  map[string]bool
	slots []int
}

// NewModel inspects the struct type of T.
func NewModel[T any]() *Model {
	m := &Model{typ: reflect.TypeFor[T](), fields: map[string][]int{}, omit: map[string]bool{}}
	var walk func(t reflect.Type, at []int)
	walk = func(t reflect.Type, at []int) {
		for i := range t.NumField() {
			f := t.Field(i)
			index := append(append([]int(nil), at...), i)
			if f.Type == reflect.TypeFor[Slots]() {
				m.slots = index
				continue
			}
			if f.Anonymous && f.Type.Kind() == reflect.Struct {
				walk(f.Type, index)
				continue
			}
			if name, option, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
				m.fields[name], m.omit[name] = index, option == "omitempty"
			}
		}
	}
	walk(m.typ, nil)
	return m
}

// Apply writes the body's values into the object (a pointer to T). Values
// that belong to no field and to no slot are left to the service.
func (m *Model) Apply(r *Resource, o Object, body *Body) error {
	v := reflect.ValueOf(o).Elem()
	for name, value := range body.Values {
		if index, ok := m.fields[name]; ok {
			if err := assign(v.FieldByIndex(index).Addr().Interface(), value); err != nil {
				return fmt.Errorf("attribute %s: %w", name, err)
			}
		} else if a := r.Attribute(name); m.slots != nil && a != nil && a.Flags.Has(Visible) {
			s := v.FieldByIndex(m.slots).Addr().Interface().(*Slots)
			if a.nothing(value) {
				delete(*s, name)
				continue
			}
			raw, err := json.Marshal(value)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", name, err)
			}
			if *s == nil {
				*s = Slots{}
			}
			(*s)[name] = raw
		}
	}
	return nil
}

// nothing tells whether a slot with that value is the same as none, which is
// shown as the default. Most slots of most objects are so.
func (a *Attribute) nothing(value any) bool {
	switch value {
	case nil:
		return (a.Default == nil || a.Default == Unspecified) && strings.HasSuffix(a.Type, "|null")
	case "", false, true:
		return a.Default == value
	}
	return false
}

// Value returns an attribute of the object (a pointer to T) in normal form;
// false when it has no such field and its slots hold none.
func (m *Model) Value(o Object, attribute string) (any, bool) {
	if attribute == "project_id" {
		attribute = "tenant_id"
	}
	v := reflect.ValueOf(o).Elem()
	if index, ok := m.fields[attribute]; ok {
		f := v.FieldByIndex(index)
		switch p := f.Addr().Interface().(type) {
		case *string:
			return *p, true
		case *bool:
			return *p, true
		case *int:
			return int64(*p), true
		case *int64:
			return *p, true
		case **string:
			if *p == nil {
				return nil, true
			}
			return **p, true
		}
		return normal(appendValue(nil, f))
	}
	if m.slots != nil {
		if raw, ok := v.FieldByIndex(m.slots).Interface().(Slots)[attribute]; ok {
			return normal(raw)
		}
	}
	return nil, false
}

func normal(raw []byte) (any, bool) {
	v, err := value.Decode(raw)
	return v, err == nil
}

// Detach gives a copied object its own Slots.
func (m *Model) Detach(o Object) {
	if m.slots != nil {
		s := reflect.ValueOf(o).Elem().FieldByIndex(m.slots).Addr().Interface().(*Slots)
		*s = maps.Clone(*s)
	}
}

func assign(p any, value any) error {
	switch p := p.(type) {
	case *string:
		switch v := value.(type) {
		case string:
			*p = v
			return nil
		case nil:
			*p = ""
			return nil
		}
	case *bool:
		if v, ok := value.(bool); ok {
			*p = v
			return nil
		}
	case *int:
		switch v := value.(type) {
		case int64:
			*p = int(v)
			return nil
		case int:
			*p = v
			return nil
		}
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	// Decoding into a field that holds something would merge with it.
	reflect.ValueOf(p).Elem().SetZero()
	if err := json.Unmarshal(raw, p); err != nil {
		return fmt.Errorf("value %s: %w", raw, err)
	}
	return nil
}

// Encoder renders objects of one resource as JSON.
type Encoder struct {
	model   *Model
	members []member
}

type member struct {
	name  string
	key   []byte // `"name":`
	index []int
	slot  bool
	omit  bool
	// absent is what is shown of a slot that was never set: the default, null, or nothing.
	absent []byte
}

// NewEncoder prepares rendering; call it when all attributes are declared.
// project_id is shown beside tenant_id.
func (m *Model) NewEncoder(r *Resource) *Encoder {
	e := &Encoder{model: m}
	add := func(name string, from []int, slot bool) *member {
		e.members = append(e.members, member{name: name, key: append(AppendString(nil, name), ':'), index: from, slot: slot, omit: m.omit[name]})
		return &e.members[len(e.members)-1]
	}
	for _, a := range r.Attributes() {
		if !a.Flags.Has(Visible) {
			continue
		}
		if index, ok := m.fields[a.Name]; ok {
			add(a.Name, index, false)
			if a.Name == "tenant_id" {
				add("project_id", index, false)
			}
		} else if m.slots != nil {
			slot := add(a.Name, nil, true)
			// Objects that are older than the extension have none, and those of which nobody has said anything.
			switch {
			case (a.Default == nil || a.Default == Unspecified) && strings.HasSuffix(a.Type, "|null"):
				slot.absent = []byte("null")
			case a.Default != nil && a.Default != Unspecified:
				if raw, err := json.Marshal(a.Default); err == nil {
					slot.absent = raw
				}
			}
		}
	}
	return e
}

// Append appends the object's JSON form with the members of fields, all when nil.
func (e *Encoder) Append(b []byte, o Object, fields map[string]bool) []byte {
	v := reflect.ValueOf(o).Elem()
	var slots Slots
	if e.model.slots != nil {
		slots = v.FieldByIndex(e.model.slots).Interface().(Slots)
	}
	b = append(b, '{')
	for i := range e.members {
		m := &e.members[i]
		if fields != nil && !fields[m.name] {
			continue
		}
		if m.slot {
			raw, ok := slots[m.name]
			if !ok {
				raw = m.absent
			}
			if raw == nil {
				continue
			}
			b = append(append(append(b, m.key...), raw...), ',')
			continue
		}
		f := v.FieldByIndex(m.index)
		if m.omit && f.IsZero() {
			continue
		}
		b = append(b, m.key...)
		b = append(appendValue(b, f), ',')
	}
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, '}')
}

// Appender appends itself as JSON, in a fraction of the time of json.Marshal.
type Appender interface {
	AppendJSON(b []byte) []byte
}

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Type() { // most are of these, which need no interface
	case reflect.TypeFor[string]():
		return AppendString(b, v.String())
	case reflect.TypeFor[bool]():
		return strconv.AppendBool(b, v.Bool())
	case reflect.TypeFor[int](), reflect.TypeFor[int64]():
		return strconv.AppendInt(b, v.Int(), 10)
	}
	switch p := v.Addr().Interface().(type) {
	case **string:
		if *p == nil {
			return append(b, "null"...)
		}
		return AppendString(b, **p)
	case *netip.Addr:
		if !p.IsValid() {
			return append(b, "null"...)
		}
		return AppendString(b, p.String())
	case *[]string:
		b = append(b, '[')
		for i, s := range *p {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendString(b, s)
		}
		return append(b, ']')
	case *json.RawMessage:
		if len(*p) == 0 {
			return append(b, "null"...)
		}
		return append(b, *p...)
	}
	if v.Kind() == reflect.Slice {
		if v.Len() == 0 {
			return append(b, "[]"...)
		}
		if _, ok := v.Index(0).Addr().Interface().(Appender); ok {
			b = append(b, '[')
			for i := range v.Len() {
				b = append(v.Index(i).Addr().Interface().(Appender).AppendJSON(b), ',')
			}
			b[len(b)-1] = ']'
			return b
		}
	}
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		// Only types that cannot fail are fields of objects.
		return append(b, "null"...)
	}
	return append(b, raw...)
}

// AppendString appends a JSON string.
func AppendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			raw, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...)
			}
			return append(b, raw...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
