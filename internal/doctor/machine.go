package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"isospin/internal/telemetry"
)

// Certificate is a certificate and its key in PEM files, with the authorities that must have signed it.
type Certificate struct {
	// Option names where the files are configured.
	Option string
	// File and Key; Authority is empty for a certificate that others sign.
	File, Key, Authority string
	// Usage that it must have.
	Usage x509.ExtKeyUsage
	// Host that its first name must be; empty: any.
	Host string
	// Cure says how another one is made.
	Cure string
}

// soon is how long before its end a certificate is to be replaced.
const soon = 30 * 24 * time.Hour

// Certificates looks at files of certificates and keys.
func Certificates(name string, now time.Time, list ...Certificate) Check {
	return Check{Name: name, Look: func(context.Context) (findings []Finding) {
		for _, c := range list {
			findings = append(findings, c.look(now)...)
		}
		return findings
	}}
}

func (c Certificate) look(now time.Time) []Finding {
	if c.File == "" || c.Key == "" {
		return bad("set it. "+c.Cure, "%s is not set", c.Option)
	}
	if _, err := tls.LoadX509KeyPair(c.File, c.Key); err != nil {
		return bad(c.Cure, "%s: %v", c.Option, err)
	}
	leaf, err := telemetry.ReadCertificate(c.File)
	if err != nil {
		return bad(c.Cure, "%s: %v", c.Option, err)
	}
	var findings []Finding
	if info, err := os.Stat(c.Key); err == nil && info.Mode().Perm()&0o007 != 0 {
		findings = bad("chmod o= "+c.Key, "everybody on this machine can read %s", c.Key)
	}
	if c.Authority != "" {
		text, err := os.ReadFile(c.Authority)
		if err != nil {
			return append(findings, bad(c.Cure, "%s: %v", c.Option, err)...)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return append(findings, bad(c.Cure, "%s: %s has no certificate", c.Option, c.Authority)...)
		}
		options := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{c.Usage}}
		if now.After(leaf.NotAfter) {
			options.CurrentTime = leaf.NotAfter // its end is told below
		}
		if _, err := leaf.Verify(options); err != nil {
			findings = append(findings, bad(c.Cure, "%s: %v", c.File, err)...)
		}
	}
	if c.Host != "" {
		have := leaf.Subject.CommonName
		if len(leaf.DNSNames) > 0 {
			have = leaf.DNSNames[0]
		}
		if have != c.Host {
			findings = append(findings, bad(c.Cure, "%s is the certificate of host %q, but [DEFAULT] host is %q", c.File, have, c.Host)...)
		}
	}
	left := leaf.NotAfter.Sub(now)
	day := leaf.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case left <= 0:
		return append(findings, bad(c.Cure, "%s ended on %s", c.File, day)...)
	case left < soon:
		return append(findings, note(c.Cure, "%s ends on %s", c.File, day)...)
	case len(findings) == 0:
		return well("%s is good until %s", c.File, day)
	}
	return findings
}

// Clock looks whether the machine's clock follows others.
func Clock() Check {
	return Check{Name: "clock", Look: func(context.Context) []Finding {
		var t unix.Timex // only read: no modes are set
		if _, err := unix.Adjtimex(&t); err != nil {
			return note("look whether chrony or systemd-timesyncd runs", "the state of the clock cannot be read: %v", err)
		}
		if t.Status&unix.STA_UNSYNC != 0 {
			return note("run chrony or systemd-timesyncd (on a virtual machine, perhaps on its hypervisor): tokens, certificates and agents' heartbeats depend on the time", "the kernel does not know of anything that keeps the clock right")
		}
		return well("kept right, within %v", time.Duration(t.Maxerror)*time.Microsecond)
	}}
}

// Directory looks whether a directory is there and can be written to, making nothing.
func Directory(name, path, cure string) Check {
	return Check{Name: name, Look: func(context.Context) []Finding {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return bad(cure, "%v", err)
		case !info.IsDir():
			return bad(cure, "%s is not a directory", path)
		}
		if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
			return bad(cure, "%s cannot be written to by this user: %v", path, err)
		}
		return well("%s can be written to", path)
	}}
}

// Rivals looks for programs that do the same work.
func Rivals(cure string, programs ...string) Check {
	return Check{Name: "rivals", Look: func(context.Context) []Finding {
		found, err := running("/proc", programs)
		switch {
		case err != nil:
			return note("", "%v", err)
		case len(found) > 0:
			return bad(cure, "also running here: %s", strings.Join(found, ", "))
		}
		return well("none of Neutron's runs here")
	}}
}

// running returns those of the programs that processes have as their command
// or, run by an interpreter, as its script.
func running(proc string, programs []string) ([]string, error) {
	files, err := filepath.Glob(proc + "/[0-9]*/cmdline")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	var found []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		words := bytes.SplitN(line, []byte{0}, 3)
		for _, word := range words[:min(2, len(words))] {
			name := filepath.Base(string(word))
			if slices.Contains(programs, name) && !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	return found, nil
}
