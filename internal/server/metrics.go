package server

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/config"
	"isospin/internal/store"
	"isospin/internal/telemetry"
)

// measureTime bounds what is asked of the database for the metrics.
const measureTime = 5 * time.Second

// measure registers what only the whole server knows.
func (s *Server) measure() error {
	if s.metrics == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		&collector{
			server:   s,
			hosts:    prometheus.NewDesc("isospin_feed_hosts", "Hosts whose agent follows this server now.", nil, nil),
			watches:  prometheus.NewDesc("isospin_watches", "Watches of changes that clients have open at this server.", nil, nil),
			sequence: prometheus.NewDesc("isospin_feed_sequence", "Sequence number of the last change that this server has applied.", nil, nil),
			lag:      prometheus.NewDesc("isospin_feed_lag_seconds", "Age of the oldest change that this server has not applied; 0 when there is none. Absent while the database does not answer.", nil, nil),
			agents:   prometheus.NewDesc("isospin_agents", "Agents in the database, by type, and whether they were heard of within agent_down_time. Every server on the database tells the same.", []string{"agent_type", "alive"}, nil),
		},
		telemetry.NewCertificateCollector(s.certificates()),
	} {
		if err := s.metrics.Register(c); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	return nil
}

// certificates are the files that this server shows, by what for.
func (s *Server) certificates() map[string]string {
	files := map[string]string{"feed": config.FeedCertFile.Of(s.config), "feed_authority": config.FeedCAFile.Of(s.config)}
	if config.UseSSL.Of(s.config) {
		files["api"] = config.SSLCertFile.Of(s.config)
	}
	return files
}

// collector asks when it is asked.
type collector struct {
	server                                *Server
	hosts, watches, sequence, lag, agents *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.hosts, c.watches, c.sequence, c.lag, c.agents} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.server
	tell := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	sequence := s.Hub.Sequence()
	tell(c.hosts, float64(len(s.Hub.Attached())))
	tell(c.watches, float64(s.watch.Watches()))
	tell(c.sequence, float64(sequence))

	ctx, cancel := context.WithTimeout(context.Background(), measureTime)
	defer cancel()
	type count struct {
		kind        string
		all, silent int
	}
	var agents []count
	var lag time.Duration
	err := s.Store.View(ctx, func(tx *store.Tx) error {
		agents, lag = nil, 0
		events, err := tx.Events(sequence, 1)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			lag = max(0, time.Since(time.UnixMilli(events[0].At)))
		}
		return tx.Query(func(scan func(...any) error) error {
			var n count
			if err := scan(&n.kind, &n.all, &n.silent); err != nil {
				return err
			}
			agents = append(agents, n)
			return nil
		}, "SELECT agent_type, COUNT(*), SUM(CASE WHEN heartbeat_timestamp < ? THEN 1 ELSE 0 END) FROM agent GROUP BY agent_type", s.Core.Agents.AliveSince())
	})
	if err != nil {
		s.log.Debug("metrics without the database", "error", err)
		return
	}
	tell(c.lag, lag.Seconds())
	for _, n := range agents {
		tell(c.agents, float64(n.all-n.silent), n.kind, "true")
		tell(c.agents, float64(n.silent), n.kind, "false")
	}
}
