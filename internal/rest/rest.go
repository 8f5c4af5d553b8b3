package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/watch"
)

// Options of New.
type Options struct {
	Registry      *resource.Registry     // required, complete: what is added later has no route
	Authenticator identity.Authenticator // required
	Logger        *slog.Logger           // required
	// Enforcer is the policy. Default: AllowAll.
	Enforcer Enforcer // optional
	// PaginationMaxLimit is the greatest page, and the page when no limit is
	// asked for (pagination_max_limit). 0 and less: none.
	PaginationMaxLimit int // optional
	// MaxBody is the greatest request body, in bytes (max_request_body_size). 0: 114688.
	MaxBody int64 // optional
	// LinkPrefix replaces scheme, host and the path's beginning in links (network_link_prefix).
	LinkPrefix string // optional
	// AuthenticateURI is where clients are told to get a token (www_authenticate_uri).
	AuthenticateURI string // optional
	// Limits of what is carried out at a time. Default: none.
	Limits Limits // optional
	// Away are the errors of dependencies that cannot be reached now, e.g. that the store is closed.
	Away []error // optional
	// Healthy is asked by GET /healthcheck; an error is a 503. nil: always healthy.
	Healthy func(context.Context) error // optional
	// Watch shows changes of objects. nil: there is no watch and no history.
	Watch *watch.Service // optional
	// Pace of watches.
	Pace Pace // optional
	// Metrics gets the histogram of request durations.
	Metrics prometheus.Registerer // optional
}

// edge is the handler that New makes.
type edge struct {
	Options
	root             node // below /v2.0
	filterValidation bool
	emptyFilters     bool
	duration         *prometheus.HistogramVec
	streams          *streamMetrics // nil: not measured
	// requests and lists let so many through at a time; nil: all.
	requests, lists *turns
}

// New returns the handler of the API. It panics on resources and routes that
// collide or have no service, which are mistakes in the program.
func New(o Options) http.Handler {
	if o.Enforcer == nil {
		o.Enforcer = AllowAll{}
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 114688
	}
	e := &edge{Options: o}
	e.requests = newTurns(o.Limits.Requests, o.Limits.ProjectRequests, o.Limits)
	e.lists = newTurns(o.Limits.Lists, o.Limits.ProjectLists, o.Limits)
	_, e.filterValidation = o.Registry.Extension("filter-validation")
	_, e.emptyFilters = o.Registry.Extension("empty-string-filtering")
	if o.Metrics != nil {
		e.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "isospin_api_request_duration_seconds",
			Help:    "Time to answer requests of the API.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "resource", "status"})
		o.Metrics.MustRegister(e.duration)
		if o.Watch != nil {
			e.streams = newStreamMetrics(o.Metrics)
		}
		e.requests.measure(o.Metrics, "request")
		e.lists.measure(o.Metrics, "list")
	}
	e.addDiscovery()
	e.addDocument()
	e.addStreams()
	for _, r := range o.Registry.Resources() {
		e.addResource(r)
	}
	for _, r := range o.Registry.Routes() {
		e.addRoute(r)
	}
	return e
}

// call is one request on its way.
type call struct {
	edge   *edge
	w      http.ResponseWriter
	r      *http.Request
	ctx    context.Context
	id     string // of the request
	who    *identity.Context
	label  string   // of the endpoint
	names  []string // of path parameters
	params []string
	status int // 0 until answered
	place  place
	// body is what read has read, and its error.
	body    []byte
	bodyErr error
	hasBody bool
}

// globalID is the form of request ids that callers may hand on.
var globalID = regexp.MustCompile(`^req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

const requestIDHeader = "X-Openstack-Request-Id"

// ServeHTTP answers one request.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	c := &call{edge: e, w: w, r: r, id: identity.NewRequestID(), label: "none"}
	c.ctx = identity.With(r.Context(), &identity.Context{RequestID: c.id})
	w.Header().Set(requestIDHeader, c.id)
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // the very value is what net/http asks for
				panic(p)
			}
			c.panicked(p)
		}
		c.leave()
		c.account(time.Since(begin))
	}()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

func (c *call) serve() error {
	switch c.r.URL.Path {
	case "/":
		c.label = "versions"
		return c.versions()
	case "/healthcheck":
		c.label = "healthcheck"
		return c.health()
	}
	below, ok := strings.CutPrefix(c.r.URL.EscapedPath(), "/v2.0")
	if !ok || below != "" && below[0] != '/' {
		return notFound()
	}
	who, err := c.edge.Authenticator.Authenticate(c.r)
	if err != nil {
		return err
	}
	known := *who
	known.RequestID = c.id
	c.who = &known
	c.ctx = identity.With(c.r.Context(), c.who)
	if below == "" {
		return notFound()
	}
	path, ok := segments(below[1:])
	if !ok {
		return notFound()
	}
	endpoint, params, end := c.edge.root.find(c.r.Method, path, nil)
	if endpoint == nil {
		if end == nil {
			return notFound()
		}
		return &methodNotAllowed{end.allow()}
	}
	c.label, c.names, c.params = endpoint.label, endpoint.params, params
	if c.r.Method != http.MethodGet {
		// A client that sends slowly waits without a place.
		_, _ = c.read() // who needs the body gets the error
	}
	if !endpoint.ownTurn {
		if err := c.enter(c.edge.requests); err != nil {
			return err
		}
	}
	return endpoint.serve(c)
}

// panicked answers when a handler broke.
func (c *call) panicked(p any) {
	err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	if c.status != 0 { // too late for another answer
		c.logCause(err)
		return
	}
	c.fail(err)
}

// account logs and measures an answered request.
func (c *call) account(took time.Duration) {
	// A watch that began takes as long as the client likes.
	if c.edge.duration != nil && !(c.label == watchLabel && c.status == http.StatusOK) {
		method := c.r.Method
		switch method {
		case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
		default:
			method = "other"
		}
		c.edge.duration.WithLabelValues(method, c.label, strconv.Itoa(c.status)).Observe(took.Seconds())
	}
	level := slog.LevelInfo
	if c.label == "healthcheck" {
		level = slog.LevelDebug
	}
	attributes := []slog.Attr{
		slog.String("method", c.r.Method), slog.String("path", c.r.URL.Path), slog.Int("status", c.status),
		slog.Duration("duration", took), slog.String("request_id", c.id),
	}
	if c.who != nil {
		attributes = append(attributes, slog.String("project", c.who.ProjectID))
	}
	if global := c.r.Header.Get(requestIDHeader); globalID.MatchString(global) {
		attributes = append(attributes, slog.String("global_request_id", global))
	}
	c.edge.Logger.LogAttrs(c.ctx, level, "request", attributes...)
}

// away tells whether an error is that of a dependency which cannot be reached now.
func (e *edge) away(err error) bool {
	for _, a := range e.Away {
		if errors.Is(err, a) {
			return true
		}
	}
	return false
}

// write sends the answer.
func (c *call) write(status int, contentType string, body []byte) {
	h := c.w.Header()
	if status != http.StatusNoContent {
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	c.status = status
	c.leave() // a client may take as long as it likes to read
	c.w.WriteHeader(status)
	// An error here means that the client is gone; there is nobody to tell.
	_, _ = c.w.Write(body)
	if f, ok := c.w.(http.Flusher); ok {
		f.Flush() // a client does not wait for its request to be logged
	}
}

const typeJSON = "application/json"

// show sends a value as JSON; with 204, nothing.
func (c *call) show(status int, v any) {
	if status == http.StatusNoContent {
		c.write(status, "", nil)
		return
	}
	raw, err := marshal(v)
	if err != nil {
		// Not by fail, which comes here itself.
		c.logCause(fmt.Errorf("encode answer: %w", err))
		c.write(http.StatusInternalServerError, typeJSON, []byte(`{"NeutronError": {"type": "HTTPInternalServerError", "message": "`+textInternal+`", "detail": ""}}`))
		return
	}
	c.write(status, typeJSON, raw)
}

// marshal is json.Marshal without the escapes that only HTML needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
