package port_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"isospin/internal/core/port"
)

// TestFixedIPAppendJSON: it is what json.Marshal makes of it.
func TestFixedIPAppendJSON(t *testing.T) {
	for _, f := range []port.FixedIP{
		{SubnetID: "s", IPAddress: netip.MustParseAddr("10.0.0.1")}, {SubnetID: `"é`, IPAddress: netip.MustParseAddr("2001:db8::1")}, {},
	} {
		want, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.AppendJSON([]byte("x")); string(got) != "x"+string(want) {
			t.Errorf("%s, not %s", got[1:], want)
		}
	}
}
