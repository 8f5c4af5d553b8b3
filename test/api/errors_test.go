package api

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	// errorFacts are the errors that Neutron's server has: status, type and text.
	errorFacts = "testdata/errors.json"
	// errorReasons are those of them that no script produces, below the reason why.
	errorReasons = "testdata/errors.unproduced"
)

// errorFact is an error of the API. Its message is a template: %(name)s and %s
// stand for what is filled in.
type errorFact struct {
	Status  int    `json:"status"`
	Type    string `json:"type"`
	Message string `json:"message"`
	// InPlace tells that the message is part of the type's own template.
	InPlace bool `json:"in_place"`
}

// String is how errorReasons names it.
func (f errorFact) String() string {
	return fmt.Sprintf("%d %s %s", f.Status, f.Type, strings.ReplaceAll(f.Message, "\n", `\n`))
}

var filled = regexp.MustCompile(`%\([a-z_A-Z0-9]+\)[srd]|%[srd]`)

// pattern matches the messages that can come from the template.
func (f errorFact) pattern() *regexp.Regexp {
	var b strings.Builder
	rest := f.Message
	for {
		at := filled.FindStringIndex(rest)
		if at == nil {
			break
		}
		b.WriteString(regexp.QuoteMeta(rest[:at[0]]) + `[\s\S]*`)
		rest = rest[at[1]:]
	}
	b.WriteString(regexp.QuoteMeta(rest))
	if f.InPlace {
		return regexp.MustCompile(b.String())
	}
	return regexp.MustCompile("^" + b.String() + "$")
}

// errorLog holds the errors that scripts expected and got.
type errorLog struct {
	mu   sync.Mutex
	seen map[errorFact]bool
}

func (l *errorLog) add(status int, typ, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[errorFact]bool{}
	}
	l.seen[errorFact{Status: status, Type: typ, Message: message}] = true
}

// check compares with the facts: each error was produced, or is listed with a
// reason why no script can do so.
func (l *errorLog) check(t *testing.T) {
	raw, err := os.ReadFile(errorFacts)
	if err != nil {
		t.Fatal(err)
	}
	var facts []errorFact
	if err := json.Unmarshal(raw, &facts); err != nil {
		t.Fatalf("%s: %v", errorFacts, err)
	}
	reasons := readReasons(t, errorReasons)
	listed, produced := len(reasons), 0
	for _, f := range facts {
		name, matching := f.String(), f.pattern()
		reason, excused := reasons[name]
		delete(reasons, name)
		found := slices.ContainsFunc(l.list(), func(e errorFact) bool {
			return e.Status == f.Status && e.Type == f.Type && matching.MatchString(e.Message)
		})
		switch {
		case found && excused:
			t.Errorf("%s: a script produces it; %s says that none can: %s", name, errorReasons, reason)
		case !found && !excused:
			t.Errorf("no script produces: %s", name)
		case found:
			produced++
		}
	}
	for name := range reasons {
		t.Errorf("%s: no such error: %s", errorReasons, name)
	}
	t.Logf("%d of %d errors are produced with their status, type and message; %d more cannot be here, as %s tells",
		produced, len(facts)-listed, listed, errorReasons)
}

func (l *errorLog) list() []errorFact {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []errorFact
	for e := range l.seen {
		all = append(all, e)
	}
	return all
}

// readReasons reads a list whose lines stand below headings, "## reason", and
// returns the reason of each line. Lines that begin with "# " are comments.
func readReasons(t *testing.T, file string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	reason := ""
	for i, line := range strings.Split(string(raw), "\n") {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "## "):
			reason = line[3:]
		case reason == "":
			t.Fatalf("%s:%d: before the first reason", file, i+1)
		case reasons[line] != "":
			t.Errorf("%s:%d: is there twice", file, i+1)
		default:
			reasons[line] = reason
		}
	}
	return reasons
}
