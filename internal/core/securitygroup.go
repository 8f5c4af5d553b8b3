package core

import (
	"context"

	"isospin/internal/store"
)

// SecurityGroups is what other families ask of security groups, and where they
// hook in. The family of security groups fills in Check.
type SecurityGroups struct {
	// Check refuses a group that the caller may not use, or that is not there, with SecurityGroupNotFound.
	Check func(ctx context.Context, tx *store.Tx, id string) error
	// BeforeDelete hooks run for every deletion of a group that nothing refuses any more.
	BeforeDelete []func(ctx context.Context, tx *store.Tx, id string) error
}
