package doctor_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isospin/internal/config"
	"isospin/internal/doctor"
	"isospin/internal/identity/keystone/keystonetest"
	"isospin/internal/kernel/netns"
	"isospin/internal/ovs/ovstest"
	"isospin/internal/store"
	"isospin/test/servertest"
)

// look returns what the checks of that name print.
func look(t *testing.T, checks []doctor.Check, name string) string {
	t.Helper()
	var chosen []doctor.Check
	for _, c := range checks {
		if c.Name == name {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		t.Fatalf("there is no check %q", name)
	}
	var out bytes.Buffer
	if _, err := doctor.Run(t.Context(), &out, chosen); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func expect(t *testing.T, got string, grade doctor.Grade, parts ...string) {
	t.Helper()
	for line := range strings.Lines(got) {
		found := strings.HasPrefix(line, grade.String())
		for _, part := range parts {
			found = found && strings.Contains(line, part)
		}
		if found {
			return
		}
	}
	t.Errorf("no %v with %q in:\n%s", grade, parts, got)
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	bad, err := doctor.Run(t.Context(), &out, []doctor.Check{
		{Name: "one", Look: func(context.Context) []doctor.Finding { return []doctor.Finding{{Text: "fine"}} }},
		{Name: "two", Look: func(context.Context) []doctor.Finding {
			return []doctor.Finding{{Grade: doctor.Note, Text: "odd", Cure: "look"}, {Grade: doctor.Bad, Text: "broken\n\x1b[2J", Cure: "mend"}}
		}},
	})
	want := "ok    one            fine\nnote  two            odd\n                     → look\nbad   two            broken [2J\n                     → mend\n"
	if err != nil || bad != 1 || out.String() != want {
		t.Errorf("%d bad, %v:\n%s", bad, err, out.String())
	}
}

func load(t *testing.T, text string, args ...any) *config.Config {
	t.Helper()
	c, err := config.FromText(fmt.Sprintf(text, args...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServer(t *testing.T) {
	k := keystonetest.Start(t)
	s := servertest.Start(t, k.Config())
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[DEFAULT]\nbind_host = 127.0.0.1\nbind_port = %s\nstate_path = %s\n[database]\nconnection = %s\nmax_retries = 0\n", u.Port(), t.TempDir(), s.Connection)
	all := doctor.Server(load(t, "%s%s", text, k.Config()))
	expect(t, look(t, all, "database"), doctor.Well, "answers in")
	expect(t, look(t, all, "database"), doctor.Well, "the tables fit this program")
	expect(t, look(t, all, "callers"), doctor.Well, "Keystone validates tokens")
	expect(t, look(t, all, "api"), doctor.Well, "is healthy")
	expect(t, look(t, all, "state"), doctor.Well, "can be written to")
	expect(t, look(t, all, "nova"), doctor.Note, "Nova is not told")
	expect(t, look(t, all, "feed"), doctor.Note, "agents of this machine only")

	if err := s.Store.Tx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE schema_version SET version = version + 1 WHERE module = ?", "lease")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, look(t, all, "database"), doctor.Bad, "tables of a newer release: lease 2")
	k.Answer(500)
	expect(t, look(t, all, "callers"), doctor.Bad, "Keystone")
	s.Stop()
	expect(t, look(t, all, "api"), doctor.Note, "no server answers")

	all = doctor.Server(load(t, "[DEFAULT]\nauth_strategy = noauth\nbind_host = 0.0.0.0\nstate_path = /nowhere\n[database]\nconnection = postgresql://u:p@127.0.0.1:1/n\nmax_retries = 0\n"))
	expect(t, look(t, all, "callers"), doctor.Bad, "administrator")
	expect(t, look(t, all, "state"), doctor.Bad, "/nowhere")
	expect(t, look(t, all, "database"), doctor.Bad, "127.0.0.1")

	dir := t.TempDir()
	all = doctor.Server(load(t, "[database]\nconnection = sqlite:///%s/new.sqlite\n", dir))
	expect(t, look(t, all, "database"), doctor.Note, "there is no")
	if made, _ := os.ReadDir(dir); len(made) > 0 {
		t.Errorf("the doctor has made %v", made)
	}
}

func TestHost(t *testing.T) {
	s := servertest.Start(t, "")
	all := doctor.Host(load(t, "[isospin]\nfeed_server = unix:%s,http://127.0.0.1:1\n[ovs]\novsdb_connection = unix:/nowhere\nlocal_ip = 192.0.2.77\n[agent]\ntunnel_types = vxlan\n", s.Feed))
	expect(t, look(t, all, "server"), doctor.Well, s.Feed, "answers in")
	expect(t, look(t, all, "server"), doctor.Bad, "http://127.0.0.1:1")
	expect(t, look(t, all, "tunnels"), doctor.Bad, "192.0.2.77 is on no interface")
	if hosts := s.Hub.Attached(); len(hosts) > 0 {
		t.Errorf("the doctor is attached as %v", hosts)
	}
	all = doctor.Host(load(t, "[ovs]\nlocal_ip = 127.0.0.1\n[agent]\ntunnel_types = vxlan\n"))
	expect(t, look(t, all, "tunnels"), doctor.Well, "vxlan from 127.0.0.1")
}

// TestReadOnlySettings: a container's /proc/sys, as it is without an option.
func TestReadOnlySettings(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	expect(t, look(t, doctor.Host(load(t, "")), "rights"), doctor.Well, "capabilities")
	// The thread has the mount to itself, and ends with this test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		if err := unix.Mount("/proc/sys", "/proc/sys", "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, look(t, doctor.Host(load(t, "")), "rights"), doctor.Bad, "/proc/sys", "read-only")
}

func TestOpenVSwitch(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("doctor-%d", os.Getpid())
	if _, err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := ovstest.Start(t.Context(), ovstest.Options{Netns: name, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	text := "[ovs]\novsdb_connection = " + s.Connection() + "\n"
	expect(t, look(t, doctor.Host(load(t, "%s", text+"bridge_mappings = public:br-ex\n")), "openvswitch"), doctor.Bad, "public:br-ex", "no such bridge")
	if _, err := s.VSCtl(t.Context(), "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev"); err != nil {
		t.Fatal(err)
	}
	good := look(t, doctor.Host(load(t, "%s", text+"bridge_mappings = public:br-ex\ndatapath_type = netdev\n[agent]\ntunnel_types = vxlan,geneve\n")), "openvswitch")
	expect(t, good, doctor.Well, "version", s.Connection())
	if strings.Contains(good, "bad") {
		t.Error(good)
	}
	s.Stop()
	impatient, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, c := range doctor.Host(load(t, "%s", text)) {
		if c.Name == "openvswitch" {
			if f := c.Look(impatient); len(f) != 1 || f[0].Grade != doctor.Bad {
				t.Errorf("Open vSwitch is away: %v", f)
			}
		}
	}
}

// TestCertificates makes certificates as operators do, and looks at them.
func TestCertificates(t *testing.T) {
	script, err := filepath.Abs("../../packaging/tls/certificates.sh")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	dir, other := t.TempDir(), t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(script, args...).CombinedOutput(); err != nil {
			t.Fatalf("certificates.sh %v: %v\n%s", args, err, out)
		}
	}
	run(dir, "authority")
	run(other, "authority")
	run(dir, "server", "network.example.org", "IP:127.0.0.1")
	run(dir, "agent", "compute1")
	if out, err := exec.Command(script, dir, "authority").CombinedOutput(); err == nil {
		t.Errorf("a second authority replaces the first: %s", out)
	}
	of := func(name string) doctor.Certificate {
		return doctor.Certificate{
			Option: "[isospin] feed_cert_file", File: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key"),
			Authority: filepath.Join(dir, "authority.pem"), Usage: x509.ExtKeyUsageClientAuth, Host: "compute1", Cure: "make it",
		}
	}
	text := func(c doctor.Certificate, after time.Duration) string {
		return look(t, []doctor.Check{doctor.Certificates("feed", time.Now().Add(after), c)}, "feed")
	}
	day := 24 * time.Hour
	agent := of("compute1")
	expect(t, text(agent, 0), doctor.Well, "is good until")
	expect(t, text(agent, 800*day), doctor.Note, "ends on")
	expect(t, text(agent, 900*day), doctor.Bad, "ended on")
	server := of("network.example.org")
	expect(t, text(server, 0), doctor.Bad, `is the certificate of host "network.example.org"`)
	expect(t, text(server, 0), doctor.Bad, "incompatible key usage")
	server.Usage, server.Host = x509.ExtKeyUsageServerAuth, ""
	expect(t, text(server, 0), doctor.Well, "is good until")
	foreign := agent
	foreign.Authority = filepath.Join(other, "authority.pem")
	expect(t, text(foreign, 0), doctor.Bad, "authority")
	mixed := agent
	mixed.Key = server.Key
	expect(t, text(mixed, 0), doctor.Bad, "does not match")
	if err := os.Chmod(agent.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, text(agent, 0), doctor.Bad, "everybody on this machine can read")
	expect(t, text(doctor.Certificate{Option: "[isospin] feed_cert_file"}, 0), doctor.Bad, "is not set")
}

// TestMutualTLS attaches with the certificates that certificates.sh makes.
func TestMutualTLS(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	dir, other := t.TempDir(), t.TempDir()
	for _, args := range [][]string{{dir, "authority"}, {dir, "server", "localhost", "IP:127.0.0.1"}, {dir, "agent", "compute1"}, {other, "authority"}, {other, "agent", "compute1"}} {
		if out, err := exec.Command("../../packaging/tls/certificates.sh", args...).CombinedOutput(); err != nil {
			t.Fatalf("certificates.sh %v: %v\n%s", args, err, out)
		}
	}
	files := func(dir, name, authority string) string {
		return fmt.Sprintf("feed_cert_file = %s/%s.pem\nfeed_key_file = %[1]s/%[2]s.key\nfeed_ca_file = %[3]s/authority.pem\n", dir, name, authority)
	}
	s := servertest.Start(t, "[isospin]\nfeed_listen = https://127.0.0.1:0\n"+files(dir, "localhost", dir))
	_, feed := s.Addresses()
	host := func(certificates string) []doctor.Check {
		return doctor.Host(load(t, "[DEFAULT]\nhost = compute1\n[isospin]\nfeed_server = https://%s\n%s", feed, certificates))
	}
	good := host(files(dir, "compute1", dir))
	expect(t, look(t, good, "certificate"), doctor.Well, "is good until")
	expect(t, look(t, good, "server"), doctor.Well, "answers in")
	expect(t, look(t, host(files(other, "compute1", dir)), "server"), doctor.Bad)
	expect(t, look(t, host(files(dir, "compute1", other)), "server"), doctor.Bad, "certificate")
}
