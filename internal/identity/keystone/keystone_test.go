package keystone

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"isospin/internal/config"
	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/identity/keystone/keystonetest"
)

// world is an authenticator before a Keystone of tests, with a clock and a log.
type world struct {
	*Authenticator
	keystone *keystonetest.Keystone
	mu       sync.Mutex
	now      time.Time
	log      bytes.Buffer
}

func (w *world) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) wait(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	w := &world{keystone: keystonetest.Start(t), now: time.Now()}
	c, err := config.FromText(w.keystone.Config() + text)
	if err != nil {
		t.Fatal(err)
	}
	a, uri, err := FromConfig(c, slog.New(slog.NewTextHandler(w, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if uri != w.keystone.URL {
		t.Errorf("clients are sent to %s", uri)
	}
	w.Authenticator = a
	clock := func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.now
	}
	a.options.Now, a.client.options.Now = clock, clock
	t.Cleanup(func() {
		for _, secret := range []string{keystonetest.Password, "tok-", "own-"} {
			if strings.Contains(w.logged(), secret) {
				t.Errorf("the log holds %q:\n%s", secret, w.logged())
			}
		}
	})
	return w
}

func request(token, service string) *http.Request {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://localhost/v2.0/networks", nil)
	if err != nil {
		panic(err)
	}
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	if service != "" {
		r.Header.Set("X-Service-Token", service)
	}
	return r
}

// who is the outcome of a request in short.
func (w *world) who(token, service string) string {
	c, err := w.Authenticate(request(token, service))
	if err != nil {
		return fmt.Sprint(fault.As(err).Kind)
	}
	return fmt.Sprintf("%s in %s as %v", c.UserID, c.ProjectID, c.Roles)
}

var (
	refused     = fmt.Sprint(fault.Unauthenticated)
	unavailable = fmt.Sprint(fault.Unavailable)
)

func (w *world) expect(t *testing.T, about, token, service, want string) {
	t.Helper()
	if got := w.who(token, service); got != want {
		t.Errorf("%s: %s; want %s\n%s", about, got, want, w.logged())
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t, "")
	w.keystone.Add("tok-1", keystonetest.Token{UserID: "u1", ProjectID: "p1", Roles: []string{"member", "reader"}})
	w.keystone.Add("tok-2", keystonetest.Token{UserID: "u2", System: true, Roles: []string{"admin"}})
	w.keystone.Add("tok-3", keystonetest.Token{UserID: "u3", DomainID: "default", Roles: []string{"admin"}})
	w.expect(t, "a member", "tok-1", "", "u1 in p1 as [member reader]")
	w.expect(t, "no token", "", "", refused)
	w.expect(t, "an unknown token", "tok-9", "", refused)
	w.expect(t, "what no token can be", "tok-1\r\nX-Evil: 1", "", refused)
	w.expect(t, "a very long token", "tok-"+strings.Repeat("x", maxToken), "", refused)
	c, err := w.Authenticate(request("tok-2", ""))
	if err != nil || c.SystemScope != "all" || c.ProjectID != "" || c.Admin {
		t.Errorf("system: %+v, %v", c, err)
	}
	c, err = w.Authenticate(request("tok-3", ""))
	if err != nil || c.DomainID != "default" || c.UserDomainID != "default" || c.ProjectID != "" {
		t.Errorf("domain: %+v, %v", c, err)
	}
	if logins, _ := w.keystone.Counts(); logins != 1 {
		t.Errorf("the service logged in %d times", logins)
	}
}

func TestCache(t *testing.T) {
	w := newWorld(t, "")
	asked := func(want int) {
		t.Helper()
		if _, n := w.keystone.Counts(); n != want {
			t.Errorf("Keystone was asked %d times; want %d", n, want)
		}
	}
	w.keystone.Add("tok-1", keystonetest.Token{UserID: "u1", ProjectID: "p1"})
	for range 10 {
		w.expect(t, "a member", "tok-1", "", "u1 in p1 as []")
	}
	asked(1)
	// A revoked token ends when the cache's time does, not before and not later.
	w.keystone.Revoke("tok-1")
	w.wait(299 * time.Second)
	w.expect(t, "revoked, cached", "tok-1", "", "u1 in p1 as []")
	w.wait(time.Second)
	w.expect(t, "revoked", "tok-1", "", refused)
	asked(2)
	// A refusal is remembered shortly.
	w.keystone.Add("tok-1", keystonetest.Token{UserID: "u1", ProjectID: "p1"})
	w.expect(t, "refused, cached", "tok-1", "", refused)
	asked(2)
	w.wait(negativeTime)
	w.expect(t, "made known", "tok-1", "", "u1 in p1 as []")
	// A token ends when it expires, also in the cache.
	w.keystone.Add("tok-2", keystonetest.Token{UserID: "u2", ProjectID: "p1", Expires: time.Now().Add(400 * time.Second)})
	w.expect(t, "expires soon", "tok-2", "", "u2 in p1 as []")
	w.wait(100 * time.Second)
	w.expect(t, "expired", "tok-2", "", refused)
}

func TestCacheIsBounded(t *testing.T) {
	c, now := newCache[int](100), time.Now()
	for i := range 10000 {
		c.put(keyOf(fmt.Sprint(i), false), i, now, now.Add(time.Minute))
	}
	if n := len(c.entries); n > 100 {
		t.Errorf("the cache holds %d entries", n)
	}
	if v, ok := c.get(keyOf("9999", false), now); !ok || v != 9999 {
		t.Errorf("the last entry is %v, %v", v, ok)
	}
	if keyOf("a", false) == keyOf("a", true) {
		t.Error("expired and other tokens are confused")
	}
}

func TestNoCache(t *testing.T) {
	w := newWorld(t, "token_cache_time = -1\n")
	w.keystone.Add("tok-1", keystonetest.Token{UserID: "u1", ProjectID: "p1"})
	w.expect(t, "known", "tok-1", "", "u1 in p1 as []")
	w.keystone.Revoke("tok-1")
	w.expect(t, "revoked", "tok-1", "", refused)
}

func TestKeystoneAway(t *testing.T) {
	w := newWorld(t, "")
	w.keystone.Add("tok-1", keystonetest.Token{UserID: "u1", ProjectID: "p1"})
	w.keystone.Add("tok-2", keystonetest.Token{UserID: "u2", ProjectID: "p1"})
	w.keystone.Answer(http.StatusInternalServerError)
	w.expect(t, "away from the beginning", "tok-1", "", unavailable)
	w.expect(t, "away from the beginning", "tok-1", "", unavailable)
	w.keystone.Answer(0)
	w.expect(t, "back", "tok-1", "", "u1 in p1 as []")
	for _, status := range []int{500, 503, 429, 403, 400, 302} {
		w.keystone.Answer(status)
		w.expect(t, fmt.Sprint("answers ", status), "tok-2", "", unavailable)
		w.expect(t, "a cached token", "tok-1", "", "u1 in p1 as []")
	}
	w.keystone.Answer(0)
	w.expect(t, "back again", "tok-2", "", "u2 in p1 as []")
	if n := strings.Count(w.logged(), "cannot be validated"); n != 2 {
		t.Errorf("Keystone's absence was logged %d times, not twice:\n%s", n, w.logged())
	}
}

func TestNobodyListens(t *testing.T) {
	a := New(Options{AuthURL: "http://127.0.0.1:1", Logger: slog.New(slog.DiscardHandler), Credentials: Credentials{Username: "x", Password: "y"}})
	if _, err := a.Authenticate(request("tok-1", "")); !fault.IsKind(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestOwnTokenIsRenewed(t *testing.T) {
	w := newWorld(t, "")
	for i := range 4 {
		w.keystone.Add(fmt.Sprint("tok-", i), keystonetest.Token{UserID: "u", ProjectID: "p", Expires: time.Now().Add(9 * time.Hour)})
	}
	logins := func(want int) {
		t.Helper()
		if n, _ := w.keystone.Counts(); n != want {
			t.Errorf("the service logged in %d times; want %d", n, want)
		}
	}
	w.expect(t, "first", "tok-0", "", "u in p as []")
	w.keystone.RevokeOwn()
	w.expect(t, "after the own token was revoked", "tok-1", "", "u in p as []")
	logins(2)
	w.wait(59*time.Minute + 30*time.Second)
	w.expect(t, "before the own token expires", "tok-2", "", "u in p as []")
	logins(3)
	// Refused credentials are not tried again at once, and not the caller's fault.
	w.keystone.RevokeOwn()
	w.client.options.Credentials.Password = "wrong"
	for range 5 {
		w.expect(t, "wrong password", "tok-3", "", unavailable)
	}
	logins(4)
	w.client.options.Credentials.Password = keystonetest.Password
	w.wait(refusedPause)
	w.expect(t, "right password", "tok-3", "", "u in p as []")
	if !strings.Contains(w.logged(), "log in of user neutron") {
		t.Errorf("the log does not say who could not log in:\n%s", w.logged())
	}
}

func TestServiceTokens(t *testing.T) {
	w := newWorld(t, "service_token_roles_required = true\n")
	past := time.Now().Add(-time.Hour)
	w.keystone.Add("tok-old", keystonetest.Token{UserID: "u1", ProjectID: "p1", Roles: []string{"member"}, Expires: past})
	w.keystone.Add("tok-nova", keystonetest.Token{UserID: "nova", ProjectID: "service", Roles: []string{"service"}})
	w.keystone.Add("tok-user", keystonetest.Token{UserID: "u2", ProjectID: "p2", Roles: []string{"member"}})
	w.expect(t, "expired", "tok-old", "", refused)
	w.expect(t, "expired, passed on by a service", "tok-old", "tok-nova", "u1 in p1 as [member]")
	w.expect(t, "expired, after that", "tok-old", "", refused)
	w.expect(t, "expired, passed on by a user", "tok-old", "tok-user", refused)
	w.expect(t, "valid, passed on by a user", "tok-nova", "tok-user", refused)
	w.expect(t, "valid, passed on by nobody known", "tok-user", "tok-9", refused)
	w.expect(t, "expired, passed on by an expired service", "tok-user", "tok-old", refused)
	w.expect(t, "a service alone is no caller", "", "tok-nova", refused)
	c, err := w.Authenticate(request("tok-user", "tok-nova"))
	if err != nil || c.ServiceUserID != "nova" || fmt.Sprint(c.ServiceRoles) != "[service]" || c.UserID != "u2" {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = w.Authenticate(request("tok-user", "")); err != nil || c.ServiceUserID != "" {
		t.Errorf("the service stuck to the cached caller: %+v, %v", c, err)
	}
}

// Many requests with one token are one question; who leaves does not end it for the others.
func TestOneQuestion(t *testing.T) {
	w := newWorld(t, "")
	w.keystone.Add("tok-1", keystonetest.Token{UserID: "u1", ProjectID: "p1"})
	release := w.keystone.Hold()
	leaving, leave := context.WithCancel(context.Background())
	var all sync.WaitGroup
	outcome := make(chan error, 20)
	left := make(chan error, 1)
	all.Go(func() {
		_, err := w.Authenticate(request("tok-1", "").WithContext(leaving))
		left <- err
	})
	for range 20 {
		all.Go(func() {
			_, err := w.Authenticate(request("tok-1", ""))
			outcome <- err
		})
	}
	leave()
	<-left
	release()
	all.Wait()
	for range 20 {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
	if logins, asked := w.keystone.Counts(); logins != 1 || asked != 1 {
		t.Errorf("%d log ins, %d questions; want one of each", logins, asked)
	}
}

func TestFromConfig(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "auth_url is not set"},
		{"", "username is not set"},
		{"", "password is not set"},
		{"", "project_name is not set"},
		{"auth_url = keystone.example.org", "auth_url: it must be http"},
		{"cafile = /does/not/exist", "cafile: "},
	} {
		cfg, err := config.FromText("[keystone_authtoken]\n" + c.text)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := FromConfig(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", c.text, err, c.want)
		}
	}
	if _, err := config.FromText("[keystone_authtoken]\nauth_type = v3kerberos\n"); err == nil {
		t.Error("an auth_type that there is not was accepted")
	}
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		c    Credentials
		want string
	}{
		{Credentials{Username: "u", Password: "x", ProjectName: "p"},
			`{"auth":{"identity":{"methods":["password"],"password":{"user":{"domain":{"id":"default"},"name":"u","password":"x"}}},"scope":{"project":{"domain":{"id":"default"},"name":"p"}}}}`},
		{Credentials{Username: "u", UserDomainName: "D", Password: "x", ProjectName: "p", ProjectDomainID: "d"},
			`{"auth":{"identity":{"methods":["password"],"password":{"user":{"domain":{"name":"D"},"name":"u","password":"x"}}},"scope":{"project":{"domain":{"id":"d"},"name":"p"}}}}`},
		{Credentials{UserID: "u", Password: "x", ProjectID: "p"},
			`{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"u","password":"x"}}},"scope":{"project":{"id":"p"}}}}`},
		{Credentials{UserID: "u", Password: "x", System: true},
			`{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"u","password":"x"}}},"scope":{"system":{"all":true}}}}`},
	} {
		got, err := c.c.Request()
		if err != nil || string(got) != c.want {
			t.Errorf("%s, %v; want %s", got, err, c.want)
		}
		if text := fmt.Sprintf("%v %+v %#v", c.c, c.c, c.c); strings.Contains(text, "x") {
			t.Errorf("the password is in %s", text)
		}
	}
}

var _ identity.Authenticator = (*world)(nil)
