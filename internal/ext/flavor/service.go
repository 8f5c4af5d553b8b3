package flavor

import (
	"context"
	"errors"
	"unicode/utf8"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

type service struct {
	core     *core.Core
	flavors  *collection.Collection[Flavor, *Flavor]
	profiles *collection.Collection[Profile, *Profile]
}

func newService(c *core.Core) *service {
	s := &service{core: c}
	// Flavors belong to the cloud: who may see one is for policy alone.
	everybody := func(context.Context) (string, []any) { return "", nil }
	s.flavors = collection.New[Flavor](collection.Options[Flavor]{
		Store: c.Store, Resource: newFlavorResource(),
		Table:  store.NewTable[Flavor]("flavor", store.TableOptions[Flavor]{Children: []func(*store.Tx, []*Flavor) error{fillProfiles}}),
		Create: s.create, Delete: s.delete, Scope: everybody,
		Update: func(ctx context.Context, tx *store.Tx, old, want *Flavor, _ *resource.Body) error {
			want.Profiles = old.Profiles // those are changed by their own calls only
			return s.flavors.Save(ctx, tx, want)
		},
	})
	s.profiles = collection.New[Profile](collection.Options[Profile]{
		Store: c.Store, Resource: newProfileResource(), Table: store.NewTable[Profile]("service_profile", store.TableOptions[Profile]{}),
		Create: s.createProfile, Update: s.updateProfile, Delete: s.deleteProfile, Scope: everybody,
	})
	s.flavors.Resource.Shared, s.profiles.Resource.Shared = collection.WithAll, collection.WithAll
	return s
}

func fillProfiles(tx *store.Tx, rows []*Flavor) error {
	ids, by := make([]string, len(rows)), make(map[string]*Flavor, len(rows))
	for i, f := range rows {
		ids[i], by[f.ID] = f.ID, f
	}
	return store.Gather(tx, "SELECT flavor_id, service_profile_id FROM flavor_service_profile WHERE %s ORDER BY flavor_id, service_profile_id", "flavor_id", ids, func(scan func(...any) error) error {
		var id, profile string
		if err := scan(&id, &profile); err != nil {
			return err
		}
		by[id].Profiles = append(by[id].Profiles, profile)
		return nil
	})
}

// aliases are the extensions that bring service types; other types are there always.
var aliases = map[string]string{
	"VPN": "vpnaas", "FIREWALL_V2": "fwaas_v2", "METERING": "metering", "LOGGING": "logging", "PORTFORWARDING": "floating-ip-port-forwarding",
	"FLOATINGIPPOOL": "floatingip-pools", "NETWORK_SEGMENT_RANGE": "network-segment-range", "CONNTRACKHELPER": "l3-conntrack-helper",
	"LOCAL_IP": "local_ip", "NDPPROXY": "l3-ndp-proxy",
}

func (s *service) create(ctx context.Context, tx *store.Tx, f *Flavor, _ *resource.Body) error {
	if alias := aliases[f.ServiceType]; alias != "" {
		if _, ok := s.core.Registry.Extension(alias); !ok {
			return fault.New(fault.Invalid, "InvalidServiceType", "Invalid service type: %s.", f.ServiceType)
		}
	}
	f.Profiles = nil
	return s.flavors.Insert(ctx, tx, f)
}

func (s *service) delete(ctx context.Context, tx *store.Tx, f *Flavor) error {
	err := s.flavors.Remove(ctx, tx, f)
	if errors.Is(err, store.ErrReferenced) {
		return fault.New(fault.Conflict, "FlavorInUse", "Flavor %s is used by some service instance.", f.ID)
	}
	return err
}

func (s *service) checkProfile(p *Profile) error {
	if utf8.RuneCountInString(p.Metainfo) > 4096 {
		return fault.InvalidInput("metainfo exceeds maximum length of 4096")
	}
	if p.Driver == "" {
		return nil
	}
	if _, ok := s.core.Providers.WithDriver(p.Driver); !ok {
		return driverNotFound(p.Driver)
	}
	return nil
}

func driverNotFound(driver string) error {
	return fault.New(fault.NotFound, "ServiceProfileDriverNotFound", "Service Profile driver %s could not be found.", driver)
}

func (s *service) createProfile(ctx context.Context, tx *store.Tx, p *Profile, _ *resource.Body) error {
	if p.Driver == "" && p.Metainfo == "" {
		return fault.New(fault.Invalid, "ServiceProfileEmpty", "Service Profile needs either a driver or metainfo.")
	}
	if err := s.checkProfile(p); err != nil {
		return err
	}
	return s.profiles.Insert(ctx, tx, p)
}

func profileInUse(id string) error {
	return fault.New(fault.Conflict, "ServiceProfileInUse", "Service Profile %s is used by some service instance.", id)
}

// updateProfile changes a profile that no flavor has.
func (s *service) updateProfile(ctx context.Context, tx *store.Tx, _, want *Profile, _ *resource.Body) error {
	if err := s.checkProfile(want); err != nil {
		return err
	}
	var n int
	if err := tx.Row("SELECT COUNT(*) FROM flavor_service_profile WHERE service_profile_id = ?", []any{want.ID}, &n); err != nil {
		return err
	}
	if n > 0 {
		return profileInUse(want.ID)
	}
	return s.profiles.Save(ctx, tx, want)
}

func (s *service) deleteProfile(ctx context.Context, tx *store.Tx, p *Profile) error {
	err := s.profiles.Remove(ctx, tx, p)
	if errors.Is(err, store.ErrReferenced) {
		return profileInUse(p.ID)
	}
	return err
}

// Provider implements core.Flavors.
func (s *service) Provider(_ context.Context, tx *store.Tx, flavorID string) (core.ServiceProvider, error) {
	var none core.ServiceProvider
	f, err := s.flavors.Load(tx, flavorID)
	if err != nil {
		return none, err
	}
	if len(f.Profiles) == 0 {
		return none, notBound(flavorID, "")
	}
	p, err := s.profiles.Load(tx, f.Profiles[0])
	if err != nil {
		return none, err
	}
	if !p.Enabled {
		return none, fault.New(fault.Unavailable, "ServiceProfileDisabled", "Service Profile is not enabled.")
	}
	provider, ok := s.core.Providers.WithDriver(p.Driver)
	if !ok {
		return none, driverNotFound(p.Driver)
	}
	return provider, nil
}

// nextProviders shows what would serve something that gets the flavor now.
func (s *service) nextProviders(ctx context.Context, call resource.Call) (any, error) {
	var p core.ServiceProvider
	err := s.core.Store.View(ctx, func(tx *store.Tx) (err error) {
		p, err = s.Provider(ctx, tx, call.Params["flavor_id"])
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"next_providers": []map[string]string{{"provider": p.Name, "driver": p.Driver}}}, nil
}
