package port

// TagCarrier is a Mechanism that knows whether VLAN tags of guests pass its
// networks, by the type of a segment ("vlan", "vxlan", …). One that is none
// carries none.
type TagCarrier interface {
	// VLANTransparent: frames pass with the tags that guests gave them.
	VLANTransparent(networkType string) bool
	// QinQ: guests' tags pass inside tags of the type 0x88a8.
	QinQ(networkType string) bool
}

// Isolator is a Mechanism that keeps ports of a network apart by their
// pvlan_type. One that is none lets all of them reach each other.
type Isolator interface {
	// PrivateVLANs tells whether it does.
	PrivateVLANs() bool
}

// Mechanisms are those that bind ports, in the order in which they are tried.
func (s *Service) Mechanisms() []Mechanism { return s.options.Mechanisms }
