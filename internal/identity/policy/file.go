package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// readFile parses a policy file: JSON when it begins with "{", else the part
// of YAML that a flat mapping of texts needs. Errors name file and line.
func readFile(file string) ([]override, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%s: it is not UTF-8", file)
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	var list []override
	if trimmed := bytes.TrimSpace(raw); len(trimmed) > 0 && trimmed[0] == '{' {
		list, err = parseJSON(file, raw)
	} else {
		list, err = parseYAML(file, string(raw))
	}
	if err != nil {
		return nil, err
	}
	lines := map[string]int{}
	for _, o := range list {
		if first, twice := lines[o.name]; twice {
			return nil, fmt.Errorf("%s:%d: %q is there already, in line %d", file, o.line, o.name, first)
		}
		lines[o.name] = o.line
	}
	return list, nil
}

// parseYAML reads lines of the form name: expression. Both may be quoted; an
// expression that is not has to be free of what YAML gives a meaning.
func parseYAML(file, text string) ([]override, error) {
	var list []override
	for i, line := range strings.Split(text, "\n") {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", file, i+1, fmt.Sprintf(format, args...))
		}
		line = strings.TrimRight(line, " \t\r")
		switch {
		case line == "" || strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") || line == "---" || line == "...":
			continue
		case line[0] == ' ' || line[0] == '\t':
			return nil, wrong("indented lines are not read: write every rule on one line, as \"name\": \"expression\"")
		}
		name, rest, err := scalar(line, true)
		if err != nil {
			return nil, wrong("%v", err)
		}
		if name == "" {
			return nil, wrong("the name of the rule is missing")
		}
		rest, ok := strings.CutPrefix(strings.TrimLeft(rest, " \t"), ":")
		if !ok || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return nil, wrong("there is no \": \" after the name %q", name)
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" || rest[0] == '#' {
			return nil, wrong("%q has no expression; write \"\" for always, \"!\" for never", name)
		}
		expression, rest, err := scalar(rest, false)
		if err != nil {
			return nil, wrong("%q: %v", name, err)
		}
		if after := strings.TrimLeft(rest, " \t"); after != "" && (after == rest || after[0] != '#') {
			return nil, wrong("%q: %q follows the expression", name, after)
		}
		list = append(list, override{name: name, text: expression, file: file, line: i + 1})
	}
	return list, nil
}

// scalar reads a quoted or plain text and returns what follows it.
func scalar(line string, key bool) (text, rest string, err error) {
	switch line[0] {
	case '\'':
		var b strings.Builder
		for at := 1; ; {
			n := strings.IndexByte(line[at:], '\'')
			if n < 0 {
				return "", "", fmt.Errorf("the text %s is not closed in its line", line)
			}
			b.WriteString(line[at : at+n])
			at += n + 1
			if !strings.HasPrefix(line[at:], "'") {
				return b.String(), line[at:], nil
			}
			b.WriteByte('\'')
			at++
		}
	case '"':
		for at := 1; at < len(line); at++ {
			switch line[at] {
			case '\\':
				at++
			case '"':
				text, err := strconv.Unquote(strings.ReplaceAll(line[:at+1], `\/`, "/"))
				if err != nil {
					return "", "", fmt.Errorf("the text %s has an escape that is not known", line[:at+1])
				}
				return text, line[at+1:], nil
			}
		}
		return "", "", fmt.Errorf("the text %s is not closed in its line", line)
	}
	if strings.ContainsRune("!&*-?|>%@`{}[],#:", rune(line[0])) {
		return "", "", fmt.Errorf("a text that begins with %q must be in quotes", line[:1])
	}
	text = line
	if i := strings.Index(text, " #"); i >= 0 {
		text = text[:i]
	}
	if key {
		i := strings.Index(text+" ", ": ")
		if i < 0 {
			return "", "", fmt.Errorf("there is no \": \" after a name")
		}
		return strings.TrimRight(text[:i], " \t"), line[i:], nil
	}
	if strings.Contains(text+" ", ": ") {
		return "", "", fmt.Errorf("a text with \": \" in it must be in quotes")
	}
	rest = line[len(text):]
	text = strings.TrimRight(text, " \t")
	switch strings.ToLower(text) {
	case "null", "~", "true", "false", "yes", "no", "on", "off":
		return "", "", fmt.Errorf("%s is no expression", text)
	}
	return text, rest, nil
}

// parseJSON reads an object of texts; in the old list form, a value is a list
// of alternatives, each a check or a list of checks that all must hold.
func parseJSON(file string, raw []byte) ([]override, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	line := func() int { return 1 + bytes.Count(raw[:min(int(d.InputOffset()), len(raw))], []byte("\n")) }
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%s:%d: %s", file, line(), fmt.Sprintf(format, args...))
	}
	if _, err := d.Token(); err != nil { // the brace that brought us here
		return nil, wrong("%v", err)
	}
	var list []override
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, wrong("%v", err)
		}
		name, _ := key.(string)
		o := override{name: name, file: file, line: line()}
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, wrong("%q: %v", name, err)
		}
		switch v := v.(type) {
		case string:
			o.text = v
		case []any:
			if o.text, err = fromLists(v); err != nil {
				return nil, wrong("%q: %v", name, err)
			}
		default:
			return nil, wrong("%q: the expression must be a text", name)
		}
		list = append(list, o)
	}
	if _, err := d.Token(); err != nil {
		return nil, wrong("%v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, wrong("something follows the object")
	}
	return list, nil
}

func fromLists(lists []any) (string, error) {
	var alternatives []string
	for _, v := range lists {
		inner, ok := v.([]any)
		if !ok {
			inner = []any{v}
		}
		var all []string
		for _, c := range inner {
			text, ok := c.(string)
			if !ok {
				return "", fmt.Errorf("a list must hold texts or lists of texts")
			}
			all = append(all, text)
		}
		if len(all) > 0 {
			alternatives = append(alternatives, "("+strings.Join(all, " and ")+")")
		}
	}
	return strings.Join(alternatives, " or "), nil
}

// source is where files are.
type source struct {
	file string // empty: none
	// optional: the file need not be there.
	optional bool
	dirs     []string
}

// files lists what is there, in the order of reading: the file, then the files
// of each directory by name, but for hidden ones.
func (s source) files() ([]string, error) {
	var list []string
	if s.file != "" {
		switch _, err := os.Stat(s.file); {
		case err == nil:
			list = append(list, s.file)
		case !os.IsNotExist(err) || !s.optional:
			return nil, fmt.Errorf("[oslo_policy] policy_file: %w", err)
		}
	}
	for _, dir := range s.dirs {
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("[oslo_policy] policy_dirs: %w", err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
				list = append(list, filepath.Join(dir, e.Name()))
			}
		}
	}
	return list, nil
}

// stamp tells one state of a file from another.
type stamp struct {
	file     string
	modified time.Time
	size     int64
}

func stamps(files []string) ([]stamp, error) {
	list := make([]stamp, len(files))
	for i, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return nil, err
		}
		list[i] = stamp{f, info.ModTime(), info.Size()}
	}
	return list, nil
}

// read returns the rules of all files, and their state from before they were read.
func (s source) read() ([]override, []stamp, error) {
	files, err := s.files()
	if err != nil {
		return nil, nil, err
	}
	state, err := stamps(files)
	if err != nil {
		return nil, nil, err
	}
	var all []override
	for _, f := range files {
		list, err := readFile(f)
		if err != nil {
			return nil, state, err
		}
		all = append(all, list...)
	}
	return all, state, nil
}

// changed tells whether the files are no longer in that state. What cannot be
// looked at has changed: reading it says why.
func (s source) changed(since []stamp) bool {
	files, err := s.files()
	if err != nil {
		return true
	}
	now, err := stamps(files)
	return err != nil || !slices.Equal(now, since)
}
