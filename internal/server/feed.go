package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"isospin/internal/config"
	"isospin/internal/feed"
)

// listenFeed opens the agents' socket: unix:/path, http://loopback:port, or
// https://host:port with mutual TLS.
func (s *Server) listenFeed(address string) (net.Listener, error) {
	if path, ok := isUnix(address); ok {
		return listenUnix(path)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("[isospin] feed_listen: %q is not an address; write unix:///run/isospin/feed.sock, http://127.0.0.1:9697 or https://0.0.0.0:9697", address)
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("[isospin] feed_listen: %w", err)
	}
	if u.Scheme == "http" {
		if !loopback(l.Addr()) {
			return nil, errors.Join(fmt.Errorf("[isospin] feed_listen: %s is reachable from other machines; use https with feed_cert_file, feed_key_file and feed_ca_file", address), l.Close())
		}
		return l, nil
	}
	t, err := s.mutualTLS()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, t), nil
}

// mutualTLS is the agents' TLS: both sides show certificates of the same authority.
func (s *Server) mutualTLS() (*tls.Config, error) {
	return reloaded(certificates{
		certOption: "[isospin] feed_cert_file, feed_key_file", cert: config.FeedCertFile.Of(s.config), key: config.FeedKeyFile.Of(s.config),
		caOption: "[isospin] feed_ca_file", ca: config.FeedCAFile.Of(s.config), protocols: []string{"h2"}, mutual: true,
	})
}

// apiTLS is the API's TLS ([DEFAULT] use_ssl); with a CA file clients must show a certificate too.
func (s *Server) apiTLS() (*tls.Config, error) {
	return reloaded(certificates{
		certOption: "[ssl] cert_file, key_file", cert: config.SSLCertFile.Of(s.config), key: config.SSLKeyFile.Of(s.config),
		caOption: "[ssl] ca_file", ca: config.SSLCAFile.Of(s.config), protocols: []string{"http/1.1"}, mutual: config.SSLCAFile.Of(s.config) != "",
	})
}

type certificates struct {
	certOption, cert, key string
	caOption, ca          string
	protocols             []string
	mutual                bool
}

// reloaded reads the certificates anew for each connection, so that they can be replaced while the server runs.
func reloaded(c certificates) (*tls.Config, error) {
	load := func() (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.certOption, err)
		}
		t := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: c.protocols, Certificates: []tls.Certificate{pair}}
		if !c.mutual {
			return t, nil
		}
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.caOption, err)
		}
		t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s has no certificate", c.caOption, c.ca)
		}
		return t, nil
	}
	first, err := load()
	if err != nil {
		return nil, err
	}
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return load() }
	return first, nil
}

// serveFeed answers agents until ctx ends. Streams are cut then: agents come back by themselves.
func (s *Server) serveFeed(ctx context.Context) error {
	path, handler := s.feed.Handler()
	mux := http.NewServeMux()
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			r = r.WithContext(feed.WithPeer(r.Context(), hostOf(r.TLS.PeerCertificates[0])))
		}
		handler.ServeHTTP(w, r)
	}))
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: mux, Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		HTTP2:       &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second},
	}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(s.agents) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("agents' feed: %w", err)
	case <-ctx.Done():
	}
	// The streams end with their context; a client that does not take the end is cut off.
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(wait); err != nil {
		s.log.Warn("agents' streams are cut off", "error", errors.Join(err, server.Close()))
	}
	<-stopped
	return nil
}

// hostOf is the host that a certificate is for: its first DNS name, else its common name.
func hostOf(c *x509.Certificate) string {
	if len(c.DNSNames) > 0 {
		return c.DNSNames[0]
	}
	return c.Subject.CommonName
}
