package l2ovs

import (
	"fmt"
	"math"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
)

// Meters of br-int: four ids for each port, found by its number, so that they
// are the same after a restart.
const (
	meterBase           = 0x15000000 // those of port 0, which there is not, are for other ends: see log.go
	meterEgress         = 0          // kilobits that the port sends
	meterEgressPackets  = 1
	meterIngress        = 2 // kilobits that the port receives
	meterIngressPackets = 3
)

var meterRange = openflow.MeterRange{First: meterBase, Last: meterBase + 4*0xffff + 3}

func meterID(ofport, kind int) uint32 { return meterBase + 4*uint32(ofport) + uint32(kind) }

// Bursts in kilobits. TCP needs room for what it sends before the first drop
// tells it the rate: four fifths of the rate, as in Neutron, and always a
// segmentation-offload packet of 64 KiB. A burst that was asked for holds at
// least one jumbo frame, or nothing would ever pass.
const (
	burstPercent   = 80
	smallestBurst  = 524
	smallestChosen = 80
)

// limits is a QoS policy in the form of meters; the zero Meter is no limit.
type limits struct {
	meters [4]openflow.Meter // by kind
	dscp   int               // of IP packets that the port sends; negative: left alone
}

// parseLimits checks what goes into meters and flows.
func parseLimits(p *feed.QoSPolicy) (*limits, error) {
	l := &limits{dscp: -1}
	kindOf := func(direction string, egress, ingress int) (int, error) {
		switch direction {
		case "egress":
			return egress, nil
		case "ingress":
			return ingress, nil
		}
		return 0, fmt.Errorf("QoS policy %s: direction %q", p.Id, direction)
	}
	for _, r := range p.BandwidthLimits {
		kind, err := kindOf(r.Direction, meterEgress, meterIngress)
		if err != nil {
			return nil, err
		}
		if r.MaxKbps < 0 || r.MaxBurstKbps < 0 {
			return nil, fmt.Errorf("QoS policy %s: %d kbps with a burst of %d", p.Id, r.MaxKbps, r.MaxBurstKbps)
		}
		if r.MaxKbps > 0 {
			burst := max(r.MaxBurstKbps, smallestChosen)
			if r.MaxBurstKbps == 0 {
				burst = max(clamp(r.MaxKbps)*burstPercent/100, smallestBurst)
			}
			l.meters[kind] = openflow.Meter{Rate: uint32(clamp(r.MaxKbps)), Burst: uint32(clamp(burst))}
		}
	}
	for _, r := range p.PacketRateLimits {
		kind, err := kindOf(r.Direction, meterEgressPackets, meterIngressPackets)
		if err != nil {
			return nil, err
		}
		if r.MaxKpps < 0 || r.MaxBurstKpps < 0 {
			return nil, fmt.Errorf("QoS policy %s: %d kpps with a burst of %d", p.Id, r.MaxKpps, r.MaxBurstKpps)
		}
		if r.MaxKpps > 0 {
			rate, burst := clamp(1000*clamp(r.MaxKpps)), clamp(1000*clamp(r.MaxBurstKpps))
			if burst == 0 {
				burst = rate * burstPercent / 100
			}
			l.meters[kind] = openflow.Meter{Packets: true, Rate: uint32(rate), Burst: uint32(burst)}
		}
	}
	if p.DscpMark != nil {
		if l.dscp = int(*p.DscpMark); l.dscp < 0 || l.dscp > 63 {
			return nil, fmt.Errorf("QoS policy %s: DSCP %d", p.Id, l.dscp)
		}
	}
	return l, nil
}

// clamp keeps a number of the feed within what meters can hold.
func clamp(n int64) int64 { return min(n, math.MaxUint32) }

func (l *limits) has(kind int) bool { return l != nil && l.meters[kind] != (openflow.Meter{}) }

// wanted adds the meters of a port to m.
func (l *limits) wanted(ofport int, m map[uint32]openflow.Meter) {
	if l == nil {
		return
	}
	for kind, meter := range l.meters {
		if meter != (openflow.Meter{}) {
			m[meterID(ofport, kind)] = meter
		}
	}
}

// limitsIngress tells whether what the port receives goes through meters.
func (p *localPort) limitsIngress() bool {
	return p.limits.has(meterIngress) || p.limits.has(meterIngressPackets)
}

// receive are the actions that give the port its copy of a frame for many.
func (p *localPort) receive() string {
	if !p.limitsIngress() {
		return fmt.Sprintf("output:%d", p.ofport)
	}
	// What the meter drops must not be lost to the ports after this one. The bound on the length bounds nothing, but
	// without it the switch makes no copy of the frame.
	return fmt.Sprintf("clone(set_field:%#x->reg5,resubmit(,%d),output(port=%d,max_len=%d))", p.ofport, tableIngressLimit, p.ofport, math.MaxInt32)
}

// egressLimits adds the flows that limit what the port sends, and returns the
// actions that lead there.
func (p *localPort) egressLimits(f *flows, in string) string {
	bits, packets := p.limits.has(meterEgress), p.limits.has(meterEgressPackets)
	switch {
	case bits && packets: // a flow has one meter at most
		f.addf(tableEgressPackets, 10, in, "meter:%d", meterID(p.ofport, meterEgressPackets))
		return fmt.Sprintf("meter:%d,resubmit(,%d),", meterID(p.ofport, meterEgress), tableEgressPackets)
	case bits:
		return fmt.Sprintf("meter:%d,", meterID(p.ofport, meterEgress))
	case packets:
		return fmt.Sprintf("meter:%d,", meterID(p.ofport, meterEgressPackets))
	}
	return ""
}

// ingressLimits adds the flows that limit what the port receives.
func (p *localPort) ingressLimits(f *flows) {
	if !p.limitsIngress() {
		return
	}
	to := fmt.Sprintf("reg5=%#x", p.ofport)
	f.addf(tableOutput, 10, to, "resubmit(,%d),output:%d", tableIngressLimit, p.ofport)
	// What it floods itself does not come back.
	f.add(tableIngressLimit, 20, fmt.Sprintf("in_port=%d,%s", p.ofport, to), "drop")
	bits, packets := p.limits.has(meterIngress), p.limits.has(meterIngressPackets)
	switch {
	case bits && packets:
		f.addf(tableIngressLimit, 10, to, "meter:%d,resubmit(,%d)", meterID(p.ofport, meterIngress), tableIngressPackets)
		f.addf(tableIngressPackets, 10, to, "meter:%d", meterID(p.ofport, meterIngressPackets))
	case bits:
		f.addf(tableIngressLimit, 10, to, "meter:%d", meterID(p.ofport, meterIngress))
	default:
		f.addf(tableIngressLimit, 10, to, "meter:%d", meterID(p.ofport, meterIngressPackets))
	}
}

// unapplied is a QoS policy that a port goes without since the switch does not
// take it, until either changes.
type unapplied struct {
	port   *feed.Port
	policy *feed.QoSPolicy
	ofport int
	err    string
}

// qosOf is the policy of a port, its own or that of its network; nil: none.
// What cannot be applied is an error, and the port goes without.
func (p *planner) qosOf(want *runtime.State, port *feed.Port, network *feed.Network, ofport int) (*feed.QoSPolicy, *limits, error) {
	id := port.QosPolicyId
	if id == "" && !trusted(port) {
		id = network.QosPolicyId
	}
	if id == "" {
		delete(p.unapplied, port.Id)
		return nil, nil, nil
	}
	policy := want.QoSPolicies[id]
	if policy == nil {
		return nil, nil, fmt.Errorf("QoS policy %s is not known to this host", id)
	}
	if u, ok := p.unapplied[port.Id]; ok {
		if u.policy == policy && u.port == port && u.ofport == ofport {
			return nil, nil, fmt.Errorf("QoS policy %s is not applied: %s", id, u.err)
		}
		delete(p.unapplied, port.Id)
	}
	if old := p.local[port.Id]; old != nil && old.qos == policy {
		return policy, old.member.limits, nil
	}
	l, err := parseLimits(policy)
	if err != nil {
		return nil, nil, err
	}
	return policy, l, nil
}

// withoutQoS makes a port go without its policy; false: it does already.
func (p *planner) withoutQoS(lp *plannedPort, err string) bool {
	if lp == nil || lp.qos == nil {
		return false
	}
	p.unapplied[lp.port.Id] = unapplied{port: lp.port, policy: lp.qos, ofport: lp.ofport, err: err}
	return true
}

// refuseMeter takes to heart that the switch refused a meter of br-int, and
// tells whether the flows wanted have changed by that.
func (p *planner) refuseMeter(id uint32, err error) bool {
	if id == logMeter {
		return p.withoutLogs(fmt.Sprintf("meter refused: %v", err))
	}
	for _, lp := range p.local {
		if kind := int(id - meterID(lp.ofport, 0)); id >= meterID(lp.ofport, 0) && kind < 4 {
			return p.withoutQoS(lp, fmt.Sprintf("meter refused: %v", err))
		}
	}
	return false
}
