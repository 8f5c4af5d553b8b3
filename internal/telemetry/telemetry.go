// Package telemetry is what a process tells about itself: its log, its metrics,
// whether it lives and is ready, and which build it is.
//
// It must not know what the process does.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// LogOptions of NewLogger.
type LogOptions struct {
	Output io.Writer // required
	JSON   bool      // optional, text by default
	Debug  bool      // optional, info and above by default
	// Level may be changed while the process runs; NewLogger sets it by Debug. // optional
	Level *slog.LevelVar
}

// SetDebug changes what is logged: debug and above, or info and above.
func SetDebug(level *slog.LevelVar, debug bool) {
	if debug {
		level.Set(slog.LevelDebug)
	} else {
		level.Set(slog.LevelInfo)
	}
}

// NewLogger makes a process's logger: a line a record, times in UTC to the millisecond.
func NewLogger(o LogOptions) *slog.Logger {
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	SetDebug(o.Level, o.Debug)
	options := &slog.HandlerOptions{
		Level: o.Level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
				a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
			}
			return a
		},
	}
	if o.JSON {
		return slog.New(slog.NewJSONHandler(o.Output, options))
	}
	return slog.New(slog.NewTextHandler(o.Output, options))
}

// Build says which build this process is.
type Build struct {
	// Version is the Makefile's stamp, else the module's, "(devel)" for a plain build.
	Version string
	// Revision is the commit, with "+dirty" if the checkout had changes; may be empty.
	Revision string
	// Go is the toolchain and the platform: "go1.26.8 linux/amd64".
	Go string
}

// stamp is the version that the Makefile has the linker write here.
var stamp string

// ReadBuild reads what the toolchain wrote into the binary.
func ReadBuild() Build {
	b := Build{Version: "(devel)", Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	switch {
	case stamp != "":
		b.Version = stamp
	case info.Main.Version != "":
		b.Version = info.Main.Version
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified && b.Revision != "" {
		b.Revision += "+dirty"
	}
	return b
}

func (b Build) String() string {
	s := b.Version
	if b.Revision != "" {
		s += " (" + b.Revision + ")"
	}
	return s + " " + b.Go
}

// NewRegistry makes a registry with the metrics that every process has: Go's,
// the process's and isospin_build_info.
func NewRegistry() *prometheus.Registry {
	b := ReadBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "isospin_build_info", Help: "1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go": b.Go}})
	info.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return r
}

// Options of NewHandler and Serve.
type Options struct {
	Registry *prometheus.Registry // required
	// Ready returns what keeps the process from doing its work. // optional, always ready
	Ready func() error
	// Address to listen at, "127.0.0.1:9698"; empty: Serve listens nowhere. // optional
	Address string
	Logger  *slog.Logger // required by Serve
}

// NewHandler answers GET /metrics (Prometheus), /healthz (200 as long as the
// process answers at all) and /readyz (200, or 503 with the reason).
func NewHandler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if o.Ready != nil {
			if err := o.Ready(); err != nil {
				say(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		say(w, http.StatusOK, "ok")
	})
	return mux
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// Serve answers at o.Address until ctx ends. It returns at once if there is no
// address or it cannot be listened at.
func Serve(ctx context.Context, o Options) error {
	if o.Address == "" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Address)
	if err != nil {
		return fmt.Errorf("metrics listener: %w", err)
	}
	o.Logger.Info("metrics are served", "address", listener.Addr().String())
	server := &http.Server{Handler: NewHandler(o), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		WriteTimeout: time.Minute, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics listener: %w", err)
	}
	return nil
}
