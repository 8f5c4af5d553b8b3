package resource

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Standard is what every first-class object has. Embed it.
type Standard struct {
	ID          string   `json:"id" db:"id"`
	ProjectID   string   `json:"tenant_id" db:"project_id"`
	Description string   `json:"description" db:"description"`
	Revision    int64    `json:"revision_number" db:"revision_number"`
	CreatedAt   string   `json:"created_at" db:"created_at"`
	UpdatedAt   string   `json:"updated_at" db:"updated_at"`
	Tags        []string `json:"tags"`
}

// Base returns the embedded Standard.
func (s *Standard) Base() *Standard { return s }

// Based is any object that embeds Standard.
type Based interface{ Base() *Standard }

// TimeFormat is that of created_at and updated_at: UTC, whole seconds.
const TimeFormat = "2006-01-02T15:04:05Z"

// Stamp returns a time as the API shows it.
func Stamp(t time.Time) string { return t.UTC().Format(TimeFormat) }

// NewID returns a random UUID (RFC 9562 version 4) as Neutron's ids are.
func NewID() string { return uuid.NewString() }

// Slots holds the values that extensions add to an object, by attribute name.
// They are kept as JSON: shown and stored as they are, decoded only where read.
type Slots map[string]json.RawMessage

// Slot is the typed access of one extension to its attribute of an object.
type Slot[T any] struct{ name string }

// NewSlot declares the slot of an attribute.
func NewSlot[T any](attribute string) Slot[T] { return Slot[T]{attribute} }

// Get returns the slot's value, the zero value when it was never set. Of an
// attribute whose default is true, *bool is the type to read: nil stands for it.
func (s Slot[T]) Get(slots Slots) T {
	var v T
	if raw, ok := slots[s.name]; ok {
		if text, is := any(&v).(*string); is && plain(raw) {
			*text = string(raw[1 : len(raw)-1])
			return v
		}
		// What is there was written by Set or by the checked body; a value of another shape reads as zero.
		_ = json.Unmarshal(raw, &v)
	}
	return v
}

// plain tells whether a JSON value is a string that stands for itself, without escapes.
func plain(raw []byte) bool {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return false
	}
	for _, c := range raw[1 : len(raw)-1] {
		if c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Set stores the slot's value.
func (s Slot[T]) Set(slots *Slots, v T) error {
	var raw json.RawMessage
	switch p := any(v).(type) {
	case string:
		raw = AppendString(nil, p)
	default:
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return err
		}
	}
	if *slots == nil {
		*slots = Slots{}
	}
	(*slots)[s.name] = raw
	return nil
}

// Clear takes the slot's value away: its attribute is shown as its default.
func (s Slot[T]) Clear(slots Slots) { delete(slots, s.name) }

// StandardAttributes are those of the standard-attr-* extensions, with tags when asked for.
func StandardAttributes(tags bool) []Attribute {
	all := []Attribute{
		{Name: "description", Flags: Post | Put | Visible | Filter, Default: "", Validate: Rules{"type:string": 255}, Type: "string"},
		{Name: "created_at", Flags: Visible, Type: "timestamp|null"},
		{Name: "updated_at", Flags: Visible, Type: "timestamp|null"},
		{Name: "revision_number", Flags: Visible | Filter, Type: "int|null"},
	}
	if tags {
		all = append(all, Attribute{Name: "tags", Flags: Visible | Filter, Type: "list<string>"})
	}
	return all
}
