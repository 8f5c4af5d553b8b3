package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"isospin/internal/resource"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

var boxes = store.Schema{Module: "box", Steps: [][]string{{
	`CREATE TABLE box (id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36) NOT NULL, description VARCHAR(255) NOT NULL, revision_number BIGINT NOT NULL,
		created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL, name VARCHAR(36) UNIQUE, value BIGINT NOT NULL)`,
	`CREATE TABLE item (id VARCHAR(36) PRIMARY KEY, box_id VARCHAR(36) NOT NULL REFERENCES box (id) ON DELETE CASCADE, place BIGINT UNIQUE)`,
	`CREATE TABLE tie (id VARCHAR(36) PRIMARY KEY, item_id VARCHAR(36) NOT NULL REFERENCES item (id))`,
	`CREATE TABLE late (id VARCHAR(36) PRIMARY KEY, box_id VARCHAR(36) NOT NULL REFERENCES box (id) DEFERRABLE INITIALLY DEFERRED)`,
	`CREATE TABLE mark (id VARCHAR(36) PRIMARY KEY, value BIGINT NOT NULL)`,
	`CREATE TABLE box_limit (id BIGINT PRIMARY KEY, most BIGINT NOT NULL)`,
	`INSERT INTO box_limit (id, most) VALUES (1, 5)`,
}}}

const places = 12

type box struct {
	resource.Standard
	Name  *string  `db:"name"`
	Value int64    `db:"value"`
	Items []string // of table item, in order
}

func (b *box) text() string {
	name := "nameless"
	if b.Name != nil {
		name = *b.Name
	}
	return fmt.Sprintf("%s %s %d, %d by %s %v", b.ID, name, b.Value, b.Revision, b.UpdatedAt, b.Items)
}

// program is one of those that use the database, with boxes in its memory.
type program struct {
	*store.Store
	table  *store.Table[box]
	mu     sync.Mutex
	memory map[string]*box
}

func newProgram(t *testing.T, connection string) *program {
	s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Pool: store.Pool{Repeats: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context(), boxes); err != nil {
		t.Fatal(err)
	}
	p := &program{Store: s, memory: map[string]*box{}}
	p.table = store.NewTable("box", store.TableOptions[box]{Children: []func(*store.Tx, []*box) error{func(tx *store.Tx, rows []*box) error {
		by := map[string]*box{}
		var ids []string
		for _, o := range rows {
			by[o.ID] = o
			ids = append(ids, o.ID)
		}
		return store.Gather(tx, "SELECT box_id, id FROM item WHERE %s ORDER BY box_id, id", "box_id", ids, func(scan func(...any) error) error {
			var box, id string
			err := scan(&box, &id)
			by[box].Items = append(by[box].Items, id)
			return err
		})
	}}})
	p.table.Recall(func(ids []string) []*box {
		p.mu.Lock()
		defer p.mu.Unlock()
		list := make([]*box, len(ids))
		for i, id := range ids {
			list[i] = p.memory[id]
		}
		return list
	})
	return p
}

// op is one thing that a transaction does, and what it was told of it.
type op struct {
	Do, ID, To  string
	Way, N      int
	Have        string
	Used, Limit int
}

// record is all that one transaction did, in its last run. Those that write
// emit it: the order of these events is that in which the model repeats them.
type record struct {
	ID  string
	Ops []op
	// begun and ended are times before and after it; failed: it has left nothing.
	begun, ended int64
	writes, view bool
	failed       error
	// own is what its closure returned.
	own error
}

var errUndone = errors.New("it ends with an error")

// answer is what is told of a statement that constraints may refuse.
func answer(n int64, err error) (string, error) {
	switch {
	case errors.Is(err, store.ErrDuplicate):
		return "duplicate", nil
	case errors.Is(err, store.ErrReferenced):
		return "referenced", nil
	case errors.Is(err, store.ErrNoRow) || err == nil && n == 0:
		return "none", nil
	}
	return "done", err
}

// write is Put or Exec.
func write(tx *store.Tx, way int, query string, args ...any) (string, error) {
	if way%2 == 0 {
		return answer(1, tx.Put(query, args...))
	}
	return answer(tx.Exec(query, args...))
}

// rows is the text of a query's rows.
func rows(tx *store.Tx, query string, args ...any) (string, error) {
	var list []string
	err := tx.Query(func(scan func(...any) error) error {
		var id, to string
		err := scan(&id, &to)
		list = append(list, id+":"+to)
		return err
	}, query, args...)
	return fmt.Sprint(list), err
}

// do carries out an op of the transaction by.
func (p *program) do(tx *store.Tx, by string, o *op) (err error) {
	changed := func(id string, what store.Op) {
		tx.Emit(store.Event{Kind: "box", ID: id, Op: what, RequestID: by})
	}
	touch := func(id string) (err error) {
		if o.Have == "done" {
			changed(id, store.Updated)
			err = tx.Put("UPDATE box SET revision_number = revision_number + 1, updated_at = ? WHERE id = ?", by, id)
		}
		return err
	}
	const insertItem = "INSERT INTO item (id, box_id, place) VALUES (?, ?, ?)"
	b := &box{}
	o.Have = ""
	switch o.Do {
	case "get", "show":
		if o.Do == "show" {
			b, err = p.table.Show(tx, o.ID, "")
		} else {
			b, err = p.table.Get(tx, o.ID)
		}
		if o.Have, err = answer(1, err); o.Have == "done" && err == nil {
			o.Have = b.text()
		}
	case "list":
		var list []*box
		list, err = p.table.List(tx, &resource.Query{Sort: []resource.SortKey{{Attribute: "id"}}}, "")
		for _, b := range list {
			o.Have += b.text() + "\n"
		}
	case "exists":
		var is bool
		is, err = tx.Exists("SELECT 1 FROM item WHERE box_id = ?", o.ID)
		o.Have = fmt.Sprint(is)
	case "count":
		err = tx.Row("SELECT COUNT(*) FROM item WHERE box_id = ?", []any{o.ID}, &o.N)
	case "ties":
		o.Have, err = rows(tx, "SELECT t.id, i.box_id FROM tie t JOIN item i ON i.id = t.item_id ORDER BY t.id")
	case "lates":
		o.Have, err = rows(tx, "SELECT id, box_id FROM late ORDER BY id")
	case "places":
		err = tx.Query(func(scan func(...any) error) error {
			var id string
			var place int
			err := scan(&id, &place)
			o.Have += fmt.Sprint(id, ":", place, " ")
			return err
		}, "SELECT id, place FROM item WHERE place IS NOT NULL ORDER BY id")
	case "marks":
		err = tx.Row("SELECT COALESCE(SUM(value), 0) FROM mark", nil, &o.N)
	case "box":
		b.ID, b.UpdatedAt = o.ID, by
		if o.To != "" {
			b.Name = &o.To
		}
		if o.Way%2 == 0 {
			o.Have, err = answer(1, p.table.Insert(tx, b))
		} else if done, failed := p.table.InsertIfAbsent(tx, b); failed == nil && !done {
			o.Have = "none"
		} else {
			o.Have, err = answer(1, failed)
		}
		if o.Have == "done" {
			changed(o.ID, store.Created)
		}
	case "value", "name":
		if o.Way%2 == 0 {
			if b, err = p.table.Get(tx, o.ID); err == nil {
				o.N = int(b.Value)
				b.Revision, b.UpdatedAt = b.Revision+1, by
				if b.Value++; o.Do == "name" {
					b.Name = &o.To
				}
				err = p.table.Update(tx, b)
			}
			o.Have, err = answer(1, err)
		} else {
			if err = tx.Row("SELECT value FROM box WHERE id = ?", []any{o.ID}, &o.N); err == nil {
				query, args := "UPDATE box SET revision_number = revision_number + 1, updated_at = ?, value = ?", []any{by, o.N + 1}
				if o.Do == "name" {
					query, args = query+", name = ?", append(args, o.To)
				}
				o.Have, err = write(tx, o.Way/2, query+" WHERE id = ?", append(args, o.ID)...)
			} else {
				o.Have, err = answer(1, err)
			}
		}
		if o.Have == "done" {
			changed(o.ID, store.Updated)
		}
	case "drop":
		is := o.Way%2 == 0
		if !is {
			if is, err = tx.Exists("SELECT 1 FROM box WHERE id = ?", o.ID); err == nil && is {
				o.Have, err = write(tx, o.Way/2, "DELETE FROM box WHERE id = ?", o.ID)
			} else {
				o.Have = "none"
			}
		} else {
			is, err = p.table.Delete(tx, o.ID)
			if o.Have, err = answer(1, err); o.Have == "done" && !is {
				o.Have = "none"
			}
		}
		if o.Have == "done" {
			changed(o.ID, store.Deleted)
		}
	case "item":
		var place any
		if o.N >= 0 {
			place = o.N
		}
		query := insertItem
		if o.Way == 3 {
			query += " ON CONFLICT DO NOTHING"
		}
		if o.Have, err = write(tx, o.Way, query, o.ID, o.To, place); err == nil {
			err = touch(o.To)
		}
	case "spare":
		var free []string
		free, err = tx.Spare("place", func(n int) (free []string, err error) {
			used := map[int]bool{}
			err = tx.Query(func(scan func(...any) error) error {
				var at int
				err := scan(&at)
				used[at] = true
				return err
			}, "SELECT place FROM item WHERE place IS NOT NULL")
			for at := 0; at < places && len(free) < n; at++ {
				if !used[at] {
					free = append(free, strconv.Itoa(at))
				}
			}
			return free, err
		})
		o.Have = "full"
		for i := 0; i < len(free) && err == nil && (i == 0 || o.Have == "duplicate"); i++ {
			o.N, _ = strconv.Atoi(free[i]) // it is one of ours
			o.Have, err = write(tx, o.Way, insertItem, o.ID, o.To, o.N)
		}
		if err == nil {
			err = touch(o.To)
		}
	case "tally":
		o.Used, o.Limit, err = tx.Tally("item of "+o.To, "item", "box_limit", 1, func() (used, limit int, err error) {
			err = tx.Row("SELECT (SELECT COUNT(*) FROM item WHERE box_id = ?), most FROM box_limit", []any{o.To}, &used, &limit)
			return used, limit, err
		})
		if o.Have = "full"; err == nil && o.Used < o.Limit {
			if o.Have, err = write(tx, o.Way, insertItem, o.ID, o.To, nil); err == nil {
				err = touch(o.To)
			}
		}
	case "limit":
		err = tx.Put("UPDATE box_limit SET most = ?", o.N)
	case "remove":
		var of string
		if err = tx.Row("SELECT box_id FROM item WHERE id = ?", []any{o.ID}, &of); err == nil {
			o.Have, err = write(tx, o.Way, "DELETE FROM item WHERE id = ?", o.ID)
		} else {
			o.Have, err = answer(1, err)
		}
		if err == nil {
			err = touch(of)
		}
	case "unplace":
		var n int64
		n, err = tx.Exec("UPDATE item SET place = NULL WHERE box_id = ?", o.ID)
		o.N = int(n)
	case "tie":
		o.Have, err = write(tx, o.Way, "INSERT INTO tie (id, item_id) VALUES (?, ?)", o.ID, o.To)
	case "late":
		o.Have, err = write(tx, o.Way, "INSERT INTO late (id, box_id) VALUES (?, ?)", o.ID, o.To)
	case "untie", "unlate":
		o.Have, err = write(tx, o.Way, "DELETE FROM "+o.Do[2:]+" WHERE id = ?", o.ID)
	case "mark":
		query := "INSERT INTO mark (id, value) VALUES (?, ?)"
		switch o.Way {
		case 2:
			query += " ON CONFLICT (id) DO UPDATE SET value = excluded.value"
		case 3:
			query += " ON CONFLICT DO NOTHING"
		}
		o.Have, err = write(tx, o.Way, query, o.ID, o.N)
	case "two":
		o.Have, err = write(tx, o.Way, "INSERT INTO mark (id, value) VALUES (?, ?), (?, ?)", o.ID, o.N, o.To, o.N)
	case "many":
		for i := 0; i < o.N && err == nil; i++ {
			err = tx.Put("INSERT INTO mark (id, value) VALUES (?, ?)", fmt.Sprintf("%s/%s/%d", by, o.ID, i), i)
		}
		o.Have, err = answer(1, err)
	case "sweep":
		var n int64
		n, err = tx.Exec("DELETE FROM mark")
		o.N = int(n)
	case "fail":
		return errUndone
	default:
		return fmt.Errorf("there is no op %q", o.Do)
	}
	return err
}

// world is the model.
type world struct {
	atOnce bool // a deletion is refused at once by a key that is looked at late
	boxes  map[string]box
	items  map[string]item
	ties   map[string]string
	lates  map[string]string
	marks  map[string]int
	limit  int
	// first and last are what a transaction did first and last to a box.
	first, last map[string]store.Op
	made        map[string]bool // and has created it
}

type item struct {
	box   string
	place int
}

func (w *world) clone() *world {
	c := *w
	c.boxes, c.items, c.ties, c.lates, c.marks = maps.Clone(w.boxes), maps.Clone(w.items), maps.Clone(w.ties), maps.Clone(w.lates), maps.Clone(w.marks)
	c.first, c.last, c.made = map[string]store.Op{}, map[string]store.Op{}, map[string]bool{}
	return &c
}

func (w *world) text(id string) string {
	b, ok := w.boxes[id]
	if !ok {
		return "none"
	}
	b.Items = w.in(id)
	return b.text()
}

func (w *world) in(box string) (ids []string) {
	for id, i := range w.items {
		if i.box == box {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (w *world) changed(id string, what store.Op) {
	if w.first[id] == "" {
		w.first[id] = what
	}
	w.last[id] = what
	w.made[id] = w.made[id] || what == store.Created
}

func (w *world) touch(id, by string) {
	b := w.boxes[id]
	b.Revision, b.UpdatedAt = b.Revision+1, by
	w.boxes[id] = b
	w.changed(id, store.Updated)
}

// insert has the answers that an item may get; without a refusal it is there then.
func (w *world) insert(id, box string, place int, by string) (may []string) {
	if _, ok := w.items[id]; ok {
		may = append(may, "duplicate")
	}
	for _, i := range w.items {
		if place >= 0 && i.place == place {
			may = append(may, "duplicate")
		}
	}
	if _, ok := w.boxes[box]; !ok {
		may = append(may, "referenced")
	}
	if may == nil {
		w.items[id] = item{box, place}
		w.touch(box, by)
		may = []string{"done"}
	}
	return may
}

func refer[V any](from map[string]string, to map[string]V, id, parent string, must bool) string {
	if _, ok := from[id]; ok {
		return "duplicate"
	}
	if _, ok := to[parent]; !ok && must {
		return "referenced"
	}
	from[id] = parent
	return "done"
}

func pairs(m map[string]string, to func(string) string) string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(m)) {
		list = append(list, id+":"+to(m[id]))
	}
	return fmt.Sprint(list)
}

// do has the answers that an op may get, and n its number, and then changes the model.
func (w *world) do(by string, o op) (may []string, n int) {
	one := func(text string) []string { return []string{text} }
	b, there := w.boxes[o.ID]
	n = o.N
	switch o.Do {
	case "get", "show":
		return one(w.text(o.ID)), n
	case "list":
		var text strings.Builder
		for _, id := range slices.Sorted(maps.Keys(w.boxes)) {
			text.WriteString(w.text(id) + "\n")
		}
		return one(text.String()), n
	case "exists":
		return one(fmt.Sprint(len(w.in(o.ID)) > 0)), n
	case "count":
		return one(""), len(w.in(o.ID))
	case "ties":
		return one(pairs(w.ties, func(id string) string { return w.items[id].box })), n
	case "lates":
		return one(pairs(w.lates, func(id string) string { return id })), n
	case "places":
		text := ""
		for _, id := range slices.Sorted(maps.Keys(w.items)) {
			if place := w.items[id].place; place >= 0 {
				text += fmt.Sprint(id, ":", place, " ")
			}
		}
		return one(text), n
	case "marks":
		n = 0
		for _, value := range w.marks {
			n += value
		}
		return one(""), n
	case "box", "name":
		taken := false
		for id, other := range w.boxes {
			taken = taken || id != o.ID && other.Name != nil && *other.Name == o.To
		}
		switch {
		case o.Do == "name" && !there:
			return one("none"), n
		case o.Do == "name" && taken:
			return one("duplicate"), int(b.Value)
		case o.Do == "name":
			n = int(b.Value)
			b.Name = &o.To
			b.Value++
			w.boxes[o.ID] = b
			w.touch(o.ID, by)
			return one("done"), n
		case there || taken:
			return one([]string{"duplicate", "none"}[o.Way%2]), n
		}
		b.ID, b.UpdatedAt = o.ID, by
		if o.To != "" {
			b.Name = &o.To
		}
		w.boxes[o.ID] = b
		w.changed(o.ID, store.Created)
		return one("done"), n
	case "value":
		if !there {
			return one("none"), n
		}
		n = int(b.Value)
		b.Value++
		w.boxes[o.ID] = b
		w.touch(o.ID, by)
		return one("done"), n
	case "drop":
		if !there {
			return one("none"), n
		}
		items := w.in(o.ID)
		for _, id := range w.ties {
			if slices.Contains(items, id) {
				return one("referenced"), n
			}
		}
		for _, id := range w.lates {
			if w.atOnce && id == o.ID {
				return one("referenced"), n
			}
		}
		for _, id := range items {
			delete(w.items, id)
		}
		delete(w.boxes, o.ID)
		w.changed(o.ID, store.Deleted)
		return one("done"), n
	case "item":
		may = w.insert(o.ID, o.To, o.N, by)
		if i := slices.Index(may, "duplicate"); i >= 0 && o.Way == 3 {
			may[i] = "none"
		}
		return may, n
	case "spare":
		if o.Have != "full" {
			return w.insert(o.ID, o.To, o.N, by), n
		}
		for _, i := range w.items {
			if i.place >= 0 {
				n++
			}
		}
		return one("full"), n - places
	case "tally":
		used := len(w.in(o.To))
		switch {
		case o.Limit != w.limit, o.Used < used, o.Used >= o.Limit && o.Used > used:
			return one(fmt.Sprintf("%d of %d", used, w.limit)), n
		case o.Used >= o.Limit:
			return one("full"), n
		}
		return w.insert(o.ID, o.To, -1, by), n
	case "limit":
		w.limit = o.N
		return one(""), n
	case "remove":
		i, there := w.items[o.ID]
		if !there {
			return one("none"), n
		}
		for _, id := range w.ties {
			if id == o.ID {
				return one("referenced"), n
			}
		}
		delete(w.items, o.ID)
		w.touch(i.box, by)
		return one("done"), n
	case "unplace":
		items := w.in(o.ID)
		for _, id := range items {
			w.items[id] = item{o.ID, -1}
		}
		return one(""), len(items)
	case "tie":
		return one(refer(w.ties, w.items, o.ID, o.To, true)), n
	case "late":
		return one(refer(w.lates, w.boxes, o.ID, o.To, false)), n
	case "untie", "unlate":
		from := map[string]map[string]string{"untie": w.ties, "unlate": w.lates}[o.Do]
		if _, ok := from[o.ID]; !ok && o.Way%2 == 1 { // Put does not tell
			return one("none"), n
		}
		delete(from, o.ID)
		return one("done"), n
	case "mark", "two":
		ids := []string{o.ID}
		if o.Do == "two" {
			ids = append(ids, o.To)
		}
		for _, id := range ids {
			if _, ok := w.marks[id]; ok && (o.Do == "two" || o.Way != 2) {
				return one(map[bool]string{true: "none", false: "duplicate"}[o.Do == "mark" && o.Way == 3]), n
			}
		}
		for _, id := range ids {
			w.marks[id] = o.N
		}
		return one("done"), n
	case "many":
		for i := range o.N {
			w.marks[fmt.Sprintf("%s/%s/%d", by, o.ID, i)] = i
		}
		return one("done"), n
	case "sweep":
		n = len(w.marks)
		clear(w.marks)
		return one(""), n
	}
	return one(o.Have), n // fail
}

// repeat does what a transaction has done; it tells what was not as it is here.
func (w *world) repeat(r *record) error {
	for i, o := range r.Ops {
		may, n := w.do(r.ID, o)
		if !slices.Contains(may, o.Have) || n != o.N {
			return fmt.Errorf("op %d %+v: may be %q, %d", i, o, may, n)
		}
	}
	missing := false
	for _, id := range w.lates {
		_, ok := w.boxes[id]
		missing = missing || !ok
	}
	// What one that writes leaves to be missing, another one of the same commit may bring: only the commit looks.
	if refused := r.own == nil && r.failed != nil; refused && !missing || missing && r.view {
		return fmt.Errorf("at the end a box is missing: %v; it ended with %v", missing, r.failed)
	}
	return nil
}

// events are those that a transaction must have, beside its own.
func (w *world) events() (list []string) {
	for id, first := range w.first {
		switch last := w.last[id]; {
		case first == store.Created && last == store.Deleted:
		case last == store.Updated && w.made[id]:
			list = append(list, id+" create")
		default:
			list = append(list, id+" "+string(last))
		}
	}
	slices.Sort(list)
	return list
}

const (
	readOps  = "get get show list exists exists count count places ties lates marks"
	writeOps = "box box value value value name drop item item item spare spare tally tally tie tie late late mark mark mark two many untie unlate remove unplace limit sweep fail"
	// calmOps are refused seldom: much is remembered.
	calmOps = "value value box drop item item spare tally mark untie remove unplace limit"
)

func pick(r *rand.Rand, words string) string {
	list := strings.Fields(words)
	return list[r.IntN(len(list))]
}

// plan makes up a transaction.
func plan(r *rand.Rand, writes, calm bool) (list []op) {
	length, items := 7, 24
	if calm {
		length, items = 3, 10000
	}
	for range 1 + r.IntN(length) {
		o := op{Do: pick(r, readOps), Way: r.IntN(4)}
		switch {
		case writes && calm && r.IntN(3) > 0:
			o.Do = pick(r, calmOps)
		case writes && r.IntN(3) > 0:
			o.Do = pick(r, writeOps)
		}
		name := func(prefix string, n int) string { return prefix + strconv.Itoa(r.IntN(n)) }
		switch o.ID = name("b", 6); o.Do {
		case "box", "name":
			if o.To = name("n", 4); o.Do == "box" && (calm || r.IntN(2) == 0) {
				o.To = ""
			}
			if calm {
				o.Way = 1
			}
		case "drop":
			read := op{Do: pick(r, "get exists count"), ID: o.ID}
			list = append(list, read, o, read)
			o = op{Do: "box", ID: o.ID, Way: o.Way}
		case "item", "spare", "tally", "remove":
			o.ID, o.To, o.N = name("i", items), name("b", 6), r.IntN(places+1)-1
			if calm {
				o.N = -1
			}
		case "tie", "untie":
			if o.ID, o.To = name("t", 6), name("i", 24); o.Do == "tie" && r.IntN(3) == 0 {
				list = append(list, o)
				o.Do = "untie"
			}
		case "late":
			o.ID, o.To = name("l", 6), name("b", 6)
			if r.IntN(2) == 0 { // what it refers to comes after it
				list = append(list, o)
				o = op{Do: "box", ID: o.To, Way: o.Way}
			}
		case "unlate":
			// MariaDB still wants what an insert has referred to when its row is gone again.
			if o.ID = name("l", 6); slices.ContainsFunc(list, func(o op) bool { return o.Do == "late" }) {
				o.Do = "lates"
			}
		case "mark", "two":
			n := r.IntN(9)
			if o.ID, o.To, o.N = "m"+strconv.Itoa(n), "m"+strconv.Itoa(n+1), r.IntN(100); calm {
				o.Way = 2
			}
		case "many":
			o.ID, o.N = strconv.Itoa(len(list)), 1+r.IntN(120)
		case "limit":
			o.N = 2 + r.IntN(5)
		}
		list = append(list, o)
	}
	return list
}

// change is a transaction that writes, or may; strict: it ends at the first refusal.
func (p *program) change(t *testing.T, r *rand.Rand, now func() int64, id string, calm bool) *record {
	c := &record{ID: id, writes: r.IntN(5) > 0}
	ops, strict, hangUp := plan(r, c.writes, calm), r.IntN(3) == 0, r.IntN(20) == 0
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.begun = now()
	c.failed = p.Tx(ctx, func(tx *store.Tx) error {
		c.Ops, c.own = nil, nil
		if c.writes {
			tx.Emit(store.Event{Kind: "tx", ID: id, Op: store.Created, RequestID: id, Object: c})
		}
		for _, o := range ops {
			err := p.do(tx, id, &o)
			if c.Ops = append(c.Ops, o); err == nil && strict && (o.Have == "duplicate" || o.Have == "referenced") {
				err = errUndone
			}
			if err != nil {
				c.own = err
				return err
			}
		}
		if hangUp { // should it have to be run again, nobody waits for it
			cancel()
		}
		return nil
	})
	c.ended = now()
	switch {
	case c.failed == nil && c.own == nil, errors.Is(c.failed, context.Canceled) && hangUp:
	case c.own == nil && errors.Is(c.failed, store.ErrReferenced): // at its commit
	case errors.Is(c.own, errUndone) && errors.Is(c.failed, errUndone):
	default:
		t.Errorf("%s: %v, its closure: %v\n%+v", id, c.failed, c.own, c.Ops)
	}
	return c
}

// read is a transaction that only reads. One of them fills the memory.
func (p *program) read(t *testing.T, r *rand.Rand, now func() int64, id string, _ bool) *record {
	c := &record{ID: id, view: true}
	ops := plan(r, false, false)
	ops = ops[:min(len(ops), 1+r.IntN(3))]
	view, fill := p.View, r.IntN(4) == 0
	if r.IntN(2) == 0 {
		view = p.ViewAtOnce
	}
	var list []*box
	c.begun = now()
	if err := view(context.Background(), func(tx *store.Tx) (err error) {
		c.Ops, list = nil, nil
		if fill {
			list, err = p.table.Select(tx, "")
		}
		for _, o := range ops {
			err = errors.Join(err, p.do(tx, id, &o))
			c.Ops = append(c.Ops, o)
		}
		return err
	}); err != nil {
		t.Errorf("%s: %v\n%+v", id, err, c.Ops)
	}
	c.ended = now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range list {
		p.memory[b.ID] = b
	}
	return c
}

// TestSerial: whatever transactions do, of however many programs, is what a
// model says that does them one after the other, in the order of their events.
// ISOSPIN_TEST_SEED has it make them up again, ISOSPIN_TEST_STEPS has it make more.
func TestSerial(t *testing.T) {
	for _, kind := range storetest.Kinds {
		t.Run(kind, func(t *testing.T) { testSerial(t, kind) })
	}
}

func number(t *testing.T, variable string, n uint64) uint64 {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func testSerial(t *testing.T, kind string) {
	seed, rounds := number(t, "ISOSPIN_TEST_SEED", rand.Uint64()), int(number(t, "ISOSPIN_TEST_STEPS", 10))
	t.Logf("ISOSPIN_TEST_SEED=%d", seed)
	connection := storetest.NewOf(t, kind)
	programs := []*program{newProgram(t, connection)}
	for kind != storetest.SQLite && len(programs) < 3 {
		programs = append(programs, newProgram(t, connection))
	}
	var clock atomic.Int64
	now := func() int64 { return clock.Add(1) }
	const clients, steps = 8, 25
	var records [clients][]*record
	for round := range rounds {
		var all sync.WaitGroup
		for n := range clients {
			all.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(round*clients+n)))
				for step := range steps {
					// In every other round one program does most, and little is refused, so that what it remembers holds for long.
					p, calm := programs[round/2%len(programs)], round%2 == 1
					if !calm || r.IntN(15) == 0 {
						p = programs[r.IntN(len(programs))]
					}
					do := p.change
					if r.IntN(4) == 0 {
						do = p.read
					}
					records[n] = append(records[n], do(t, r, now, fmt.Sprintf("%d.%d.%d", round, n, step), calm))
				}
			})
		}
		all.Wait()
	}
	w := &world{atOnce: kind == storetest.MariaDB, boxes: map[string]box{}, items: map[string]item{}, ties: map[string]string{}, lates: map[string]string{}, marks: map[string]int{}, limit: 5}
	w = follow(t, w, programs[0], slices.Concat(records[:]...))
	last := record{view: true, Ops: []op{{Do: "list"}, {Do: "places"}, {Do: "ties"}, {Do: "lates"}, {Do: "marks"}}}
	if err := programs[0].View(t.Context(), func(tx *store.Tx) (err error) {
		for i := range last.Ops {
			err = errors.Join(err, programs[0].do(tx, "", &last.Ops[i]))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.repeat(&last); err != nil {
		t.Errorf("what is stored in the end: %v", err)
	}
}

// follow repeats all transactions that wrote, in the order of their events. All
// others must have seen what there was at some time between their begin and end.
func follow(t *testing.T, w *world, p *program, all []*record) *world {
	var events []store.Event
	if err := p.View(t.Context(), func(tx *store.Tx) (err error) {
		events, err = tx.Events(0, 1<<30)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	by := map[string]*record{}
	for _, r := range all {
		by[r.ID] = r
	}
	// committed are the transactions in order, and boxes their events of boxes.
	var committed []*record
	boxes := map[string][]string{}
	for i, e := range events {
		if i > 0 && e.Sequence <= events[i-1].Sequence {
			t.Errorf("event %d comes after %d", e.Sequence, events[i-1].Sequence)
		}
		if e.Kind == "box" {
			if e.RequestID != committed[len(committed)-1].ID {
				t.Errorf("an event of %s is among those of %s", e.RequestID, committed[len(committed)-1].ID)
			}
			boxes[e.RequestID] = append(boxes[e.RequestID], e.ID+" "+string(e.Op))
			continue
		}
		r := by[e.ID]
		if r == nil {
			t.Fatalf("there is another %s %s %s", e.Kind, e.ID, e.Data)
		}
		if have, err := json.Marshal(r); err != nil || string(have) != string(e.Data) || r.failed != nil {
			t.Errorf("%s ended with %v, and its events are there:\n%s\nand not\n%s, %v", e.ID, r.failed, e.Data, have, err)
		}
		committed = append(committed, r)
		delete(by, e.ID)
	}
	// others wait for a time to which what they have seen belongs, from place to last.
	type other struct {
		*record
		last int
		why  error
	}
	others := make([][]*other, len(committed)+1)
	bounds := func(r *record) (first, last int) {
		last = len(committed)
		for i, c := range committed {
			if c.ended < r.begun {
				first = i + 1
			}
			if c.begun > r.ended {
				last = min(last, i)
			}
		}
		return first, last
	}
	for i, r := range committed {
		if first, last := bounds(r); i < first || i > last {
			t.Errorf("%s was the %dth, of %d to %d", r.ID, i, first, last)
		}
	}
	failed := 0
	for _, r := range by {
		switch {
		case r.failed == nil && r.writes:
			t.Errorf("%s has succeeded, and has no event", r.ID)
		case errors.Is(r.failed, context.Canceled):
			continue // it saw what was undone
		}
		if r.failed != nil {
			failed++
		}
		first, last := bounds(r)
		others[first] = append(others[first], &other{record: r, last: last})
	}
	t.Logf("%d transactions, of which %d were committed and %d failed", len(all), len(committed), failed)
	for at := 0; ; at++ {
		for _, o := range others[at] {
			if err := w.clone().repeat(o.record); err == nil {
				continue
			} else {
				o.why = errors.Join(o.why, fmt.Errorf("%d: %w", at, err))
			}
			if at >= o.last {
				t.Errorf("%s (ended with %v) saw what never was:\n%v\n%+v", o.ID, o.failed, o.why, o.Ops)
				continue
			}
			others[at+1] = append(others[at+1], o)
		}
		if at == len(committed) {
			return w
		}
		r := committed[at]
		w = w.clone()
		if err := w.repeat(r); err != nil {
			t.Fatalf("the %dth, %s: %v\n%+v", at, r.ID, err, r.Ops)
		}
		have := boxes[r.ID]
		if slices.Sort(have); !slices.Equal(have, w.events()) {
			t.Errorf("%s has the events %q, not %q:\n%+v", r.ID, have, w.events(), r.Ops)
		}
	}
}
