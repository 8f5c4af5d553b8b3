package upgrade

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"isospin/internal/server"
	"isospin/internal/store"
)

var update = flag.Bool("update", false, "freeze new steps in testdata/schema.golden")

const golden = "testdata/schema.golden"

// step is one of a module's steps: a release that has run it never looks at it again.
type step struct {
	module  string
	version int
	text    []string
}

func (s step) String() string { return fmt.Sprintf("%s %d", s.module, s.version) }

var spaces = regexp.MustCompile(`\s+`)

// steps are those of this program; white space is of no account.
func steps(t *testing.T) (list []step) {
	t.Helper()
	schemas, err := server.Schemas()
	if err != nil {
		t.Fatal(err)
	}
	for _, schema := range store.All(schemas...) {
		for i, statements := range schema.Steps {
			s := step{module: schema.Module, version: i + 1}
			for _, text := range statements {
				s.text = append(s.text, strings.TrimSpace(spaces.ReplaceAllString(text, " ")))
			}
			list = append(list, s)
		}
	}
	return list
}

const heading = "== "

// parse reads what write has written.
func parse(text string) (list []step, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, heading); ok {
			var s step
			if _, err := fmt.Sscanf(name, "%s %d", &s.module, &s.version); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			list = append(list, s)
		} else if line != "" && !strings.HasPrefix(line, "#") {
			if len(list) == 0 {
				return nil, fmt.Errorf("%q is in no step", line)
			}
			s := &list[len(list)-1]
			s.text = append(s.text, line)
		}
	}
	return list, nil
}

func write(list []step) string {
	var text strings.Builder
	text.WriteString("# Steps of the schema. Databases have run them: they are never changed. New ones: go test ./test/upgrade -update\n")
	for _, s := range list {
		fmt.Fprintf(&text, "\n%s%s\n", heading, s)
		for _, line := range s.text {
			text.WriteString(line + "\n")
		}
	}
	return text.String()
}

// changed says what became of frozen steps.
func changed(frozen, have []step) (complaints []string) {
	for _, old := range frozen {
		i := slices.IndexFunc(have, func(s step) bool { return s.String() == old.String() })
		switch {
		case i < 0:
			complaints = append(complaints, fmt.Sprintf("step %s is gone: databases have its version, and would be refused as newer than this program. Put it back.", old))
		case !slices.Equal(have[i].text, old.text):
			complaints = append(complaints, fmt.Sprintf("step %s has changed, but databases that have run it will not run it again. Put it back, and append a step that makes the change.\nwas:\n%s\nis:\n%s",
				old, strings.Join(old.text, "\n"), strings.Join(have[i].text, "\n")))
		}
	}
	return complaints
}

// TestStepsAreFrozen: steps that a database may have run are as they were then.
func TestStepsAreFrozen(t *testing.T) {
	have := steps(t)
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if complaints := changed(frozen, have); len(complaints) > 0 {
		t.Fatal(strings.Join(complaints, "\n"))
	}
	var fresh []step
	for _, s := range have {
		if !slices.ContainsFunc(frozen, func(old step) bool { return old.String() == s.String() }) {
			fresh = append(fresh, s)
		}
	}
	switch {
	case len(fresh) == 0:
	case *update:
		if err := os.WriteFile(golden, []byte(write(have)), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Logf("appended, and frozen by go test ./test/upgrade -update: %v", fresh)
		if tag, err := exec.Command("git", "describe", "--tags", "--exact-match", "--match", "v[0-9]*").Output(); err == nil {
			t.Errorf("%s is released with steps that are not frozen: go test ./test/upgrade -update", strings.TrimSpace(string(tag)))
		}
	}
}

// TestReleasedSteps: nor has anybody changed the list since the newest tag.
func TestReleasedSteps(t *testing.T) {
	tag, text, err := released()
	if err != nil {
		t.Skip(err)
	}
	frozen, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if complaints := changed(frozen, steps(t)); len(complaints) > 0 {
		t.Fatalf("since %s: %s", tag, strings.Join(complaints, "\n"))
	}
}

// released are the steps of the newest release that git knows.
func released() (tag, text string, err error) {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", args...).Output()
		var e *exec.ExitError
		if errors.As(err, &e) {
			err = fmt.Errorf("git %s: %s", strings.Join(args, " "), strings.TrimSpace(string(e.Stderr)))
		}
		return string(out), err
	}
	if tag, err = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"); err != nil {
		return "", "", fmt.Errorf("no release before this one is known here (a shallow clone has no tags): %w", err)
	}
	tag = strings.TrimSpace(tag)
	text, err = git("show", tag+":./"+golden)
	return tag, text, err
}

// contracts are steps that take away what the release before does not use any
// more: step → since which release nothing uses it.
var contracts = map[string]string{}

var (
	newTable  = regexp.MustCompile(`^CREATE TABLE (\w+) `)
	newColumn = regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (\w+) (.*)$`)
	newIndex  = regexp.MustCompile(`^CREATE (UNIQUE )?INDEX \w+ ON (\w+) `)
	sequence  = regexp.MustCompile(`^CREATE SEQUENCE \w+$`)
	fills     = regexp.MustCompile(`^INSERT INTO (\w+) `)
	sets      = regexp.MustCompile(`^UPDATE (\w+) SET (.*)$`)
	assigned  = regexp.MustCompile(`(?:^|, )(\w+) = `)
	nullable  = regexp.MustCompile(`\bNOT NULL\b`)
	byDefault = regexp.MustCompile(`\bDEFAULT\b`)
)

// expands says what of a step a server of the release before would not survive.
func expands(s step) (complaints []string) {
	tables, columns := map[string]bool{}, map[string]bool{}
	for _, text := range s.text {
		complain := func(format string, args ...any) {
			complaints = append(complaints, fmt.Sprintf("step %s: %s:\n%s", s, fmt.Sprintf(format, args...), text))
		}
		if m := newTable.FindStringSubmatch(text); m != nil {
			tables[m[1]] = true
		} else if m := newColumn.FindStringSubmatch(text); m != nil {
			columns[m[1]+"."+m[2]] = true
			if !tables[m[1]] && nullable.MatchString(m[3]) && !byDefault.MatchString(m[3]) {
				complain("rows that the release before inserts have no value for a column that is NOT NULL and has no DEFAULT")
			}
		} else if m := newIndex.FindStringSubmatch(text); m != nil {
			if m[1] != "" && !tables[m[2]] {
				complain("a unique index refuses rows that the release before may insert, or has inserted")
			}
		} else if sequence.MatchString(text) {
			continue
		} else if m := fills.FindStringSubmatch(text); m != nil {
			if !tables[m[1]] {
				complain("the release before does not expect rows that it has not made in %s", m[1])
			}
		} else if m := sets.FindStringSubmatch(text); m != nil {
			set, _, _ := strings.Cut(m[2], " WHERE ")
			for _, a := range assigned.FindAllStringSubmatch(set, -1) {
				if !tables[m[1]] && !columns[m[1]+"."+a[1]] {
					complain("the release before has set %s.%s", m[1], a[1])
				}
			}
		} else {
			complain("this is none of: CREATE TABLE, ALTER TABLE … ADD COLUMN, CREATE INDEX, and INSERT or UPDATE of what the step has added")
		}
	}
	return complaints
}

const rule = "A release adds to tables and leaves what its predecessor uses. What nobody uses any more goes a release later, in a step that is listed in contracts."

// TestStepsExpand: servers of the release before go on after each step.
func TestStepsExpand(t *testing.T) {
	for _, s := range steps(t) {
		if contracts[s.String()] != "" {
			continue
		}
		for _, c := range expands(s) {
			t.Errorf("%s\n%s", c, rule)
		}
	}
}

// TestWhatIsRefused shows that the tests above can fail.
func TestWhatIsRefused(t *testing.T) {
	for text, bad := range map[string]bool{
		"ALTER TABLE port DROP COLUMN name":                        true,
		"ALTER TABLE port RENAME COLUMN name TO label":             true,
		"ALTER TABLE port ADD COLUMN a INTEGER NOT NULL":           true,
		"ALTER TABLE port ADD COLUMN a INTEGER NOT NULL DEFAULT 0": false,
		"ALTER TABLE port ADD COLUMN a INTEGER":                    false,
		"CREATE UNIQUE INDEX x ON port (name)":                     true,
		"CREATE INDEX x ON port (name)":                            false,
		"UPDATE port SET name = ''":                                true,
		"DROP TABLE port":                                          true,
		"DELETE FROM port":                                         true,
		"INSERT INTO port (id) VALUES ('a')":                       true,
		"CREATE TABLE x (id VARCHAR(36) PRIMARY KEY)\nCREATE UNIQUE INDEX y ON x (id)\nINSERT INTO x (id) SELECT id FROM port": false,
		"ALTER TABLE port ADD COLUMN a VARCHAR(36)\nUPDATE port SET a = (SELECT b = c FROM d), a = '' WHERE id = 'x'":          false,
	} {
		if got := expands(step{"core/port", 9, strings.Split(text, "\n")}); (len(got) > 0) != bad {
			t.Errorf("%s: %q", text, got)
		}
	}
	one := step{"a", 1, []string{"CREATE TABLE a (id INTEGER)"}}
	two := step{"a", 2, []string{"CREATE INDEX a_id ON a (id)"}}
	if got := changed([]step{one}, []step{one, two}); len(got) > 0 {
		t.Errorf("a step is appended: %q", got)
	}
	if got := changed([]step{one, two}, []step{one}); len(got) != 1 || !strings.Contains(got[0], "gone") {
		t.Errorf("a step is removed: %q", got)
	}
	if got := changed([]step{one, two}, []step{one, {"a", 2, []string{"CREATE INDEX a_id ON a (name)"}}}); len(got) != 1 || !strings.Contains(got[0], "append a step") {
		t.Errorf("a step is changed: %q", got)
	}
	if back, err := parse(write([]step{one, two})); err != nil || fmt.Sprint(back) != fmt.Sprint([]step{one, two}) {
		t.Errorf("%v, %v", back, err)
	}
}
