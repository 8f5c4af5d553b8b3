package rest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"isospin/internal/resource"
)

// nowhere is a ResponseWriter that keeps nothing.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

func BenchmarkList1000(b *testing.B) {
	w := newWorld()
	w.ports.objects = nil
	for i := range 1000 {
		w.ports.objects = append(w.ports.objects, &port{
			Standard: resource.Standard{
				ID: resource.NewID(), ProjectID: "6f70656e737461636b", Description: "a port of the benchmark",
				CreatedAt: "2026-01-01T00:00:00Z", UpdatedAt: "2026-01-01T00:00:00Z", Tags: []string{"a"},
			},
			Name: fmt.Sprintf("port-%d", i), Up: true, Host: "compute-1", Network: resource.NewID(),
			FixedIPs: []map[string]string{{"subnet_id": resource.NewID(), "ip_address": "10.0.0.1"}},
			Security: resource.Slots{"port_security_enabled": []byte("true")},
		})
	}
	request := httptest.NewRequest(http.MethodGet, "/v2.0/ports?limit=1000", nil)
	b.ReportAllocs()
	for b.Loop() {
		w.handler.ServeHTTP(nowhere{http.Header{}}, request)
	}
}

func BenchmarkShow(b *testing.B) {
	w := newWorld()
	request := httptest.NewRequest(http.MethodGet, "/v2.0/ports/p1", nil)
	b.ReportAllocs()
	for b.Loop() {
		w.handler.ServeHTTP(nowhere{http.Header{}}, request)
	}
}
