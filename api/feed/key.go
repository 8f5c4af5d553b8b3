package feed

// KindAndID name an object; both are zero if it has no body.
func (o *Object) KindAndID() (Kind, string) {
	switch body := o.GetBody().(type) {
	case *Object_Port:
		return Kind_KIND_PORT, body.Port.GetId()
	case *Object_Network:
		return Kind_KIND_NETWORK, body.Network.GetId()
	case *Object_Forwarding:
		return Kind_KIND_FORWARDING, body.Forwarding.GetNetworkId()
	case *Object_SecurityGroup:
		return Kind_KIND_SECURITY_GROUP, body.SecurityGroup.GetId()
	case *Object_AddressSet:
		return Kind_KIND_ADDRESS_SET, body.AddressSet.GetId()
	case *Object_Router:
		return Kind_KIND_ROUTER, body.Router.GetId()
	case *Object_QosPolicy:
		return Kind_KIND_QOS_POLICY, body.QosPolicy.GetId()
	case *Object_Trunk:
		return Kind_KIND_TRUNK, body.Trunk.GetId()
	case *Object_Log:
		return Kind_KIND_LOG, body.Log.GetId()
	}
	return 0, ""
}
