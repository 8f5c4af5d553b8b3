package store

import (
	"regexp"
	"strings"
	"sync"
)

// maxTuples bounds how many rows one statement inserts.
const maxTuples = 64

var (
	insertsOne = regexp.MustCompile(`(?s)^\s*INSERT INTO \w+ \([^)]*\)\s+VALUES\s+(\(.*\))$`)
	tuples     sync.Map // statement → its tuple; empty: it inserts otherwise
	merged     sync.Map // merging → text
)

type merging struct {
	query string
	rows  int
}

// tuple is what a statement that inserts one row has for it; empty: it is of another kind.
func tuple(query string) string {
	if t, ok := tuples.Load(query); ok {
		return t.(string)
	}
	t := ""
	if m := insertsOne.FindStringSubmatch(query); m != nil {
		t = m[1]
	}
	tuples.Store(query, t)
	return t
}

// merge makes statements that insert one row each into fewer that insert
// several: a database server takes longer for a statement than for a row.
// Between others the order of rows of different tables becomes that of the
// tables' first; what refers to a row that then comes too late is refused, and
// so carried out in its own order once more.
func merge(writes []write) []write {
	if len(writes) < 2 {
		return writes
	}
	var out []write
	for i := 0; i < len(writes); {
		if writes[i].some || tuple(writes[i].query) == "" {
			out = append(out, writes[i])
			i++
			continue
		}
		var order []string
		groups := map[string][]write{}
		for ; i < len(writes) && !writes[i].some && tuple(writes[i].query) != ""; i++ {
			q := writes[i].query
			if groups[q] == nil {
				order = append(order, q)
			}
			groups[q] = append(groups[q], writes[i])
		}
		for _, q := range order {
			out = append(out, mergeEqual(q, groups[q])...)
		}
	}
	return out
}

// mergeEqual merges equal statements; the numbers of rows are powers of two, so that there are few texts.
func mergeEqual(query string, list []write) (out []write) {
	for len(list) > 0 {
		n := maxTuples
		for n > len(list) {
			n /= 2
		}
		if n == 1 {
			return append(out, list...)
		}
		text, ok := merged.Load(merging{query, n})
		if !ok {
			text = query + strings.Repeat(", "+tuple(query), n-1)
			merged.Store(merging{query, n}, text)
		}
		w := write{query: text.(string), each: query, job: list[0].job}
		for _, one := range list[:n] {
			w.args = append(w.args, one.args...)
			if one.job != w.job {
				w.job = nil
			}
		}
		out = append(out, w)
		list = list[n:]
	}
	return out
}

// rowsOf are the arguments of each row.
func rowsOf(w write) [][]any {
	if w.each == "" {
		return [][]any{w.args}
	}
	width := strings.Count(w.each, "?")
	var rows [][]any
	for at := 0; at < len(w.args); at += width {
		rows = append(rows, w.args[at:at+width])
	}
	return rows
}
