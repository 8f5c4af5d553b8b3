// Package reconcile orders phases of work that makes the world as desired, and
// spaces out what keeps failing.
//
// It must not know the kernel, Open vSwitch or SQL: its users do the work and
// tell it what came of it.
package reconcile

import (
	"context"
	"errors"
	"fmt"
)

// Phase is one step of making the world as desired.
type Phase struct {
	Name string // required; a noun for errors: "addresses"
	// Required ends the run when the phase fails: the later ones build on it.
	// Otherwise they run all the same. // optional
	Required bool
	Run      func(context.Context) error // required
}

// RunPhases runs the phases in order and joins their errors.
func RunPhases(ctx context.Context, phases ...Phase) error {
	var all []error
	for _, p := range phases {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(all, err)...)
		}
		if err := p.Run(ctx); err != nil {
			all = append(all, fmt.Errorf("%s: %w", p.Name, err))
			if p.Required {
				break
			}
		}
	}
	return errors.Join(all...)
}
