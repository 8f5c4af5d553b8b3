package value

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"isospin/internal/fault"
)

// A converter returns v in the form in which it is kept.
type converter func(c *Checker, v any) (any, error)

// ifNotNone keeps null.
func ifNotNone(of func(v any) (any, error)) converter {
	return func(_ *Checker, v any) (any, error) {
		if v == nil {
			return nil, nil
		}
		return of(v)
	}
}

func convertToBoolean(v any) (any, error) {
	is, ok := toBoolean(v)
	if !ok {
		return nil, fault.InvalidInput("'%s' cannot be converted to boolean", Text(v))
	}
	return is, nil
}

func convertToInt(v any) (any, error) {
	n, ok := toInt(v)
	if !ok {
		return nil, fault.InvalidInput("%s", notInteger(v))
	}
	return integer(n), nil
}

func convertToString(v any) (any, error) { return Text(v), nil }

func convertToList(v any) (any, error) {
	if v == nil {
		return []any{}, nil
	}
	if _, isString := v.(string); !isString {
		if list, ok := items(v); ok {
			return append([]any{}, list...), nil
		}
	}
	return []any{v}, nil
}

func convertToLower(v any) (any, error) {
	s, ok := v.(string)
	if !ok {
		return nil, fault.InvalidInput("Input value %s must be string type", Text(v))
	}
	return lower(s), nil
}

// filterProtocols are the names that iptables has for protocols with ports or
// types.
var filterProtocols = []string{"dccp", "icmp", "ipv6-icmp", "sctp", "tcp", "udp"}

func convertToProtocol(v any) (any, error) {
	name, err := convertToLower(v)
	if err != nil {
		return nil, err
	}
	if slices.Contains(filterProtocols, name.(string)) || isOctet(v) {
		return v, nil
	}
	return nil, fault.InvalidInput("IP protocol '%s' is not supported. Only protocol names and their integer "+
		"representation (0 to 255) are supported", Text(v))
}

// isOctet tells whether int() makes 0 to 255 of v.
func isOctet(v any) bool {
	n, ok := toInt(v)
	return ok && inRange(n, new(big.Int), big.NewInt(255))
}

func convertUppercaseIP(v any) (any, error) {
	if s, ok := v.(string); ok && len(s) >= 2 && strings.EqualFold(s[:2], "ip") {
		return "IP" + s[2:], nil
	}
	return v, nil
}

func convertIP(v any) (any, error) {
	if s, ok := v.(string); ok {
		if addr, ok := parseAddress(s); ok && addr.Is6() {
			return formatAddress(addr), nil
		}
	}
	return v, nil
}

func convertCIDR(v any) (any, error) {
	if s, ok := v.(string); ok {
		if prefix, ok := parseNetwork(s); ok {
			return formatNetwork(prefix), nil
		}
	}
	return nil, fault.InvalidInput("%s is not in a CIDR format", Text(v))
}

func convertAllocationPools(v any) (any, error) {
	if v == nil {
		return []any{}, nil
	}
	pools, ok := items(v)
	if !ok {
		return nil, fault.InvalidInput("Invalid data format for allocation pools")
	}
	for _, item := range pools {
		pool, ok := item.(map[string]any)
		if !ok {
			return nil, fault.InvalidInput("Invalid data format for allocation pools")
		}
		for key, address := range pool {
			pool[key], _ = convertIP(address)
		}
	}
	return v, nil
}

// convertToMAC makes an address of which the first three octets, or four if
// the fourth is not zero, are those of BaseMAC.
func convertToMAC(c *Checker, v any) (any, error) {
	if v != nil {
		return v, nil
	}
	text := c.BaseMAC
	if text == "" {
		text = "fa:16:3e:00:00:00"
	}
	base, ok := parseMAC(text)
	if !ok {
		return nil, fmt.Errorf("base MAC address %q is malformed", text)
	}
	var random [3]byte
	rand.Read(random[:]) // never fails
	if fourth := byte(base >> 16); fourth != 0 {
		random[0] = fourth
	}
	mac := base>>24<<24 | uint64(random[0])<<16 | uint64(random[1])<<8 | uint64(random[2])
	return formatMAC(mac), nil
}

func convertMAC(v any) (any, error) {
	if s, ok := v.(string); ok {
		if mac, ok := parseMAC(s); ok {
			return formatMAC(mac), nil
		}
	}
	return v, nil
}

// convertKeyValues makes an object of lists of the "key=value" texts of a list
// filter. A flag without values comes as ["True"].
func convertKeyValues(v any) (any, error) {
	list, ok := items(v)
	if !ok {
		list = []any{v}
	}
	byKey := map[string]any{}
	if len(list) == 1 && list[0] == "True" {
		return byKey, nil
	}
	seen := map[[2]string]bool{}
	for _, item := range list {
		s, ok := item.(string)
		key, text, found := strings.Cut(s, "=")
		key, text = strings.TrimFunc(key, isSpace), strings.TrimFunc(text, isSpace)
		if !ok || !found || key == "" {
			return nil, fault.InvalidInput("'%s' is not of the form <key>=[value]", Text(item))
		}
		if seen[[2]string{key, text}] {
			continue
		}
		seen[[2]string{key, text}] = true
		texts, _ := byKey[key].([]any)
		byKey[key] = append(texts, text)
	}
	return byKey, nil
}

// securityGroupProtocols are the names that security group rules take.
var securityGroupProtocols = []any{
	nil, "any", "ah", "dccp", "egp", "esp", "gre", "hopopt", "icmp", "igmp", "ip", "ipip", "ipv6-encap", "ipv6-frag",
	"ipv6-icmp", "icmpv6", "ipv6-nonxt", "ipv6-opts", "ipv6-route", "ospf", "pgm", "rsvp", "sctp", "tcp", "udp",
	"udplite", "vrrp",
}

func convertSecurityGroupProtocol(v any) (any, error) {
	if v == "any" {
		return nil, nil
	}
	if n, ok := toInt(v); ok {
		if isOctet(v) {
			return n.String(), nil
		}
	} else if s, ok := v.(string); ok && slices.Contains(securityGroupProtocols, any(lower(s))) {
		return lower(s), nil
	}
	return nil, fault.New(fault.Invalid, "SecurityGroupRuleInvalidProtocol",
		"Security group rule protocol %s not supported. Only protocol values %s and integer representations "+
			"[0 to 255] are supported.", Text(v), Repr(securityGroupProtocols))
}

// ethertypeName is IPv4 or IPv6 for either in any letter case.
func ethertypeName(v any) (name string, ok bool) {
	s, _ := v.(string)
	switch lower(s) {
	case "ipv4":
		return "IPv4", true
	case "ipv6":
		return "IPv6", true
	}
	return "", false
}

func convertEthertype(v any) (any, error) {
	if name, ok := ethertypeName(v); ok {
		return name, nil
	}
	return nil, fault.New(fault.Invalid, "SecurityGroupRuleInvalidEtherType",
		"Security group rule for ethertype '%s' not supported. Allowed values are ['IPv4', 'IPv6'].", Text(v))
}

// toPort is int() within 0 to 65535.
func toPort(v any) (port any, ok bool) {
	n, ok := toInt(v)
	if !ok || !inRange(n, new(big.Int), big.NewInt(65535)) {
		return nil, false
	}
	return n.Int64(), true
}

func convertPort(v any) (any, error) {
	if port, ok := toPort(v); ok {
		return port, nil
	}
	return nil, fault.New(fault.Invalid, "SecurityGroupInvalidPortValue", "Invalid value for port %s", Text(v))
}

func convertIPPrefix(v any) (any, error) {
	if !truthy(v) {
		return nil, nil
	}
	if s, ok := v.(string); ok {
		if prefix, ok := parseNetwork(s); ok {
			return formatNetwork(prefix), nil
		}
	}
	return nil, fault.New(fault.Invalid, "InvalidCIDR", "Invalid CIDR %s given as IP prefix.", Text(v))
}

// rbacObjectTypes are the types of Neutron itself.
var rbacObjectTypes = []string{"network", "qos_policy", "security_group", "address_scope", "subnetpool", "address_group"}

func convertObjectType(c *Checker, v any) (any, error) {
	known := rbacObjectTypes
	if c.RBACObjectTypes != nil {
		known = c.RBACObjectTypes
	}
	s, _ := v.(string)
	s = lower(strings.TrimFunc(s, isSpace))
	if !slices.Contains(known, s) {
		return nil, fault.InvalidInput("'%s' is not a valid RBAC object type", Text(v))
	}
	return s, nil
}

func normalizeProtocol(v any) (any, error) {
	if s, ok := v.(string); ok && slices.Contains([]string{"tcp", "udp", "icmp"}, lower(s)) {
		return lower(s), nil
	}
	return nil, fault.New(fault.Invalid, "FlowClassifierInvalidProtocol",
		"Flow Classifier does not support protocol %s. Supported protocol values are ['tcp', 'udp', 'icmp'].", Text(v))
}

func normalizeEthertype(v any) (any, error) {
	if v == nil {
		return "IPv4", nil
	}
	if name, ok := ethertypeName(v); ok {
		return name, nil
	}
	return nil, fault.New(fault.Invalid, "FlowClassifierInvalidEthertype",
		"Flow Classifier does not support ethertype %s. Supported ethertype values are ['IPv4', 'IPv6'].", Text(v))
}

func normalizePort(v any) (any, error) {
	if port, ok := toPort(v); ok {
		return port, nil
	}
	return nil, fault.New(fault.Invalid, "FlowClassifierInvalidPortValue",
		"Flow Classifier has invalid port value %s.", Text(v))
}

// normalizeL7Parameters knows no parameter: none are defined so far.
func normalizeL7Parameters(v any) (any, error) {
	if v == nil {
		return map[string]any{}, nil
	}
	if m, ok := v.(map[string]any); ok {
		for _, key := range sortedKeys(m) {
			return nil, fault.New(fault.Invalid, "FlowClassifierInvalidL7Parameter",
				"Invalid Flow Classifier parameters: Unknown key %s.. Supported flow classifier parameters are {}.", key)
		}
	}
	return v, nil
}

func normalizePortPairGroups(v any) (any, error) {
	groups, err := convertToList(v)
	if err == nil && !truthy(groups) {
		err = fault.New(fault.Invalid, "PortPairGroupNotSpecified", "Port Pair Group is not specified in Port Chain.")
	}
	return groups, err
}

// fillIn gives v, if it is an object, the keys that it lacks; if v is falsy it
// becomes one. Other values are left to the validator.
func fillIn(v any, missing map[string]any) any {
	if !truthy(v) {
		return missing
	}
	if m, ok := v.(map[string]any); ok {
		for key, value := range missing {
			if _, ok := m[key]; !ok {
				m[key] = value
			}
		}
	}
	return v
}

func normalizeChainParameters(v any) (any, error) {
	return fillIn(v, map[string]any{"correlation": "mpls", "symmetric": false}), nil
}

func normalizeServiceFunctionParameters(v any) (any, error) {
	if truthy(v) {
		return v, nil
	}
	return map[string]any{"correlation": nil, "weight": int64(1)}, nil
}

// tupleKeys are the keys of a port pair group's n-tuple mappings, in the order
// in which messages show them.
var tupleKeys = []string{
	"source_ip_prefix", "destination_ip_prefix", "source_port_range_min", "source_port_range_max",
	"destination_port_range_min", "destination_port_range_max",
}

func normalizePortPairGroupParameters(v any) (any, error) {
	v = fillIn(v, map[string]any{
		"lb_fields": []any{},
		"ppg_n_tuple_mapping": map[string]any{
			"ingress_n_tuple": map[string]any{}, "egress_n_tuple": map[string]any{},
		},
	})
	parameters, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	refuse := func(text string) error {
		return fault.New(fault.Invalid, "PPGParametersInvalidNTupleMappingParameter",
			"Invalid Port Pair Group N-Tuple Mapping parameters: %s. Supported PPG classifier N-Tuple Mapping "+
				"parameters are {'%s': None}.", text, strings.Join(tupleKeys, "': None, '"))
	}
	mapping, ok := parameters["ppg_n_tuple_mapping"].(map[string]any)
	if !ok {
		return nil, refuse("'" + Text(parameters["ppg_n_tuple_mapping"]) + "' is not a dictionary")
	}
	for _, name := range sortedKeys(mapping) {
		tuple, ok := mapping[name].(map[string]any)
		if !ok {
			return nil, refuse("'" + Text(mapping[name]) + "' is not a dictionary")
		}
		for _, key := range sortedKeys(tuple) {
			if !slices.Contains(tupleKeys, key) {
				return nil, refuse("Unknow key " + key + ".") // as networking-sfc spells it
			}
		}
	}
	return v, nil
}

func normalizeServiceGraph(v any) (any, error) {
	if v == nil {
		return map[string]any{}, nil
	}
	graph, ok := v.(map[string]any)
	if !ok {
		return v, nil // the validator's to refuse
	}
	// networking-sfc never fills in what its message has a place for.
	invalid := &fault.Error{Kind: fault.Invalid, Type: "InvalidUUID", Message: "An invalid UUID was specified: " +
		"%(error_message)s. Make sure only valid UUIDs are provided."}
	for source, v := range graph {
		destinations, ok := v.([]any)
		if !ok || !isUUID(source) || slices.ContainsFunc(destinations, func(id any) bool { return !isUUID(id) }) {
			invalid.Cause = fmt.Errorf("service graph from port chain %s", strconv.Quote(source))
			return nil, invalid
		}
	}
	return graph, nil
}
