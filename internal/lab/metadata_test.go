package lab

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestMetadataChecksTheProxy(t *testing.T) {
	m := newMetadata(slog.New(slog.DiscardHandler))
	m.add("i1", "vm1", "p1")
	sign := func(id, secret string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(id))
		return hex.EncodeToString(mac.Sum(nil))
	}
	for name, c := range map[string]struct {
		id, project, from, signature string
		status                       int
		body                         string
	}{
		"as a proxy sends it": {"i1", "p1", "10.0.0.5", sign("i1", m.secret), 200, "i1"},
		"another secret":      {"i1", "p1", "10.0.0.5", sign("i1", "guess"), 403, "invalid proxy request signature\n"},
		"no signature":        {"i1", "p1", "10.0.0.5", "", 403, "invalid proxy request signature\n"},
		"another's signature": {"i1", "p1", "10.0.0.5", sign("i2", m.secret), 403, "invalid proxy request signature\n"},
		"unknown instance":    {"i2", "p1", "10.0.0.5", sign("i2", m.secret), 404, "no such instance\n"},
		"another project":     {"i1", "p2", "10.0.0.5", sign("i1", m.secret), 404, "no such instance\n"},
		"no address":          {"i1", "p1", "", sign("i1", m.secret), 400, "X-Instance-ID, X-Tenant-ID or X-Forwarded-For is missing\n"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/latest/meta-data/instance-id", nil)
		for k, v := range map[string]string{"X-Instance-ID": c.id, "X-Tenant-ID": c.project, "X-Forwarded-For": c.from, "X-Instance-ID-Signature": c.signature} {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, w.Body, c.status, c.body)
		}
	}
}
