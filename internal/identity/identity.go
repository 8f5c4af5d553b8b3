// Package identity says who asks: it turns a request's credentials into a
// Context, which everything below the HTTP edge gets by context.Context.
//
// It must not know any resource.
package identity

import (
	"context"
	"net/http"

	"github.com/google/uuid"
)

// Context is the caller of one request.
type Context struct {
	ProjectID string
	UserID    string
	Roles     []string
	// Admin: may see and change everything.
	Admin bool
	// RequestID is "req-<uuid>".
	RequestID string
}

type key struct{}

// With attaches the caller to a context.
func With(ctx context.Context, c *Context) context.Context { return context.WithValue(ctx, key{}, c) }

// From returns the caller; without one, the caller owns nothing and may do nothing.
func From(ctx context.Context) *Context {
	if c, ok := ctx.Value(key{}).(*Context); ok {
		return c
	}
	return &Context{}
}

// System returns a context for work that no client asked for (agents' reports,
// clean-up): an administrator without a project.
func System(ctx context.Context) context.Context {
	return With(ctx, &Context{Admin: true, RequestID: NewRequestID()})
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
