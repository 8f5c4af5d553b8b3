// Package doctor looks whether a server or the agent of a host has what it
// needs, and says of what is missing how to get it. It changes nothing.
//
// It must not know how servers and agents work.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Grade of a finding.
type Grade int

const (
	// Well: nothing is to be done.
	Well Grade = iota
	// Note: it works; something may be wanted otherwise.
	Note
	// Bad: it does not work, or soon will not.
	Bad
)

func (g Grade) String() string { return [...]string{"ok", "note", "bad"}[g] }

// Finding is what a check has seen.
type Finding struct {
	Grade Grade
	Text  string
	// Cure says what to do; empty for what is well.
	Cure string
}

// Check looks at one thing. What it finds is in order; nothing found is not printed.
type Check struct {
	Name string
	Look func(ctx context.Context) []Finding
}

// Patience is how long one check may take.
const Patience = 15 * time.Second

// Run carries out checks one after the other and writes what they find. It
// returns how many findings are bad.
func Run(ctx context.Context, out io.Writer, checks []Check) (bad int, err error) {
	for _, c := range checks {
		limited, cancel := context.WithTimeout(ctx, Patience)
		findings := c.Look(limited)
		cancel()
		for _, f := range findings {
			if f.Grade == Bad {
				bad++
			}
			if _, err := fmt.Fprintf(out, "%-5s %-14s %s\n", f.Grade, c.Name, oneLine(f.Text)); err != nil {
				return bad, err
			}
			if f.Cure != "" {
				if _, err := fmt.Fprintf(out, "      %-14s → %s\n", "", oneLine(f.Cure)); err != nil {
					return bad, err
				}
			}
		}
		if err := ctx.Err(); err != nil {
			return bad, err
		}
	}
	return bad, nil
}

// oneLine keeps what others have said on one line, and from moving a terminal's cursor.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f:
			return -1
		}
		return r
	}, strings.TrimSpace(text))
}

func well(format string, args ...any) []Finding {
	return []Finding{{Grade: Well, Text: fmt.Sprintf(format, args...)}}
}

func note(cure, format string, args ...any) []Finding {
	return []Finding{{Grade: Note, Text: fmt.Sprintf(format, args...), Cure: cure}}
}

func bad(cure, format string, args ...any) []Finding {
	return []Finding{{Grade: Bad, Text: fmt.Sprintf(format, args...), Cure: cure}}
}
