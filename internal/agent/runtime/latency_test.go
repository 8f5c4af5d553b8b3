package runtime

import (
	"path/filepath"
	"testing"

	"isospin/api/feed"
)

// BenchmarkMessageToReport is the way of one changed port from the server
// through a feature that does nothing and back, over a socket.
func BenchmarkMessageToReport(b *testing.B) {
	dir := b.TempDir()
	socket := filepath.Join(dir, "feed.sock")
	s := newServer(b, socket)
	newHost(b, dir, socket, nil)
	c := s.accept()
	c.send(&feed.ServerMessage{Synced: true})
	for i := range b.N {
		c.send(&feed.ServerMessage{Upserts: []*feed.Object{port("p", int64(i+1))}})
		if got := c.report(); len(got) != 1 || got[0].Revision != int64(i+1) {
			b.Fatalf("reported %v", got)
		}
	}
}
