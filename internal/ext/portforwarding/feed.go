package portforwarding

import (
	"sort"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
)

// project adds forwardings to the routers of their floating IPs.
func (s *service) project(h *feed.Hub) {
	forwardings := feed.KeepParts(h, "port_forwarding", func(tx *store.Tx) ([]*Forwarding, error) { return s.Table.Select(tx, "") },
		func(f *Forwarding) string { return f.ID }, func(f *Forwarding) string { return f.FloatingIPID })
	h.Complete(message.Kind_KIND_ROUTER, func(c *feed.Copy, _ string, o *message.Object) {
		r := o.GetRouter()
		for _, of := range r.GetFloatingIps() {
			for _, f := range forwardings.Of(c, of.Id) {
				external, internal := spanOf(f.ExternalPortRange), spanOf(f.InternalPortRange)
				r.PortForwardings = append(r.PortForwardings, &message.PortForwarding{
					Id: f.ID, FloatingIpId: f.FloatingIPID, FloatingIpAddress: of.FloatingIpAddress, Protocol: f.Protocol,
					ExternalPortMin: int32(external.first), ExternalPortMax: int32(external.last),
					InternalIpAddress: f.InternalIPAddress.String(), InternalPortMin: int32(internal.first), InternalPortMax: int32(internal.last),
				})
			}
		}
		// One order for all of the router, whichever floating IP they are of.
		if r != nil {
			sort.Slice(r.PortForwardings, func(i, j int) bool { return r.PortForwardings[i].Id < r.PortForwardings[j].Id })
		}
	})
}
