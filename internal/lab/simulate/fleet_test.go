package simulate_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"isospin/internal/lab/simulate"
	"isospin/test/servertest"
)

// TestFleet: many hosts in one process get the ports of a layout, report them
// as applied, count what they are told, and attach again without being told
// anything; what was made is deleted.
func TestFleet(t *testing.T) {
	const hosts, each = 12, 5
	s := servertest.Start(t, servertest.Networks)
	arrivals := simulate.NewArrivals()
	fleet, err := simulate.NewFleet(simulate.FleetOptions{
		Hosts: hosts, NamePrefix: "node-", Servers: []string{"unix:" + s.Feed}, Told: arrivals.Told, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	start := func(f *simulate.Fleet) (end func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); f.Run(ctx) }()
		return func() { cancel(); <-ended }
	}
	end := start(fleet)
	t.Cleanup(func() { end() })
	synced := func() bool { return fleet.Synced() == hosts }
	servertest.Eventually(t, "all hosts are attached", synced)
	layout := simulate.Layout{Hosts: hosts, PortsPerHost: each, PortsPerNetwork: 4, NetworksPerProject: 2, Large: hosts}
	cloud, err := simulate.Load(t.Context(), simulate.LoadOptions{API: s.URL, Layout: layout, Host: fleet.Name, Bulk: 7})
	if err != nil {
		t.Fatal(err)
	}
	if len(cloud.Answered) != hosts*each || len(cloud.Networks) != 15 || layout.LargeNetworks() != 3 {
		t.Errorf("%d ports in %d networks were made, %d of them of the large project", len(cloud.Answered), len(cloud.Networks), layout.LargeNetworks())
	}
	for id := range cloud.Answered {
		if _, err := arrivals.At(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	active := func() int {
		return len(s.Must(t, 200, "GET", "/ports?status=ACTIVE&device_owner=compute:nova", "")["ports"].([]any))
	}
	servertest.Eventually(t, "all ports are ACTIVE", func() bool { return active() == hosts*each })
	for n := range hosts {
		list := s.Must(t, 200, "GET", "/ports?device_owner=compute:nova&binding:host_id="+fleet.Name(n), "")["ports"].([]any)
		if len(list) != each {
			t.Errorf("%s has %d ports", fleet.Name(n), len(list))
		}
	}
	s.Settle(t)
	before := fleet.Counts()
	end()
	if fleet.Synced() != 0 {
		t.Errorf("%d hosts are attached after the end", fleet.Synced())
	}
	end = start(fleet)
	servertest.Eventually(t, "all hosts are attached again", synced)
	again := fleet.Counts().Less(before)
	if again.Attaches != hosts || again.Messages != hosts || again.Objects+again.Elements != 0 {
		t.Errorf("hosts that miss nothing were told %+v", again)
	}
	if err := cloud.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if list := s.Must(t, 200, "GET", "/networks", "")["networks"].([]any); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

// TestIssuer: each host has a certificate of its own name, which the
// authority's verify.
func TestIssuer(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	issuer, err := simulate.NewIssuer(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"node-1", "node-2", "node-1"} {
		c, err := issuer.Certificates(host)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: c.RootCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := simulate.NewIssuer(keyFile, certFile); err == nil {
		t.Error("files that are no authority were accepted")
	}
}

// TestHeartbeats: agents live by what comes on their streams, which is no event;
// also with another server on the same database. Ones that start anew say so, once.
func TestHeartbeats(t *testing.T) {
	const hosts = 10
	dir := t.TempDir()
	s := servertest.StartIn(t, dir, servertest.Networks)
	agents := func(s *servertest.Server) (started, beat map[string]string) {
		started, beat = map[string]string{}, map[string]string{}
		for _, a := range s.Must(t, 200, "GET", "/agents", "")["agents"].([]any) {
			a := a.(map[string]any)
			if a["alive"] != true {
				continue
			}
			name := a["host"].(string) + " " + a["agent_type"].(string)
			started[name], beat[name] = a["started_at"].(string), a["heartbeat_timestamp"].(string)
		}
		return started, beat
	}
	fleetOf := func(s *servertest.Server) (*simulate.Fleet, func()) {
		f, err := simulate.NewFleet(simulate.FleetOptions{Hosts: hosts, Servers: []string{"unix:" + s.Feed}, ReportInterval: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); f.Run(ctx) }()
		return f, func() { cancel(); <-ended }
	}
	later := func(s *servertest.Server, than map[string]string) {
		t.Helper()
		servertest.Eventually(t, "all heartbeats are stored", func() bool {
			_, now := agents(s)
			for name, at := range than {
				if now[name] <= at {
					return false
				}
			}
			return len(now) == 4*hosts
		})
	}
	_, end := fleetOf(s)
	servertest.Eventually(t, "all agents are there", func() bool { started, _ := agents(s); return len(started) == 4*hosts })
	first, beats := agents(s)
	later(s, beats)
	before := s.LastSequence(t)
	_, beats = agents(s)
	later(s, beats)
	if after := s.LastSequence(t); after != before {
		t.Errorf("heartbeats are %d events", after-before)
	}
	end()
	s.Stop()
	again := servertest.StartIn(t, dir, servertest.Networks)
	_, beats = agents(again)
	_, end = fleetOf(again) // of another start, a second or more later
	defer end()
	later(again, beats)
	servertest.Eventually(t, "agents that started anew say so", func() bool {
		now, _ := agents(again)
		for name, at := range first {
			if now[name] <= at {
				return false
			}
		}
		return true
	})
	restarted, beats := agents(again)
	later(again, beats)
	if now, _ := agents(again); !maps.Equal(now, restarted) {
		t.Errorf("agents started at %v, then at %v", restarted, now)
	}
}
