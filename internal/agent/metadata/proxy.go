package metadata

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBody   = 64 << 10 // the largest thing that guests post is a password
	maxHeader = 16 << 10
	// warnInterval is the least time between warnings of the metadata service: guests ask as often as they like.
	warnInterval = 10 * time.Second
)

// passed are the headers of a guest's request that go on. All others are
// dropped, first of all those by which Nova knows the instance.
var passed = []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "If-Modified-Since", "If-None-Match", "Range", "User-Agent"}

// proxy answers requests of guests.
type proxy struct {
	secret    string
	directory atomic.Pointer[directory]
	limit     *rateLimit // nil: none
	logger    *slog.Logger
	forward   *httputil.ReverseProxy
	warned    atomic.Int64 // Unix nanoseconds
	unsaid    atomic.Int64 // failures since
}

// body is that of a guest's request. Its errors are the guest's.
type body struct{ io.ReadCloser }

func (b body) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &unreadable{err}
	}
	return n, err
}

type unreadable struct{ cause error }

func (u *unreadable) Error() string { return "request of a guest: " + u.cause.Error() }
func (u *unreadable) Unwrap() error { return u.cause }

type scopeKey struct{}

type callerKey struct{}

// caller is the guest of one request.
type caller struct {
	instance
	address netip.Addr
}

func newProxy(backend *url.URL, transport http.RoundTripper, secret string, limit *rateLimit, logger *slog.Logger) *proxy {
	p := &proxy{secret: secret, limit: limit, logger: logger}
	p.directory.Store(&directory{})
	p.forward = &httputil.ReverseProxy{
		Transport:    transport,
		ErrorLog:     slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ErrorHandler: p.failed,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(backend)
			who, _ := r.In.Context().Value(callerKey{}).(caller)
			r.Out.Header = http.Header{}
			for _, name := range passed {
				if v := r.In.Header.Get(name); v != "" {
					r.Out.Header.Set(name, v)
				}
			}
			r.Out.Header.Set("X-Forwarded-For", who.address.String())
			r.Out.Header.Set("X-Instance-ID", who.id)
			r.Out.Header.Set("X-Tenant-ID", who.project)
			r.Out.Header.Set("X-Instance-ID-Signature", p.sign(who.id))
		},
	}
	return p
}

func (p *proxy) sign(instanceID string) string {
	h := hmac.New(sha256.New, []byte(p.secret))
	h.Write([]byte(instanceID))
	return hex.EncodeToString(h.Sum(nil))
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, _ := r.Context().Value(scopeKey{}).(*scope)
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if s == nil || err != nil || r.Method == http.MethodConnect {
		http.Error(w, "400 Bad Request", http.StatusBadRequest)
		return
	}
	source := peer.Addr().Unmap().WithZone("")
	if p.limit != nil && !p.limit.admit(s.namespace, source, time.Now()) {
		http.Error(w, "429 Too Many Requests", http.StatusTooManyRequests)
		return
	}
	who, ok := p.directory.Load().find(s, source)
	if !ok || who.id == "" {
		p.logger.Debug("metadata request of nobody", "namespace", s.namespace, "source", source)
		http.Error(w, "404 Not Found: no instance has this address", http.StatusNotFound)
		return
	}
	r.Body = body{http.MaxBytesReader(w, r.Body, maxBody)}
	p.forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{who, source})))
}

// failed answers a request that the metadata API did not.
func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	var tooLong *http.MaxBytesError
	var guests *unreadable
	var network net.Error
	var operation *net.OpError
	status, text := http.StatusBadGateway, "502 Bad Gateway: the metadata service gave no answer"
	switch {
	case errors.As(err, &tooLong):
		status, text = http.StatusRequestEntityTooLarge, "413 Content Too Large"
	case errors.As(err, &guests):
		status, text = http.StatusBadRequest, "400 Bad Request"
	case errors.As(err, &operation) && operation.Op == "dial":
		status, text = http.StatusServiceUnavailable, "503 Service Unavailable: the metadata service cannot be reached"
	case errors.As(err, &network) && network.Timeout():
		status, text = http.StatusGatewayTimeout, "504 Gateway Timeout: the metadata service did not answer in time"
	}
	if r.Context().Err() == nil && status >= http.StatusInternalServerError {
		p.warn(err)
	}
	http.Error(w, text, status)
}

// warn tells of a failure of the metadata service, unless that was done just now.
func (p *proxy) warn(err error) {
	now := time.Now().UnixNano()
	if last := p.warned.Load(); now-last < int64(warnInterval) || !p.warned.CompareAndSwap(last, now) {
		p.unsaid.Add(1)
		return
	}
	p.logger.Warn("metadata service", "error", err, "unsaid", p.unsaid.Swap(0))
}

// RateLimit is how many requests one address may make.
type RateLimit struct {
	// IPVersions to which it applies.
	IPv4, IPv6 bool
	// Base and Burst apply both; the shorter one cuts peaks.
	Base, Burst Rate
}

// Rate is a number of requests in a time.
type Rate struct {
	Requests int
	Window   time.Duration
}

type rateLimit struct {
	RateLimit

	mu      sync.Mutex
	windows [2]window
}

type window struct {
	ends   time.Time
	counts map[client]int
}

type client struct {
	namespace string
	address   netip.Addr
}

func (l *rateLimit) admit(namespace string, source netip.Addr, now time.Time) bool {
	if source.Is4() && !l.IPv4 || source.Is6() && !l.IPv6 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ok := true
	for i, rate := range []Rate{l.Base, l.Burst} {
		w := &l.windows[i]
		if !now.Before(w.ends) {
			*w = window{ends: now.Add(rate.Window), counts: map[client]int{}}
		}
		key := client{namespace, source}
		w.counts[key]++
		ok = ok && w.counts[key] <= rate.Requests
	}
	return ok
}
