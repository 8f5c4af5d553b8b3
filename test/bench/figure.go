package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// spec is a figure that the program promises.
type spec struct {
	name string
	// by tells which of its numbers the target and the comparison with the peer are about.
	by by
	// target is the greatest p50 in milliseconds or value, or the least rate; 0: none.
	target float64
	// least: the target is the least value.
	least bool
	unit  string // of a value
	// over is how many times better than the peer it must be on a database server; 0: no matter.
	over float64
}

type by int

const (
	byMedian by = iota // p50, in milliseconds
	byRate             // operations per second
	byValue            // one value
)

// specs are all figures, in the order of the table.
var specs = []spec{
	{name: "network create, 1 client"},
	{name: "network create, 8 clients", by: byRate},
	{name: "subnet create, 1 client"},
	{name: "port create in bulk of 100, 1 client", by: byRate, over: 300},
	{name: "list of 1,000 ports, 1 client", target: 20, over: 30},
	{name: "list of 1,000 ports, 8 clients", by: byRate, over: 30},
	{name: "port create, 1 client", target: 3},
	{name: "port create, bare SQL of the same rows"},
	{name: "port create over bare SQL", by: byValue, unit: "×"},
	{name: "port create, 8 clients", by: byRate, target: 1000, over: 100},
	{name: "port create, bare SQL of the same rows, 8 clients", by: byRate},
	{name: "port create over bare SQL, 8 clients", by: byValue, unit: "%", target: 40, least: true},
	{name: "port create, statements by the database's count", by: byValue, unit: "statements", target: 15},
	{name: "port get, 1 client", target: 0.5, over: 50},
	{name: "port get, 8 clients", by: byRate, over: 50},
	{name: "port update, 1 client"},
	{name: "port update, 8 clients", by: byRate},
	{name: "port delete, 1 client"},
	{name: "port delete, 8 clients", by: byRate},
	{name: "security-group rule create, 1 client"},
	{name: "security-group rule create, 8 clients", by: byRate, over: 100},
	{name: "router create, 1 client"},
	{name: "router interface add, 1 client", over: 100},
	{name: "router interface remove, 1 client"},
	{name: "port create, 1 client, in a large store", by: byMedian},
	{name: "port create in a large store over one of 1,000 ports", by: byValue, unit: "×", target: 1.3},
	{name: "port get, 1 client, in a large store", by: byMedian},
	{name: "port get in a large store over one of 1,000 ports", by: byValue, unit: "×", target: 1.3},
	{name: "page of 1,000 ports, first, in a large store", target: 60},
	{name: "page of 1,000 ports, in the middle, in a large store", target: 60},
	{name: "page of 1,000 ports, last, in a large store", target: 60},
	{name: "server memory, 10,000 ports", by: byValue, target: 80, unit: "MiB"},
	{name: "server memory, 10,000 ports, 5 s idle", by: byValue, target: 80, unit: "MiB"},
	{name: "server start, new database", target: 300},
	{name: "server start, 10,000 ports", target: 300},
	{name: "size of the program", by: byValue, target: 40, unit: "MB"},
	{name: "list of 1,000 ports by the administrator"},
	{name: "list of 1,000 ports by a member"},
	{name: "list of 1,000 ports, member over administrator", by: byValue, target: 1.5, unit: "×"},
	{name: "port create by a member"},
	{name: "port create, member over noauth", by: byValue, target: 1.3, unit: "×"},
	{name: "quiet project: port create, alone"},
	{name: "quiet project: port create, another lists (48 clients)"},
	{name: "quiet project: port create, another creates networks (48 clients)"},
	{name: "quiet project: port create, another lists (48 clients), without limits"},
	{name: "quiet project: port create, another creates networks (48 clients), without limits"},
	{name: "the switch alone: add-port, 10 ports on the host"},
	{name: "plug to ACTIVE, 10 ports on the host", target: 150},
	{name: "plug to first ping, 10 ports on the host", target: 300},
	{name: "the switch alone: add-port, 200 ports on the host"},
	{name: "plug to ACTIVE, 200 ports on the host", target: 150},
	{name: "plug to first ping, 200 ports on the host", target: 300},
	{name: "agent restart, 200 ports on the host", target: 2000},
	{name: "agent restart, pings lost", by: byValue, unit: "lost"},
	{name: "agent restart, flows written", by: byValue, unit: "flows"},
	{name: "agent memory, 200 ports on the host", by: byValue, unit: "MiB"},
}

// figure is what was measured, or why it was not.
type figure struct {
	Name string `json:"name"`
	// N is the number of samples.
	N         int     `json:"n,omitempty"`
	P50       float64 `json:"p50_ms,omitempty"`
	P99       float64 `json:"p99_ms,omitempty"`
	PerSecond float64 `json:"per_second,omitempty"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit,omitempty"`
	// Target in words, and whether it is met.
	Target string `json:"target,omitempty"`
	Met    *bool  `json:"met,omitempty"`
	Note   string `json:"note,omitempty"`
	// Missing is why there is no number.
	Missing string     `json:"missing,omitempty"`
	Peer    *peerFacts `json:"peer,omitempty"`
	// Better is how many times better than the peer this is.
	Better float64 `json:"better,omitempty"`

	spec spec
	// server: on a database server.
	server bool
}

// peerFacts are what was measured of the peer, with the line they were read from.
type peerFacts struct {
	P50       float64 `json:"p50_ms,omitempty"`
	P99       float64 `json:"p99_ms,omitempty"`
	PerSecond float64 `json:"per_second,omitempty"`
	Value     float64 `json:"value,omitempty"`
	Note      string  `json:"note,omitempty"`
	Source    string  `json:"source"`
}

//go:embed testdata/peer.json
var peerText []byte

type peer struct {
	Peer       string                `json:"peer"`
	Conditions string                `json:"conditions"`
	Figures    map[string]*peerFacts `json:"figures"`
}

func readPeer() (*peer, error) {
	p := &peer{}
	if err := json.Unmarshal(peerText, p); err != nil {
		return nil, fmt.Errorf("the peer's figures: %w", err)
	}
	return p, nil
}

// samples are the durations of equal operations and the time that all of them took.
type samples struct {
	durations []time.Duration
	wall      time.Duration
	items     int // made or returned by one operation; 0 is 1
	note      string
}

func (s *samples) add(more samples) {
	s.durations = append(s.durations, more.durations...)
	s.wall += more.wall
	s.items = more.items
}

// percentile returns the nearest-rank percentile in milliseconds.
func (s *samples) percentile(p float64) float64 {
	if len(s.durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.durations))
	i := int(p/100*float64(len(sorted))+0.5) - 1
	return milliseconds(sorted[min(max(i, 0), len(sorted)-1)])
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// results collects figures.
type results struct {
	peer    *peer
	figures map[string]*figure
	// progress is told each figure at once.
	progress func(*figure)
	// server: the figures are of one with a database server.
	server bool
}

func (r *results) put(name string, fill func(*figure)) {
	i := slices.IndexFunc(specs, func(s spec) bool { return s.name == name })
	if i < 0 {
		panic("no figure is promised by the name of " + name)
	}
	f := &figure{Name: name, spec: specs[i], Peer: r.peer.Figures[name], server: r.server}
	fill(f)
	f.judge()
	r.figures[name] = f
	r.progress(f)
}

func (r *results) times(name string, s samples) {
	r.put(name, func(f *figure) {
		f.N, f.P50, f.P99, f.Note = len(s.durations), s.percentile(50), s.percentile(99), s.note
		if s.wall > 0 {
			f.PerSecond = float64(len(s.durations)*max(s.items, 1)) / s.wall.Seconds()
		}
	})
}

func (r *results) value(name string, v float64, n int, note string) {
	r.put(name, func(f *figure) { f.Value, f.N, f.Note, f.Unit = v, n, note, f.spec.unit })
}

// missing notes why figures whose names begin so have no numbers.
func (r *results) missing(prefix, why string) {
	for _, s := range specs {
		if strings.HasPrefix(s.name, prefix) && r.figures[s.name] == nil {
			r.put(s.name, func(f *figure) { f.Missing = why })
		}
	}
}

// judge compares with target and peer.
func (f *figure) judge() {
	met := func(ok bool) {
		if f.Missing == "" {
			f.Met = &ok
		}
	}
	var have, theirs float64
	if f.Peer != nil {
		theirs = [...]float64{f.Peer.P50, f.Peer.PerSecond, f.Peer.Value}[f.spec.by]
	}
	switch f.spec.by {
	case byMedian:
		have = f.P50
		if f.spec.target > 0 {
			f.Target = "p50 ≤ " + number(f.spec.target) + " ms"
			met(have <= f.spec.target)
		}
	case byRate:
		have = f.PerSecond
		if f.spec.target > 0 {
			f.Target = "≥ " + number(f.spec.target) + "/s"
			met(have >= f.spec.target)
		}
	case byValue:
		have = f.Value
		if f.spec.target > 0 {
			f.Target = "≤ " + number(f.spec.target) + " " + f.spec.unit
			ok := have <= f.spec.target
			if f.spec.least {
				f.Target, ok = "≥ "+number(f.spec.target)+" "+f.spec.unit, have >= f.spec.target
			}
			met(ok)
		}
	}
	if f.Missing != "" || have == 0 || theirs == 0 {
		return
	}
	f.Better = theirs / have
	if f.spec.by == byRate {
		f.Better = have / theirs
	}
	if f.server && f.spec.over > 0 {
		if f.Target != "" {
			f.Target += ", "
		}
		f.Target += "≥ " + number(f.spec.over) + " times better"
		met(f.Better >= f.spec.over && (f.Met == nil || *f.Met))
	}
}

// number prints with three significant digits, or all digits before the point.
func number(v float64) string {
	switch {
	case v == float64(int64(v)) && v < 1000, v >= 100 && v < 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 1000:
		text := fmt.Sprintf("%.0f", v)
		for i := len(text) - 3; i > 0; i -= 3 {
			text = text[:i] + "," + text[i:]
		}
		return text
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func cell(v float64) string {
	if v == 0 {
		return ""
	}
	return number(v)
}

// table prints Markdown.
func (r *results) table(w io.Writer) error {
	short, _, _ := strings.Cut(r.peer.Peer, ",")
	var b strings.Builder
	fmt.Fprintf(&b, "| figure | n | p50 ms | p99 ms | per second | value | target | met | %s | times better |\n", short)
	b.WriteString("|---|--:|--:|--:|--:|--:|---|---|---|--:|\n")
	for _, s := range specs {
		f := r.figures[s.name]
		if f == nil {
			continue
		}
		name := f.Name
		if f.Note != "" {
			name += " (" + f.Note + ")"
		}
		n, value, met, theirs := "", "", "", ""
		if f.N > 0 {
			n = number(float64(f.N))
		}
		switch {
		case f.Missing != "":
			value = f.Missing
		case s.by == byValue:
			value = number(f.Value) + " " + f.Unit
		}
		if f.Met != nil {
			met = map[bool]string{true: "yes", false: "**no**"}[*f.Met]
		}
		if f.Peer != nil {
			theirs = f.Peer.text(s)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join([]string{name, n, cell(f.P50), cell(f.P99), cell(f.PerSecond), value, f.Target, met, theirs, cell(f.Better)}, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *peerFacts) text(s spec) string {
	var parts []string
	if p.P50 > 0 {
		parts = append(parts, number(p.P50)+" ms")
	}
	if p.PerSecond > 0 {
		parts = append(parts, number(p.PerSecond)+"/s")
	}
	if p.Value > 0 {
		parts = append(parts, number(p.Value)+" "+s.unit)
	}
	text := strings.Join(parts, ", ")
	if p.Note != "" {
		text += " (" + p.Note + ")"
	}
	return text
}
