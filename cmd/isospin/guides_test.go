package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"isospin/internal/config"
)

// guides are the Markdown files for operators and those who change the program, by path.
func guides(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[strings.TrimPrefix(file, "../../")] = string(text)
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d guides", len(all))
	}
	return all
}

var (
	// A command in a span or block of code: after the beginning of it, of a line or of a shell's prompt.
	commandLine = regexp.MustCompile("(?m)(?:`|^(?:    +|\\$ )?|-- )(?:bin/)?isospin ((?:[a-z]+|--?[a-z-]+)[^`\\n#|;&>]*)")
	optionName  = regexp.MustCompile("`\\[([A-Za-z_0-9]+)\\] ([a-z_0-9]+)")
)

// TestCommandsOfGuides: what guides tell to run is there, with its flags.
func TestCommandsOfGuides(t *testing.T) {
	seen := 0
	for file, text := range guides(t) {
		inCode := false
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				inCode = !inCode
				continue
			}
			for _, m := range commandLine.FindAllStringSubmatch(line, -1) {
				if !strings.Contains(line, "`") && !inCode && !strings.HasPrefix(line, "    ") {
					continue // prose
				}
				args := strings.Fields(m[1])
				if args[0] == "server" || args[0] == "agent" {
					if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
						continue // a picture, or prose
					}
				}
				if n := len(args); args[n-1] == "\\" || args[n-1] == "…" {
					args = args[:n-1]
				}
				if i := indexOf(args, "--"); i >= 0 {
					args = args[:i]
				}
				seen++
				cmd, rest, err := newRootCommand().Find(args)
				if err != nil || !cmd.Runnable() && cmd.Name() == "isospin" {
					t.Errorf("%s: isospin %s: there is no such command", file, m[1])
					continue
				}
				for _, word := range rest {
					name, ok := strings.CutPrefix(word, "--")
					name, _, _ = strings.Cut(name, "=")
					if ok && name != "help" && cmd.Flags().Lookup(name) == nil {
						t.Errorf("%s: isospin %s: there is no flag --%s", file, m[1], name)
					}
				}
				if inCode && !cmd.Runnable() {
					t.Errorf("%s: isospin %s: a command is missing after it", file, m[1])
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands were found in the guides", seen)
	}
}

func indexOf(words []string, word string) int {
	for i, w := range words {
		if w == word {
			return i
		}
	}
	return -1
}

// TestOptionsOfGuides: options that guides name are there, or known as Neutron's.
func TestOptionsOfGuides(t *testing.T) {
	var reference bytes.Buffer
	if err := config.Reference(&reference); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	group := ""
	for line := range strings.Lines(reference.String()) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "## ["):
			group = strings.Trim(line[3:], "[]")
		case strings.HasPrefix(line, "### `"):
			known[group+" "+strings.Trim(line[4:], "`")] = true
		}
		for _, m := range optionName.FindAllStringSubmatch(line, -1) { // older names, options without effect
			known[m[1]+" "+m[2]] = true
		}
	}
	// Of other programs.
	known["neutron service_metadata_proxy"] = true
	seen := 0
	for file, text := range guides(t) {
		for _, m := range optionName.FindAllStringSubmatch(text, -1) {
			seen++
			if !known[m[1]+" "+m[2]] {
				t.Errorf("%s: there is no option [%s] %s", file, m[1], m[2])
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d options were found in the guides", seen)
	}
}

// TestFilesOfGuides: the files of options in the guide to installing are read without complaint.
func TestFilesOfGuides(t *testing.T) {
	text := guides(t)["docs/operate/install.md"]
	blocks := regexp.MustCompile("(?s)```ini\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) < 2 {
		t.Fatalf("%d files", len(blocks))
	}
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "isospin.conf")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll("\n"+b[1], "\n   ", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, odd bytes.Buffer
		cmd := newRootCommand()
		cmd.SetArgs([]string{"doctor", "server", "--config-file", file})
		cmd.SetOut(&out)
		cmd.SetErr(&odd)
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Error("there is no such cloud, and nothing is bad")
		}
		if !strings.HasPrefix(out.String(), "ok    configuration") {
			t.Errorf("the file\n%s\n%s", b[1], out.String())
		}
	}
}
