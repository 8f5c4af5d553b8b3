package feed

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
)

// told is a message to a host; what many hosts are told is encoded once.
type told struct {
	*feed.ServerMessage
	encoded []byte // nil: it is for one host
}

// codec encodes messages of the feed; those that are encoded are passed on.
type codec struct{}

func (codec) Name() string { return "proto" }

func (c codec) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

func (codec) MarshalAppend(to []byte, m any) ([]byte, error) {
	switch m := m.(type) {
	case *told:
		if m.encoded != nil {
			return append(to, m.encoded...), nil
		}
		return proto.MarshalOptions{}.MarshalAppend(to, m.ServerMessage)
	case proto.Message:
		return proto.MarshalOptions{}.MarshalAppend(to, m)
	}
	return nil, fmt.Errorf("%T is no message", m)
}

func (codec) Unmarshal(data []byte, to any) error {
	m, ok := to.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", to)
	}
	return proto.Unmarshal(data, m)
}

// shared are changes of Uniform sets since the copy changed last, by set. A
// host that has missed more than others finds another list of elements, and
// its message takes the place of theirs.
type shared struct {
	mu   sync.Mutex
	sets map[Key]*sharedDelta
}

type sharedDelta struct {
	elements []string
	version  uint64
	told     *told
}

// forget what was encoded: the copy changes.
func (s *shared) forget() {
	if len(s.sets) > 0 {
		clear(s.sets)
	}
}

// sharedDelta takes what a view's host must be told if that is nothing but a
// few elements of a Uniform set; nil: it is something else. The hub's lock is held for reading.
func (h *Hub) sharedDelta(v *view) *told {
	if len(v.dirty) != 1 || v.admin || v.syncing {
		return nil
	}
	for key, d := range v.dirty {
		p := h.uniform[key.Kind]
		if _, sent := v.sent[key]; d.whole || d.many != nil || !sent || p == nil {
			return nil
		}
		h.shared.mu.Lock()
		defer h.shared.mu.Unlock()
		s := h.shared.sets[key]
		if s == nil || !slices.Equal(s.elements, d.few) {
			m := &feed.ServerMessage{Sequence: h.sequence}
			version := p.Delta(h.copy, v.host, key, d.elements(), m)
			if version == 0 {
				return nil
			}
			encoded, err := proto.Marshal(m)
			if err != nil { // the stream will say so
				return nil
			}
			s = &sharedDelta{d.few, version, &told{m, encoded}}
			if h.shared.sets == nil {
				h.shared.sets = map[Key]*sharedDelta{}
			}
			h.shared.sets[key] = s
		}
		delete(v.dirty, key)
		v.sent[key] = s.version
		return s.told
	}
	return nil
}
