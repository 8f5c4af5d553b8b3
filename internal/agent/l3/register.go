package l3

import (
	"isospin/internal/agent/hostswitch"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
)

func init() {
	runtime.Register("l3", func(env runtime.Environment) (runtime.Feature, error) {
		return New(Options{
			Connect: func() (Plugger, error) {
				client, err := hostswitch.Client(env)
				if err != nil {
					return nil, err
				}
				return plug.New(plug.Options{
					Switch: client, Bridge: config.IntegrationBridge.Of(env.Config), Owner: Owner, Logger: env.Logger,
				}), nil
			},
			StateDir:         env.StateDir,
			Logger:           env.Logger,
			Metrics:          env.Metrics,
			AvailabilityZone: config.AgentAvailabilityZone.Of(env.Config),
		}), nil
	})
}
