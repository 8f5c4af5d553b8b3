// Package keystonetest is as much of Keystone as the validation of tokens
// needs, for tests: tokens that the test makes up, on a free loopback port.
//
// It must not know who asks it.
package keystonetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// The service user that may validate tokens.
const (
	Username = "neutron"
	Password = "service-password"
	Project  = "service"
)

// Token is what Keystone knows about one.
type Token struct {
	UserID    string
	ProjectID string // empty: not of a project
	DomainID  string // empty: not of a domain
	System    bool
	Roles     []string
	// Expires. Zero: in an hour.
	Expires time.Time
}

// Keystone is a running fake.
type Keystone struct {
	// URL without a version.
	URL string

	mu     sync.Mutex
	tokens map[string]Token
	own    map[string]bool
	logins int
	asked  int
	status int
	hold   chan struct{}
}

// Start runs a Keystone until the test ends.
func Start(t testing.TB) *Keystone {
	k := &Keystone{tokens: map[string]Token{}, own: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/auth/tokens", k.logIn)
	mux.HandleFunc("GET /v3/auth/tokens", k.validate)
	server := httptest.NewServer(mux)
	k.URL = server.URL
	t.Cleanup(server.Close)
	return k
}

// Config is the configuration of a service that asks this Keystone.
func (k *Keystone) Config() string {
	return fmt.Sprintf(`
[DEFAULT]
auth_strategy = keystone
[keystone_authtoken]
auth_url = %s
username = %s
password = %s
project_name = %s
http_request_max_retries = 0
`, k.URL, Username, Password, Project)
}

// Add makes a token known.
func (k *Keystone) Add(id string, t Token) {
	if t.Expires.IsZero() {
		t.Expires = time.Now().Add(time.Hour)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens[id] = t
}

// Revoke makes a token unknown.
func (k *Keystone) Revoke(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, id)
}

// RevokeOwn makes the tokens of the service user unknown.
func (k *Keystone) RevokeOwn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.own)
}

// Answer makes every answer one of that status; 0: as it should be.
func (k *Keystone) Answer(status int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = status
}

// Hold keeps validations waiting until release is called.
func (k *Keystone) Hold() (release func()) {
	hold := make(chan struct{})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold = hold
	return func() { close(hold) }
}

// Counts returns how often the service user logged in and how many tokens were asked about.
func (k *Keystone) Counts() (logins, asked int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.logins, k.asked
}

func (k *Keystone) logIn(w http.ResponseWriter, r *http.Request) {
	var b struct {
		Auth struct {
			Identity struct {
				Password struct {
					User struct{ Name, Password string }
				}
			}
			Scope struct {
				Project struct {
					Name   string
					Domain struct{ ID, Name string }
				}
			}
		}
	}
	err := json.NewDecoder(r.Body).Decode(&b)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.logins++
	user := b.Auth.Identity.Password.User
	switch {
	case k.status != 0:
		w.WriteHeader(k.status)
		return
	case err != nil || user.Name != Username || user.Password != Password || b.Auth.Scope.Project.Name != Project || b.Auth.Scope.Project.Domain.ID != "default":
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	id := fmt.Sprintf("own-%d", k.logins)
	k.own[id] = true
	w.Header().Set("X-Subject-Token", id)
	w.WriteHeader(http.StatusCreated)
	endpoint := func(of, url string) map[string]any {
		return map[string]any{"interface": of, "region": "RegionOne", "region_id": "RegionOne", "url": url}
	}
	token := content(Token{UserID: "neutron", ProjectID: "service", Roles: []string{"service"}, Expires: time.Now().Add(time.Hour)})
	token["catalog"] = []any{
		map[string]any{"type": "compute", "endpoints": []any{endpoint("internal", "http://127.0.0.1:1/")}},
		map[string]any{"type": "identity", "endpoints": []any{endpoint("public", "http://127.0.0.1:1/v3"), endpoint("internal", k.URL+"/v3/")}},
	}
	k.write(w, token)
}

func (k *Keystone) write(w http.ResponseWriter, token map[string]any) {
	// An error means that the client is gone.
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token})
}

func (k *Keystone) validate(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	hold := k.hold
	k.mu.Unlock()
	if hold != nil {
		<-hold
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	t, known := k.tokens[r.Header.Get("X-Subject-Token")]
	switch {
	case k.status != 0:
		w.WriteHeader(k.status)
	case !k.own[r.Header.Get("X-Auth-Token")]:
		w.WriteHeader(http.StatusUnauthorized)
	case !known || t.Expires.Before(time.Now()) && r.URL.Query().Get("allow_expired") != "1":
		w.WriteHeader(http.StatusNotFound)
	default:
		k.write(w, content(t))
	}
}

func content(t Token) map[string]any {
	domain := map[string]any{"id": "default", "name": "Default"}
	roles := []any{}
	for _, r := range t.Roles {
		roles = append(roles, map[string]any{"id": "id-of-" + r, "name": r})
	}
	b := map[string]any{
		"methods": []string{"password"}, "expires_at": t.Expires.UTC().Format("2006-01-02T15:04:05.000000Z"), "roles": roles,
		"user": map[string]any{"id": t.UserID, "name": "name of " + t.UserID, "domain": domain},
	}
	if t.ProjectID != "" {
		b["project"] = map[string]any{"id": t.ProjectID, "name": "name of " + t.ProjectID, "domain": domain}
	}
	if t.DomainID != "" {
		b["domain"] = map[string]any{"id": t.DomainID, "name": "Default"}
	}
	if t.System {
		b["system"] = map[string]any{"all": true}
	}
	return b
}
