package l2ovs

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"isospin/api/feed"
	"isospin/internal/agent/runtime"
	"isospin/internal/ovs/vswitch"
)

// A trunk's VIF is plugged by the compute service into a bridge of the trunk's
// own, which switches as any bridge does. Pairs of patch ports lead from there
// to the integration bridge: one for frames without a tag, which are the
// parent's, and one for each subport, whose end on the trunk's bridge is an
// access port of the subport's tag. The ends on the integration bridge bear
// the ids of parent and subports, and are wired there as any port is.

// Marks of what trunks made of ours: of patch ports and of bridges, which
// compute services leave behind.
const (
	ownerTrunk = "trunk"
	keyTrunk   = "isospin-trunk"
)

// trunkBridge is the name of a trunk's bridge, as the server tells compute services.
func trunkBridge(id string) string { return fmt.Sprintf("tbr-%.11s", id) }

// trunkPatch is a pair of patch ports of a trunk.
type trunkPatch struct {
	inner, outer vswitch.Port // on the integration bridge, and on the trunk's
}

// patchOf is the pair for one port; tag 0: what has no tag. prefix is "tp" for
// parents, "sp" for subports, as Neutron names them.
func patchOf(prefix string, p *feed.Port, tag int) trunkPatch {
	inner, outer := fmt.Sprintf("%si-%.11s", prefix, p.Id), fmt.Sprintf("%st-%.11s", prefix, p.Id)
	patch := trunkPatch{
		inner: vswitch.Port{Name: inner, Type: "patch", Options: map[string]string{"peer": outer}, ExternalIDs: map[string]string{
			"iface-id": p.Id, "iface-status": "active", "attached-mac": p.MacAddress, keyOwner: ownerTrunk,
		}},
		outer: vswitch.Port{Name: outer, Type: "patch", Options: map[string]string{"peer": inner}, ExternalIDs: map[string]string{keyOwner: ownerTrunk}, Tag: tag},
	}
	if tag == 0 {
		patch.outer.Trunks = []int{0}
	}
	return patch
}

// patchesOf is what a trunk's bridge is connected by: for the ports that are on this host.
func patchesOf(t *feed.Trunk, want *runtime.State) ([]trunkPatch, error) {
	var patches []trunkPatch
	if p := want.Ports[t.PortId]; p != nil {
		patches = append(patches, patchOf("tp", p, 0))
	}
	for _, s := range t.SubPorts {
		if s.SegmentationType != "vlan" || s.SegmentationId < 1 || s.SegmentationId > 4094 {
			return nil, fmt.Errorf("subport %s: %s %d", s.PortId, s.SegmentationType, s.SegmentationId)
		}
		if p := want.Ports[s.PortId]; p != nil {
			patches = append(patches, patchOf("sp", p, int(s.SegmentationId)))
		}
	}
	return patches, nil
}

// wireTrunks connects the bridges of trunks whose VIFs are plugged, and takes
// away what no trunk needs any more. What became of each is in f.trunks.
func (f *Feature) wireTrunks(parent context.Context, want *runtime.State) error {
	ctx, cancel := context.WithTimeout(parent, f.o.Timeout)
	defer cancel()
	there, plugged, ours := map[string]vswitch.Interface{}, map[string]map[string]bool{}, false
	for _, i := range f.vs.Interfaces() {
		there[i.Bridge+"/"+i.Name] = i
		if i.ExternalIDs[keyOwner] == ownerTrunk {
			ours = true
		} else if id := i.ExternalIDs["iface-id"]; id != "" {
			if plugged[i.Bridge] == nil {
				plugged[i.Bridge] = map[string]bool{}
			}
			plugged[i.Bridge][id] = true
		}
	}
	bridges := f.vs.Bridges()
	f.trunks = make(map[string]portStatus, len(want.Trunks))
	keep, needed, wanted := map[string]bool{}, map[string]bool{}, map[string][]trunkPatch{}
	for _, id := range slices.Sorted(maps.Keys(want.Trunks)) {
		t, bridge := want.Trunks[id], trunkBridge(id)
		needed[bridge] = true
		status := portStatus{state: feed.State_STATE_DOWN, revision: t.Revision}
		switch patches, err := patchesOf(t, want); {
		case err != nil:
			status.state, status.err = feed.State_STATE_ERROR, err.Error()
		case plugged[f.o.IntegrationBridge][t.PortId]:
			status.state = feed.State_STATE_ERROR
			status.err = fmt.Sprintf("the VIF of port %s is plugged into %s, not into %s", t.PortId, f.o.IntegrationBridge, bridge)
		case plugged[bridge][t.PortId]:
			status.state, ours, wanted[id] = feed.State_STATE_ACTIVE, true, patches
			for _, p := range patches {
				keep[f.o.IntegrationBridge+"/"+p.inner.Name], keep[bridge+"/"+p.outer.Name] = true, true
			}
		}
		f.trunks[id] = status
	}
	if !ours && !slices.ContainsFunc(bridges, func(b vswitch.BridgeInfo) bool { return b.ExternalIDs[keyTrunk] != "" }) {
		return nil
	}
	// A port may go from one trunk to another: its old ends give the names free.
	if err := f.unwireTrunks(ctx, bridges, there, keep, needed); err != nil {
		return err
	}
	for id, patches := range wanted {
		if err := f.wireTrunk(ctx, id, bridges, there, patches); err != nil {
			if ctx.Err() != nil {
				return err
			}
			f.trunks[id] = portStatus{state: feed.State_STATE_ERROR, err: err.Error(), revision: want.Trunks[id].Revision}
		}
	}
	return nil
}

// wireTrunk connects one bridge. The ends that are as they should be are not touched.
func (f *Feature) wireTrunk(ctx context.Context, id string, bridges []vswitch.BridgeInfo, there map[string]vswitch.Interface, patches []trunkPatch) error {
	bridge := trunkBridge(id)
	for _, b := range bridges {
		if b.Name == bridge && b.ExternalIDs[keyTrunk] != id {
			if err := f.vs.EnsureBridge(ctx, vswitch.Bridge{Name: bridge, DatapathType: b.DatapathType, ExternalIDs: map[string]string{keyTrunk: id}}); err != nil {
				return err
			}
		}
	}
	missing := map[string][]vswitch.Port{}
	look := func(bridge string, p vswitch.Port) error {
		i, ok := there[bridge+"/"+p.Name]
		if ok && i.ExternalIDs[keyOwner] != ownerTrunk {
			return fmt.Errorf("port %s of bridge %s is somebody else's", p.Name, bridge)
		}
		same := ok && i.OFPort > 0 && i.Type == p.Type && maps.Equal(i.Options, p.Options) && (p.Tag == 0 || i.Tag == p.Tag) && slices.Equal(i.Trunks, p.Trunks)
		for k, v := range p.ExternalIDs {
			same = same && i.ExternalIDs[k] == v
		}
		if !same {
			missing[bridge] = append(missing[bridge], p)
		}
		return nil
	}
	for _, p := range patches {
		if err := look(bridge, p.outer); err != nil {
			return err
		}
		if err := look(f.o.IntegrationBridge, p.inner); err != nil {
			return err
		}
	}
	// The end on the integration bridge comes last: when its flows are made, it leads somewhere.
	for _, b := range []string{bridge, f.o.IntegrationBridge} {
		if err := f.vs.EnsurePorts(ctx, b, missing[b]); err != nil {
			return err
		}
	}
	return nil
}

// unwireTrunks removes patch ports of ours that are not to be kept, and
// bridges of trunks that are not here any more, once nothing else is plugged there.
func (f *Feature) unwireTrunks(ctx context.Context, bridges []vswitch.BridgeInfo, there map[string]vswitch.Interface, keep, needed map[string]bool) error {
	gone, foreign := map[string][]string{}, map[string]bool{}
	for key, i := range there {
		switch {
		case i.ExternalIDs[keyOwner] != ownerTrunk:
			foreign[i.Bridge] = foreign[i.Bridge] || i.Name != i.Bridge
		case !keep[key]:
			gone[i.Bridge] = append(gone[i.Bridge], i.Name)
		}
	}
	// First on the integration bridge.
	names := slices.Sorted(maps.Keys(gone))
	if at := slices.Index(names, f.o.IntegrationBridge); at > 0 {
		names = append([]string{f.o.IntegrationBridge}, slices.Delete(names, at, at+1)...)
	}
	for _, bridge := range names {
		if err := f.vs.DeletePorts(ctx, bridge, gone[bridge]); err != nil {
			return err
		}
	}
	for _, b := range bridges {
		if b.ExternalIDs[keyTrunk] != "" && !needed[b.Name] && !foreign[b.Name] {
			if err := f.vs.DeleteBridge(ctx, b.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// trunkResults tells what became of the trunks that changed, or whose state did.
func (f *Feature) trunkResults(want *runtime.State, changes runtime.Changes) []*feed.Applied {
	var out []*feed.Applied
	for _, id := range slices.Sorted(maps.Keys(f.trunks)) {
		s := f.trunks[id]
		_, changed := changes.Trunks[id]
		if !changed && !changes.All && f.reportedTrunks[id] == s {
			continue
		}
		f.reportedTrunks[id] = s
		out = append(out, &feed.Applied{Kind: feed.Kind_KIND_TRUNK, Id: id, Revision: s.revision, AgentType: AgentType, State: s.state, Error: s.err})
	}
	for id := range f.reportedTrunks {
		if want.Trunks[id] == nil {
			delete(f.reportedTrunks, id)
		}
	}
	return out
}
