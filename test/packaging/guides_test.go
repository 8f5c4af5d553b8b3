package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tracked are the files of the source with one ending.
func tracked(t *testing.T, ending string) (files []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && (name == ".git" || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ending) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestTargets: the targets of make that guides name are in the Makefile.
func TestTargets(t *testing.T) {
	makefile := "\n" + read(t, "Makefile")
	target := regexp.MustCompile("(?m)(?:`|^    |^)make ([a-z-]+)(?:`| |$)")
	seen := 0
	for _, file := range tracked(t, ".md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllStringSubmatch(string(text), -1) {
			if seen++; !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: there is no make %s", file, m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no target was found")
	}
}

// TestContainer: what the images copy is there, and is all that the program is
// built of. The images themselves need a registry, and are not built here.
func TestContainer(t *testing.T) {
	text := read(t, "packaging/container/Containerfile")
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*)$`).FindAllStringSubmatch(text, -1) {
		words := strings.Fields(m[1])
		for _, source := range words[:len(words)-1] {
			if _, err := os.Stat(filepath.Join("../..", source)); err != nil {
				t.Error(err)
			}
			have = append(have, source)
		}
	}
	out, err := exec.Command("go", "list", "-deps", "isospin/cmd/isospin").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(name), "isospin/"); ok {
			if top, _, _ := strings.Cut(name, "/"); !slices.Contains(have, top) {
				t.Errorf("the program is built of %s, which the image does not get", name)
			}
		}
	}
	stages := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`).FindAllStringSubmatch(text, -1) {
		if first, _, ok := strings.Cut(m[1], "/"); ok && strings.Contains(first, ".") {
			t.Errorf("%s names a registry", m[1])
		}
		stages[m[2]] = true
	}
	for _, m := range regexp.MustCompile(`--from=(\S+)`).FindAllStringSubmatch(text, -1) {
		if !stages[m[1]] {
			t.Errorf("there is no stage %s", m[1])
		}
	}
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))[1]
	if !strings.Contains(text, "FROM golang:"+goVersion+"-") {
		t.Errorf("the program needs Go %s", goVersion)
	}
	// What agents run must be in their image.
	for program, pack := range map[string]string{"nft": "nftables", "ovs-ofctl": "openvswitch-common"} {
		if !strings.Contains(text, pack) {
			t.Errorf("the agent's image has no %s (%s)", program, pack)
		}
	}
}

// TestScripts: the shell's own parser takes them.
func TestScripts(t *testing.T) {
	for _, file := range append(tracked(t, ".sh"), "../../packaging/deb/postinst", "../../packaging/deb/prerm", "../../packaging/deb/postrm") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		shell := "sh"
		if strings.HasPrefix(string(text), "#!/bin/bash") || strings.HasPrefix(string(text), "#!/usr/bin/env bash") {
			shell = "bash"
		}
		if out, err := exec.Command(shell, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", file, out)
		}
	}
}

// TestPeers: the tests that packaging/peers.sh says are not run without a peer are there.
func TestPeers(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "packaging/peers.sh"), "\npeers='\n")
	table, _, _ = strings.Cut(table, "'\n")
	if table == "" {
		t.Fatal("the list was not found")
	}
	for line := range strings.Lines(table) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 3 {
			t.Errorf("%q is no line of the list", line)
			continue
		}
		for _, name := range strings.Fields(fields[2]) {
			directory, test, one := strings.Cut(name, ":")
			found := !one
			files, err := filepath.Glob(filepath.Join("../..", directory, "*"))
			if err != nil || len(files) == 0 {
				t.Errorf("%s: there is no such directory", name)
			}
			for _, file := range files {
				if one && strings.HasSuffix(file, "_test.go") {
					text, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					found = found || strings.Contains(string(text), "\nfunc "+test+"(t *testing.T) {\n")
				}
			}
			if !found {
				t.Errorf("%s: there is no such test", name)
			}
		}
	}
}
