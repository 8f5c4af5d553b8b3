package openflow

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Flow is one entry of a flow table.
type Flow struct {
	Table    uint8
	Priority uint16
	Match    string // as in ovs-ofctl(8), "ip,nw_src=10.0.0.1"; empty: every packet. Equal matches must have equal text.
	Actions  string // as in ovs-actions(7), "output:3"; empty: "drop"
}

// String is the flow's text form, as ovs-ofctl reads it.
func (f Flow) String() string {
	var b strings.Builder
	f.write(&b)
	return b.String()
}

func (f Flow) write(b *strings.Builder) {
	b.WriteString("table=")
	b.WriteString(strconv.Itoa(int(f.Table)))
	b.WriteString(",priority=")
	b.WriteString(strconv.Itoa(int(f.Priority)))
	if f.Match != "" {
		b.WriteByte(',')
		b.WriteString(f.Match)
	}
	b.WriteString(",actions=")
	if f.Actions == "" {
		b.WriteString("drop")
	} else {
		b.WriteString(f.Actions)
	}
}

// key is what no two flows of a bridge have in common.
type key struct {
	table    uint8
	priority uint16
	match    string
}

func (f Flow) key() key { return key{f.Table, f.Priority, f.Match} }

// A cookie is our mark in the upper 16 bits and a hash of the flow's text in
// the lower 48: a flow is there, with these very actions, if its cookie is.
const (
	markShift = 48
	hashMask  = 1<<markShift - 1
)

// Cookie is the cookie that a Bridge with this mark gives to the flow.
func (f Flow) Cookie(mark uint16) uint64 {
	h := fnv.New64a()
	var b strings.Builder
	f.write(&b)
	_, _ = h.Write([]byte(b.String()))
	sum := h.Sum64()
	// The upper bits are folded in, not dropped.
	return uint64(mark)<<markShift | (sum^sum>>markShift)&hashMask
}

// CookieText is a cookie as ovs-ofctl writes it.
func CookieText(cookie uint64) string { return fmt.Sprintf("0x%x", cookie) }
