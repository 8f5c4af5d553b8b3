// Package keystone finds out who sent a request by asking Keystone (Identity
// API v3) about the tokens in it, as keystonemiddleware does. It is the
// identity.Authenticator of auth_strategy = keystone.
//
// It must not know policy or any resource, and it never logs tokens or passwords.
package keystone

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"isospin/internal/fault"
	"isospin/internal/identity"
)

// negativeTime is how long a refused token is remembered: long enough for a
// client that repeats itself, short enough not to matter.
const negativeTime = 10 * time.Second

// maxToken is the greatest length of a token that is looked at, in bytes.
const maxToken = 16 << 10

// Options of New.
type Options struct {
	// AuthURL is Keystone's, with or without /v3.
	AuthURL string // required
	// Credentials of this service.
	Credentials Credentials // required
	Logger      *slog.Logger
	// Interface (internal, public, admin) and Region choose the endpoint in the
	// catalog that tokens are validated at. Default: internal, any region.
	Interface, Region string // optional
	// ServiceTokenRoles are those of which a service token must have one, when required.
	ServiceTokenRoles         []string // optional
	ServiceTokenRolesRequired bool     // optional
	// CacheTime is how long a validated token is trusted without asking again. 0: not at all.
	CacheTime time.Duration // optional
	// CacheSize is the greatest number of tokens remembered. Default: 20,000.
	CacheSize int // optional
	// Timeout of one request to Keystone. Default: 10 s.
	Timeout time.Duration // optional
	// Retries of a request to Keystone that failed. Default: 0.
	Retries int // optional
	// Client sends the requests. Default: one with MaxConnsPerHost 64.
	Client *http.Client // optional
	// Now is the clock. Default: time.Now.
	Now func() time.Time // optional
}

// Authenticator validates tokens. It is safe for concurrent use.
type Authenticator struct {
	options Options
	client  *client
	valid   *cache[*identified]
	invalid *cache[struct{}]
	asking  singleflight.Group
}

var _ identity.Authenticator = (*Authenticator)(nil)

// identified is a token that Keystone knows.
type identified struct {
	who     identity.Context
	expires time.Time
}

// New returns an authenticator. It asks Keystone nothing before the first request.
func New(o Options) *Authenticator {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CacheSize == 0 {
		o.CacheSize = 20000
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return &Authenticator{options: o, client: newClient(o), valid: newCache[*identified](o.CacheSize), invalid: newCache[struct{}](o.CacheSize / 4)}
}

// errInvalid is Keystone's word that a token is none (any more).
var errInvalid = errors.New("the token is not valid")

// Authenticate implements identity.Authenticator: X-Auth-Token says who asks;
// X-Service-Token, which service passes the request on, in which case the
// first may have expired meanwhile.
func (a *Authenticator) Authenticate(r *http.Request) (*identity.Context, error) {
	token, service := r.Header.Get("X-Auth-Token"), r.Header.Get("X-Service-Token")
	var passing *identified
	if service != "" {
		var err error
		if passing, err = a.identify(r.Context(), service, false); err != nil {
			return nil, a.fault(err)
		}
		if a.options.ServiceTokenRolesRequired && !a.hasServiceRole(passing) {
			return nil, a.fault(errInvalid)
		}
	}
	found, err := a.identify(r.Context(), token, passing != nil)
	if err != nil {
		return nil, a.fault(err)
	}
	who := found.who
	if passing != nil {
		who.ServiceUserID, who.ServiceRoles = passing.who.UserID, passing.who.Roles
	}
	return &who, nil
}

func (a *Authenticator) hasServiceRole(i *identified) bool {
	return slices.ContainsFunc(i.who.Roles, func(have string) bool { return slices.Contains(a.options.ServiceTokenRoles, have) })
}

func (a *Authenticator) fault(err error) error {
	if errors.Is(err, errInvalid) {
		return &fault.Error{Kind: fault.Unauthenticated, Type: "HTTPUnauthorized", Message: "The request you have made requires authentication.", Cause: err}
	}
	return &fault.Error{Kind: fault.Unavailable, Type: "HTTPServiceUnavailable", Message: "The Keystone service is temporarily unavailable.", Cause: err}
}

// identify returns who a token is of. With allowExpired, it may have expired.
func (a *Authenticator) identify(ctx context.Context, token string, allowExpired bool) (*identified, error) {
	if !printable(token) {
		return nil, errInvalid
	}
	key := keyOf(token, allowExpired)
	now := a.options.Now()
	// A token that is valid as it is needs no second look because it is passed on.
	if found, ok := a.valid.get(keyOf(token, false), now); ok {
		return found, nil
	}
	if allowExpired {
		if found, ok := a.valid.get(key, now); ok {
			return found, nil
		}
	}
	if _, ok := a.invalid.get(key, now); ok {
		return nil, errInvalid
	}
	// One question for all requests that wait for its answer. It goes on when
	// the first of them leaves; the client's timeout ends it.
	answer := a.asking.DoChan(string(key[:]), func() (any, error) {
		return a.ask(context.WithoutCancel(ctx), token, key, allowExpired)
	})
	select {
	case got := <-answer:
		if got.Err != nil {
			return nil, got.Err
		}
		return got.Val.(*identified), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *Authenticator) ask(ctx context.Context, token string, key cacheKey, allowExpired bool) (*identified, error) {
	found, err := a.client.validate(ctx, token, allowExpired)
	now := a.options.Now()
	if err == nil && !allowExpired && !now.Before(found.expires) {
		err = errInvalid
	}
	switch {
	case errors.Is(err, errInvalid):
		a.invalid.put(key, struct{}{}, now, now.Add(negativeTime))
		return nil, errInvalid
	case err != nil:
		return nil, err
	}
	until := now.Add(a.options.CacheTime)
	if !allowExpired && found.expires.Before(until) {
		until = found.expires
	}
	a.valid.put(key, found, now, until)
	return found, nil
}

// printable tells whether a token may stand in a header.
func printable(token string) bool {
	return token != "" && len(token) <= maxToken && strings.IndexFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// keyOf names a token in caches; nothing keeps the token itself.
func keyOf(token string, allowExpired bool) cacheKey {
	sum := sha256.Sum256([]byte(token))
	var k cacheKey
	copy(k[:], sum[:])
	if allowExpired {
		k[sha256.Size] = 1
	}
	return k
}

// body of GET /v3/auth/tokens, as far as it matters.
type body struct {
	Token struct {
		Expires string `json:"expires_at"`
		User    struct {
			ID     string `json:"id"`
			Name   string `json:"name"`
			Domain named  `json:"domain"`
		} `json:"user"`
		Project *struct {
			ID     string `json:"id"`
			Name   string `json:"name"`
			Domain named  `json:"domain"`
		} `json:"project"`
		Domain  *named          `json:"domain"`
		System  map[string]bool `json:"system"`
		Roles   []named         `json:"roles"`
		Catalog []struct {
			Type      string `json:"type"`
			Endpoints []struct {
				Interface string `json:"interface"`
				Region    string `json:"region"`
				RegionID  string `json:"region_id"`
				URL       string `json:"url"`
			} `json:"endpoints"`
		} `json:"catalog"`
	} `json:"token"`
}

type named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// identified reads a token's body.
func (b *body) identified() (*identified, error) {
	t := &b.Token
	expires, err := time.Parse(time.RFC3339, t.Expires)
	if err != nil {
		return nil, fmt.Errorf("keystone: expires_at of a token: %w", err)
	}
	if t.User.ID == "" {
		return nil, errors.New("keystone: a token has no user")
	}
	i := &identified{expires: expires, who: identity.Context{UserID: t.User.ID, UserName: t.User.Name, UserDomainID: t.User.Domain.ID}}
	if t.Project != nil {
		i.who.ProjectID, i.who.ProjectName, i.who.ProjectDomainID = t.Project.ID, t.Project.Name, t.Project.Domain.ID
	}
	if t.Domain != nil {
		i.who.DomainID = t.Domain.ID
	}
	if t.System["all"] {
		i.who.SystemScope = "all"
	}
	for _, r := range t.Roles {
		i.who.Roles = append(i.who.Roles, r.Name)
	}
	return i, nil
}
