package config

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Reference writes Markdown that describes every declared option, by group.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Configuration reference\n\n" +
		"Options are read from INI files and from environment variables named `OS_<GROUP>__<OPTION>`,\n" +
		"which win over files. `$name` and `${group.name}` in a value stand for another option, `$$` for a\n" +
		"dollar sign. Lists are separated by commas, maps are written `key:value,key:value`.\n")
	group := ""
	for _, o := range all() {
		d := o.define()
		if d.group != group {
			group = d.group
			fmt.Fprintf(&b, "\n## [%s]\n", group)
		}
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n\n", d.name, d.help)
		fmt.Fprintf(&b, "* Type: %s\n", d.typeText())
		fmt.Fprintf(&b, "* Default: %s\n", d.defaultMarkdown())
		if len(d.choices) > 0 {
			fmt.Fprintf(&b, "* Choices: `%s`\n", strings.Join(d.choices, "`, `"))
		}
		for _, item := range slices.Sorted(maps.Keys(d.without)) {
			fmt.Fprintf(&b, "* Without effect: `%s`, because %s\n", item, d.without[item])
		}
		if d.secret {
			b.WriteString("* Secret: never shown in logs and listings\n")
		}
		for _, k := range d.deprecated {
			fmt.Fprintf(&b, "* Older name: `[%s] %s`\n", k.group, k.name)
		}
	}
	if list := allNoted(); len(list) > 0 {
		b.WriteString("\n## Options of Neutron without effect\n\n" +
			"They are accepted, so that existing files work, and named once in the log.\n\n" +
			"| Option | Why |\n|---|---|\n")
		for _, n := range list {
			fmt.Fprintf(&b, "| `[%s] %s` | %s |\n", n.group, n.name, n.why)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Sample writes an INI file with every option commented out at its default.
func Sample(w io.Writer) error {
	var b strings.Builder
	group := ""
	for _, o := range all() {
		d := o.define()
		if d.group != group {
			if group != "" {
				b.WriteByte('\n')
			}
			group = d.group
			fmt.Fprintf(&b, "[%s]\n", group)
		}
		b.WriteByte('\n')
		for _, line := range wrap(d.help+" ("+d.typeText()+")", 76) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		if len(d.choices) > 0 {
			fmt.Fprintf(&b, "# One of: %s\n", strings.Join(d.choices, ", "))
		}
		switch {
		case d.compute != nil:
			fmt.Fprintf(&b, "# %s = %s\n", d.name, d.defaultShow)
		case d.unset != "" || d.defaultText == "":
			fmt.Fprintf(&b, "#%s =\n", d.name)
		default:
			for line := range strings.SplitSeq(d.defaultText, "\n") {
				fmt.Fprintf(&b, "#%s = %s\n", d.name, line)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (d *definition) typeText() string {
	text := d.kind
	if d.multi {
		text = "string, may be repeated"
	}
	if bounds := d.bounds(); bounds != "" {
		text += ", " + bounds
	}
	if d.form != nil {
		text += ", " + d.form.Name
	}
	return text
}

func (d *definition) defaultMarkdown() string {
	switch {
	case d.compute != nil:
		return d.defaultShow
	case d.unset != "":
		return "not set: " + d.unset
	case d.defaultText == "":
		return "empty"
	}
	return "`" + strings.ReplaceAll(d.defaultText, "\n", "`, `") + "`"
}

func allNoted() []noted {
	registry.Lock()
	defer registry.Unlock()
	var list []noted
	for _, n := range registry.noted {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b noted) int {
		if c := compareGroups(a.group, b.group); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return list
}

// wrap breaks text into lines of at most width bytes, at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
