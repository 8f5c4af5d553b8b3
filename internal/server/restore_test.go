package server_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/test/servertest"
)

// TestRestore puts an older backup of the database in its place. A host that
// knows of what came after it, and of higher numbers, is brought to what the
// database has, and follows what is done from then on.
func TestRestore(t *testing.T) {
	dir := t.TempDir()
	s := servertest.StartIn(t, dir, servertest.Networks)
	if !strings.HasPrefix(s.Connection, "sqlite:") {
		t.Skip("the backup of a database server is its own")
	}
	call := func(s *servertest.Server, method, path, body string) (id string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/v2.0"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s %s", method, path, answer.Status, text)
		}
		_, id, _ = strings.Cut(string(text), `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		return id
	}
	port := func(s *servertest.Server, network string) string {
		t.Helper()
		return call(s, "POST", "/ports", fmt.Sprintf(`{"port":{"network_id":%q,"binding:host_id":"h1","device_owner":"compute:nova"}}`, network))
	}
	h := s.Host("h1", servertest.OpenVSwitch("192.0.2.1"))
	h.Attach(t)
	network := call(s, "POST", "/networks", `{"network":{"name":"n"}}`)
	call(s, "POST", "/subnets", fmt.Sprintf(`{"subnet":{"network_id":%q,"ip_version":4,"cidr":"10.0.0.0/24"}}`, network))
	kept, gone := port(s, network), port(s, network)
	servertest.Eventually(t, "the host has both ports", func() bool { return h.Port(kept) != nil && h.Port(gone) != nil })
	old := h.Port(kept)
	backup := filepath.Join(t.TempDir(), "backup.sqlite")
	h.Detach()
	s.Stop()
	copyFile(t, s.Database, backup)

	// What the backup does not have.
	s = servertest.StartIn(t, dir, servertest.Networks)
	h.Move(s)
	h.Attach(t)
	call(s, "PUT", "/ports/"+kept, `{"port":{"admin_state_up":false,"name":"later"}}`)
	call(s, "DELETE", "/ports/"+gone, "")
	lost := port(s, network)
	servertest.Eventually(t, "the host has what came after the backup", func() bool {
		return h.Port(lost) != nil && h.Port(gone) == nil && h.Port(kept) != nil && !h.Port(kept).AdminStateUp
	})
	ahead, _ := h.Sequence()
	h.Detach()
	s.Stop()

	for _, name := range []string{s.Database + "-wal", s.Database + "-shm"} {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	copyFile(t, backup, s.Database)
	s = servertest.StartIn(t, dir, servertest.Networks)
	h.Move(s)
	h.Attach(t)
	if h.Port(lost) != nil {
		t.Error("the host keeps a port that the database does not have")
	}
	if h.Port(gone) == nil {
		t.Error("the host lacks a port that was deleted after the backup")
	}
	if p := h.Port(kept); p == nil || !p.AdminStateUp || p.Revision > old.Revision+1 {
		t.Errorf("the host has another state of a port than the backup: %v", p)
	}
	servertest.Eventually(t, "the host has all that it needs", func() bool { return h.Differs() == "" })
	if now, _ := h.Sequence(); now >= ahead {
		t.Errorf("the test shows nothing: the sequence is %d, and was %d", now, ahead)
	}

	// Numbers that were given before are given again, to other changes.
	again := port(s, network)
	servertest.Eventually(t, "the host has a port that is made now", func() bool { return h.Port(again) != nil })
	if err := h.Report(&message.Applied{Kind: message.Kind_KIND_PORT, Id: lost, Revision: 1, State: message.State_STATE_ACTIVE, AgentType: "Open vSwitch agent"}); err != nil {
		t.Errorf("a report of what is not there: %v", err)
	}
	call(s, "DELETE", "/ports/"+again, "")
	servertest.Eventually(t, "the host goes on after such a report", func() bool { return h.Port(again) == nil && h.Differs() == "" })
	if err := h.Faults(); err != nil {
		t.Error(err)
	}
	if _, ok := h.Objects()[feed.Key{Kind: message.Kind_KIND_NETWORK, ID: network}]; !ok {
		t.Error("the host lacks the network")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
