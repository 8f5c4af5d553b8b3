package keystone

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isospin/internal/fault"
)

// lifetime of the tokens of the real Keystone, in seconds: so short that the
// own token has to be renewed during the test.
const lifetime = 10

// real is a Keystone as Debian has it, on a free loopback port, with a
// database, keys and administrator of its own.
type real struct {
	t     *testing.T
	url   string
	admin string // a token
}

func startReal(t *testing.T) *real {
	t.Helper()
	manage, err := exec.LookPath("keystone-manage")
	if err != nil {
		t.Skip("there is no keystone-manage (package keystone)")
	}
	public, err := exec.LookPath("keystone-wsgi-public")
	if err != nil {
		t.Skip("there is no keystone-wsgi-public (package keystone)")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "keystone.conf")
	text := fmt.Sprintf(`[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///%[1]s/keystone.sqlite
[token]
provider = fernet
expiration = %[2]d
[fernet_tokens]
key_repository = %[1]s/fernet
[fernet_receipts]
key_repository = %[1]s/fernet
[credential]
key_repository = %[1]s/credential
[identity]
# The least that bcrypt has: on a busy machine more takes as long as tokens live.
password_hash_rounds = 4
[oslo_policy]
policy_dirs = %[1]s/policy.d
`, dir, lifetime)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"fernet", "credential"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	k := &real{t: t, url: fmt.Sprintf("http://127.0.0.1:%d/v3", port)}
	// Debian's Python goes before any other.
	environ := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8", "OS_KEYSTONE_CONFIG_FILES=" + file}
	// Root must name whose the keys are.
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"--keystone-user", me.Username, "--keystone-group", group.Name}
	for _, args := range [][]string{
		{"db_sync"}, append([]string{"fernet_setup"}, keys...), append([]string{"credential_setup"}, keys...),
		{"bootstrap", "--bootstrap-password", "admin-password", "--bootstrap-region-id", "RegionOne", "--bootstrap-internal-url", k.url, "--bootstrap-public-url", k.url},
	} {
		c := exec.CommandContext(t.Context(), manage, append([]string{"--config-file", file}, args...)...)
		c.Env = environ
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("keystone-manage %s: %v\n%s", args[0], err, out)
		}
	}
	c := exec.Command(public, "--host", "127.0.0.1", "--port", fmt.Sprint(port))
	c.Env = environ
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // it is killed below
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("keystone says:\n%s", log.String())
		}
	})
	for deadline := time.Now().Add(60 * time.Second); ; {
		answer, err := http.Get(k.url)
		if err == nil {
			answer.Body.Close()
			break
		}
		select {
		case <-ended:
			t.Fatal("keystone ended at once")
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("keystone does not answer")
		}
	}
	return k
}

// call sends a request as the administrator.
func (k *real) call(method, path string, body any) (http.Header, map[string]any) {
	k.t.Helper()
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			k.t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(k.t.Context(), method, k.url+path, bytes.NewReader(raw))
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if k.admin != "" {
		r.Header.Set("X-Auth-Token", k.admin)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		k.t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		k.t.Fatalf("%s %s: %d %s %v", method, path, answer.StatusCode, got, err)
	}
	var members map[string]any
	_ = json.Unmarshal(got, &members) // 204 has none
	return answer.Header, members
}

// make creates an object and returns its id.
func (k *real) make(path, name string, members map[string]any) string {
	k.t.Helper()
	k.logIn()
	_, got := k.call("POST", path, map[string]any{name: members})
	id, _ := got[name].(map[string]any)["id"].(string)
	return id
}

// token logs a user in.
func (k *real) token(user, password, project string) string {
	k.t.Helper()
	raw, err := Credentials{Username: user, Password: password, ProjectName: project}.Request()
	if err != nil {
		k.t.Fatal(err)
	}
	k.admin = ""
	header, _ := k.call("POST", "/auth/tokens", json.RawMessage(raw))
	return header.Get("X-Subject-Token")
}

func (k *real) logIn() { k.admin = k.token("admin", "admin-password", "admin") }

func TestRealKeystone(t *testing.T) {
	k := startReal(t)
	project := k.make("/projects", "project", map[string]any{"name": "p1", "domain_id": "default"})
	userID := k.make("/users", "user", map[string]any{"name": "u1", "password": "user-password", "domain_id": "default"})
	k.logIn()
	_, roles := k.call("GET", "/roles?name=member", nil)
	member := roles["roles"].([]any)[0].(map[string]any)["id"].(string)
	k.logIn()
	k.call("PUT", "/projects/"+project+"/users/"+userID+"/roles/"+member, nil)

	var log bytes.Buffer
	a := New(Options{
		AuthURL: strings.TrimSuffix(k.url, "/v3"), Logger: slog.New(slog.NewTextHandler(&log, nil)), Region: "RegionOne", Retries: 1,
		ServiceTokenRoles: []string{"admin"}, ServiceTokenRolesRequired: true,
		Credentials: Credentials{Username: "admin", Password: "admin-password", ProjectName: "admin", ProjectDomainName: "Default", UserDomainName: "Default"},
	})
	token := k.token("u1", "user-password", "p1")
	who, err := a.Authenticate(request(token, ""))
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if who.UserID != userID || who.ProjectID != project || fmt.Sprint(who.Roles) != "[member reader]" && fmt.Sprint(who.Roles) != "[reader member]" || who.UserDomainID != "default" {
		t.Errorf("%+v; want user %s in project %s, a member and so a reader", who, userID, project)
	}
	for _, wrong := range []string{"nonsense", token[:len(token)-4] + "AAAA"} {
		if _, err := a.Authenticate(request(wrong, "")); !fault.IsKind(err, fault.Unauthenticated) {
			t.Errorf("token %q: %v", wrong, err)
		}
	}
	revoked := k.token("u1", "user-password", "p1")
	if _, err := a.Authenticate(request(revoked, "")); err != nil {
		t.Errorf("before it is revoked: %v", err)
	}
	k.logIn()
	r, err := http.NewRequestWithContext(t.Context(), "DELETE", k.url+"/auth/tokens", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", k.admin)
	r.Header.Set("X-Subject-Token", revoked)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if _, err := a.Authenticate(request(revoked, "")); !fault.IsKind(err, fault.Unauthenticated) {
		t.Errorf("revoked: %v", err)
	}
	// The token expires; a service may still pass it on. The own token has
	// expired as well, and is renewed.
	for deadline := time.Now().Add(60 * time.Second); ; {
		_, err := a.Authenticate(request(token, ""))
		if fault.IsKind(err, fault.Unauthenticated) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the token does not expire: %v\n%s", err, log.String())
		}
		time.Sleep(200 * time.Millisecond) // Keystone's clock gives no sign
	}
	service := k.token("admin", "admin-password", "admin")
	if who, err = a.Authenticate(request(token, service)); err != nil || who.ProjectID != project {
		t.Errorf("expired, passed on by a service: %+v, %v\n%s", who, err, log.String())
	}
	if log.Len() > 0 {
		t.Errorf("the log is not empty:\n%s", log.String())
	}
}
