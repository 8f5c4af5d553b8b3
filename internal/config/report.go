package config

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// report tells once of each assignment that does nothing and of each older
// name that was used, in the order of the files.
func (c *Config) report(log *slog.Logger) {
	options := all()
	groups := map[string]string{} // folded -> as declared
	older := map[key]*definition{}
	for _, o := range options {
		d := o.define()
		groups[fold(d.group)] = d.group
		for _, k := range d.deprecated {
			groups[k.group] = cmp.Or(groups[k.group], k.group)
			older[k] = d
		}
	}
	registry.Lock()
	ignored := maps.Clone(registry.noted)
	registry.Unlock()
	for k, n := range ignored {
		groups[k.group] = cmp.Or(groups[k.group], n.group)
	}

	sections := map[string]bool{}
	for _, k := range c.inOrder() {
		e := c.entries[k][0]
		place := []any{"file", e.file, "line", e.line, "section", e.section, "option", e.name}
		if find(k) != nil {
			continue
		}
		if d := older[k]; d != nil {
			log.Warn("configuration option has a new name", append(place, "use", d.String())...)
			continue
		}
		if n, ok := ignored[k]; ok {
			log.Info("configuration option has no effect", append(place, "reason", n.why)...)
			continue
		}
		if _, ok := groups[k.group]; !ok {
			if !sections[k.group] {
				sections[k.group] = true
				attrs := []any{"file", e.file, "line", e.line, "section", e.section}
				if near := nearest(k.group, slices.Sorted(maps.Values(groups))); near != "" {
					attrs = append(attrs, "nearest", near)
				}
				log.Info("configuration section is not used", attrs...)
			}
			continue
		}
		if near := nearestOption(k, options); near != "" {
			place = append(place, "nearest", near)
		}
		log.Warn("configuration option is unknown", place...)
	}
	for _, o := range options {
		c.reportItems(o.define(), log)
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.environment), func(a, b key) int {
		return strings.Compare(c.environment[a].name, c.environment[b].name)
	}) {
		if d := older[k]; d != nil && find(k) == nil {
			log.Warn("configuration option has a new name", "variable", c.environment[k].name,
				"use", environmentName(d.group, d.name))
		}
	}
	var names []string
	upper := map[string]bool{}
	for _, o := range options {
		d := o.define()
		names = append(names, environmentName(d.group, d.name))
		upper[strings.ToUpper(d.group)] = true
	}
	for _, name := range c.strangers {
		group, _, _ := strings.Cut(strings.TrimPrefix(name, "OS_"), "__")
		if !upper[group] {
			continue
		}
		attrs := []any{"variable", name}
		if near := nearest(name, names); near != "" {
			attrs = append(attrs, "nearest", near)
		}
		log.Warn("configuration option is unknown", attrs...)
	}
}

// reportItems tells of the items of an option's value that have no effect.
func (c *Config) reportItems(d *definition, log *slog.Logger) {
	if d.without == nil {
		return
	}
	texts, e, err := c.texts(d, nil)
	if err != nil || len(texts) == 0 || e.name == "" {
		return
	}
	place := []any{"file", e.file, "line", e.line, "section", e.section, "option", e.name}
	if e.file == "" {
		place = []any{"variable", e.name}
	}
	for item := range strings.SplitSeq(texts[len(texts)-1], ",") {
		item = strings.TrimSpace(item)
		if why, ok := d.without[item]; ok {
			log.Info("configuration value has no effect", append(slices.Clone(place), "value", item, "reason", why)...)
		}
	}
}

// inOrder are the keys of the files, in the order in which they first appear.
func (c *Config) inOrder() []key {
	return slices.SortedFunc(maps.Keys(c.entries), func(a, b key) int {
		x, y := c.entries[a][0], c.entries[b][0]
		if x.rank != y.rank {
			return x.rank - y.rank
		}
		return x.line - y.line
	})
}

// nearestOption is the option that was probably meant: one of the same name in
// another group, or the most similar one of the group.
func nearestOption(k key, options []registered) string {
	var names []string
	group := ""
	for _, o := range options {
		d := o.define()
		if d.name == k.name {
			return d.String()
		}
		if fold(d.group) == k.group {
			names = append(names, d.name)
			group = d.group
		}
	}
	if near := nearest(k.name, names); near != "" {
		return fmt.Sprintf("[%s] %s", group, near)
	}
	return ""
}

// nearest is the most similar of the names, "" if none is similar.
func nearest(name string, names []string) string {
	best, bestDistance := "", len(name)/3+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance (optimal string alignment):
// insertions, deletions, replacements and exchanges of neighbours.
func distance(a, b string) int {
	if len(a) > 200 || len(b) > 200 {
		return max(len(a), len(b))
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
