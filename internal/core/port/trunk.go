package port

import "isospin/internal/resource"

// TrunkDetails is the attribute of ports that are the parent of a trunk.
const TrunkDetails = "trunk_details"

var trunkOf = resource.NewSlot[struct {
	TrunkID string `json:"trunk_id"`
}](TrunkDetails)

// TrunkID is the trunk whose parent the port is; empty: none.
func (p *Port) TrunkID() string { return trunkOf.Get(p.Slots).TrunkID }
