package pd

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/netns/netnstest"
)

// lines hands over what is logged.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(bytes.TrimSpace(b))
	return len(b), nil
}

// A socket that can not be had is told of once, and tried for again.
func TestNoSocket(t *testing.T) {
	netnstest.Require(t)
	log := make(lines, 100)
	c := Start(context.Background(), Options{
		Namespace: "absent", Device: "absent", MAC: []byte{2, 0, 0, 0, 0, 1},
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	defer c.Stop(false)
	for i := range 3 {
		select {
		case text := <-log:
			if !strings.Contains(text, "no socket") || strings.Contains(text, "level=WARN") != (i == 0) {
				t.Errorf("attempt %d: %s", i, text)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("nothing is tried")
		}
	}
}
