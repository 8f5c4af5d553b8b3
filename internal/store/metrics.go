package store

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a store. Without a registerer they are counted and not collected.
type metrics struct {
	seconds *prometheus.HistogramVec
	repeats prometheus.Counter
}

// usage is what the connections of a database do now.
type usage struct {
	used, idle, limit, waiting int
}

func newMetrics() *metrics {
	return &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "isospin_database_transaction_seconds",
			Help:    "Time of transactions, with what they waited for: by mode (read, write) and result: done, undone (by a rule, or because the caller is gone), unavailable (the database is away, too busy, or closed).",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"mode", "result"}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isospin_database_repeats_total",
			Help: "Transactions that were run again, because another was first or the connection was lost.",
		}),
	}
}

func (m *metrics) observe(mode string, begin time.Time, err error) {
	result := "done"
	switch {
	case errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClosed):
		result = "unavailable"
	case err != nil:
		result = "undone"
	}
	m.seconds.WithLabelValues(mode, result).Observe(time.Since(begin).Seconds())
}

// register adds the store's metrics to those of the process.
func (s *Store) register(r prometheus.Registerer) error {
	gauge := func(name, help string, labels prometheus.Labels, of func(usage) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(of(s.backend.usage())) })
	}
	const connections = "Connections to the database, by state: used by a transaction, or idle."
	for _, c := range []prometheus.Collector{
		s.metrics.seconds, s.metrics.repeats,
		gauge("isospin_database_connections", connections, prometheus.Labels{"state": "used"}, func(u usage) int { return u.used }),
		gauge("isospin_database_connections", connections, prometheus.Labels{"state": "idle"}, func(u usage) int { return u.idle }),
		gauge("isospin_database_connections_limit", "Most connections to the database that there may be.", nil, func(u usage) int { return u.limit }),
		gauge("isospin_database_waiting", "Transactions that wait for a connection, or with SQLite for their turn to write.", nil, func(u usage) int { return u.waiting }),
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
