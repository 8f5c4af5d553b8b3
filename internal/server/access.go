package server

import (
	"fmt"
	"log/slog"

	"isospin/internal/config"
	"isospin/internal/identity"
	"isospin/internal/identity/keystone"
	"isospin/internal/identity/policy"
	"isospin/internal/resource"
	"isospin/internal/rest"
	"isospin/internal/watch"
)

// noauth is the auth_strategy without callers and rules.
const noauth = "noauth"

// access is who may do what, as auth_strategy has it.
type access struct {
	authenticator identity.Authenticator
	enforcer      enforcer
	// uri is where callers are told to get a token.
	uri string
}

// enforcer decides about requests and about what watches show.
type enforcer interface {
	rest.Enforcer
	watch.Policy
}

// newAccess reads how callers are found out, before anything else is opened.
func newAccess(c *config.Config, log *slog.Logger) (*access, error) {
	switch strategy := config.AuthStrategy.Of(c); strategy {
	case noauth:
		return &access{authenticator: identity.NoAuth{}, enforcer: rest.AllowAll{}}, nil
	case "keystone":
		a, uri, err := keystone.FromConfig(c, log)
		if err != nil {
			return nil, err
		}
		return &access{authenticator: a, uri: uri}, nil
	default:
		return nil, fmt.Errorf("[DEFAULT] auth_strategy: %s is neither keystone nor noauth", strategy)
	}
}

// complete adds the policy, which needs all resources; what has no rule ends the
// start, also of a server that lets everybody do everything.
func (a *access) complete(c *config.Config, log *slog.Logger, registry *resource.Registry) error {
	asked := a.enforcer == nil
	if !asked { // that there are rules shows here, rather than in a cloud that needs them
		var err error
		if c, err = config.FromText(""); err != nil {
			return err
		}
	}
	engine, err := policy.New(policy.Options{Config: c, Logger: log, Registry: registry})
	if err != nil {
		return err
	}
	if err := engine.Check(); err != nil {
		return err
	}
	if asked {
		a.authenticator, a.enforcer = engine.Authenticator(a.authenticator), engine
	}
	return nil
}
