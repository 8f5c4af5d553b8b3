package runtime

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"connectrpc.com/connect"

	"isospin/api/feed/feedconnect"
)

// TLS names the PEM files of mutual TLS with the server. They are read for
// each connection, so that replacing them needs no restart.
type TLS struct {
	CertFile string // required
	KeyFile  string // required
	CAFile   string // optional, the system's authorities by default
}

// A server that does not answer an HTTP/2 ping is gone: a host notices within
// this time although TCP would wait for minutes.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
	dialTimeout = 10 * time.Second
)

// checkServer tells whether a server's address can be used:
// "unix:///path/to/socket", "http://127.0.0.1:9697" (loopback only, since
// nothing protects it), "https://host:port" (needs files).
func checkServer(server string, files *TLS) error {
	u, err := url.Parse(server)
	if err != nil {
		return fmt.Errorf("server address: %w", err)
	}
	switch u.Scheme {
	case "unix":
		if u.Path == "" {
			return fmt.Errorf("server address %q: want unix:///path/to/socket", server)
		}
	case "http":
		if addr, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			return fmt.Errorf("server address %q: http is for loopback only, use https", server)
		}
	case "https":
		if files == nil || files.CertFile == "" || files.KeyFile == "" {
			return fmt.Errorf("server address %q: https needs a certificate and a key of this host", server)
		}
	default:
		return fmt.Errorf("server address %q: want unix, http or https", server)
	}
	return nil
}

// NewClient returns a client of the feed of one server, in a form that
// [isospin] feed_server has. certificates is called once if the server is
// https. closeIdle releases the connection when no stream is open.
func NewClient(server string, certificates func() (*tls.Config, error)) (client feedconnect.FeedClient, closeIdle func(), err error) {
	transport, base, err := newTransport(server, certificates)
	if err != nil {
		return nil, nil, err
	}
	return feedconnect.NewFeedClient(&http.Client{Transport: transport}, base, connect.WithAcceptCompression("gzip", nil, nil)), transport.CloseIdleConnections, nil
}

// newTransport returns a transport that speaks HTTP/2 with one server, and the
// base URL to use with it.
func newTransport(server string, certificates func() (*tls.Config, error)) (*http.Transport, string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, "", fmt.Errorf("server address: %w", err)
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	t := &http.Transport{
		Protocols:           new(http.Protocols),
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: dialTimeout,
		DisableCompression:  true,
	}
	switch u.Scheme {
	case "unix":
		t.Protocols.SetUnencryptedHTTP2(true)
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
		return t, "http://isospin", nil
	case "http":
		t.Protocols.SetUnencryptedHTTP2(true)
	case "https":
		t.Protocols.SetHTTP2(true)
		if t.TLSClientConfig, err = certificates(); err != nil {
			return nil, "", err
		}
	}
	return t, server, nil
}

// Load reads the files.
func (files *TLS) Load() (*tls.Config, error) { return files.load() }

func (files *TLS) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate of this host: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
	if files.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(files.CAFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authorities: %w in %s", errors.New("no certificate"), files.CAFile)
	}
	return config, nil
}
