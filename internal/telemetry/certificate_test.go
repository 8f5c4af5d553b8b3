package telemetry

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	dir := t.TempDir()
	if out, err := exec.Command("../../packaging/tls/certificates.sh", dir, "authority").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "authority.pem")
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCertificateCollector(map[string]string{"good": file, "away": filepath.Join(dir, "none"), "unset": ""}))
	ends := func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil || len(families) != 1 {
			t.Fatal(families, err)
		}
		all := map[string]float64{}
		for _, m := range families[0].Metric {
			all[m.Label[0].GetValue()] = m.GetGauge().GetValue()
		}
		return all
	}
	got := ends()
	in := time.Until(time.Unix(int64(got["good"]), 0))
	if len(got) != 2 || got["away"] != 0 || in < 3649*24*time.Hour || in > 3651*24*time.Hour {
		t.Errorf("%v, in %v", got, in)
	}
	// It is read anew, and text before the certificate does no harm.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("an authority\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := ends(); again["good"] != got["good"] {
		t.Errorf("%v, then %v", got, again)
	}
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := ends(); again["good"] != 0 {
		t.Errorf("what is no certificate ends at %v", again)
	}
}
