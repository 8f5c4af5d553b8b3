package core

import (
	"context"
	"fmt"

	"isospin/internal/store"
)

// ServiceProvider is one implementation of a service, as operators name it.
type ServiceProvider struct {
	// ServiceType is the service, e.g. L3_ROUTER_NAT.
	ServiceType string `json:"service_type"`
	// Name of the implementation, unique among those of a service.
	Name string `json:"name"`
	// Driver is Neutron's path of the implementation; profiles of flavors name it.
	Driver string `json:"-"`
	// Default: what names no provider gets this one.
	Default bool `json:"default"`
}

// L3RouterNAT is the service type of routers.
const L3RouterNAT = "L3_ROUTER_NAT"

// longestName is that of a provider, as Neutron keeps it.
const longestName = 255

// ServiceProviders are the providers of all services, in the order in which
// they are shown.
type ServiceProviders struct{ list []ServiceProvider }

// Add adds a provider. It fails when its name or driver is taken within the
// service, or when the service has a default already.
func (p *ServiceProviders) Add(o ServiceProvider) error {
	if len(o.Name) > longestName {
		return fmt.Errorf("service %s has a provider whose name is longer than %d characters: %.20s…", o.ServiceType, longestName, o.Name)
	}
	for _, have := range p.list {
		switch {
		case have.ServiceType != o.ServiceType:
		case have.Name == o.Name:
			return fmt.Errorf("service %s has two providers %s", o.ServiceType, o.Name)
		case have.Driver == o.Driver:
			return fmt.Errorf("service %s has two providers with the driver %s", o.ServiceType, o.Driver)
		case have.Default && o.Default:
			return fmt.Errorf("service %s has two default providers, %s and %s", o.ServiceType, have.Name, o.Name)
		}
	}
	p.list = append(p.list, o)
	return nil
}

// All returns all providers.
func (p *ServiceProviders) All() []ServiceProvider { return p.list }

// WithDriver returns the provider of any service that has the driver.
func (p *ServiceProviders) WithDriver(driver string) (ServiceProvider, bool) {
	for _, have := range p.list {
		if have.Driver == driver {
			return have, true
		}
	}
	return ServiceProvider{}, false
}

// Flavors is what services ask of flavors. What has a flavor keeps its id in a
// column that references the table flavor: while it does, the flavor cannot go.
type Flavors interface {
	// Provider is what serves objects of a flavor: that of the flavor's first
	// service profile. It fails as the API does: FlavorNotFound,
	// FlavorServiceProfileBindingNotFound, ServiceProfileDisabled,
	// ServiceProfileDriverNotFound.
	Provider(ctx context.Context, tx *store.Tx, flavorID string) (ServiceProvider, error)
}
