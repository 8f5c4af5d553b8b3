package servertest

import (
	"maps"
	"slices"

	message "isospin/api/feed"
	"isospin/internal/feed"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// KeyOf names an object of the feed.
func KeyOf(o *message.Object) feed.Key {
	switch b := o.Body.(type) {
	case *message.Object_Port:
		return feed.Key{Kind: message.Kind_KIND_PORT, ID: b.Port.Id}
	case *message.Object_Network:
		return feed.Key{Kind: message.Kind_KIND_NETWORK, ID: b.Network.Id}
	case *message.Object_Forwarding:
		return feed.Key{Kind: message.Kind_KIND_FORWARDING, ID: b.Forwarding.NetworkId}
	case *message.Object_SecurityGroup:
		return feed.Key{Kind: message.Kind_KIND_SECURITY_GROUP, ID: b.SecurityGroup.Id}
	case *message.Object_AddressSet:
		return feed.Key{Kind: message.Kind_KIND_ADDRESS_SET, ID: b.AddressSet.Id}
	case *message.Object_Router:
		return feed.Key{Kind: message.Kind_KIND_ROUTER, ID: b.Router.Id}
	case *message.Object_QosPolicy:
		return feed.Key{Kind: message.Kind_KIND_QOS_POLICY, ID: b.QosPolicy.Id}
	case *message.Object_Trunk:
		return feed.Key{Kind: message.Kind_KIND_TRUNK, ID: b.Trunk.Id}
	}
	return feed.Key{}
}
