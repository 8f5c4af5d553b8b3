package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// assignment is one "key = value" of a file, in the order of the file.
type assignment struct {
	section string
	key     string
	value   string // lines of a continued value are joined by "\n"
	line    int    // of the key, from 1
}

// syntaxError is a line that is not INI.
type syntaxError struct {
	line   int
	reason string
	cure   string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("line %d: %s; %s", e.line, e.reason, e.cure)
}

// parseINI reads the dialect of oslo.config:
//
//   - "[section]" must end with "]"; "key = value" or "key: value", whichever
//     separator comes first
//   - a line that starts with "#" or ";" is a comment; there are no comments
//     behind values
//   - a line that starts with space or tab continues the value above it; an
//     empty line ends the value
//   - one pair of equal quotes around the first line of a value is taken off
//   - a key may be repeated
//
// Its syntax errors never contain the text of a line, which may hold a password.
func parseINI(text string) ([]assignment, error) {
	var (
		all     []assignment
		section string
		open    bool // the last assignment may be continued
		number  int
	)
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, " \t\r\n\v\f")
		if line == "" {
			open = false
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			if !open {
				return nil, &syntaxError{number, "the line is indented but there is no value above it to continue",
					"remove the white space at its start, or the empty line or comment before it"}
			}
			if err := checkText(line, number); err != nil {
				return nil, err
			}
			last := &all[len(all)-1]
			last.value += "\n" + strings.TrimLeft(line, " \t")
			continue
		}
		open = false
		switch {
		case line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			if !strings.HasSuffix(line, "]") {
				return nil, &syntaxError{number, `a section must end with "]"`,
					"put a comment on a line of its own"}
			}
			if len(line) <= 2 {
				return nil, &syntaxError{number, "the section has no name", "write for example [DEFAULT]"}
			}
			if err := checkText(line, number); err != nil {
				return nil, err
			}
			section = line[1 : len(line)-1]
		default:
			if err := checkText(line, number); err != nil {
				return nil, err
			}
			at := strings.IndexAny(line, "=:")
			if at < 0 {
				return nil, &syntaxError{number, `there is no "=" or ":"`,
					`write "key = value", or start the line with "#" to make it a comment, or with a space to continue the value above`}
			}
			key := strings.TrimSpace(line[:at])
			if key == "" {
				return nil, &syntaxError{number, "there is no key before the separator", `write "key = value"`}
			}
			if section == "" {
				return nil, &syntaxError{number, "the key is before the first section", `put "[DEFAULT]" on a line above it`}
			}
			all = append(all, assignment{section: section, key: key, value: unquote(strings.TrimSpace(line[at+1:])), line: number})
			open = true
		}
	}
	return all, nil
}

func checkText(line string, number int) error {
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		return &syntaxError{number, "the line is not UTF-8 text", "save the file as UTF-8"}
	}
	return nil
}

func unquote(value string) string {
	if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return value[1 : len(value)-1]
	}
	return value
}
