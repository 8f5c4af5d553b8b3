package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRootCommand()
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestConfigCommands(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := write("a.conf", "[DEFAULT]\nhost = first\nmetadata_proxy_shared_secret = xyzzy\n")
	second := write("b.conf", "[DEFAULT]\nhost = second\n[agent]\nresync_interval = 60\n")
	out, err := execute(t, "config", "check", "--config-file", first, "--config-file", second)
	if err != nil || !strings.Contains(out, "host = second") || !strings.Contains(out, "resync_interval = 60") || strings.Contains(out, "xyzzy") {
		t.Errorf("%v\n%s", err, out)
	}
	bad := write("bad.conf", "[agent]\nresync_interval = often\n")
	if _, err := execute(t, "config", "check", "--config-file", bad); err == nil || !strings.Contains(err.Error(), "bad.conf:2") {
		t.Errorf("error %v, want the place", err)
	}
	for _, what := range []string{"reference", "sample"} {
		if out, err := execute(t, "config", what); err != nil || !strings.Contains(out, "metrics_listen") || !strings.Contains(out, "feed_server") {
			t.Errorf("%s: %v\n%.300s", what, err, out)
		}
	}
	if out, err := execute(t, "version"); err != nil || !strings.HasPrefix(out, "isospin ") {
		t.Errorf("%v %s", err, out)
	}
}
