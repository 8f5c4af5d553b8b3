package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"isospin/internal/resource"
)

// Table maps the struct T to the rows of one table: each field with a db tag
// (also of embedded structs) is a column of that name; `db:"name,json"` is kept
// as JSON text. Fields of child tables have no tag and are filled by Children.
type Table[T any] struct {
	name    string
	columns []column
	options TableOptions[T]

	insert, update, selectFrom, selectHead string
	byName                                 map[string]int
	derived                                []func(row *T, value *string)
	// slots are the fields of that type.
	slots [][]int
	// recall has objects that are in memory.
	recall  func(ids []string) []*T
	compare bool
}

type column struct {
	name  string
	index []int
	json  bool
	kind  reflect.Type
}

// TableOptions tells what a table has beside its columns.
type TableOptions[T any] struct {
	// Children fill fields that live in other tables, for all of a page's rows at once: one query each.
	Children []func(tx *Tx, rows []*T) error
	// Conditions answer filters on attributes that are no column, or not plainly
	// one: values → SQL condition on alias t, with ? parameters.
	Conditions map[string]func(values []any) (string, []any)
	// Columns maps attributes to column names where they differ.
	Columns map[string]string
	// Kind is the resource name under which tags are kept; empty: not taggable.
	Kind string
	// Texts of columns that say more than the field does, where a unique key
	// must tell rows apart that look alike. What is read has the field's value:
	// prefixes are read without host bits.
	Texts map[string]func(row *T) (text string, more bool)
}

// NewTable inspects T. It panics on a field that cannot be a column.
func NewTable[T any](name string, o TableOptions[T]) *Table[T] {
	t := &Table[T]{name: name, options: o, byName: map[string]int{}}
	var walk func(typ reflect.Type, at []int)
	walk = func(typ reflect.Type, at []int) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			index := append(append([]int(nil), at...), i)
			tag := f.Tag.Get("db")
			if tag == "" {
				if f.Anonymous && f.Type.Kind() == reflect.Struct {
					walk(f.Type, index)
				}
				continue
			}
			column := column{index: index, kind: f.Type}
			var option string
			column.name, option, _ = strings.Cut(tag, ",")
			column.json = option == "json"
			if f.Type == reflect.TypeFor[resource.Slots]() {
				t.slots = append(t.slots, index)
			}
			t.byName[column.name] = len(t.columns)
			t.columns = append(t.columns, column)
		}
	}
	walk(reflect.TypeFor[T](), nil)
	var names, marks, sets, qualified []string
	for _, c := range t.columns {
		names = append(names, c.name)
		marks = append(marks, "?")
		qualified = append(qualified, "t."+c.name)
		if c.name != "id" {
			sets = append(sets, c.name+" = ?")
		}
	}
	t.insert = fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", name, strings.Join(names, ", "), strings.Join(marks, ", "))
	t.update = fmt.Sprintf("UPDATE %s SET %s WHERE id = ?", name, strings.Join(sets, ", "))
	t.selectFrom = fmt.Sprintf("SELECT %s FROM %s t", strings.Join(qualified, ", "), name)
	t.selectHead = fmt.Sprintf("SELECT t.id, t.revision_number, t.updated_at FROM %s t", name)
	return t
}

// Condition answers filters on an attribute that an extension has added; see
// TableOptions. It is called before the table is first used.
func (t *Table[T]) Condition(attribute string, condition func(values []any) (string, []any)) {
	if t.options.Conditions == nil {
		t.options.Conditions = map[string]func([]any) (string, []any){}
	}
	t.options.Conditions[attribute] = condition
}

// Derive reads something of another table along with each row: join is a LEFT
// JOIN of at most one row to alias t (a server plans that in less time than a
// subquery), and set is given the text of the column, nil for NULL. It is called
// before the table is first used.
func (t *Table[T]) Derive(column, join string, set func(row *T, value *string)) {
	from := " FROM " + t.name + " t"
	for _, text := range []*string{&t.selectFrom, &t.selectHead} {
		*text = strings.Replace(*text, from, ", "+column+from, 1) + " " + join
	}
	t.derived = append(t.derived, set)
}

// Name returns the table's name.
func (t *Table[T]) Name() string { return t.name }

func (c *column) value(v reflect.Value) (any, error) {
	f := v.FieldByIndex(c.index)
	if c.json {
		if (f.Kind() == reflect.Slice || f.Kind() == reflect.Map) && f.Len() == 0 {
			return "", nil
		}
		raw, err := json.Marshal(f.Interface())
		return string(raw), err
	}
	switch p := f.Addr().Interface().(type) {
	case *string:
		return *p, nil
	case *bool:
		return *p, nil
	case *int:
		return int64(*p), nil
	case *int64:
		return *p, nil
	case **string:
		if *p == nil {
			return nil, nil
		}
		return **p, nil
	case **int:
		if *p == nil {
			return nil, nil
		}
		return int64(**p), nil
	case *netip.Addr:
		if !p.IsValid() {
			return nil, nil
		}
		return p.String(), nil
	case *netip.Prefix:
		if !p.IsValid() {
			return nil, nil
		}
		return p.String(), nil
	}
	if f.Kind() == reflect.String {
		return f.String(), nil
	}
	return nil, fmt.Errorf("column %s: type %s is not a column type", c.name, c.kind)
}

// cell scans one column into its field. Equal texts in a row of rows are one.
type cell struct {
	c    *column
	f    reflect.Value
	last string
	// What last is as JSON.
	raw   json.RawMessage
	slots resource.Slots
}

// Scan implements sql.Scanner. NULL leaves the field as it is.
func (c *cell) Scan(src any) error {
	switch v := src.(type) {
	case []byte:
		return c.ScanBytes(v)
	case string:
		return c.text(v)
	case int64:
		c.number(v)
	case bool:
		c.truth(v)
	}
	return nil
}

// ScanBytes implements pgtype.BytesScanner.
func (c *cell) ScanBytes(v []byte) error {
	if v == nil {
		return nil
	}
	if string(v) == c.last {
		return c.text(c.last)
	}
	s := string(v)
	if !c.c.json {
		c.last = s
	}
	return c.text(s)
}

// ScanInt64 implements pgtype.Int64Scanner.
func (c *cell) ScanInt64(v pgtype.Int8) error {
	if v.Valid {
		c.number(v.Int64)
	}
	return nil
}

// ScanBool implements pgtype.BoolScanner.
func (c *cell) ScanBool(v pgtype.Bool) error {
	if v.Valid {
		c.truth(v.Bool)
	}
	return nil
}

func (c *cell) truth(v bool) {
	if p, ok := c.f.Addr().Interface().(*bool); ok {
		*p = v
	}
}

func (c *cell) number(v int64) {
	switch p := c.f.Addr().Interface().(type) {
	case *int64:
		*p = v
	case *int:
		*p = int(v)
	case *bool:
		*p = v != 0
	case **int:
		n := int(v)
		*p = &n
	}
}

func (c *cell) text(s string) error {
	var err error
	p := c.f.Addr().Interface()
	if c.c.json {
		if s == "" {
			return nil
		}
		same := c.last == s
		c.last = s
		switch p := p.(type) {
		case *json.RawMessage: // nobody writes into one
			if !same || c.raw == nil {
				c.raw = slices.Clip([]byte(s))
			}
			*p = c.raw
		case *resource.Slots: // nor into a value of these
			if !same || c.slots == nil {
				c.slots = nil
				if err := json.Unmarshal([]byte(s), &c.slots); err != nil {
					return err
				}
			}
			*p = maps.Clone(c.slots)
		default:
			return json.Unmarshal([]byte(s), p)
		}
		return nil
	}
	switch p := p.(type) {
	case *string:
		*p = s
	case **string:
		*p = &s
	case *netip.Addr:
		*p, err = netip.ParseAddr(s)
	case *netip.Prefix:
		if *p, err = netip.ParsePrefix(s); err == nil {
			*p = p.Masked()
		}
	case *int, *int64, *bool, **int:
	default:
		if c.f.Kind() != reflect.String {
			return fmt.Errorf("column %s: type %s is not a column type", c.c.name, c.c.kind)
		}
		c.f.SetString(s)
	}
	if err != nil {
		return fmt.Errorf("column %s: %w", c.c.name, err)
	}
	return nil
}

// Insert adds a row. A violated unique key is ErrDuplicate, a violated foreign key ErrReferenced.
func (t *Table[T]) Insert(tx *Tx, row *T) error {
	args, err := t.args(row, true)
	if err != nil {
		return err
	}
	return tx.Put(t.insert, args...)
}

// InsertIfAbsent adds a row unless a unique key forbids it; it tells whether it did.
func (t *Table[T]) InsertIfAbsent(tx *Tx, row *T) (bool, error) {
	args, err := t.args(row, true)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(t.insert+" ON CONFLICT DO NOTHING", args...)
	return n > 0, err
}

// Update writes all columns of the row with that id; ErrNoRow when there is none.
func (t *Table[T]) Update(tx *Tx, row *T) error {
	args, err := t.args(row, false)
	if err != nil {
		return err
	}
	id, err := t.columns[t.byName["id"]].value(reflect.ValueOf(row).Elem())
	if err != nil {
		return err
	}
	n, err := tx.c.put(t.update, append(args, id), true)
	if err == nil && n == 0 {
		err = ErrNoRow
	}
	return err
}

func (t *Table[T]) args(row *T, withID bool) ([]any, error) {
	v := reflect.ValueOf(row).Elem()
	args := make([]any, 0, len(t.columns)+1)
	for i := range t.columns {
		if !withID && t.columns[i].name == "id" {
			continue
		}
		a, err := t.value(row, v, i)
		if err != nil {
			return nil, err
		}
		args = append(args, a)
	}
	return args, nil
}

// value is what a column of the row holds.
func (t *Table[T]) value(row *T, v reflect.Value, column int) (any, error) {
	c := &t.columns[column]
	if more := t.options.Texts[c.name]; more != nil {
		if text, ok := more(row); ok {
			return text, nil
		}
	}
	return c.value(v)
}

// Delete removes the row with that id and tells whether there was one.
func (t *Table[T]) Delete(tx *Tx, id string) (bool, error) {
	n, err := tx.c.put("DELETE FROM "+t.name+" WHERE id = ?", []any{id}, true)
	return n > 0, err
}

// Get returns the row with that id, children filled; ErrNoRow when there is none.
func (t *Table[T]) Get(tx *Tx, id string) (*T, error) {
	return t.Find(tx, id, "")
}

// Find is Get for a row that also fulfils a condition on alias t; empty: none.
func (t *Table[T]) Find(tx *Tx, id, condition string, args ...any) (*T, error) {
	query := t.selectFrom + " WHERE t.id = ?"
	if condition != "" {
		query += " AND (" + condition + ")"
	}
	var rows []*T
	q := question{query: query, args: append([]any{id}, args...), row: t.into(&rows)}
	var err error
	if c, ok := tx.c.(*conversation); ok {
		err = c.askAhead(q, func() []question { return t.ahead(tx, id) })
		defer c.passed()
	} else {
		err = tx.c.ask([]question{q})
	}
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", t.name, err)
	}
	if len(rows) == 0 {
		return nil, ErrNoRow
	}
	return rows[0], t.fill(tx, rows)
}

// ahead are the questions about children that need nothing but the row's id.
func (t *Table[T]) ahead(tx *Tx, id string) []question {
	at, ok := t.byName["id"]
	if !ok {
		return nil
	}
	row := new(T)
	f := reflect.ValueOf(row).Elem().FieldByIndex(t.columns[at].index)
	if f.Kind() != reflect.String {
		return nil
	}
	f.SetString(id)
	var list []question
	for _, fill := range t.options.Children {
		var its []question
		// Those that ask at once are refused, and do so in their turn.
		if fill(&Tx{c: mute{}, dialect: tx.dialect, gathering: &its}, []*T{row}) == nil {
			list = append(list, its...)
		}
	}
	return slices.DeleteFunc(list, func(q question) bool { return len(q.args) != 1 || q.args[0] != id })
}

// Select returns the rows of a query whose text after "FROM table t" is given, children filled.
func (t *Table[T]) Select(tx *Tx, rest string, args ...any) ([]*T, error) {
	rows, err := t.SelectBare(tx, rest, args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows, t.fill(tx, rows)
}

// fill fills the children of rows.
func (t *Table[T]) fill(tx *Tx, rows []*T) error {
	outer := tx.gathering
	defer func() { tx.gathering = outer }()
	var list []question
	for _, fill := range t.options.Children {
		tx.gathering = &list
		if err := fill(tx, rows); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	return tx.c.ask(list)
}

// SelectBare is Select without the children.
func (t *Table[T]) SelectBare(tx *Tx, rest string, args ...any) ([]*T, error) {
	var rows []*T
	if err := tx.Query(t.into(&rows), t.selectFrom+" "+rest, args...); err != nil {
		return nil, fmt.Errorf("table %s: %w", t.name, err)
	}
	return rows, nil
}

// into appends the rows of a query.
func (t *Table[T]) into(rows *[]*T) func(scan func(...any) error) error {
	cells := make([]cell, len(t.columns))
	values := make([]*string, len(t.derived))
	dest := make([]any, 0, len(t.columns)+len(t.derived))
	for i := range cells {
		dest = append(dest, &cells[i])
	}
	for i := range values {
		dest = append(dest, &values[i])
	}
	return func(scan func(...any) error) error {
		row := new(T)
		v := reflect.ValueOf(row).Elem()
		for i := range t.columns {
			cells[i].c, cells[i].f = &t.columns[i], v.FieldByIndex(t.columns[i].index)
		}
		if err := scan(dest...); err != nil {
			return err
		}
		for i, set := range t.derived {
			set(row, values[i])
		}
		*rows = append(*rows, row)
		return nil
	}
}

// List answers a list query with one statement for the rows and one for each
// child table; objects may come from memory, as those of Show. scope is a further condition (empty: none) with its arguments.
func (t *Table[T]) List(tx *Tx, q *resource.Query, scope string, scopeArgs ...any) ([]*T, error) {
	var where []string
	var args []any
	add := func(condition string, a ...any) {
		where = append(where, condition)
		args = append(args, a...)
	}
	if scope != "" {
		add("("+scope+")", scopeArgs...)
	}
	for _, f := range q.Filters {
		if condition := t.options.Conditions[f.Attribute.Name]; condition != nil {
			c, a := condition(f.Values)
			add("("+c+")", a...)
			continue
		}
		name, err := t.column(f.Attribute.Name)
		if err != nil {
			return nil, err
		}
		c, a := In("t."+name, t.columns[t.byName[name]].comparable(f.Values))
		add(c, a...)
	}
	for _, tag := range q.Tags {
		c, a := t.tagCondition(tag)
		add(c, a...)
	}
	if q.ChangedSince != nil {
		add("t.updated_at >= ?", resource.Stamp(*q.ChangedSince))
	}
	keys := q.Sort
	if q.Limit > 0 || len(keys) > 0 {
		keys = withID(keys)
	}
	if q.Marker != "" && q.Limit > 0 {
		c, a, err := t.keyset(tx, keys, q.Marker, q.Reverse)
		if err != nil {
			return nil, err
		}
		add(c, a...)
	}
	var rest strings.Builder
	if len(where) > 0 {
		rest.WriteString("WHERE " + strings.Join(where, " AND "))
	}
	for i, k := range keys {
		name, err := t.column(k.Attribute)
		if err != nil {
			return nil, err
		}
		rest.WriteString([]string{" ORDER BY ", ", "}[min(i, 1)])
		c := &t.columns[t.byName[name]]
		nullable := c.kind.Kind() == reflect.Pointer || c.kind.PkgPath() == "net/netip"
		rest.WriteString(tx.dialect.order("t."+name, nullable, k.Desc != q.Reverse))
	}
	if q.Limit > 0 {
		rest.WriteString(" LIMIT ?")
		args = append(args, q.Limit)
	}
	rows, err := t.selectShown(tx, rest.String(), args...)
	if q.Reverse {
		for i, j := 0, len(rows)-1; i < j; i, j = i+1, j-1 {
			rows[i], rows[j] = rows[j], rows[i]
		}
	}
	return rows, err
}

// comparable are the values that a column may have: databases differ in what
// they make of a number's column and a word. Others match nothing.
func (c *column) comparable(values []any) []any {
	kind, bits := c.kind, 64
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	switch kind.Kind() {
	case reflect.Int: // INTEGER
		bits = 32
	case reflect.Int64:
	default:
		return values
	}
	kept := make([]any, 0, len(values))
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			kept = append(kept, nil)
		case string:
			if n, err := strconv.ParseInt(v, 10, bits); err == nil {
				kept = append(kept, n)
			}
		case int:
			if int64(v)>>(bits-1) == 0 || int64(v)>>(bits-1) == -1 {
				kept = append(kept, v)
			}
		case int64:
			if v>>(bits-1) == 0 || v>>(bits-1) == -1 {
				kept = append(kept, v)
			}
		}
	}
	return kept
}

func withID(keys []resource.SortKey) []resource.SortKey {
	for _, k := range keys {
		if k.Attribute == "id" {
			return keys
		}
	}
	return append(append([]resource.SortKey(nil), keys...), resource.SortKey{Attribute: "id"})
}

func (t *Table[T]) column(attribute string) (string, error) {
	if c, ok := t.options.Columns[attribute]; ok {
		return c, nil
	}
	if attribute == "tenant_id" {
		attribute = "project_id"
	}
	if _, ok := t.byName[attribute]; !ok {
		return "", fmt.Errorf("table %s has no column for attribute %s", t.name, attribute)
	}
	return attribute, nil
}

// keyset is the condition "after the marker" (before it when reverse) in the
// order of keys: (a > x) OR (a = x AND b > y) OR …, nulls first as SQLite and
// Neutron have them.
func (t *Table[T]) keyset(tx *Tx, keys []resource.SortKey, marker string, reverse bool) (string, []any, error) {
	row, err := t.SelectBare(tx, "WHERE t.id = ?", marker)
	if err != nil {
		return "", nil, err
	}
	if len(row) == 0 {
		return "", nil, ErrNoRow
	}
	v := reflect.ValueOf(row[0]).Elem()
	var alternatives []string
	var args []any
	var equal []string
	var equalArgs []any
	for _, k := range keys {
		name, err := t.column(k.Attribute)
		if err != nil {
			return "", nil, err
		}
		at, err := t.value(row[0], v, t.byName[name])
		if err != nil {
			return "", nil, err
		}
		name = "t." + name
		descending := k.Desc != reverse
		beyond, beyondArgs := name+" > ?", []any{at}
		switch {
		case at == nil && !descending:
			beyond, beyondArgs = name+" IS NOT NULL", nil
		case at == nil:
			beyond, beyondArgs = "1 = 0", nil
		case descending:
			beyond = "(" + name + " < ? OR " + name + " IS NULL)"
		}
		alternatives = append(alternatives, "("+strings.Join(append(append([]string(nil), equal...), beyond), " AND ")+")")
		args = append(append(args, equalArgs...), beyondArgs...)
		if at == nil {
			equal = append(equal, name+" IS NULL")
		} else {
			equal = append(equal, name+" = ?")
			equalArgs = append(equalArgs, at)
		}
	}
	return "(" + strings.Join(alternatives, " OR ") + ")", args, nil
}

func (t *Table[T]) tagCondition(c resource.TagCondition) (string, []any) {
	in, args := In("tag.tag", anySlice(c.Tags))
	args = append([]any{t.options.Kind}, args...)
	// Distinct, since a repeated tag in the filter asks for one tag.
	condition := "(SELECT COUNT(*) FROM tag WHERE tag.kind = ? AND tag.object_id = t.id AND " + in + ")"
	if c.Any {
		condition += " >= 1"
	} else {
		condition += " >= ?"
		distinct := map[string]bool{}
		for _, tag := range c.Tags {
			distinct[tag] = true
		}
		args = append(args, len(distinct))
	}
	if c.Not {
		condition = "NOT (" + condition + ")"
	}
	return condition, args
}

func anySlice[T any](in []T) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}

// In is "column IN (?, …)"; nil values match null. The number of marks is
// rounded up, repeating the last value, so that few different statements exist.
func In(column string, values []any) (string, []any) {
	null := false
	kept := make([]any, 0, len(values)+1)
	for _, v := range values {
		if v == nil {
			null = true
			continue
		}
		kept = append(kept, v)
	}
	var condition string
	switch len(kept) {
	case 0:
		condition = "1 = 0"
	case 1:
		condition = column + " = ?"
	default:
		n := 2
		for n < len(kept) {
			n *= 2
		}
		for len(kept) < n {
			kept = append(kept, kept[len(kept)-1])
		}
		condition = column + " IN (?" + strings.Repeat(", ?", n-1) + ")"
	}
	if null {
		condition = "(" + condition + " OR " + column + " IS NULL)"
	}
	return condition, kept
}

// Child reads rows of a child table for all parents, in chunks: query has one
// %s for the condition on column, ids are the parents'.
func Child(tx *Tx, query, column string, ids []string, row func(scan func(...any) error) error) error {
	return tx.c.ask(childQuestions(tx, query, column, ids, row))
}

// Gather is Child for functions of TableOptions.Children that do nothing with
// the rows once row has been called for them: the questions of all of a
// table's children are asked together, after all those functions have returned.
func Gather(tx *Tx, query, column string, ids []string, row func(scan func(...any) error) error) error {
	list := childQuestions(tx, query, column, ids, row)
	if tx.gathering == nil {
		return tx.c.ask(list)
	}
	*tx.gathering = append(*tx.gathering, list...)
	return nil
}

// chunk is how many ids are asked for at once.
const chunk = 1024

func childQuestions(tx *Tx, query, column string, ids []string, row func(scan func(...any) error) error) (list []question) {
	for some := range slices.Chunk(ids, chunk) {
		condition, args := tx.dialect.among(column, some)
		list = append(list, question{query: fmt.Sprintf(query, condition), args: args, row: row})
	}
	return list
}
