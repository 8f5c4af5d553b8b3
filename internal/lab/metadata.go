package lab

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"isospin/internal/kernel/netns"
)

// metadataPort is where Nova's metadata API listens.
const metadataPort = 8775

// metadata stands in for Nova's metadata API: it answers for the instances of
// the lab, and only to requests that a metadata proxy has signed.
type metadata struct {
	secret string
	logger *slog.Logger
	server *http.Server
	ended  chan struct{}

	mu        sync.Mutex
	instances map[string]metadataInstance
}

type metadataInstance struct{ name, project string }

func newMetadata(logger *slog.Logger) *metadata {
	m := &metadata{secret: rand.Text(), logger: logger, instances: map[string]metadataInstance{}}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
	return m
}

// start serves inside of a namespace until stop.
func (m *metadata) start(ctx context.Context, ns string) error {
	l, err := netns.Listen(ctx, ns, nil, "tcp4", netip.AddrPortFrom(underlayAddress.Addr(), metadataPort).String())
	if err != nil {
		return fmt.Errorf("metadata service: %w", err)
	}
	m.ended = make(chan struct{})
	go func() {
		defer close(m.ended)
		_ = m.server.Serve(l) // ends by Close only
	}()
	return nil
}

func (m *metadata) stop() {
	if m.ended != nil {
		m.server.Close()
		<-m.ended
	}
}

func (m *metadata) add(id, name, project string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.instances[id] = metadataInstance{name, project}
}

func (m *metadata) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.instances, id)
}

// ServeHTTP checks a request as Nova does that is told to trust a proxy
// (service_metadata_proxy), and answers some of the usual paths.
func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Instance-ID")
	project := r.Header.Get("X-Tenant-ID")
	from := r.Header.Get("X-Forwarded-For")
	if id == "" || project == "" || from == "" {
		http.Error(w, "X-Instance-ID, X-Tenant-ID or X-Forwarded-For is missing", http.StatusBadRequest)
		return
	}
	mac := hmac.New(sha256.New, []byte(m.secret))
	mac.Write([]byte(id))
	signature, err := hex.DecodeString(r.Header.Get("X-Instance-ID-Signature"))
	if err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
		m.logger.Warn("metadata request with a wrong signature", "instance", id, "from", from)
		http.Error(w, "invalid proxy request signature", http.StatusForbidden)
		return
	}
	m.mu.Lock()
	i, ok := m.instances[id]
	m.mu.Unlock()
	if !ok || i.project != "" && i.project != project {
		http.Error(w, "no such instance", http.StatusNotFound)
		return
	}
	switch r.URL.Path {
	case "/", "/latest", "/latest/":
		fmt.Fprintln(w, "meta-data/")
	case "/latest/meta-data/", "/latest/meta-data":
		fmt.Fprint(w, "hostname\ninstance-id\nlocal-ipv4")
	case "/latest/meta-data/instance-id":
		fmt.Fprint(w, id)
	case "/latest/meta-data/hostname":
		fmt.Fprint(w, i.name)
	case "/latest/meta-data/local-ipv4":
		fmt.Fprint(w, from)
	case "/openstack/latest/meta_data.json":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"uuid": id, "name": i.name, "hostname": i.name, "project_id": project})
	default:
		http.NotFound(w, r)
	}
}
