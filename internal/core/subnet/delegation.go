package subnet

import (
	"context"
	"errors"
	"net/netip"

	"isospin/internal/core/ipam"
	"isospin/internal/fault"
	"isospin/internal/store"
)

// PrefixDelegation is the subnetpool_id of subnets whose prefix a router is
// delegated from outside (RFC 8415).
const PrefixDelegation = "prefix_delegation"

// Provisional is the CIDR of such a subnet as long as no prefix is delegated.
var Provisional = netip.MustParsePrefix("::/64")

// Delegated tells whether the subnet's prefix comes by delegation.
func (s *Subnet) Delegated() bool {
	return s.SubnetPoolID != nil && *s.SubnetPoolID == PrefixDelegation
}

// Pending tells whether the subnet still waits for its prefix.
func (s *Subnet) Pending() bool { return s.Delegated() && s.CIDR == Provisional }

// delegation is the pool of subnets with delegated prefixes, as far as the
// other subnets of a network are concerned.
var delegation = Pool{ID: PrefixDelegation, IPVersion: 6}

// provisional gives the subnet the CIDR that it has until a prefix is delegated.
func (s *Service) provisional(n *Subnet) error {
	switch {
	case n.IPVersion != 6:
		return bad("Prefix Delegation can only be used with IPv6 subnets.")
	case !auto(n.IPv6RAMode):
		return bad("IPv6 RA Mode must be SLAAC or Stateless for Prefix Delegation.")
	case !auto(n.IPv6AddressMode):
		return bad("IPv6 Address Mode must be SLAAC or Stateless for Prefix Delegation.")
	}
	id := PrefixDelegation
	n.SubnetPoolID, n.CIDR = &id, Provisional
	return nil
}

// row is the CIDR that the database keeps of a pending subnet: with the
// beginning of its id for host bits, since those of a network are unique there.
func row(n *Subnet) (string, bool) {
	if !n.Pending() {
		return "", false
	}
	b := Provisional.Addr().As16()
	for i, at := 0, 8; i+1 < len(n.ID) && at < 16; {
		if n.ID[i] == '-' {
			i++
			continue
		}
		b[at] = nibble(n.ID[i])<<4 | nibble(n.ID[i+1])
		i, at = i+2, at+1
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), Provisional.Bits()).String(), true
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0
}

// cidrCondition is the condition on CIDRs, which finds pending subnets by the one that they show.
func cidrCondition(values []any) (string, []any) {
	in, args := store.In("t.cidr", values)
	for _, v := range values {
		if v == Provisional.String() {
			return in + " OR t.subnetpool_id = ? AND t.cidr LIKE '::%'", append(args, PrefixDelegation)
		}
	}
	return in, args
}

// Delegate gives a subnet the prefix that was delegated to its router, or with
// Provisional takes it away: gateway and allocation pools are those of the new
// prefix, and the ports are renumbered. The same prefix again changes nothing.
// Faults: InvalidInput for what cannot be the subnet's prefix.
func (s *Service) Delegate(ctx context.Context, tx *store.Tx, n *Subnet, prefix netip.Prefix) error {
	prefix = prefix.Masked()
	switch {
	case !n.Delegated():
		return fault.InvalidInput("Subnet %s is not of the pool %s", n.ID, PrefixDelegation)
	case n.CIDR == prefix:
		return nil
	case prefix.Bits() != 64 || !prefix.Addr().Is6() || prefix != Provisional &&
		(prefix.Addr().IsUnspecified() || prefix.Addr().IsMulticast() || prefix.Addr().IsLinkLocalUnicast() || prefix.Addr().Is4In6()):
		return fault.InvalidInput("%s cannot be delegated to subnet %s", prefix, n.ID)
	}
	want := *n
	want.CIDR = prefix
	want.GatewayIP = defaultGateway(&want)
	want.AllocationPools = ipam.DefaultPools(want.CIDR, want.GatewayIP)
	beside, err := s.OfNetwork(tx, n.NetworkID)
	if err != nil {
		return err
	}
	for _, e := range beside {
		if e.ID != n.ID && !e.Pending() && e.CIDR.Overlaps(want.CIDR) {
			return overlap(&want)
		}
	}
	if err := s.Save(ctx, tx, &want); errors.Is(err, store.ErrDuplicate) {
		return overlap(&want)
	} else if err != nil {
		return err
	}
	for _, hook := range s.AfterDelegation {
		if err := hook(ctx, tx, n, &want); err != nil {
			return err
		}
	}
	return s.options.Networks.Bump(ctx, tx, n.NetworkID)
}
