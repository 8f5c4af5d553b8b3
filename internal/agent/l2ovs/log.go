package l2ovs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"isospin/internal/agent/packetlog"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/openflow"
)

// Packet logs: what a logged port's policy accepts or drops goes through a
// flow that sends the packet here too. All logs of a host share one meter, so
// that no port can keep the switch or the agent busy with its packets.
const (
	logController = 0x1505
	logMeter      = meterBase
)

// Events of packet logs, as the API names them.
const (
	eventAll    = "ALL"
	eventAccept = "ACCEPT"
	eventDrop   = "DROP"
)

// logged is what a packet from a flow of a packet log is recorded as.
type logged struct {
	action, port string
	asked        []asked
}

// asked is the logs of one project that asked for a record.
type asked struct {
	project string
	logs    []string
}

// logFlows renders the flows that send here the packets of a port for which
// there is an event.
func logFlows(ofport int, event string) flows {
	var f flows
	send := fmt.Sprintf("controller(id=%d,meter_id=%d)", logController, logMeter)
	from, to := fmt.Sprintf("in_port=%d", ofport), fmt.Sprintf("reg5=%#x", ofport)
	if event == eventDrop {
		f.add(tableEgressDropped, 10, from, send)
		f.add(tableIngressDropped, 10, to, send)
		return f
	}
	for _, t := range []struct {
		table, next  uint8
		at, register string
	}{{tableEgressAccepted, tableLookup, from, "reg7"}, {tableIngressAccepted, tableDeliver, to, "reg8"}} {
		// The first packet of a connection; without connections, each.
		f.add(t.table, 10, t.at+",ct_state=+trk+new", send+","+resubmit(int(t.next)))
		f.add(t.table, 10, fmt.Sprintf("%s,%s=%#x/%#x", t.at, t.register, uint32(statelessPolicy), uint32(statelessPolicy)), send+","+resubmit(int(t.next)))
	}
	return f
}

// planLogs renders the packet logs of the filtered ports in the data path.
func (p *planner) planLogs(want *runtime.State) {
	type event struct{ port, name string }
	projects := map[event]map[string][]string{}
	if p.unlogged == "" {
		for id, l := range want.Logs {
			if !l.Enabled || l.ResourceType != "security_group" {
				continue
			}
			for _, port := range l.PortIds {
				if lp := p.local[port]; lp == nil || lp.policy == nil {
					continue
				}
				for _, name := range []string{eventAccept, eventDrop} {
					if l.Event != name && l.Event != eventAll {
						continue
					}
					e := event{port, name}
					if projects[e] == nil {
						projects[e] = map[string][]string{}
					}
					projects[e][l.ProjectId] = append(projects[e][l.ProjectId], id)
				}
			}
		}
	}
	units := map[string]struct{}{}
	p.logged = make(map[uint64]logged, len(projects))
	for e, of := range projects {
		r := logged{action: e.name, port: e.port}
		for project, logs := range of {
			slices.Sort(logs)
			r.asked = append(r.asked, asked{project, logs})
		}
		slices.SortFunc(r.asked, func(a, b asked) int { return cmp.Compare(a.project, b.project) })
		flows := logFlows(p.local[e.port].ofport, e.name)
		for _, f := range flows {
			p.logged[f.Cookie(flowMark)] = r
		}
		unit := "log/" + e.port + "/" + e.name
		units[unit] = struct{}{}
		p.integration.Put(unit, flows)
	}
	for unit := range p.logs {
		if _, ok := units[unit]; !ok {
			p.integration.Put(unit, nil)
		}
	}
	p.logs = units
	if len(units) > 0 {
		p.meters[logMeter] = p.o.logMeter
	}
}

// withoutLogs makes the host go without packet logs, since the switch does not
// take them; false: it does already.
func (p *planner) withoutLogs(err string) bool {
	if p.unlogged != "" {
		return false
	}
	p.unlogged = err
	return true
}

// recordPackets makes the packets that the flows planned will send be
// recorded; the first time it begins to read them.
func (f *Feature) recordPackets(b *openflow.Bridge) {
	if f.planner.unlogged != f.unlogged {
		if f.unlogged = f.planner.unlogged; f.unlogged != "" {
			f.log.Error("this host cannot log packets", "error", f.unlogged)
		}
	}
	records := maps.Clone(f.planner.logged)
	f.records.Store(&records)
	if f.recording || len(records) == 0 {
		return
	}
	f.recording = true
	ctx := f.ctx
	go func() {
		out := packetlog.New(packetlog.Options{Path: f.o.LogFile, Logger: f.log})
		defer out.Close()
		b.PacketIns(ctx, logController, func(p openflow.PacketIn) {
			r, ok := (*f.records.Load())[p.Cookie]
			if !ok {
				return // of a log that has just gone
			}
			for _, a := range r.asked {
				out.Write(packetlog.Record{Action: r.action, ProjectID: a.project, Logs: a.logs, PortID: r.port, Frame: p.Packet})
			}
		})
	}()
}
