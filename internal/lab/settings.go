package lab

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Settings is the content of a configuration file: section, option, value.
type Settings map[string]map[string]string

// merge returns s with what more has added or replaced.
func (s Settings) merge(more Settings) Settings {
	out := Settings{}
	for _, from := range []Settings{s, more} {
		for section, options := range from {
			if out[section] == nil {
				out[section] = map[string]string{}
			}
			maps.Copy(out[section], options)
		}
	}
	return out
}

// write makes the file anew; it may hold secrets.
func (s Settings) write(path string) error {
	var b strings.Builder
	for _, section := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "[%s]\n", section)
		for _, option := range slices.Sorted(maps.Keys(s[section])) {
			value := s[section][option]
			if strings.ContainsAny(value, "\r\n") {
				return fmt.Errorf("configuration %s: [%s] %s has a line break", path, section, option)
			}
			fmt.Fprintf(&b, "%s = %s\n", option, value)
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}
