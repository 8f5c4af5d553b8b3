package server

import (
	"context"
	"time"

	"isospin/internal/config"
	"isospin/internal/notify"
	"isospin/internal/notify/bus"
	"isospin/internal/notify/designate"
	"isospin/internal/notify/ironic"
	"isospin/internal/notify/nova"
)

var sendEventsInterval = config.Int("DEFAULT", "send_events_interval", 2,
	"Least number of seconds between two messages to Nova or Ironic; what happens meanwhile goes along with the next.", config.Min(1))

// newNotifiers makes what tells other services of changes: what is configured.
func (s *Server) newNotifiers() error {
	o := notify.Options{Store: s.Store, Registry: s.Core.Registry, Logger: s.log, Holder: s.holder, Lease: s.leaseTime, Metrics: s.metrics}
	gathering := o
	gathering.Interval = time.Duration(sendEventsInterval.Of(s.config)) * time.Second
	if nova.Configured(s.config) {
		c, err := nova.New(nova.Options{Config: s.config, Ports: s.Core.Ports, Logger: s.log})
		if err != nil {
			return err
		}
		s.notifiers = append(s.notifiers, notify.New(gathering, c).Run)
	}
	if ironic.Configured(s.config) {
		c, err := ironic.New(s.config, s.log)
		if err != nil {
			return err
		}
		s.notifiers = append(s.notifiers, notify.New(gathering, c).Run)
	}
	if designate.Configured(s.config) {
		c, err := designate.New(designate.Options{Config: s.config, Networks: s.Core.Networks, Subnets: s.Core.Subnets, Ports: s.Core.Ports, Logger: s.log})
		if err != nil {
			return err
		}
		s.notifiers = append(s.notifiers, notify.New(o, c).Run)
	}
	if bus.Configured(s.config) {
		c, err := bus.New(bus.Options{Config: s.config, Registry: s.Core.Registry, Logger: s.log})
		if err != nil {
			return err
		}
		run := notify.New(o, c).Run
		s.notifiers = append(s.notifiers, func(ctx context.Context) {
			defer c.Close()
			run(ctx)
		})
	}
	return nil
}
