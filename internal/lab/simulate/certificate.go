package simulate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"sync"
	"time"
)

// Issuer makes a certificate for each host of a fleet, signed by an authority
// that the server trusts.
type Issuer struct {
	authority *x509.Certificate
	signer    crypto.Signer
	roots     *x509.CertPool
	// key is one for all hosts: they are one process.
	key *ecdsa.PrivateKey

	mu   sync.Mutex
	made map[string]*tls.Config
}

// NewIssuer reads the authority's certificate and key, PEM. The server's own
// certificate must be of the same authority.
func NewIssuer(certFile, keyFile string) (*Issuer, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	i := &Issuer{roots: x509.NewCertPool(), made: map[string]*tls.Config{}}
	if i.authority, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", certFile, err)
	}
	var ok bool
	if i.signer, ok = pair.PrivateKey.(crypto.Signer); !ok || !i.authority.IsCA {
		return nil, fmt.Errorf("certificate authority %s: %w", certFile, errors.New("it cannot sign certificates"))
	}
	i.roots.AddCert(i.authority)
	if pem, err := os.ReadFile(certFile); err == nil {
		i.roots.AppendCertsFromPEM(pem) // intermediate ones too
	}
	i.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return i, err
}

// Certificates is for FleetOptions.
func (i *Issuer) Certificates(host string) (*tls.Config, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.made[host]; c != nil {
		return c.Clone(), nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.authority, i.key.Public(), i.signer)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", host, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: i.roots, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: i.key}}}
	i.made[host] = c
	return c.Clone(), nil
}
