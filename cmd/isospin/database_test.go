package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDatabaseCommands: looking makes nothing; an upgrade is needed once.
func TestDatabaseCommands(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "a.conf")
	if err := os.WriteFile(file, []byte("[database]\nconnection = sqlite:///"+dir+"/state/db.sqlite\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := execute(t, "db", "check", "--config-file", file); err == nil || !strings.Contains(err.Error(), "upgrade") || !strings.Contains(out, "store: the database has version 0") {
		t.Errorf("check of no database: %v\n%s", err, out)
	}
	if out, err := execute(t, "db", "current", "--config-file", file); err != nil || !strings.Contains(out, "core/port") {
		t.Errorf("current of no database: %v\n%s", err, out)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("looking has made %v (%v)", made, err)
	}
	for range 2 {
		if out, err := execute(t, "db", "upgrade", "--config-file", file); err != nil || !strings.Contains(out, "core/port") {
			t.Fatalf("upgrade: %v\n%s", err, out)
		}
	}
	if out, err := execute(t, "db", "check", "--config-file", file); err != nil || !strings.Contains(out, "fits") {
		t.Errorf("check: %v\n%s", err, out)
	}
}
