package value

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"isospin/internal/fault"
)

// listOf is for a list without duplicates of which each item passes of.
func listOf(of validator) validator {
	return func(c *Checker, args any, v any) (string, error) {
		list, ok := v.([]any)
		if !ok {
			return fmt.Sprintf("'%s' is not a list", Text(v)), nil
		}
		if twice := duplicates(list); len(twice) > 0 {
			return fmt.Sprintf("Duplicate items in the list: '%s'", strings.Join(twice, ", ")), nil
		}
		for _, item := range list {
			if reason, err := of(c, args, item); reason != "" || err != nil {
				return reason, err
			}
		}
		return "", nil
	}
}

// duplicates are the texts of the items that come more than once.
func duplicates(list []any) (texts []string) {
	count := make(map[string]int, len(list))
	for _, item := range list {
		id := identity(item)
		if count[id]++; count[id] == 2 {
			texts = append(texts, Text(item))
		}
	}
	return texts
}

func notEmptyList(v any) string {
	if list, ok := v.([]any); ok && len(list) == 0 {
		return "List should not be empty"
	}
	return ""
}

// unlessFalsy lets by whatever Python takes for false.
func unlessFalsy(of validator) validator {
	return func(c *Checker, args any, v any) (string, error) {
		if !truthy(v) {
			return "", nil
		}
		return of(c, args, v)
	}
}

func dictOrEmpty(c *Checker, args any, v any) (string, error) {
	if m, ok := v.(map[string]any); ok && len(m) == 0 {
		return "", nil
	}
	return dict(c, args, v)
}

// dict checks an object against key specifications: for each key whether it is
// required, a converter and a validator. Defaults are the caller's concern.
// Keys are gone through in sorted order, as maps of Go keep none.
func dict(c *Checker, args any, v any) (string, error) {
	specs, ok := args.(map[string]any)
	if args != nil && !ok {
		return "", badArgs(args)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprintf("'%s' is not a dictionary", Text(v)), nil
	}
	if len(specs) == 0 {
		return "", nil
	}
	var required []string
	for key, spec := range specs {
		if spec, ok := spec.(map[string]any); !ok {
			return "", badArgs(args)
		} else if truthy(spec["required"]) {
			required = append(required, key)
		}
	}
	for _, key := range required {
		if _, ok := m[key]; !ok {
			return wrongKeys(required, m), nil
		}
	}
	var unexpected []string
	for _, key := range sortedKeys(m) {
		if _, ok := specs[key]; !ok {
			unexpected = append(unexpected, key)
		}
	}
	if unexpected != nil {
		return "Unexpected keys supplied: " + strings.Join(unexpected, ", "), nil
	}
	for _, key := range sortedKeys(m) {
		if reason, err := dictItem(c, specs[key].(map[string]any), m, key); reason != "" || err != nil {
			return reason, err
		}
	}
	return "", nil
}

func dictItem(c *Checker, spec map[string]any, m map[string]any, key string) (string, error) {
	if name, ok := spec["convert_to"].(string); ok {
		converted, err := c.Convert(name, m[key])
		if err != nil {
			return "", err
		}
		m[key] = converted
	}
	for _, name := range sortedKeys(spec) {
		if strings.HasPrefix(name, "type:") {
			return c.Validate(name, spec[name], m[key])
		}
	}
	return "", nil
}

func wrongKeys(expected []string, provided map[string]any) string {
	return fmt.Sprintf("Validation of dictionary's keys failed. Expected keys: %s Provided keys: %s",
		reprSet(expected), reprSet(sortedKeys(provided)))
}

// exactKeys refuses what is no object with the expected keys and no others.
func exactKeys(expected []string, v any) (m map[string]any, reason string) {
	m, ok := v.(map[string]any)
	if !ok {
		list := make([]any, len(expected))
		for i := range expected {
			list[i] = expected[i]
		}
		return nil, fmt.Sprintf("Invalid input. '%s' must be a dictionary with keys: %s", Text(v), Repr(list))
	}
	for _, key := range expected {
		if _, ok := m[key]; !ok {
			return nil, wrongKeys(expected, m)
		}
	}
	if len(m) != len(expected) {
		return nil, wrongKeys(expected, m)
	}
	return m, ""
}

func listOfDictOrNoData(c *Checker, args any, v any) (string, error) {
	if specs, ok := args.(map[string]any); ok && len(specs) == 1 {
		// The key specifications come bare or under their keyword.
		if inner, ok := specs["key_specs"].(map[string]any); ok {
			args = inner
		}
	}
	return listOf(unlessFalsy(dict))(c, args, v)
}

// anyKeySpecs is for a list of objects that each fit one of several key
// specifications.
func anyKeySpecs(c *Checker, args any, v any) (string, error) {
	alternatives, ok := args.([]any)
	if !ok {
		return "", badArgs(args)
	}
	reason, err := listOf(func(c *Checker, _ any, item any) (string, error) {
		for _, specs := range alternatives {
			if reason, err := dict(c, specs, item); reason == "" || err != nil {
				return "", err
			}
		}
		return "No valid key specs matched for: " + Text(item), nil
	})(c, nil, v)
	if err == nil && reason != "" {
		err = fault.InvalidInput("%s", reason)
	}
	return "", err
}

func allowedValues(_ *Checker, args any, v any) (string, error) {
	allowed, ok := args.([]any)
	if !ok {
		return "", badArgs(args)
	}
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("'%s' is not a list", Text(v)), nil
	}
	var illegal []string
	for _, item := range list {
		if !contains(allowed, item) {
			illegal = append(illegal, Text(item))
		}
	}
	if illegal == nil {
		return "", nil
	}
	slices.Sort(illegal)
	return "Illegal values in a list: " + strings.Join(slices.Compact(illegal), ", "), nil
}

func ipPools(v any) string {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("Invalid data format for IP pool: '%s'", Text(v))
	}
	expected := []string{"start", "end"}
	for _, item := range list {
		pool, reason := exactKeys(expected, item)
		if reason != "" {
			return reason
		}
		for _, key := range expected {
			if reason := ipAddress(pool[key]); reason != "" {
				return reason
			}
		}
	}
	return ""
}

func fixedIPs(v any) string {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("Invalid data format for fixed IP: '%s'", Text(v))
	}
	seen := map[string]bool{}
	for _, item := range list {
		fixed, ok := item.(map[string]any)
		if !ok {
			return fmt.Sprintf("Invalid data format for fixed IP: '%s'", Text(item))
		}
		if address, ok := fixed["ip_address"]; ok {
			id := identity(address)
			if seen[id] {
				return fmt.Sprintf("Duplicate IP address '%s'", Text(address))
			}
			if reason := ipAddress(address); reason != "" {
				return reason
			}
			seen[id] = true
		}
		if id, ok := fixed["subnet_id"]; ok {
			if reason := uuidValue(id); reason != "" {
				return reason
			}
		}
	}
	return ""
}

func nameservers(v any) string {
	list, ok := items(v)
	if !ok {
		return fmt.Sprintf("Invalid data format for nameserver: '%s'", Text(v))
	}
	seen := map[string]bool{}
	for _, host := range list {
		if reason := ipAddress(host); reason != "" {
			return fmt.Sprintf("'%s' is not a valid nameserver. %s", Text(host), reason)
		}
		id := identity(host)
		if seen[id] {
			return fmt.Sprintf("Duplicate nameserver '%s'", Text(host))
		}
		seen[id] = true
	}
	return ""
}

func hostRoutes(v any) string {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("Invalid data format for hostroute: '%s'", Text(v))
	}
	expected := []string{"destination", "nexthop"}
	seen := map[string]bool{}
	for _, item := range list {
		route, reason := exactKeys(expected, item)
		if reason == "" {
			reason = routeCIDR(route["destination"])
		}
		if reason == "" {
			reason = ipAddress(route["nexthop"])
		}
		if reason != "" {
			return reason
		}
		id := identity(item)
		if seen[id] {
			return fmt.Sprintf("Duplicate hostroute '%s'", Text(item))
		}
		seen[id] = true
	}
	return ""
}

func subports(v any) string {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("Invalid data format for subports: '%s' is not a list", Text(v))
	}
	ports, segments := map[any]bool{}, map[string]bool{}
	for _, item := range list {
		subport, ok := item.(map[string]any)
		if !ok {
			return fmt.Sprintf("Invalid data format for subport: '%s' is not a dict", Text(item))
		}
		port, ok := subport["port_id"]
		switch {
		case !ok:
			return "A valid port UUID must be specified"
		case !isUUID(port):
			return fmt.Sprintf("Invalid UUID for subport: '%s'", Text(port))
		case ports[port]:
			return fmt.Sprintf("Non unique UUID for subport: '%s'", Text(port))
		}
		ports[port] = true

		kind, id := subport["segmentation_type"], subport["segmentation_id"]
		if kind == "inherit" {
			// The details come from the subport's network; neutron-lib
			// looks at no further subport then.
			return ""
		}
		if (!truthy(kind) || id == nil || isContainer(kind) || isContainer(id)) && len(subport) > 1 {
			return fmt.Sprintf("Invalid subport details '%s': missing segmentation information. "+
				"Must specify both segmentation_id and segmentation_type", Text(item))
		}
		if id == nil {
			continue
		}
		segment := identity([]any{kind, id})
		if segments[segment] {
			return fmt.Sprintf("Segmentation ID '%s' for '%s' is not unique", Text(id), Text(port))
		}
		segments[segment] = true
	}
	return ""
}

func isContainer(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return true
	}
	return false
}

// subnetServiceTypes takes the prefixes of device owners and, as neutron-lib
// does by an accident that is in use by now, each character of "compute:".
func subnetServiceTypes(v any) error {
	if !truthy(v) {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		return fault.BadRequest("Subnet service types must be a list.")
	}
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return fault.New(fault.Invalid, "InvalidInputSubnetServiceType",
				"Subnet service type %s is not a string.", Text(item))
		}
		if !strings.HasPrefix(s, "network:") && !strings.HasPrefix(s, "neutron:") &&
			(s == "" || !strings.Contains("compute:", s[:1])) {
			return fault.New(fault.Invalid, "InvalidSubnetServiceType",
				"Subnet service type %s does not correspond to a valid device owner.", s)
		}
	}
	return nil
}

var multicast = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}

func addressPairs(c *Checker, v any) (string, error) {
	pairs, ok := v.([]any)
	if !ok {
		return "", fault.BadRequest("Allowed address pairs must be a list.")
	}
	most := 10
	if c.MaxAllowedAddressPairs != 0 {
		most = c.MaxAllowedAddressPairs
	}
	if len(pairs) > most {
		return "", fault.New(fault.Invalid, "AllowedAddressPairExhausted",
			"The number of allowed address pair exceeds the maximum %d.", most)
	}
	seen := map[string]bool{}
	for _, item := range pairs {
		pair, ok := item.(map[string]any)
		if !ok {
			return fmt.Sprintf("'%s' is not a dictionary", Text(item)), nil
		}
		if err := addressPair(pair, seen); err != nil {
			return "", err
		}
	}
	return "", nil
}

func addressPair(pair map[string]any, seen map[string]bool) error {
	mac, hasMAC := pair["mac_address"]
	if hasMAC {
		if reason := macAddress(mac); reason != "" {
			return fault.BadRequest("%s", reason)
		}
	}
	address, ok := pair["ip_address"]
	if !ok {
		return fault.New(fault.Invalid, "AllowedAddressPairsMissingIP", "AllowedAddressPair must contain ip_address")
	}
	id := identity([]any{mac, address})
	if seen[id] {
		return fault.New(fault.Invalid, "DuplicateAddressPairInRequest",
			"Request contains duplicate address pair: mac_address %s ip_address %s.", Text(mac), Text(address))
	}
	seen[id] = true

	var unknown []string
	for _, key := range sortedKeys(pair) {
		if key != "mac_address" && key != "ip_address" {
			unknown = append(unknown, key)
		}
	}
	if unknown != nil {
		return unrecognized(unknown)
	}
	if s, ok := address.(string); ok && strings.Contains(s, "/") {
		if reason := subnet(s); reason != "" {
			return fault.BadRequest("%s", reason)
		}
		prefix, _ := network(s)
		for _, group := range multicast {
			if prefix.Overlaps(group) && prefix.Masked() != netip.PrefixFrom(netip.IPv4Unspecified(), 0) {
				return fault.BadRequest("Subnet %s overlaps with multicast range %s, which is not supported.", s, group)
			}
		}
	} else {
		if reason := ipAddress(address); reason != "" {
			return fault.BadRequest("%s", reason)
		}
		if addr, _ := parseAddress(s); slices.ContainsFunc(multicast, func(group netip.Prefix) bool { return group.Contains(addr) }) {
			return fault.BadRequest("IP %s is a multicast address, which is not supported.", s)
		}
	}
	if hasMAC {
		if bits, _ := parseMAC(mac.(string)); bits>>40&1 == 1 {
			return fault.BadRequest("MAC address %s is a multicast address, which is not supported.", Text(mac))
		}
	}
	return nil
}

func unrecognized(keys []string) error {
	return fault.BadRequest("Unrecognized attribute(s) '%s'", strings.Join(keys, ", "))
}

// availabilityZones also limits the length of the JSON text that is stored.
func availabilityZones(v any) error {
	list, _ := v.([]any)
	length := 2
	for i, item := range list {
		if i > 0 {
			length += len(", ")
		}
		s, _ := item.(string)
		length += jsonLength(s)
	}
	if length > 255 {
		return fault.InvalidInput("Too many availability_zone_hints specified")
	}
	return nil
}

// jsonLength is the length of s as JSON that is all ASCII.
func jsonLength(s string) int {
	length := 2
	for _, r := range s {
		switch {
		case strings.ContainsRune("\"\\\b\f\n\r\t", r):
			length += 2
		case r >= 0x10000:
			length += 12
		case r < ' ' || r >= utf8.RuneSelf:
			length += 6
		default:
			length++
		}
	}
	return length
}

func networkSegments(v any) (string, error) {
	list, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("'%s' is not a list", Text(v)), nil
	}
	for _, item := range list {
		segment, ok := item.(map[string]any)
		if !ok {
			return fmt.Sprintf("'%s' is not a dictionary", Text(item)), nil
		}
		for _, key := range []string{"provider:network_type", "provider:physical_network"} {
			if _, ok := segment[key]; !ok {
				segment[key] = NotSpecified{}
			}
		}
		const idKey = "provider:segmentation_id"
		if id := segment[idKey]; truthy(id) && id != (NotSpecified{}) {
			n, ok := toInt(id)
			if !ok {
				return "", fault.InvalidInput("%s", notInteger(id))
			}
			segment[idKey] = integer(n)
		} else {
			segment[idKey] = NotSpecified{}
		}
		if len(segment) != 3 {
			var unknown []string
			for _, key := range sortedKeys(segment) {
				if key != "provider:network_type" && key != "provider:physical_network" && key != idKey {
					unknown = append(unknown, key)
				}
			}
			return "", unrecognized(unknown)
		}
	}
	return "", nil
}

func gatewayDevices(v any) (string, error) {
	if !truthy(v) {
		return "Cannot create a gateway with an empty device list", nil
	}
	devices, ok := v.([]any)
	if !ok {
		return fmt.Sprintf("'%s' is not a list", Text(v)), nil
	}
	for _, item := range devices {
		device, ok := item.(map[string]any)
		if !ok {
			return fmt.Sprintf("'%s' is not a dictionary", Text(item)), nil
		}
		if !truthy(device["device_name"]) {
			return "Cannot create a gateway with an empty device_name", nil
		}
		if !truthy(device["interfaces"]) {
			return "Cannot create a gateway with an empty interfaces", nil
		}
		interfaces, ok := device["interfaces"].([]any)
		if !ok {
			return "interfaces format is not a type list of dicts", nil
		}
		for _, item := range interfaces {
			if reason, err := gatewayInterface(item); reason != "" || err != nil {
				return reason, err
			}
		}
	}
	return "", nil
}

func gatewayInterface(v any) (string, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return "interfaces format is not a type dict", nil
	}
	if !truthy(m["name"]) {
		return "Cannot create a gateway with an empty interface name", nil
	}
	ids, ok := m["segmentation_id"]
	if !ok {
		return "", nil
	}
	if !truthy(ids) {
		return "segmentation_id_list should not be empty", nil
	}
	list, ok := ids.([]any)
	if !ok {
		return "segmentation_id type should be of list type ", nil
	}
	for _, id := range list {
		n, ok := toInt(id)
		if !ok {
			return "", fault.InvalidInput("Segmentation id must be a valid integer")
		}
		if !n.IsInt64() || n.Int64() < 0 || n.Int64() > 4094 {
			return "", fault.InvalidInput("Segmentation id is out of range")
		}
	}
	return "", nil
}
