package runtime

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"isospin/api/feed"
	"isospin/api/feed/feedconnect"
)

// authority issues certificates into files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.issue("ca", 1)
	return a
}

// issue writes <name>.pem and <name>.key.
func (a *authority) issue(name string, serial int64) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        a.cert == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func TestMutualTLSAndCertificateThatWasReplaced(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	ca.issue("server", 2)
	ca.issue("host", 3)

	serials := make(chan int64, 10)
	s := &server{t: t, streams: make(chan *conversation, 10)}
	path, handler := feedconnect.NewFeedHandler(s)
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		serials <- r.TLS.PeerCertificates[0].SerialNumber.Int64()
		handler.ServeHTTP(w, r)
	})
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.http = &http.Server{Handler: mux, TLSConfig: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}}
	go s.http.ServeTLS(listener, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	t.Cleanup(s.stop)

	newHost(t, dir, "", func(o *Options) {
		o.Servers = []string{"https://" + listener.Addr().String()}
		o.TLS = &TLS{CertFile: filepath.Join(dir, "host.pem"), KeyFile: filepath.Join(dir, "host.key"), CAFile: filepath.Join(dir, "ca.pem")}
	})
	c := s.accept()
	if serial := expect(t, serials, "a certificate"); serial != 3 {
		t.Fatalf("certificate %d, want 3", serial)
	}
	c.send(&feed.ServerMessage{Synced: true, Upserts: []*feed.Object{port("p", 1)}})
	if got := c.report(); len(got) != 1 {
		t.Fatalf("reported %v", got)
	}
	ca.issue("host", 4)
	close(c.to)
	s.accept()
	if serial := expect(t, serials, "a certificate"); serial != 4 {
		t.Fatalf("certificate %d, want the new one, 4", serial)
	}
}
