package resource_test

import (
	"testing"

	"isospin/internal/resource"
)

// TestSlotsThatSayTheDefaultAreNotKept: what they would show is shown all the same.
func TestSlotsThatSayTheDefaultAreNotKept(t *testing.T) {
	type port struct {
		resource.Standard
		Slots resource.Slots
	}
	r := &resource.Resource{Name: "port"}
	r.Add(
		resource.Attribute{Name: "id", Flags: resource.Visible | resource.PrimaryKey, Type: "string"},
		resource.Attribute{Name: "uplink", Flags: resource.Visible, Default: true, Type: "bool"},
		resource.Attribute{Name: "shared", Flags: resource.Visible, Default: false, Type: "bool"},
		resource.Attribute{Name: "hint", Flags: resource.Visible, Type: "string|null"},
	)
	m := resource.NewModel[port]()
	e := m.NewEncoder(r)
	p := &port{Standard: resource.Standard{ID: "p"}}
	for _, step := range []struct {
		values map[string]any
		slots  int
		want   string
	}{
		{map[string]any{"uplink": true, "shared": false, "hint": nil}, 0, `{"id":"p","uplink":true,"shared":false,"hint":null}`},
		{map[string]any{"uplink": false, "shared": true, "hint": "x"}, 3, `{"id":"p","uplink":false,"shared":true,"hint":"x"}`},
		{map[string]any{"uplink": true}, 2, `{"id":"p","uplink":true,"shared":true,"hint":"x"}`},
		{map[string]any{"shared": false, "hint": nil}, 0, `{"id":"p","uplink":true,"shared":false,"hint":null}`},
	} {
		if err := m.Apply(r, p, &resource.Body{Values: step.values}); err != nil {
			t.Fatal(err)
		}
		if got := string(e.Append(nil, p, nil)); got != step.want || len(p.Slots) != step.slots {
			t.Errorf("after %v: %s in %d slots, wanted %s in %d", step.values, got, len(p.Slots), step.want, step.slots)
		}
	}
}
