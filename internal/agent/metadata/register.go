package metadata

import (
	"slices"
	"time"

	"isospin/internal/agent/runtime"
	"isospin/internal/config"
)

func init() {
	runtime.Register("metadata", func(env runtime.Environment) (runtime.Feature, error) {
		o := Options{
			Logger:         env.Logger,
			Protocol:       config.NovaMetadataProtocol.Of(env.Config),
			Host:           config.NovaMetadataHost.Of(env.Config),
			Port:           config.NovaMetadataPort.Of(env.Config),
			SharedSecret:   config.MetadataProxySharedSecret.Of(env.Config),
			CACertFile:     config.MetadataAuthCACert.Of(env.Config),
			Insecure:       config.NovaMetadataInsecure.Of(env.Config),
			ClientCertFile: config.NovaClientCert.Of(env.Config),
			ClientKeyFile:  config.NovaClientPrivKey.Of(env.Config),
			RouterPort:     config.MetadataPort.Of(env.Config),
			NoRouters:      !config.EnableMetadataProxy.Of(env.Config),
		}
		if config.MetadataRateLimitEnabled.Of(env.Config) {
			versions := config.MetadataRateLimitIPVersions.Of(env.Config)
			o.RateLimit = &RateLimit{
				IPv4: slices.Contains(versions, "4"), IPv6: slices.Contains(versions, "6"),
				Base: Rate{
					Requests: config.MetadataRateLimitBaseQueries.Of(env.Config),
					Window:   time.Duration(config.MetadataRateLimitBaseWindow.Of(env.Config)) * time.Second,
				},
				Burst: Rate{
					Requests: config.MetadataRateLimitBurstQueries.Of(env.Config),
					Window:   time.Duration(config.MetadataRateLimitBurstWindow.Of(env.Config)) * time.Second,
				},
			}
		}
		return New(o), nil
	})
}
