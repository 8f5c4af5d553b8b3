// Package mech is the registry of mechanism drivers: what binds ports to the
// software of hosts. Each driver is a directory of its own.
//
// It must not know any driver.
package mech

import (
	"fmt"
	"sort"
	"strings"

	"isospin/internal/config"
	"isospin/internal/core/port"
)

// Factory makes a driver from the configuration.
type Factory func(c *config.Config) (port.Mechanism, error)

var factories = map[string]Factory{}

// Register adds a driver; a duplicate panics.
func Register(name string, f Factory) {
	if factories[name] != nil {
		panic("mechanism driver " + name + " is registered twice")
	}
	factories[name] = f
}

// Load makes the drivers that [ml2] mechanism_drivers names, in its order.
func Load(c *config.Config) ([]port.Mechanism, error) {
	var drivers []port.Mechanism
	for _, name := range config.ML2MechanismDrivers.Of(c) {
		f := factories[name]
		if f == nil {
			known := make([]string, 0, len(factories))
			for n := range factories {
				known = append(known, n)
			}
			sort.Strings(known)
			return nil, fmt.Errorf("[ml2] mechanism_drivers: there is no mechanism driver %q; known are %s", name, strings.Join(known, ", "))
		}
		d, err := f(c)
		if err != nil {
			return nil, fmt.Errorf("mechanism driver %s: %w", name, err)
		}
		drivers = append(drivers, d)
	}
	return drivers, nil
}
