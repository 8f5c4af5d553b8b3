package store

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is what this program has read in writing transactions, for as long as
// nobody else has written: a later one need not ask again. It belongs to who
// writes; only learn may be called by others.
//
// Each writing transaction has a number (its turn). If it is the one after our
// last, no other program has written in between. Our own statements make what
// was read of their tables forgotten.
type memory struct {
	mu sync.Mutex
	// known are the schemas that were learned.
	known []Schema
	// changes: table → the tables that a deletion of its rows changes. Those that it has not are never remembered.
	changes map[string][]string
	uses    map[string][]string // query → its tables

	answers map[string]answer
	// of: table → the keys of answers that its rows are in.
	of map[string]map[string]struct{}
	// growing are the keys of answers that hold while rows are only added.
	growing map[string]struct{}
	// spares: kind → values that nobody has.
	spares map[string][]string
	// tallies: table of their limits → kind → rows that were counted. inserted: table → how many rows we have inserted.
	tallies  map[string]map[string]tally
	inserted map[string]int
	// since is when the first answer was remembered.
	since time.Time
	// turn is the number of our last transaction; 0: it is not known.
	turn int64
	// quiet: at our last turn nobody else had written.
	quiet bool
}

type answer [][]any

// tally is how many rows there were, and may be, when so many had been inserted.
type tally struct{ used, limit, inserted int }

const (
	// rememberedFor bounds how long a change that no isospin has made (by hand) stays unseen.
	rememberedFor = 2 * time.Second
	maxAnswers    = 10000
	maxRows       = 64
)

var (
	tableName     = regexp.MustCompile(`^\s*(?:CREATE TABLE|ALTER TABLE)\s+(?:IF NOT EXISTS\s+)?(\w+)`)
	cascade       = regexp.MustCompile(`REFERENCES\s+(\w+)[^,]*ON DELETE (?:CASCADE|SET NULL)`)
	word          = regexp.MustCompile(`[\w.]+`)
	changed       = regexp.MustCompile(`^\s*(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)`)
	neverRemember = []string{"event", "event_base", "event_floor", "commit_order"}
)

// learn takes the tables of schemas, beside those of former ones.
func (m *memory) learn(schemas []Schema) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = append(m.known, schemas...)
	children := map[string][]string{}
	for _, s := range m.known {
		for _, step := range s.Steps {
			for _, text := range step {
				t := tableName.FindStringSubmatch(text)
				if t == nil || slices.Contains(neverRemember, t[1]) {
					continue
				}
				if children[t[1]] == nil {
					children[t[1]] = []string{}
				}
				for _, c := range cascade.FindAllStringSubmatch(text, -1) {
					children[c[1]] = append(children[c[1]], t[1])
				}
			}
		}
	}
	changes := map[string][]string{}
	for t := range children {
		all := []string{t}
		for i := 0; i < len(all); i++ {
			for _, c := range children[all[i]] {
				if !slices.Contains(all, c) {
					all = append(all, c)
				}
			}
		}
		changes[t] = all
	}
	m.changes, m.uses = changes, map[string][]string{}
}

// tables are those of a query; none: it is not to be remembered. Any word that
// is the name of a table counts, but those of columns (t.event).
func (m *memory) tables(query string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if list, ok := m.uses[query]; ok {
		return list
	}
	var list []string
	for _, w := range word.FindAllString(query, -1) {
		if slices.Contains(neverRemember, w) {
			list = nil
			break
		}
		if m.changes[w] != nil && !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	if len(m.uses) >= maxAnswers {
		clear(m.uses)
	}
	if m.uses != nil {
		m.uses[query] = list
	}
	return list
}

// key names a question; empty: it has arguments that are not compared.
func (q *question) key() string {
	var b strings.Builder
	b.WriteString(q.query)
	for _, a := range q.args {
		b.WriteByte(0)
		switch a := a.(type) {
		case nil:
			b.WriteByte('n')
		case string:
			b.WriteByte('s')
			b.WriteString(strconv.Itoa(len(a)))
			b.WriteByte(':')
			b.WriteString(a)
		case bool:
			b.WriteString(strconv.FormatBool(a))
		case int:
			b.WriteString(strconv.Itoa(a))
		case int64:
			b.WriteString(strconv.FormatInt(a, 10))
		default:
			return ""
		}
	}
	return b.String()
}

// begin is called before a turn.
func (m *memory) begin() {
	if !m.empty() && time.Since(m.since) > rememberedFor {
		m.forgetAll()
	}
}

func (m *memory) forgetAll() {
	m.answers, m.of, m.growing, m.spares = map[string]answer{}, map[string]map[string]struct{}{}, map[string]struct{}{}, nil
	m.tallies, m.inserted = nil, map[string]int{}
}

func (m *memory) empty() bool { return len(m.answers) == 0 && m.spares == nil && m.tallies == nil }

// note is called before something is remembered.
func (m *memory) note() {
	if m.empty() {
		m.since = time.Now()
	}
}

// lost: what became of a turn is not known, or it was undone.
func (m *memory) lost() {
	m.forgetAll()
	m.turn = 0
}

// fresh notes the number of our turn, and tells whether what was remembered held.
func (m *memory) fresh(turn int64) bool {
	if m.quiet = m.turn != 0 && turn == m.turn+1; !m.quiet {
		m.forgetAll()
	}
	return m.quiet
}

func (m *memory) remember(q *question, rows answer) {
	key, tables := q.key(), m.tables(q.query)
	if key == "" || len(tables) == 0 || len(rows) > maxRows {
		return
	}
	if len(m.answers) >= maxAnswers {
		m.forgetAll()
	}
	m.note()
	m.answers[key] = rows
	if delete(m.growing, key); q.grows && len(rows) == 1 && len(rows[0]) == 1 {
		if n, ok := rows[0][0].(int64); ok && n > 0 {
			m.growing[key] = struct{}{}
		}
	}
	for _, t := range tables {
		if m.of[t] == nil {
			m.of[t] = map[string]struct{}{}
		}
		m.of[t][key] = struct{}{}
	}
}

// forget is called before each statement that changes rows.
func (m *memory) forget(statement string) {
	c := changed.FindStringSubmatch(statement)
	if c == nil {
		m.forgetAll()
		return
	}
	tables := []string{c[2]}
	delete(m.tallies, c[2])
	switch {
	case c[1] != "INSERT INTO":
	case tuple(statement) == "" || strings.Contains(tuple(statement), "),"): // of several rows
		m.tallies = nil
	default:
		m.inserted[c[2]]++
	}
	if c[1] == "DELETE FROM" {
		m.mu.Lock()
		tables = append(tables, m.changes[c[2]]...)
		m.mu.Unlock()
	}
	for _, t := range tables {
		for key := range m.of[t] {
			if _, holds := m.growing[key]; holds && c[1] == "INSERT INTO" {
				continue
			}
			delete(m.answers, key)
			delete(m.growing, key)
			delete(m.of[t], key)
		}
	}
}
