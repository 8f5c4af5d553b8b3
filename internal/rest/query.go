package rest

import (
	"cmp"
	"math"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
)

const (
	// maxQuery and maxValues bound a query string: its bytes, and how many values it may have in all.
	maxQuery  = 64 << 10
	maxValues = 4096
)

// query is a parsed query string, in order.
type query []parameter

type parameter struct{ name, value string }

func parseQuery(raw string) (query, error) {
	if len(raw) > maxQuery {
		return nil, fault.BadRequest("The query string is longer than %d bytes", maxQuery)
	}
	if raw == "" {
		return nil, nil
	}
	if strings.Count(raw, "&") >= maxValues {
		return nil, fault.BadRequest("The query string has more than %d parameters", maxValues)
	}
	var q query
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, v, _ := strings.Cut(part, "=")
		name, err1 := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil || !text(name) || !text(v) {
			return nil, fault.BadRequest("The query string is malformed")
		}
		q = append(q, parameter{name, v})
	}
	return q, nil
}

// last returns the last value of a name.
func (q query) last(name string) string {
	for _, p := range slices.Backward(q) {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// filled returns the values of a name that are not empty.
func (q query) filled(name string) []string {
	var values []string
	for _, p := range q {
		if p.name == name && p.value != "" {
			values = append(values, p.value)
		}
	}
	return values
}

func (q query) byName() map[string][]string {
	m := make(map[string][]string, len(q))
	for _, p := range q {
		m[p.name] = append(m[p.name], p.value)
	}
	return m
}

// fields returns the members that are asked for, nil for all.
func (q query) fields() map[string]bool {
	var fields map[string]bool
	for _, name := range q.filled("fields") {
		if fields == nil {
			fields = map[string]bool{}
		}
		fields[name] = true
	}
	return fields
}

// noFilters are the names in a list's query string that are never filters:
// those with a meaning of their own, and those that Neutron ignores since its
// database classes have methods of that name.
var noFilters = map[string]bool{
	"fields": true, "sort_key": true, "sort_dir": true, "limit": true, "marker": true, "page_reverse": true,
	"get": true, "items": true, "iteritems": true, "keys": true, "metadata": true, "next": true,
	"registry": true, "save": true, "update": true,
}

// tagFilters are the four conditions on tags.
var tagFilters = map[string]resource.TagCondition{
	"tags": {}, "tags-any": {Any: true}, "not-tags": {Not: true}, "not-tags-any": {Any: true, Not: true},
}

// listQuery is what the query string asks of a list.
func (e *edge) listQuery(r *resource.Resource, q query) (*resource.Query, error) {
	list := &resource.Query{}
	values := q.byName()
	if !r.NativePaging && values["tenant_id"] != nil && values["project_id"] != nil && r.Attribute("tenant_id") != nil {
		return nil, fault.New(fault.Invalid, "TenantIdProjectIdFilterConflict", "Both tenant_id and project_id passed as filters.")
	}
	var unknown []any
	var refused error
	total := 0
	for _, p := range q {
		name := p.name
		texts := values[name]
		if texts == nil || noFilters[name] {
			continue
		}
		delete(values, name) // a repeated name is done with
		if !e.emptyFilters {
			texts = slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return s == "" })
		}
		if condition, ok := tagFilters[name]; ok && r.Taggable {
			for _, t := range texts {
				condition.Tags = append(condition.Tags, strings.Split(t, ",")...)
			}
			slices.Sort(condition.Tags)
			condition.Tags = slices.Compact(condition.Tags)
			if total += len(condition.Tags); len(condition.Tags) > 0 {
				list.Tags = append(list.Tags, condition)
			}
			continue
		}
		if name == "changed_since" && r.Standard {
			if len(texts) > 0 {
				since, ok := parseTime(texts[0])
				if !ok {
					return nil, fault.InvalidInput("The input changed_since must be in the following format: YYYY-MM-DDTHH:MM:SSZ")
				}
				list.ChangedSince = &since
			}
			continue
		}
		a := r.Attribute(name)
		if a != nil && a.Unfilterable != nil && (a.Flags.Has(resource.Filter) || !e.filterValidation) {
			refused = cmp.Or(refused, a.Unfilterable)
			continue
		}
		if a == nil || !a.Flags.Has(resource.Filter) {
			unknown = append(unknown, name)
			continue
		}
		converted, err := convert(a, texts)
		if err != nil {
			return nil, err
		}
		if total += len(converted); len(converted) > 0 {
			list.Filters = append(list.Filters, resource.FilterBy{Attribute: a, Values: converted})
		}
	}
	if len(unknown) > 0 && e.filterValidation {
		return nil, fault.BadRequest("%s is invalid attribute for filtering", value.Repr(unknown))
	}
	if total > maxValues {
		return nil, fault.BadRequest("The query string has more than %d values", maxValues)
	}
	if err := e.page(r, q, list); err != nil {
		return nil, err
	}
	if err := sortKeys(r, q, list); err != nil {
		return nil, err
	}
	for _, key := range list.Sort {
		refused = cmp.Or(refused, r.Attribute(key.Attribute).Unsortable)
	}
	return list, refused
}

func convert(a *resource.Attribute, texts []string) ([]any, error) {
	if a.ConvertList == "" {
		values, err := a.Values(texts)
		for i, v := range values {
			if n, ok := v.(*big.Int); ok { // beyond all stored numbers, and of what databases can compare
				values[i] = int64(math.MaxInt64)
				if n.Sign() < 0 {
					values[i] = int64(math.MinInt64)
				}
			}
		}
		return values, err
	}
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	v, err := value.Convert(a.ConvertList, list)
	if err != nil || !truthy(v) {
		return nil, err
	}
	if converted, ok := v.([]any); ok {
		return converted, nil
	}
	return []any{v}, nil
}

// page reads limit, marker and page_reverse.
func (e *edge) page(r *resource.Resource, q query, list *resource.Query) error {
	if r.NoPaging {
		return nil
	}
	if given := q.last("limit"); slices.ContainsFunc(q, func(p parameter) bool { return p.name == "limit" }) {
		limit, ok := parseLimit(given)
		if !ok {
			return fault.New(fault.Invalid, "BadRequest", "Bad limit request: Limit must be an integer 0 or greater and not '%s'.", given)
		}
		list.Limit = limit
	}
	if greatest := e.PaginationMaxLimit; greatest > 0 && (list.Limit == 0 || list.Limit > greatest) {
		list.Limit = greatest
	}
	if list.Limit > 0 {
		list.Marker = q.last("marker")
		list.Reverse = strings.EqualFold(q.last("page_reverse"), "true")
	}
	return nil
}

// parseLimit takes what Python's int() takes; limits beyond any list are cut.
func parseLimit(s string) (int, bool) {
	v, err := value.Convert("convert_to_int", s)
	if err != nil {
		return 0, false
	}
	switch n := v.(type) {
	case int64:
		return int(min(n, math.MaxInt32)), n >= 0
	case *big.Int:
		return math.MaxInt32, n.Sign() > 0
	}
	return 0, false
}

// sortKeys reads sort_key and sort_dir.
func sortKeys(r *resource.Resource, q query, list *resource.Query) error {
	if r.NoSorting {
		return nil
	}
	keys, directions := q.filled("sort_key"), q.filled("sort_dir")
	if len(keys) != len(directions) {
		return fault.BadRequest("The number of sort_keys and sort_dirs must be same")
	}
	var unknown, wrong []any
	seen := map[string]bool{}
	for i, key := range keys {
		if d := directions[i]; d != "asc" && d != "desc" {
			wrong = append(wrong, d)
		}
		a := r.Attribute(key)
		if a == nil || !a.Flags.Has(resource.Sort) {
			unknown = append(unknown, key)
			continue
		}
		if !seen[a.Name] { // a key's second direction decides nothing
			seen[a.Name] = true
			list.Sort = append(list.Sort, resource.SortKey{Attribute: a.Name, Desc: directions[i] == "desc"})
		}
	}
	if len(unknown) > 0 {
		return fault.BadRequest("%s is invalid attribute for sort_keys", value.Repr(unknown))
	}
	if len(wrong) > 0 {
		return fault.BadRequest("%s is invalid value for sort_dirs, valid value is 'asc' and 'desc'", value.Repr(wrong))
	}
	return nil
}

var (
	isoDate = regexp.MustCompile(`^(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?$`)
	isoTime = regexp.MustCompile(`^(\d{2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d+))?)?)?(Z|[+-]\d{2}(?::?\d{2})?)?$`)
)

// parseTime reads an ISO 8601 time, UTC where it names no zone. Parts of
// seconds are rounded up, since stored times have none.
func parseTime(s string) (time.Time, bool) {
	date, clock, timed := s, "", false
	if i := strings.IndexAny(s, "T "); i >= 0 {
		date, clock, timed = s[:i], s[i+1:], true
	}
	d := isoDate.FindStringSubmatch(date)
	if d == nil {
		return time.Time{}, false
	}
	text := d[1] + "-" + or(d[2], "01") + "-" + or(d[3], "01") + "T"
	fraction := ""
	if !timed {
		text += "00:00:00Z"
	} else {
		c := isoTime.FindStringSubmatch(clock)
		if c == nil {
			return time.Time{}, false
		}
		zone := or(c[5], "Z")
		switch len(zone) {
		case 3:
			zone += ":00"
		case 5:
			zone = zone[:3] + ":" + zone[3:]
		}
		text += c[1] + ":" + or(c[2], "00") + ":" + or(c[3], "00") + zone
		fraction = c[4]
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, false
	}
	if strings.Trim(fraction, "0") != "" {
		t = t.Add(time.Second)
	}
	return t.UTC(), true
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
