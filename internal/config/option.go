package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Option is the typed key of one option. It holds no value: Of takes that from
// a Config.
type Option[T any] struct {
	*definition
	fallback T
	// parse makes the value from the texts of the repeated key (never empty),
	// substituted. Its errors do not repeat the text.
	parse func(d *definition, texts []string) (T, error)
	clone func(T) T // nil: T is immutable
}

// definition is what an option is, apart from its Go type.
type definition struct {
	group, name string
	kind        string // as the reference shows it
	help        string
	defaultText string // as one writes it in a file; of a Multi, one line per value
	defaultShow string // what the reference shows in place of a default that depends on the machine
	unset       string // what it means that the option has no value; "" if it always has one
	compute     func() string
	choices     []string
	min, max    *int
	secret      bool
	multi       bool
	deprecated  []key
	form        *Form
	without     map[string]string // items of a list that have no effect, with the reason
}

// key is the name of an option; group is folded.
type key struct{ group, name string }

func (d *definition) key() key { return key{fold(d.group), d.name} }

// fold makes a group's name what it is looked up by. oslo.config compares
// sections without regard to case, except DEFAULT, which is written so.
func fold(group string) string {
	if group == "DEFAULT" {
		return group
	}
	return strings.ToLower(group)
}

// Form is a constraint on the text of a value, or of each item of a list or
// value of a map.
type Form struct {
	// Name says what is expected, e.g. "an IP address"; required.
	Name string
	// Check must not repeat the text in its error, since the text may be a
	// secret. Required.
	Check func(text string) error
}

// Setting refines a declaration.
type Setting func(*definition)

// Choices limits the value, or each item of a list, to the given texts.
func Choices(texts ...string) Setting { return func(d *definition) { d.choices = texts } }

// Min is the lowest number allowed.
func Min(n int) Setting { return func(d *definition) { d.min = &n } }

// Max is the highest number allowed.
func Max(n int) Setting { return func(d *definition) { d.max = &n } }

// Secret keeps the value out of logs, errors and listings.
func Secret() Setting { return func(d *definition) { d.secret = true } }

// Deprecated is an older name that is still read, with a warning. It may be
// given more than once.
func Deprecated(group, name string) Setting {
	return func(d *definition) { d.deprecated = append(d.deprecated, key{fold(group), name}) }
}

// Formed demands a form of the value. The empty value passes: it is an option
// that is not set.
func Formed(f *Form) Setting { return func(d *definition) { d.form = f } }

// WithoutEffect takes an item out of a list, whoever writes it; why completes
// "has no effect: ". It may be given more than once.
func WithoutEffect(item, why string) Setting {
	return func(d *definition) {
		if d.without == nil {
			d.without = map[string]string{}
		}
		d.without[item] = why
	}
}

// Unset says what it means that the option is not set, for options whose
// default is no value. IsSet tells.
func Unset(meaning string) Setting { return func(d *definition) { d.unset = meaning } }

// Computed gives a String option a default that depends on the machine; show
// is what the documentation prints instead.
func Computed(show string, compute func() string) Setting {
	return func(d *definition) { d.compute, d.defaultShow = compute, show }
}

// String declares an option whose value is the text. "$name" and
// "${group.name}" in the default are substituted as in files.
func String(group, name, def, help string, settings ...Setting) *Option[string] {
	return declare("string", group, name, def, def, help, settings, parseString, nil)
}

// Bool declares an option that is true, 1, on or yes, or false, 0, off or no.
func Bool(group, name string, def bool, help string, settings ...Setting) *Option[bool] {
	return declare("boolean", group, name, def, strconv.FormatBool(def), help, settings, parseBool, nil)
}

// Int declares an option that is a decimal integer.
func Int(group, name string, def int, help string, settings ...Setting) *Option[int] {
	return declare("integer", group, name, def, strconv.Itoa(def), help, settings, parseInt, nil)
}

// Float declares an option that is a decimal number.
func Float(group, name string, def float64, help string, settings ...Setting) *Option[float64] {
	return declare("number", group, name, def, strconv.FormatFloat(def, 'g', -1, 64), help, settings, parseFloat, nil)
}

// Strings declares a comma-separated list (oslo's ListOpt). White space around
// items and empty items are dropped.
func Strings(group, name string, def []string, help string, settings ...Setting) *Option[[]string] {
	return declare("list", group, name, def, strings.Join(def, ","), help, settings, parseList, slices.Clone[[]string])
}

// Multi declares an option whose key is repeated, one value each (oslo's
// MultiStrOpt). The values of all files add up, in order.
func Multi(group, name string, def []string, help string, settings ...Setting) *Option[[]string] {
	return declare("multi", group, name, def, strings.Join(def, "\n"), help, settings, parseMulti, slices.Clone[[]string])
}

// Map declares a list of key:value pairs (oslo's DictOpt), "a:b,c:d".
func Map(group, name string, def map[string]string, help string, settings ...Setting) *Option[map[string]string] {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(def)) {
		pairs = append(pairs, k+":"+def[k])
	}
	return declare("map", group, name, def, strings.Join(pairs, ","), help, settings, parseMap, maps.Clone[map[string]string])
}

// Of is the option's value in c, or its default. A nil Config has only
// defaults.
func (o *Option[T]) Of(c *Config) T {
	v, ok := c.lookup(o.key()).(T)
	if !ok {
		// Not loaded: c is nil, or the declaration came after Load.
		var err *ValueError
		if v, err = o.read(c); err != nil {
			v = o.fallback
		}
	}
	if o.clone != nil {
		return o.clone(v)
	}
	return v
}

// IsSet tells whether a file or the environment gives the option a value.
func (o *Option[T]) IsSet(c *Config) bool { return len(c.entriesOf(o.definition)) > 0 }

// Required is Of, with an error that names the option and the files if it has
// no value.
func (o *Option[T]) Required(c *Config) (T, error) {
	if !o.IsSet(c) && o.defaultText == "" && o.compute == nil {
		var zero T
		return zero, fmt.Errorf("option %s is not set; set it in %s or as %s in the environment",
			o, c.filesText(), environmentName(o.group, o.name))
	}
	return o.Of(c), nil
}

// String is "[group] name".
func (d *definition) String() string { return "[" + d.group + "] " + d.name }

// read resolves the option from c's entries, or from its default.
func (o *Option[T]) read(c *Config) (T, *ValueError) {
	texts, where, err := c.texts(o.definition, nil)
	if err != nil {
		return o.fallback, c.blame(o.definition, where, err)
	}
	if texts == nil {
		return o.fallback, nil
	}
	v, err := o.parse(o.definition, texts)
	if err != nil {
		return o.fallback, c.blame(o.definition, where, err)
	}
	return v, nil
}

func (o *Option[T]) readAny(c *Config) (any, *ValueError) {
	v, err := o.read(c)
	return v, err
}

func (o *Option[T]) define() *definition { return o.definition }

// registered is an Option of any type.
type registered interface {
	define() *definition
	readAny(c *Config) (any, *ValueError)
}

// noted is an option of Neutron that has no effect here.
type noted struct{ group, name, why string }

var registry = struct {
	sync.Mutex
	options map[key]registered
	noted   map[key]noted
}{options: map[key]registered{}, noted: map[key]noted{}}

// NoEffect registers an option of Neutron that is accepted without a warning
// and does nothing here; why completes "has no effect: ".
func NoEffect(group, name, why string) {
	registry.Lock()
	defer registry.Unlock()
	k := key{fold(group), name}
	if o := registry.options[k]; o != nil {
		panic(fmt.Sprintf("config: %s is an option and cannot be without effect", o.define()))
	}
	registry.noted[k] = noted{group, name, why}
}

// all returns every option, sorted by group (DEFAULT first) and name.
func all() []registered {
	registry.Lock()
	defer registry.Unlock()
	list := slices.Collect(maps.Values(registry.options))
	slices.SortFunc(list, func(a, b registered) int {
		x, y := a.define(), b.define()
		return cmp.Or(compareGroups(x.group, y.group), cmp.Compare(x.name, y.name))
	})
	return list
}

func compareGroups(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "DEFAULT":
		return -1
	case b == "DEFAULT":
		return 1
	}
	return cmp.Or(cmp.Compare(fold(a), fold(b)), cmp.Compare(a, b))
}

func find(k key) registered {
	registry.Lock()
	defer registry.Unlock()
	return registry.options[k]
}

func declare[T any](kind, group, name string, def T, text, help string, settings []Setting,
	parse func(*definition, []string) (T, error), clone func(T) T) *Option[T] {
	d := &definition{group: group, name: name, kind: kind, help: help, defaultText: text, multi: kind == "multi"}
	for _, set := range settings {
		set(d)
	}
	o := &Option[T]{definition: d, fallback: def, parse: parse, clone: clone}
	if group == "" || name == "" || help == "" {
		panic(fmt.Sprintf("config: option %s needs a group, a name and a help text", d))
	}
	if (d.min != nil || d.max != nil) && kind != "integer" && kind != "number" {
		panic(fmt.Sprintf("config: option %s is not a number, it cannot have bounds", d))
	}
	if d.without != nil && kind != "list" {
		panic(fmt.Sprintf("config: option %s is not a list, it cannot have items without effect", d))
	}
	if d.compute != nil && kind != "string" {
		panic(fmt.Sprintf("config: option %s is not a string, its default cannot be computed", d))
	}
	if d.unset == "" && text != "" && !strings.Contains(text, "$") {
		texts := []string{text}
		if d.multi {
			texts = def2texts(def)
		}
		if _, err := parse(d, texts); err != nil {
			panic(fmt.Sprintf("config: the default of option %s is not valid: %v", d, err))
		}
	}

	registry.Lock()
	defer registry.Unlock()
	k := d.key()
	if _, ok := registry.noted[k]; ok {
		panic(fmt.Sprintf("config: option %s is registered as one without effect", d))
	}
	if old, ok := registry.options[k]; ok {
		same, ok := old.(*Option[T])
		if !ok || !same.equal(d) {
			panic(fmt.Sprintf("config: option %s is declared twice, differently", d))
		}
		return same
	}
	registry.options[k] = o
	return o
}

func def2texts(def any) []string {
	list, _ := def.([]string)
	return list
}

// equal compares what can be compared: of a computed default, that there is one.
func (d *definition) equal(e *definition) bool {
	bound := func(a, b *int) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
	return d.group == e.group && d.kind == e.kind && d.help == e.help && d.defaultText == e.defaultText &&
		d.defaultShow == e.defaultShow && d.unset == e.unset && (d.compute == nil) == (e.compute == nil) &&
		slices.Equal(d.choices, e.choices) && bound(d.min, e.min) && bound(d.max, e.max) &&
		d.secret == e.secret && slices.Equal(d.deprecated, e.deprecated) && d.form == e.form && maps.Equal(d.without, e.without)
}

// check applies choices and form to one text.
func (d *definition) check(text string) error {
	if d.choices != nil && !slices.Contains(d.choices, text) {
		return fmt.Errorf("must be one of %s", strings.Join(quoted(d.choices), ", "))
	}
	if d.form != nil && text != "" {
		if err := d.form.Check(text); err != nil {
			return fmt.Errorf("must be %s: %w", d.form.Name, err)
		}
	}
	return nil
}

func quoted(texts []string) []string {
	list := make([]string, len(texts))
	for i, t := range texts {
		list[i] = strconv.Quote(t)
	}
	return list
}

func (d *definition) bounds() string {
	switch {
	case d.min != nil && d.max != nil:
		return fmt.Sprintf("from %d to %d", *d.min, *d.max)
	case d.min != nil:
		return fmt.Sprintf("%d or more", *d.min)
	case d.max != nil:
		return fmt.Sprintf("%d or less", *d.max)
	}
	return ""
}

func (d *definition) inBounds(n float64) error {
	if d.min != nil && n < float64(*d.min) || d.max != nil && n > float64(*d.max) || math.IsNaN(n) {
		if d.bounds() == "" {
			return errors.New("must be a number")
		}
		return errors.New("must be " + d.bounds())
	}
	return nil
}

func parseString(d *definition, texts []string) (string, error) {
	text := texts[len(texts)-1]
	return text, d.check(text)
}

func parseBool(d *definition, texts []string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(texts[len(texts)-1])) {
	case "true", "1", "on", "yes":
		return true, nil
	case "false", "0", "off", "no":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

func parseInt(d *definition, texts []string) (int, error) {
	text := strings.TrimSpace(texts[len(texts)-1])
	n, err := strconv.Atoi(text)
	if err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, errors.New("is too large a number")
		}
		return 0, errors.New("must be an integer")
	}
	if err := d.inBounds(float64(n)); err != nil {
		return 0, err
	}
	return n, d.check(strconv.Itoa(n))
}

func parseFloat(d *definition, texts []string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSpace(texts[len(texts)-1]), 64)
	if err != nil || math.IsInf(n, 0) {
		return 0, errors.New("must be a number")
	}
	return n, d.inBounds(n)
}

func parseList(d *definition, texts []string) ([]string, error) {
	var list []string
	for item := range strings.SplitSeq(texts[len(texts)-1], ",") {
		item = strings.TrimSpace(item)
		if _, without := d.without[item]; without || item == "" {
			continue
		}
		if err := d.check(item); err != nil {
			return nil, fmt.Errorf("item %d %w", len(list)+1, err)
		}
		list = append(list, item)
	}
	return list, nil
}

func parseMulti(d *definition, texts []string) ([]string, error) {
	var list []string
	for _, text := range texts {
		if text == "" {
			continue
		}
		if err := d.check(text); err != nil {
			return nil, fmt.Errorf("value %d %w", len(list)+1, err)
		}
		list = append(list, text)
	}
	return list, nil
}

func parseMap(d *definition, texts []string) (map[string]string, error) {
	m := map[string]string{}
	for pair := range strings.SplitSeq(texts[len(texts)-1], ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok || name == "":
			return nil, fmt.Errorf("pair %d must be written key:value, with commas between pairs", len(m)+1)
		case hasKey(m, name):
			return nil, fmt.Errorf("pair %d has the key of an earlier pair", len(m)+1)
		}
		if err := d.check(value); err != nil {
			return nil, fmt.Errorf("the value of pair %d %w", len(m)+1, err)
		}
		m[name] = value
	}
	return m, nil
}

func hasKey(m map[string]string, name string) bool {
	_, ok := m[name]
	return ok
}
