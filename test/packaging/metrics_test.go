package packaging

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	_ "isospin/internal/agent/all"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/lease"
	"isospin/internal/notify"
	"isospin/internal/server"
	"isospin/internal/store"
	"isospin/internal/telemetry"
)

var update = flag.Bool("update", false, "write the table of docs/operate/metrics.md anew")

// metric is what a collector says it may export.
type metric struct {
	name, help string
	labels     []string
}

// recorder is a registry that remembers what it was told of, samples or not.
type recorder struct {
	*prometheus.Registry
	mu    sync.Mutex
	known map[string]metric
}

func newRecorder() *recorder {
	return &recorder{Registry: prometheus.NewRegistry(), known: map[string]metric{}}
}

var described = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)"(?:, unit: "[^"]*")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func (r *recorder) Register(c prometheus.Collector) error {
	descriptions := make(chan *prometheus.Desc, 64)
	c.Describe(descriptions)
	close(descriptions)
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range descriptions {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("not understood: %s", d)
		}
		if !strings.HasPrefix(m[1], "isospin_") {
			continue
		}
		known := metric{name: m[1], help: m[2]}
		for label := range strings.SplitSeq(m[3]+","+m[4], ",") {
			if label, _, _ = strings.Cut(label, "="); label != "" {
				known.labels = append(known.labels, label)
			}
		}
		r.known[known.name] = known
	}
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// unheard is a consumer of notifications that has nothing to say.
type unheard struct{}

func (unheard) Name() string    { return "test" }
func (unheard) Kinds() []string { return nil }
func (unheard) Plan(*store.Tx, store.Event, []byte) ([]string, []byte, error) {
	return nil, nil, nil
}
func (unheard) Send(context.Context, []string) error { return nil }

var _ notify.Consumer[string] = unheard{}

// exported runs a server, and what an agent registers, and returns what each may export.
func exported(t *testing.T) (ofServer, ofAgent map[string]metric, scraped string) {
	t.Helper()
	dir := t.TempDir()
	cfg, err := config.FromText(fmt.Sprintf("[DEFAULT]\nauth_strategy = noauth\nbind_port = 0\nhost = h\nstate_path = %s\n[isospin]\nfeed_listen = http://127.0.0.1:0\nfeed_cert_file = /none\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	s := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	run, err := server.New(ctx, server.Options{Config: cfg, Logger: logger, Metrics: s})
	if err != nil {
		t.Fatal(err)
	}
	notify.New(notify.Options{Store: run.Store, Registry: run.Core.Registry, Logger: logger, Holder: "h", Lease: lease.DefaultTime, Metrics: s}, unheard{})
	ended := make(chan error, 1)
	go func() { ended <- run.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	api, _ := run.Addresses()
	answer, err := http.Get("http://" + api.String() + "/v2.0/networks")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	metrics := httptest.NewServer(telemetry.NewHandler(telemetry.Options{Registry: s.Registry}))
	defer metrics.Close()
	if answer, err = http.Get(metrics.URL + "/metrics"); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		t.Fatal(err)
	}

	a := newRecorder()
	a.MustRegister(telemetry.NewCertificateCollector(nil))
	if _, err := runtime.New(runtime.Options{
		Environment: runtime.Environment{Config: cfg, Host: "h", StateDir: dir, Logger: logger},
		Features:    config.AgentFeatures.Of(cfg), Servers: []string{"http://127.0.0.1:9"}, Metrics: a,
	}); err != nil {
		t.Fatal(err)
	}
	for name, m := range metering {
		a.known[name] = m
	}
	build := metric{name: "isospin_build_info", help: "1; the labels say which build this is.", labels: []string{"version", "revision", "go"}}
	s.known[build.name], a.known[build.name] = build, build
	return s.known, a.known, string(text)
}

// metering are registered by the L3 feature once it has Open vSwitch; internal/agent/l3 tests that they are there.
var metering = map[string]metric{
	"isospin_agent_metering_packets_total": {name: "isospin_agent_metering_packets_total", help: "Packets of a router's external traffic that a metering label counts.", labels: []string{"project", "label", "router"}},
	"isospin_agent_metering_bytes_total":   {name: "isospin_agent_metering_bytes_total", help: "Bytes of the IP packets of a router's external traffic that a metering label counts.", labels: []string{"project", "label", "router"}},
}

func TestMeteringIsAsTheAgentHasIt(t *testing.T) {
	text, err := os.ReadFile("../../internal/agent/l3/metering.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metering {
		if name := strings.TrimPrefix(m.name, "isospin_agent_metering_"); !bytes.Contains(text, []byte(fmt.Sprintf("desc(%q, %q)", name, m.help))) {
			t.Errorf("internal/agent/l3 has no %s with this help", m.name)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMetrics(t *testing.T) {
	ofServer, ofAgent, scraped := exported(t)
	for _, name := range []string{"isospin_api_request_duration_seconds_count", "isospin_database_transaction_seconds_bucket", "isospin_database_connections", "isospin_feed_lag_seconds", "isospin_feed_hosts",
		"isospin_watches", "isospin_lease_held", "isospin_notification_wait_seconds", "isospin_certificate_expiry_timestamp_seconds"} {
		if !strings.Contains(scraped, "\n"+name) {
			t.Errorf("/metrics of a server has no %s", name)
		}
	}

	t.Run("used", func(t *testing.T) {
		for _, file := range []string{"packaging/prometheus/alerts.yml", "packaging/grafana/isospin.json"} {
			text := read(t, file)
			found := 0
			for _, name := range regexp.MustCompile(`\bisospin_[a-z_]+`).FindAllString(text, -1) {
				base := name
				for _, suffix := range []string{"_bucket", "_count", "_sum"} {
					base = strings.TrimSuffix(base, suffix)
				}
				found++
				if _, ok := ofServer[base]; ok {
					continue
				}
				if _, ok := ofAgent[base]; !ok {
					t.Errorf("%s: nothing exports %s", file, name)
				}
			}
			if found == 0 {
				t.Errorf("%s uses no metric", file)
			}
		}
	})

	t.Run("labels", func(t *testing.T) {
		known := map[string][]string{}
		for _, all := range []map[string]metric{ofServer, ofAgent} {
			for name, m := range all {
				known[name] = m.labels
			}
		}
		uses := regexp.MustCompile(`\b(isospin_[a-z_]+?)(?:_bucket|_count|_sum)?\{([^}]*)\}`)
		label := regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
		for _, file := range []string{"packaging/prometheus/alerts.yml", "packaging/grafana/isospin.json"} {
			for _, use := range uses.FindAllStringSubmatch(read(t, file), -1) {
				for _, l := range label.FindAllStringSubmatch(use[2], -1) {
					if l[1] != "instance" && l[1] != "job" && !slices.Contains(known[use[1]], l[1]) {
						t.Errorf("%s: %s has no label %s", file, use[1], l[1])
					}
				}
			}
		}
	})

	t.Run("documented", func(t *testing.T) {
		var b strings.Builder
		table := func(title string, all map[string]metric) {
			fmt.Fprintf(&b, "\n### %s\n\n| Metric | Labels | Meaning |\n| --- | --- | --- |\n", title)
			for _, m := range slices.SortedFunc(maps.Values(all), func(a, b metric) int { return cmp.Compare(a.name, b.name) }) {
				labels := ""
				if len(m.labels) > 0 {
					labels = "`" + strings.Join(m.labels, "`, `") + "`"
				}
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, labels, strings.ReplaceAll(m.help, "|", `\|`))
			}
		}
		table("Of a server", ofServer)
		table("Of an agent", ofAgent)
		const file, begin, end = "docs/operate/metrics.md", "<!-- begin of what go test ./test/packaging -update writes -->\n", "<!-- end -->\n"
		text := read(t, file)
		before, rest, ok := strings.Cut(text, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the table", file)
		}
		if want := before + begin + b.String() + "\n" + end + after; want != text {
			if !*update {
				t.Fatalf("%s is not up to date; run go test ./test/packaging -update", file)
			}
			if err := os.WriteFile(filepath.Join("../..", file), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestAlertRules has Prometheus's own checker read the rules.
func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool (package prometheus): the form of the rules is not checked")
	}
	if out, err := exec.Command(promtool, "check", "rules", "../../packaging/prometheus/alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
