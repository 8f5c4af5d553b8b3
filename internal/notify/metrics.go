package notify

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one consumer.
type metrics struct {
	messages, failures prometheus.Counter
	// since is the time of the oldest change that is not delivered, in Unix milliseconds; 0: there is none.
	since atomic.Int64
}

// newMetrics registers a consumer's metrics; r may be nil.
func newMetrics(r prometheus.Registerer, consumer string) *metrics {
	labels := prometheus.Labels{"consumer": consumer}
	m := &metrics{
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "isospin_notification_messages_total",
			Help: "Messages that a service has taken, or refused for good.", ConstLabels: labels}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "isospin_notification_failures_total",
			Help: "Deliveries that failed and are tried again.", ConstLabels: labels}),
	}
	if r != nil {
		r.MustRegister(m.messages, m.failures, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isospin_notification_wait_seconds",
			Help: "Age of the oldest change that a service has not been told of; 0 when there is none, and on servers that do not hold its lease.", ConstLabels: labels}, m.wait))
	}
	return m
}

func (m *metrics) waitSince(at int64) { m.since.Store(at) }

func (m *metrics) wait() float64 {
	at := m.since.Load()
	if at == 0 {
		return 0
	}
	return max(0, time.Since(time.UnixMilli(at)).Seconds())
}
