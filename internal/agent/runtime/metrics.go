package runtime

import "github.com/prometheus/client_golang/prometheus"

// metrics of an agent. A nil registerer leaves them uncollected.
type metrics struct {
	attached prometheus.Gauge
	attaches prometheus.Counter
	messages prometheus.Counter
	reported prometheus.Counter
	saves    *prometheus.CounterVec

	applySeconds  *prometheus.HistogramVec
	applyFailures *prometheus.CounterVec
	failedObjects *prometheus.GaugeVec
}

type featureMetrics struct {
	seconds       prometheus.Observer
	failures      prometheus.Counter
	failedObjects prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer, d *desired) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "isospin", Subsystem: "agent", Name: name, Help: help}
	}
	m := &metrics{
		attached: prometheus.NewGauge(prometheus.GaugeOpts(opts("attached", "1 while the agent is attached to a server and holds all that it needs."))),
		attaches: prometheus.NewCounter(prometheus.CounterOpts(opts("attaches_total", "Streams that the server accepted."))),
		messages: prometheus.NewCounter(prometheus.CounterOpts(opts("messages_total", "Messages received from the server."))),
		reported: prometheus.NewCounter(prometheus.CounterOpts(opts("reported_total", "Results sent to the server."))),
		saves:    prometheus.NewCounterVec(prometheus.CounterOpts(opts("state_saves_total", "Writes of the state file.")), []string{"result"}),
		applySeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "isospin", Subsystem: "agent", Name: "apply_seconds",
			Help: "Time that a feature took to apply changes.", Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12)}, []string{"feature"}),
		applyFailures: prometheus.NewCounterVec(prometheus.CounterOpts(opts("failures_total", "Times that a feature could not start or apply anything.")), []string{"feature"}),
		failedObjects: prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("failed_objects", "Objects that a feature cannot apply now.")), []string{"feature"}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.attached, m.attaches, m.messages, m.reported, m.saves,
		m.applySeconds, m.applyFailures, m.failedObjects, &objectsCollector{desired: d,
			desc: prometheus.NewDesc("isospin_agent_objects", "Objects of the host's desired state.", []string{"kind"}, nil)}} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) feature(name string) *featureMetrics {
	return &featureMetrics{
		seconds:       m.applySeconds.WithLabelValues(name),
		failures:      m.applyFailures.WithLabelValues(name),
		failedObjects: m.failedObjects.WithLabelValues(name),
	}
}

// objectsCollector counts the objects of the State when asked.
type objectsCollector struct {
	desired *desired
	desc    *prometheus.Desc
}

func (c *objectsCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

func (c *objectsCollector) Collect(out chan<- prometheus.Metric) {
	state := c.desired.state()
	if state == nil {
		state = new(State)
	}
	for kind, n := range map[string]int{
		"port": len(state.Ports), "network": len(state.Networks), "forwarding": len(state.Forwarding),
		"security_group": len(state.SecurityGroups), "address_set": len(state.AddressSets), "router": len(state.Routers),
		"qos_policy": len(state.QoSPolicies), "trunk": len(state.Trunks), "log": len(state.Logs),
	} {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), kind)
	}
}
