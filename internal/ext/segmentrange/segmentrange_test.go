package segmentrange_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"isospin/internal/ext/exttest"
	"isospin/internal/fault"
)

func TestRanges(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[ml2_type_gre]\ntunnel_id_ranges = 5:6\n"})
	admin := k.Admin()
	defaults := admin.List("network_segment_range")
	var have []string
	for _, r := range defaults {
		have = append(have, fmt.Sprint(r.Text("network_type"), " ", r.Text("physical_network"), " ", r["minimum"], " ", r["maximum"], " ", r["default"], " ", r["shared"], " ", r["project_id"]))
	}
	slices.Sort(have)
	if want := []string{"gre  5 6 true true <nil>", "vlan physnet1 100 199 true true <nil>", "vxlan  1 1000 true true <nil>"}; !slices.Equal(have, want) {
		t.Errorf("default ranges are %q", have)
	}
	k.Restarted()
	if l := admin.List("network_segment_range"); len(l) != 3 || l[0].ID() != defaults[0].ID() {
		t.Errorf("after a restart: %v", l)
	}
	_, err := admin.TryUpdate("network_segment_range", defaults[0].ID(), `{"name": "x"}`)
	k.Refused(err, fault.Invalid, "NetworkSegmentRangeDefaultReadOnly", "Network Segment Range "+defaults[0].ID()+" is a default segment range which could not be updated or deleted.")
	k.Refused(admin.TryDelete("network_segment_range", defaults[0].ID()), fault.Invalid, "NetworkSegmentRangeDefaultReadOnly", "")

	own := admin.Create("network_segment_range", `{"name": "own", "shared": false, "project_id": "project1", "network_type": "vxlan", "physical_network": "", "minimum": 1100, "maximum": 1102}`)
	if own.Text("project_id") != "project1" || own["default"] != false || own["shared"] != false || own.JSON("available") != "[1100,1101,1102]" || own.JSON("used") != "{}" || own.JSON("tags") != "[]" {
		t.Errorf("a project's range is %v", own)
	}
	shared := admin.Create("network_segment_range", `{"shared": true, "network_type": "vlan", "physical_network": "physnet9", "minimum": 10, "maximum": 10}`)
	if shared["project_id"] != nil {
		t.Errorf("everybody's range is of %v", shared["project_id"])
	}
	for _, c := range []struct{ body, typ, text string }{
		{`{"network_type": "vlan", "minimum": 10, "maximum": 11}`, "BadRequest", "Bad network_segment_range request: Network type vlan requires 'physical_network' to be specified while creating new range."},
		{`{"network_type": "vlan", "physical_network": "p", "minimum": 4000, "maximum": 4095}`, "NetworkVlanRangeError", "Invalid network VLAN range: '(4000, 4095)' - '4095 is not a valid VLAN tag'."},
		{`{"network_type": "vxlan", "minimum": 9, "maximum": 8}`, "NetworkTunnelRangeError", "Invalid network tunnel range: '(9, 8)' - End of tunnel range is less than start of tunnel range."},
		{`{"network_type": "vxlan", "minimum": 1, "maximum": 4294967295}`, "NetworkTunnelRangeError", "Invalid network tunnel range: '(1, 4294967295)' - 4294967295 is not a valid vxlan identifier."},
		{`{"network_type": "flat", "minimum": 1, "maximum": 2}`, "HTTPBadRequest", ""},
		{`{"minimum": 1, "maximum": 2}`, "NetworkSegmentRangeNetTypeNotSupported", ""},
		{`{"network_type": "vxlan", "minimum": 0, "maximum": 2}`, "HTTPBadRequest", ""},
	} {
		_, err := admin.TryCreate("network_segment_range", "%s", c.body)
		kind := fault.Invalid
		if strings.HasSuffix(c.typ, "RangeError") { // these have no status in Neutron
			kind = fault.Unmapped
		}
		k.Refused(err, kind, c.typ, c.text)
	}
	_, err = admin.TryCreate("network_segment_range", `{"network_type": "vxlan", "minimum": 1102, "maximum": 1200}`)
	k.Refused(err, fault.Conflict, "NetworkSegmentRangeOverlaps", "Network segment range overlaps with range(s) with id "+own.ID())
	_, err = admin.TryGet("network_segment_range", "00000000-0000-4000-8000-000000000000")
	k.Refused(err, fault.NotFound, "NetworkSegmentRangeNotFound", "Network Segment Range 00000000-0000-4000-8000-000000000000 could not be found.")
	// A physical network is known by its range.
	if n := admin.Create("network", `{"provider:network_type": "vlan", "provider:physical_network": "physnet9"}`); n.JSON("provider:segmentation_id") != "10" {
		t.Errorf("the network is %v", n)
	}
}

func TestPreference(t *testing.T) {
	k := exttest.New(t, exttest.Options{Config: "[ml2_type_vxlan]\nvni_ranges = 1:4\n"})
	admin := k.Admin()
	own := admin.Create("network_segment_range", `{"shared": false, "project_id": "project1", "network_type": "vxlan", "minimum": 3, "maximum": 5}`).ID()
	number := func(project string) int {
		t.Helper()
		n := k.As(project).Create("network", `{}`)
		return int(admin.Get("network", n.ID())["provider:segmentation_id"].(float64))
	}
	var got []int
	for range 3 {
		got = append(got, number("project1"))
	}
	if slices.Sort(got); !slices.Equal(got, []int{3, 4, 5}) {
		t.Errorf("of its own range the project got %v", got)
	}
	r := admin.Get("network_segment_range", own)
	if r.JSON("used") != `{"3":"project1","4":"project1","5":"project1"}` || r.JSON("available") != "[]" {
		t.Errorf("the range is %v", r)
	}
	k.Refused(admin.TryDelete("network_segment_range", own), fault.Conflict, "NetworkSegmentRangeReferencedByProject", "Network Segment Range "+own+" is referenced by one or more project networks.")
	_, err := admin.TryUpdate("network_segment_range", own, `{"minimum": 4}`)
	k.Refused(err, fault.Conflict, "NetworkSegmentRangeReferencedByProject", "")
	if r := admin.Update("network_segment_range", own, `{"name": "n", "maximum": 7}`); r.Text("name") != "n" || r.JSON("available") != "[6,7]" {
		t.Errorf("grown: %v", r)
	}
	// 6 and 7 are the project's as well; then what is everybody's but not another project's.
	got = nil
	for range 3 {
		got = append(got, number("project1"))
	}
	got = append(got, number("project2"))
	if !(got[0]+got[1] == 13 && got[2]+got[3] == 3) {
		t.Errorf("further ids are %v", got)
	}
	_, err = k.As("project2").TryCreate("network", `{}`)
	k.Refused(err, fault.Unavailable, "NoNetworkAvailable", "Unable to create the network. No project network is available for allocation.")
}

// Creators race for the ids of a small range while networks go: none is given
// twice, none is lost.
func TestRace(t *testing.T) {
	const first, last, creators, rounds = 1, 12, 8, 40
	k := exttest.New(t, exttest.Options{Config: fmt.Sprintf("[ml2_type_vxlan]\nvni_ranges = %d:%d\n", first, last)})
	var mu sync.Mutex
	held := map[int]string{}
	var wait sync.WaitGroup
	for i := range creators {
		wait.Add(1)
		go func() {
			defer wait.Done()
			choice := rand.New(rand.NewPCG(uint64(i), 1))
			client := k.Admin()
			var mine []int
			for range rounds {
				if len(mine) > 0 && choice.IntN(2) == 0 {
					at := choice.IntN(len(mine))
					id := mine[at]
					mine = slices.Delete(mine, at, at+1)
					mu.Lock()
					network := held[id]
					delete(held, id) // before it is free, so that its next owner finds it gone
					mu.Unlock()
					if err := client.TryDelete("network", network); err != nil {
						t.Errorf("delete: %v", err)
					}
					continue
				}
				n, err := client.TryCreate("network", `{}`)
				var f *fault.Error
				if errors.As(err, &f) && f.Type == "NoNetworkAvailable" {
					continue
				}
				if err != nil {
					t.Errorf("create: %v", err)
					continue
				}
				id := int(n["provider:segmentation_id"].(float64))
				mu.Lock()
				if other, twice := held[id]; twice || id < first || id > last {
					t.Errorf("%d was given to %s and to %s", id, other, n.ID())
				}
				held[id] = n.ID()
				mu.Unlock()
				mine = append(mine, id)
			}
		}()
	}
	wait.Wait()
	// What is not held can be had, and nothing else.
	for range last - first + 1 - len(held) {
		n := k.Admin().Create("network", `{}`)
		id := int(n["provider:segmentation_id"].(float64))
		if _, twice := held[id]; twice {
			t.Errorf("%d was given twice", id)
		}
		held[id] = n.ID()
	}
	_, err := k.Admin().TryCreate("network", `{}`)
	k.Refused(err, fault.Unavailable, "NoNetworkAvailable", "")
}
