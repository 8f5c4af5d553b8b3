package api

import (
	"log/slog"
	"testing"

	"isospin/internal/config"
	"isospin/internal/identity/policy"
	"isospin/test/servertest"
)

// TestPolicyRules: a server with auth_strategy = keystone does not start when
// anything that clients can reach has no policy rule. Tests without Keystone
// would not notice.
func TestPolicyRules(t *testing.T) {
	s := servertest.Start(t, servertest.Networks)
	c, err := config.FromText("")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := policy.New(policy.Options{Config: c, Logger: slog.New(slog.DiscardHandler), Registry: s.Core.Registry})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Check(); err != nil {
		t.Errorf("the defaults of internal/identity/policy lack what the contract's policies have:\n%v", err)
	}
}
