package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// LoadOptions says where the configuration is.
type LoadOptions struct {
	// Files are read in order, a later one wins; each must be readable. Optional.
	Files []string
	// Dirs are directories whose *.conf files are read after Files, sorted by
	// name. Optional.
	Dirs []string
	// Environ holds NAME=value; OS_<GROUP>__<OPTION> wins over files. Use
	// os.Environ(). Optional.
	Environ []string
	// Logger is told of unknown, deprecated and ignored options. Optional.
	Logger *slog.Logger
}

// Config is what the operator configured. It is immutable and safe for
// concurrent use.
type Config struct {
	entries     map[key][]entry // in order of precedence, the last wins
	environment map[key]entry
	strangers   []string // variables of the form OS_X__Y that name no option
	values      map[key]any
	files       []string
}

// entry is one assignment and its place.
type entry struct {
	text    string
	file    string // "" in the environment
	line    int
	rank    int    // number of the file
	section string // as written
	name    string // option, or the environment variable
}

// ValueError is a value that an option does not take.
type ValueError struct {
	File    string // "" if from the environment or a default
	Line    int
	Section string
	Key     string // of the environment, the variable's name
	Value   string // as written; "" if secret
	Reason  string // what it must be
	Cure    string
}

func (e *ValueError) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s:%d: [%s] %s", e.File, e.Line, e.Section, e.Key)
	} else if e.Section != "" {
		fmt.Fprintf(&b, "[%s] %s", e.Section, e.Key)
	} else {
		fmt.Fprintf(&b, "environment variable %s", e.Key)
	}
	if e.Value != "" {
		fmt.Fprintf(&b, " = %s", strconv.Quote(e.Value))
	}
	fmt.Fprintf(&b, ": %s; %s", e.Reason, e.Cure)
	return b.String()
}

// Load reads files, directories and environment, and checks the value of every
// declared option. The error joins all that is wrong: *ValueError for values,
// *fs.PathError and syntax errors, with their place, for files.
func Load(o LoadOptions) (*Config, error) {
	c := newConfig()
	files := slices.Clone(o.Files)
	var wrong []error
	for _, dir := range o.Dirs {
		list, err := filesOf(dir)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		files = append(files, list...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("configuration file: %w; %s", err, cureOf(err)))
			continue
		}
		if err := c.addFile(file, string(text)); err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	c.addEnvironment(o.Environ)
	if err := c.resolve(); err != nil {
		return nil, err
	}
	if o.Logger != nil {
		c.report(o.Logger)
	}
	return c, nil
}

// FromText makes a Config of the text of one file.
func FromText(text string) (*Config, error) {
	c := newConfig()
	if err := c.addFile("text", text); err != nil {
		return nil, err
	}
	if err := c.resolve(); err != nil {
		return nil, err
	}
	return c, nil
}

// Files lists the files that were read, in order.
func (c *Config) Files() []string {
	if c == nil {
		return nil
	}
	return slices.Clone(c.files)
}

// LogValue names the files; values may be secret.
func (c *Config) LogValue() slog.Value { return slog.AnyValue(c.Files()) }

// String names the files; values may be secret.
func (c *Config) String() string { return "configuration from " + c.filesText() }

// GoString is String.
func (c *Config) GoString() string { return c.String() }

func newConfig() *Config {
	return &Config{entries: map[key][]entry{}, environment: map[key]entry{}, values: map[key]any{}}
}

func filesOf(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("configuration directory: %w; %s", err, cureOf(err))
	}
	var files []string
	for _, e := range entries { // ReadDir sorts
		if name := e.Name(); strings.HasSuffix(name, ".conf") && !strings.HasPrefix(name, ".") && !e.IsDir() {
			files = append(files, filepath.Join(dir, name))
		}
	}
	return files, nil
}

func cureOf(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create it, or correct --config-file or --config-dir"
	case errors.Is(err, fs.ErrPermission):
		return "let the user who runs isospin read it"
	}
	return "it must be a readable file"
}

func (c *Config) addFile(file, text string) error {
	list, err := parseINI(text)
	if err != nil {
		var s *syntaxError
		if errors.As(err, &s) {
			return fmt.Errorf("%s:%d: %s; %s", file, s.line, s.reason, s.cure)
		}
		return fmt.Errorf("%s: %w", file, err)
	}
	c.files = append(c.files, file)
	for _, a := range list {
		k := key{fold(a.section), a.key}
		c.entries[k] = append(c.entries[k], entry{text: a.value, file: file, line: a.line,
			rank: len(c.files), section: a.section, name: a.key})
	}
	return nil
}

func environmentName(group, name string) string {
	return "OS_" + strings.ToUpper(group) + "__" + strings.ToUpper(name)
}

func (c *Config) addEnvironment(environ []string) {
	variables := map[string]string{}
	for _, v := range environ {
		if name, text, ok := strings.Cut(v, "="); ok && strings.HasPrefix(name, "OS_") && strings.Contains(name, "__") {
			variables[name] = text
		}
	}
	if len(variables) == 0 {
		return
	}
	known := map[string]bool{}
	for _, o := range all() {
		d := o.define()
		for _, k := range d.names() {
			name := environmentName(k.group, k.name)
			if text, ok := variables[name]; ok {
				c.environment[k] = entry{text: text, name: name}
				known[name] = true
			}
		}
	}
	for name := range variables {
		if !known[name] {
			c.strangers = append(c.strangers, name)
		}
	}
	slices.Sort(c.strangers)
}

// names are the option's name and the older ones, in order of precedence.
func (d *definition) names() []key { return append([]key{d.key()}, d.deprecated...) }

// resolve reads every option, so that Of cannot fail.
func (c *Config) resolve() error {
	var wrong []*ValueError
	for _, o := range all() {
		v, err := o.readAny(c)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		c.values[o.define().key()] = v
	}
	slices.SortStableFunc(wrong, func(a, b *ValueError) int {
		return cmp.Or(cmp.Compare(slices.Index(c.files, a.File), slices.Index(c.files, b.File)), cmp.Compare(a.Line, b.Line))
	})
	list := make([]error, len(wrong))
	for i, err := range wrong {
		list[i] = err
	}
	return errors.Join(list...)
}

func (c *Config) lookup(k key) any {
	if c == nil {
		return nil
	}
	return c.values[k]
}

// entriesOf are the assignments that make the option's value: the one that
// wins, or all of them if the option is repeated. An empty number is not
// set, as with oslo.config, nor is an empty boolean that has no default.
func (c *Config) entriesOf(d *definition) []entry {
	if c == nil {
		return nil
	}
	var list []entry
	for _, k := range d.names() {
		if e, ok := c.environment[k]; ok {
			list = []entry{e}
			break
		}
	}
	if list == nil {
		for _, k := range d.names() {
			for _, e := range c.entries[k] {
				if d.multi {
					list = append(list, e)
					continue
				}
				// A later file wins over the name, within a file the current
				// name wins over an older one.
				if len(list) == 0 || e.rank > list[0].rank || e.rank == list[0].rank && e.name == list[0].name &&
					fold(e.section) == fold(list[0].section) {
					list = []entry{e}
				}
			}
		}
		if d.multi {
			slices.SortStableFunc(list, func(a, b entry) int { return a.rank - b.rank })
		}
	}
	if len(list) == 1 && strings.TrimSpace(list[0].text) == "" &&
		(d.kind == "integer" || d.kind == "number" || d.kind == "boolean" && d.unset != "") {
		return nil
	}
	return list
}

// texts are the option's substituted texts, nil if its default needs no
// reading. The entry is where they come from, zero for a default. path holds
// the options whose substitution led here.
func (c *Config) texts(d *definition, path []key) ([]string, entry, error) {
	entries := c.entriesOf(d)
	if len(entries) == 0 {
		text := d.defaultText
		if d.compute != nil {
			text = d.compute()
		}
		if d.compute == nil && !strings.Contains(text, "$") {
			return nil, entry{}, nil
		}
		text, err := c.substitute(text, d.group, append(path, d.key()))
		return []string{text}, entry{}, err
	}
	var texts []string
	for _, e := range entries {
		if !utf8.ValidString(e.text) {
			return nil, e, errors.New("must be UTF-8 text")
		}
		text, err := c.substitute(e.text, d.group, append(path, d.key()))
		if err != nil {
			return nil, e, err
		}
		texts = append(texts, text)
	}
	return texts, entries[len(entries)-1], nil
}

// blame makes the error of an option's value.
func (c *Config) blame(d *definition, e entry, err error) *ValueError {
	v := &ValueError{File: e.file, Line: e.line, Section: e.section, Key: e.name, Reason: err.Error()}
	if e.name == "" { // a default
		v.Section, v.Key = d.group, d.name
	}
	var reference *referenceError
	if errors.As(err, &reference) && d.secret {
		v.Reason = hiddenReference // the name may be a part of a password
	}
	if !d.secret {
		v.Value = e.text
	}
	switch {
	case reference != nil:
		v.Cure = "correct the reference, or write $$ for a dollar sign"
	case len(d.choices) > 0 || d.kind == "boolean":
		v.Cure = "choose one of them"
	default:
		v.Cure = "correct it"
	}
	if d.compute == nil && d.unset == "" && d.defaultText != "" && e.name != "" {
		v.Cure += ", or remove it for the default, " + strconv.Quote(d.defaultText)
	}
	return v
}

func (c *Config) filesText() string {
	if c == nil || len(c.files) == 0 {
		return "a configuration file"
	}
	return strings.Join(c.files, ", ")
}

// Effective writes the value of every option that differs from its default,
// and where it was set, as a commented INI file. Secrets are masked.
func (c *Config) Effective(w io.Writer) error {
	var b strings.Builder
	group := ""
	for _, o := range all() {
		d := o.define()
		entries := c.entriesOf(d)
		if len(entries) == 0 {
			continue
		}
		if d.group != group {
			if group != "" {
				b.WriteByte('\n')
			}
			group = d.group
			fmt.Fprintf(&b, "[%s]\n", group)
		}
		for _, e := range entries {
			if e.file == "" {
				fmt.Fprintf(&b, "# %s\n", e.name)
			} else {
				fmt.Fprintf(&b, "# %s:%d\n", e.file, e.line)
			}
			text := strings.ReplaceAll(e.text, "\n", "\n    ")
			if d.secret {
				text = "***"
			}
			fmt.Fprintf(&b, "%s = %s\n", d.name, text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
