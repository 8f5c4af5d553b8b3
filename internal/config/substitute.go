package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var reference = regexp.MustCompile(`\\?\$(?:\$|([A-Za-z_][._A-Za-z0-9]*)|\{([A-Za-z_][._A-Za-z0-9]*)\})?`)

// maxReferences is how deep references may nest.
const maxReferences = 10

const hiddenReference = "a $name in it is not an option, refers to itself or is nested too deeply"

// referenceError is a "$name" that cannot be replaced.
type referenceError struct{ reason string }

func (e *referenceError) Error() string { return e.reason }

// substitute replaces "$name", "$group.name" and "${group.name}" by that
// option's text; a name alone is looked for in group, then in DEFAULT. "$$"
// and "\$" are a dollar sign, as is one that no name follows.
func (c *Config) substitute(text, group string, path []key) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	var failed error
	out := reference.ReplaceAllStringFunc(text, func(found string) string {
		if failed != nil {
			return ""
		}
		m := reference.FindStringSubmatch(found)
		name := m[1] + m[2]
		if strings.HasPrefix(found, `\`) {
			return strings.TrimPrefix(found, `\`)
		}
		if name == "" {
			return "$"
		}
		value, err := c.referred(name, group, path)
		if err != nil {
			failed = err
		}
		return value
	})
	return out, failed
}

// referred is the text of the option that a reference names.
func (c *Config) referred(name, group string, path []key) (string, error) {
	if len(path) > maxReferences {
		return "", &referenceError{fmt.Sprintf("$%s is nested too deeply", name)}
	}
	candidates := []key{{fold(group), name}, {"DEFAULT", name}}
	if g, n, ok := strings.Cut(name, "."); ok {
		candidates = []key{{fold(g), n}}
	}
	for _, k := range candidates {
		// An option of the same name in DEFAULT is what [x] y = $y means.
		if slices.Contains(path, k) && k != candidates[len(candidates)-1] && k == path[len(path)-1] {
			continue
		}
		d := &definition{group: k.group, name: k.name, kind: "string"}
		if o := find(k); o != nil {
			d = o.define()
		} else if c == nil || len(c.entries[k]) == 0 {
			continue
		}
		if slices.Contains(path, k) {
			return "", &referenceError{fmt.Sprintf("$%s refers to itself by way of %s", name, d)}
		}
		texts, _, err := c.texts(d, path)
		if err != nil {
			var nested *referenceError
			if d.secret && errors.As(err, &nested) {
				err = &referenceError{hiddenReference}
			}
			return "", fmt.Errorf("$%s: %w", name, err)
		}
		if texts == nil {
			return d.defaultText, nil
		}
		if d.multi {
			return strings.Join(texts, ","), nil
		}
		return texts[len(texts)-1], nil
	}
	return "", &referenceError{fmt.Sprintf("$%s is not an option", name)}
}
