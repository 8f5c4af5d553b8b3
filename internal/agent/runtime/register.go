package runtime

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"isospin/internal/config"
)

// Environment is what a feature's factory gets. It is made by the runtime and
// is the same for all features of one agent, apart from Logger.
type Environment struct {
	// Config is the operator's configuration. // required
	Config *config.Config
	// Host is the name of this host in the API (binding:host_id). // required
	Host string
	// StateDir is a directory, mode 0700, where the feature may keep files of its own. // required
	StateDir string
	// Logger carries the feature's name. // required
	Logger *slog.Logger
	// Metrics is where the feature registers what it measures; nil: nowhere.
	Metrics prometheus.Registerer // optional

	shared *sharedValues // nil: Shared builds a value for each caller
}

// Shared returns the environment's one value of type T, which the first call
// builds; features that use the same connection get it here. A build that
// failed is tried again by the next call. The context that build gets ends
// after all features have stopped; then the value is closed if it is an
// io.Closer. Safe for concurrent use.
func Shared[T any](env Environment, build func(ctx context.Context) (T, error)) (T, error) {
	if env.shared == nil {
		return build(context.Background())
	}
	s := env.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	typ := reflect.TypeFor[T]()
	if v, ok := s.values[typ]; ok {
		return v.(T), nil
	}
	v, err := build(s.ctx)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("shared %v: %w", typ, err)
	}
	s.values[typ] = v
	s.order = append(s.order, v)
	return v, nil
}

type sharedValues struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	values map[reflect.Type]any
	order  []any
}

func newSharedValues() *sharedValues {
	ctx, cancel := context.WithCancel(context.Background())
	return &sharedValues{ctx: ctx, cancel: cancel, values: map[reflect.Type]any{}}
}

// close ends the context of the values and closes them, the last built first.
func (s *sharedValues) close(logger *slog.Logger) {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range slices.Backward(s.order) {
		if c, ok := v.(io.Closer); ok {
			if err := c.Close(); err != nil {
				logger.Warn("closing a shared value", "type", fmt.Sprintf("%T", v), "error", err)
			}
		}
	}
	s.values, s.order = map[reflect.Type]any{}, nil
}

// Factory makes a feature for one host. It opens nothing: that is Start's.
type Factory func(Environment) (Feature, error)

var factories = map[string]Factory{}

// Register makes a feature known under the name that configuration uses for
// it. It is for init functions, and panics on a name that is taken.
func Register(name string, factory Factory) {
	if _, taken := factories[name]; taken {
		panic(fmt.Sprintf("runtime: feature %q registered twice", name))
	}
	factories[name] = factory
}

// Registered returns the names of all features in alphabetical order.
func Registered() []string {
	return slices.Sorted(maps.Keys(factories))
}
