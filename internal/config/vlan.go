package config

// What networks may ask for of VLAN tags of guests.
var (
	VLANTransparent = Bool("DEFAULT", "vlan_transparent", false,
		"Networks may ask to carry the VLAN tags of their guests. Creation is refused unless every mechanism driver can do it.",
		Unset("they may when every mechanism driver can do it"))
	VLANQinQ = Bool("DEFAULT", "vlan_qinq", false,
		"Networks may ask to carry the VLAN tags of their guests inside tags of the type 0x88a8. Creation is refused unless every mechanism driver can do it.",
		Unset("they may when every mechanism driver can do it"))
)
