// Package identity says who asks: it turns a request's credentials into a
// Context, which everything below the HTTP edge gets by context.Context.
//
// It must not know any resource.
package identity

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// Context is the caller of one request. What lists it holds must not be changed.
type Context struct {
	// ProjectID is the project of the token; empty with a token of a domain, of
	// the system, or of nothing.
	ProjectID string
	// ProjectName and UserName are as Keystone knows them; empty: unknown.
	ProjectName string
	UserID      string
	UserName    string
	Roles       []string
	// Admin: may see and change everything.
	Admin bool
	// Global: may see what is of other projects; a service of the cloud, mostly.
	Global bool

	UserDomainID    string
	ProjectDomainID string
	// DomainID is the domain of a token of a domain.
	DomainID string
	// SystemScope is "all" with a token of the system.
	SystemScope string
	// ServiceUserID and ServiceRoles are of the service that passes on the
	// caller's request (X-Service-Token).
	ServiceUserID string
	ServiceRoles  []string

	// RequestID is "req-<uuid>".
	RequestID string
}

// SeesAll tells whether the objects of all projects are visible.
func (c *Context) SeesAll() bool { return c.Admin || c.Global }

type key struct{}

// request is a caller with what was found out in its request.
type request struct {
	who  *Context
	memo sync.Map
}

// With attaches the caller to a context.
func With(ctx context.Context, c *Context) context.Context {
	return context.WithValue(ctx, key{}, &request{who: c})
}

// From returns the caller; without one, the caller owns nothing and may do nothing.
func From(ctx context.Context) *Context {
	if r, ok := ctx.Value(key{}).(*request); ok {
		return r.who
	}
	return &Context{}
}

// Memo keeps what was found out about a caller for the length of one request.
// Keys are of unexported types, as with context values. Without a caller,
// nothing is kept.
func Memo(ctx context.Context) *sync.Map {
	if r, ok := ctx.Value(key{}).(*request); ok {
		return &r.memo
	}
	return new(sync.Map)
}

// System returns a context for work that no client asked for (agents' reports,
// clean-up): an administrator without a project.
func System(ctx context.Context) context.Context {
	return With(ctx, &Context{Admin: true, RequestID: systemPrefix + uuid.NewString()})
}

const systemPrefix = "system-"

// Asked tells whether a request id is of a client's request.
func Asked(requestID string) bool {
	return requestID != "" && !strings.HasPrefix(requestID, systemPrefix)
}

// NewRequestID returns a request id as X-Openstack-Request-Id carries it.
func NewRequestID() string { return "req-" + uuid.NewString() }

// Authenticator finds out who sent a request. Its errors are faults.
type Authenticator interface {
	Authenticate(r *http.Request) (*Context, error)
}

// NoAuth is auth_strategy = noauth: every caller is an administrator of the
// project "fake_project_id", as in Neutron.
type NoAuth struct{}

// Authenticate implements Authenticator.
func (NoAuth) Authenticate(*http.Request) (*Context, error) {
	return &Context{ProjectID: "fake_project_id", Admin: true, Roles: []string{"admin"}}, nil
}
