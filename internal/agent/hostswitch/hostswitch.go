// Package hostswitch gives the features of an agent their one connection to the
// Open vSwitch of the host, as [ovs] ovsdb_connection says where it is.
//
// It must not know what features do with it.
package hostswitch

import (
	"context"
	"time"

	"isospin/internal/agent/runtime"
	"isospin/internal/config"
	"isospin/internal/ovs/vswitch"
)

// connectTimeout limits one attempt to connect; the runtime starts a feature
// again that could not.
const connectTimeout = 5 * time.Second

// Client returns the connection, which the first call makes; it waits for
// ovsdb-server at most 5 s. It ends by itself after all features have stopped:
// features do not close it. For Start, not for factories, which open nothing.
func Client(env runtime.Environment) (*vswitch.Client, error) {
	return runtime.Shared(env, func(ctx context.Context) (*vswitch.Client, error) {
		return vswitch.Dial(ctx, vswitch.Options{
			Connection:     config.OVSDBConnection.Of(env.Config),
			DatapathType:   config.OVSDatapathType.Of(env.Config),
			Logger:         env.Logger,
			ConnectTimeout: connectTimeout,
		})
	})
}
