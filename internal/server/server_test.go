package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"isospin/api/feed"
	"isospin/api/feed/feedconnect"
	"isospin/internal/config"
	"isospin/internal/store/storetest"
)

// freePort is a TCP port of loopback that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func configure(t *testing.T, dir, more string) *config.Config {
	t.Helper()
	c, err := config.FromText(fmt.Sprintf(`[DEFAULT]
auth_strategy = noauth
bind_port = %d
state_path = %s
[database]
connection = %s
[ml2]
tenant_network_types = vxlan
[ml2_type_vxlan]
vni_ranges = 1:100
%s`, freePort(t), dir, storetest.NewIn(t, dir), more))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func run(t *testing.T, c *config.Config) (*Server, func() error) {
	t.Helper()
	s, err := New(t.Context(), Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the server does not end")
		}
	}
	return s, stop
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	api, _ := s.Addresses()
	r, err := http.Get("http://" + api.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestWhatWasWrittenIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s, stop := run(t, configure(t, dir, ""))
	api, _ := s.Addresses()
	r, err := http.Post("http://"+api.String()+"/v2.0/networks", "application/json", strings.NewReader(`{"network": {"name": "kept"}}`))
	if err != nil || r.StatusCode != http.StatusCreated {
		t.Fatal(r, err)
	}
	r.Body.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s, stop = run(t, configure(t, dir, ""))
	if status, body := get(t, s, "/v2.0/networks?fields=name"); status != 200 || body != `{"networks":[{"name":"kept"}]}` {
		t.Errorf("GET networks = %d %s", status, body)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestWrongConfigurationIsRefusedWithTheKey(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ more, want string }{
		"feed without TLS beyond loopback": {"[isospin]\nfeed_listen = http://0.0.0.0:0", "[isospin] feed_listen"},
		"feed without certificates":        {"[isospin]\nfeed_listen = https://127.0.0.1:0", "[isospin] feed_cert_file"},
		"unknown mechanism driver":         {"[ml2]\nmechanism_drivers = nosuch", "[ml2] mechanism_drivers"},
		"unknown type driver":              {"[ml2]\ntype_drivers = nosuch", "[ml2] type_drivers"},
		"unknown database":                 {"[database]\nconnection = oracle://x", "[database] connection"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(t.Context(), Options{Config: configure(t, dir, c.more), Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				s.close()
				t.Fatal("the server starts")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not name %s", err, c.want)
			}
		})
	}
}

// TestMechanismDriversWithoutEffect: a list with a driver that has nothing to do
// is as good as one without it, whatever all drivers must be able to do.
func TestMechanismDriversWithoutEffect(t *testing.T) {
	s, stop := run(t, configure(t, t.TempDir(), "[ml2]\nmechanism_drivers = l2population, openvswitch,l2population"))
	for _, alias := range []string{"vlan-transparent", "qinq", "pvlan"} {
		if status, body := get(t, s, "/v2.0/extensions/"+alias); status != http.StatusOK {
			t.Errorf("GET extension %s = %d %s", alias, status, body)
		}
	}
	if drivers := s.Core.Ports.Mechanisms(); len(drivers) != 1 || drivers[0].Name() != "openvswitch" {
		t.Errorf("drivers that bind ports: %v", drivers)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestOneServerPerSocket(t *testing.T) {
	dir := t.TempDir()
	_, stop := run(t, configure(t, dir, ""))
	other := "[database]\nconnection = sqlite:///" + filepath.Join(dir, "other.sqlite")
	if s, err := New(t.Context(), Options{Config: configure(t, dir, other), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		s.close()
		t.Error("a second server took the socket over")
	} else if !strings.Contains(err.Error(), "another server answers") {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "feed.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("feed socket: %v %v", info, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// authority issues certificates into files of a folder.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{dir: dir}
	a.cert, a.key = a.issue(t, "ca", nil, nil)
	return a
}

func (a *authority) issue(t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: parent == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(a.dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// attach opens a stream with a certificate and says which host it is.
func (a *authority) attach(t *testing.T, s *Server, certificate, host string) error {
	t.Helper()
	_, agents := s.Addresses()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, certificate+".pem"), filepath.Join(a.dir, certificate+".key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: c, Protocols: &protocols}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream := feedconnect.NewFeedClient(&http.Client{Transport: transport}, "https://"+agents.String()).Attach(ctx)
	defer stream.CloseResponse()
	err := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Hello{Hello: &feed.Hello{Host: host}}})
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = stream.Receive()
	return err
}

func TestAnAgentSpeaksForItsOwnHostOnly(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	for _, name := range []string{"server", "host1"} {
		a.issue(t, name, a.cert, a.key)
	}
	s, stop := run(t, configure(t, dir, fmt.Sprintf("[isospin]\nfeed_listen = https://127.0.0.1:0\nfeed_cert_file = %[1]s/server.pem\nfeed_key_file = %[1]s/server.key\nfeed_ca_file = %[1]s/ca.pem", dir)))
	if err := a.attach(t, s, "host1", "host1"); err != nil {
		t.Errorf("host1 with its own certificate: %v", err)
	}
	if err := a.attach(t, s, "host1", "host2"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("host1 as host2: %v, want permission denied", err)
	}
	if err := a.attach(t, s, "", "host1"); err == nil {
		t.Error("a client without a certificate is served")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestAPIOverTLS(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	a.issue(t, "server", a.cert, a.key)
	s, stop := run(t, configure(t, dir, fmt.Sprintf("[DEFAULT]\nuse_ssl = true\n[ssl]\ncert_file = %[1]s/server.pem\nkey_file = %[1]s/server.key", dir)))
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	api, _ := s.Addresses()
	r, err := (&http.Client{Transport: transport}).Get("https://" + api.String() + "/v2.0/networks")
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r, err)
	}
	r.Body.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if s, err := New(t.Context(), Options{Config: configure(t, dir, "[DEFAULT]\nuse_ssl = true"), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		s.close()
		t.Error("TLS without a certificate is served")
	} else if !strings.Contains(err.Error(), "[ssl] cert_file") {
		t.Error(err)
	}
}
