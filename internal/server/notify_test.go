package server

import (
	"log/slog"
	"testing"

	"isospin/internal/config"
	"isospin/internal/core"
	"isospin/internal/driver/mech"
	"isospin/internal/driver/segment"
	"isospin/internal/store"
)

// Nothing is told to anybody unless the operator says to whom.
func TestNotifiers(t *testing.T) {
	const at = "auth_url = http://127.0.0.1:1/\nusername = u\npassword = p\nproject_name = service\n"
	for text, want := range map[string]int{
		"":              0,
		"[nova]\n" + at: 1,
		"[DEFAULT]\nnotify_nova_on_port_status_changes = false\nnotify_nova_on_port_data_changes = false\n[nova]\n" + at: 0,
		"[ironic]\n" + at: 0,
		"[ironic]\nenable_notifications = true\nauth_type = none\nendpoint_override = http://127.0.0.1:1/\n":           1,
		"[DEFAULT]\nexternal_dns_driver = designate\n[designate]\n" + at + "url = http://127.0.0.1:1/\n":               1,
		"[DEFAULT]\ntransport_url = rabbit://u:p@127.0.0.1:1/\n":                                                       0,
		"[DEFAULT]\ntransport_url = rabbit://u:p@127.0.0.1:1/\n[oslo_messaging_notifications]\ndriver = noop\n":        0,
		"[DEFAULT]\ntransport_url = rabbit://u:p@127.0.0.1:1/\n[oslo_messaging_notifications]\ndriver = messagingv2\n": 1,
	} {
		c, err := config.FromText(text)
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		db, err := store.Open(t.Context(), store.Options{Connection: "sqlite://", Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		segments, err := segment.Load(c)
		if err != nil {
			t.Fatal(err)
		}
		mechanisms, err := mech.Load(c)
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{config: c, log: log, Store: db, Core: core.New(core.Options{Config: c, Store: db, Logger: log, Segments: segments, Mechanisms: mechanisms})}
		if err := s.newNotifiers(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if len(s.notifiers) != want {
			t.Errorf("%d are told with\n%s", len(s.notifiers), text)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
