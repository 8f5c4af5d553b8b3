package dhcp

import (
	"context"

	"isospin/internal/agent/hostswitch"
	"isospin/internal/agent/plug"
	"isospin/internal/agent/runtime"
	"isospin/internal/config"
)

func init() {
	runtime.Register("dhcp", func(env runtime.Environment) (runtime.Feature, error) {
		o := Options{
			Connect: func(context.Context) (Plugger, error) {
				client, err := hostswitch.Client(env)
				if err != nil {
					return nil, err
				}
				return plug.New(plug.Options{
					Switch: client, Bridge: config.IntegrationBridge.Of(env.Config), Owner: Owner, Logger: env.Logger,
				}), nil
			},
			Logger: env.Logger,
			Settings: Settings{
				LeaseDuration:  config.DHCPLeaseDuration.Of(env.Config),
				RenewalTime:    config.DHCPRenewalTime.Of(env.Config),
				RebindingTime:  config.DHCPRebindingTime.Of(env.Config),
				DNSDomain:      config.DNSDomain.Of(env.Config),
				BroadcastReply: config.DHCPBroadcastReply.Of(env.Config),
			},
			NoIPv6:           !config.DHCPEnableIPv6.Of(env.Config),
			DNSServers:       config.DHCPDNSServers.Of(env.Config),
			AvailabilityZone: config.AgentAvailabilityZone.Of(env.Config),
		}
		if config.DHCPLocalResolv.Of(env.Config) {
			o.ResolvConf = "/etc/resolv.conf"
		}
		return New(o), nil
	})
}
