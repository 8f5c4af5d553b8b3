package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseINI(t *testing.T) {
	text := "# comment\n" +
		"; another\r\n" +
		"[DEFAULT]\n" +
		"a=1\n" +
		"b : two: three = four\n" +
		"c = x # not a comment\n" +
		"  continued\n" +
		"\t# nor is this\n" +
		"\n" +
		"d = \"quoted \"\n" +
		"e = 'unlike\"\n" +
		"f =\n" +
		"[ml2_type_vlan]\n" +
		"f = 1\n" +
		"f = 2\n"
	want := []assignment{
		{"DEFAULT", "a", "1", 4},
		{"DEFAULT", "b", "two: three = four", 5},
		{"DEFAULT", "c", "x # not a comment\ncontinued\n# nor is this", 6},
		{"DEFAULT", "d", "quoted ", 10},
		{"DEFAULT", "e", "'unlike\"", 11},
		{"DEFAULT", "f", "", 12},
		{"ml2_type_vlan", "f", "1", 14},
		{"ml2_type_vlan", "f", "2", 15},
	}
	got, err := parseINI(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(assignment{})); diff != "" {
		t.Errorf("parseINI (-want +got):\n%s", diff)
	}
}

func TestParseINIRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[DEFAULT]\nhunter2\n", `line 2: there is no "=" or ":"`},
		{"[DEFAULT]\n= x\n", "line 2: there is no key"},
		{"a = b\n", `line 1: the key is before the first section; put "[DEFAULT]"`},
		{"[DEFAULT] # x\n", `line 1: a section must end with "]"`},
		{"[]\n", "line 1: the section has no name"},
		{"[x]\n  a\n", "line 2: the line is indented"},
		{"[x]\na=1\n\n  b\n", "line 4: the line is indented"},
		{"[x]\na=1\n# c\n  b\n", "line 4: the line is indented"},
		{"[x]\na=\xff\n", "line 2: the line is not UTF-8 text"},
	} {
		_, err := parseINI(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("parseINI(%q) = %v, want an error with %q", c.text, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("parseINI(%q): the error repeats the line: %v", c.text, err)
		}
	}
}

// FuzzParseINI: what is accepted can be written back and read as the same.
func FuzzParseINI(f *testing.F) {
	f.Add("[DEFAULT]\na = 1\n b\n# c\n[x]\ny: 'z'\n")
	f.Add("\ufeff[a]\r\nb==\n")
	f.Add("[a]\nb=\n \n\t c")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseINI(text)
		if err != nil {
			if s, ok := err.(*syntaxError); !ok || s.line < 1 || s.reason == "" || s.cure == "" {
				t.Fatalf("not a syntax error with place, reason and cure: %#v", err)
			}
			return
		}
		var b strings.Builder
		for _, a := range first {
			// Quotes protect white space and other quotes of the first line; a
			// line of a continuation cannot be empty.
			head, rest, more := strings.Cut(a.value, "\n")
			b.WriteString("[" + a.section + "]\n" + a.key + " = \"" + head + "\"")
			if more {
				b.WriteString("\n " + strings.ReplaceAll(rest, "\n", "\n "))
			}
			b.WriteString("\n")
		}
		second, err := parseINI(b.String())
		if err != nil {
			t.Fatalf("written back as %q: %v", b.String(), err)
		}
		if len(second) != len(first) {
			t.Fatalf("%d assignments became %d", len(first), len(second))
		}
		for i := range first {
			if first[i].key != second[i].key || first[i].section != second[i].section || first[i].value != second[i].value {
				t.Fatalf("%+v became %+v", first[i], second[i])
			}
		}
	})
}
