package packaging

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"isospin/internal/config"
	"isospin/internal/server"
)

// TestPurge: the package takes away each file that a server makes in its state
// directory, and those that the routers of an agent are kept in.
func TestPurge(t *testing.T) {
	dir := t.TempDir()
	cfg, err := config.FromText(fmt.Sprintf("[DEFAULT]\nauth_strategy = noauth\nbind_port = 0\nstate_path = %[1]s\n[database]\nconnection = sqlite:///%[1]s/isospin.sqlite\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	run, err := server.New(ctx, server.Options{Config: cfg, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Run(ctx) }()
	made, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var names []string
	for _, file := range made {
		names = append(names, file.Name())
	}
	sources, err := filepath.Glob("../../internal/agent/l3/*.go")
	if err != nil {
		t.Fatal(err)
	}
	kept := regexp.MustCompile(`filepath\.Join\(dir, "([a-z0-9-]+\.json)"\)`)
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range kept.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	if len(names) < 6 {
		t.Errorf("only %v are made", names)
	}
	script := read(t, "packaging/deb/postrm")
	for _, name := range names {
		if !strings.Contains(script, `"$state/`+name+`"`) {
			t.Errorf("purging leaves %s", name)
		}
	}
}
