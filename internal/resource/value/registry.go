package value

// validators and converters are filled once, in init, as those of objects come
// back to them by name.
var (
	validators map[string]validator
	converters map[string]converter
)

func init() {
	notEmpty := all(stringValue, check(notBlank))
	single := all(notEmpty, check(oneLine))
	name := all(stringValue, check(printableName))
	uuidList := listOf(check(uuidValue))
	raising := func(of func(v any) error) validator {
		return func(_ *Checker, _ any, v any) (string, error) { return "", of(v) }
	}

	validators = map[string]validator{
		"type:boolean":       check(boolean),
		"type:values":        values,
		"type:integer":       integerValue,
		"type:non_negative":  check(nonNegative),
		"type:range":         rangeValue,
		"type:range_or_none": orNone(rangeValue),

		"type:string":                           stringValue,
		"type:string_or_none":                   orNone(stringValue),
		"type:not_empty_string":                 notEmpty,
		"type:not_empty_string_or_none":         orNone(notEmpty),
		"type:oneline_not_empty_string":         single,
		"type:oneline_not_empty_string_or_none": orNone(single),
		"type:name_string":                      name,
		"type:name_string_or_none":              orNone(name),
		"type:not_empty_name_string":            all(notEmpty, name),
		"type:name_not_default":                 all(stringValue, nameNotDefault),
		"type:regex":                            regex,
		"type:regex_or_none":                    orNone(regex),
		"type:list_of_regex_or_none":            orNone(listOf(regex)),
		"type:list_of_unique_strings":           listOf(stringValue),
		"type:list_of_allowed_values":           allowedValues,

		"type:uuid":                  check(uuidValue),
		"type:uuid_or_none":          orNone(check(uuidValue)),
		"type:uuid_list":             uuidList,
		"type:uuid_list_non_empty":   all(uuidList, check(notEmptyList)),
		"type:subnetpool_id":         check(subnetPoolID),
		"type:subnetpool_id_or_none": check(subnetPoolID),

		"type:dict":                          dict,
		"type:dict_or_none":                  orNone(dict),
		"type:dict_or_empty":                 dictOrEmpty,
		"type:dict_or_nodata":                unlessFalsy(dict),
		"type:list_of_dict_or_nodata":        unlessFalsy(listOfDictOrNoData),
		"type:list_of_any_key_specs_or_none": orNone(anyKeySpecs),

		"type:ip_address":              check(ipAddress),
		"type:ip_address_or_none":      orNone(check(ipAddress)),
		"type:ip_or_subnet_or_none":    orNone(check(ipOrSubnet)),
		"type:ip_pools":                check(ipPools),
		"type:fixed_ips":               check(fixedIPs),
		"type:nameservers":             check(nameservers),
		"type:hostroutes":              check(hostRoutes),
		"type:subnet":                  check(subnet),
		"type:subnet_or_none":          orNone(check(subnet)),
		"type:subnet_list":             listOf(check(subnet)),
		"type:list_of_subnets_or_none": orNone(listOf(check(subnet))),
		"type:mac_address":             check(macAddress),
		"type:mac_address_or_none":     orNone(check(macAddress)),
		"type:allowed_address_pairs": func(c *Checker, _ any, v any) (string, error) {
			return addressPairs(c, v)
		},

		"type:port_range": portRange,
		"type:ethertype":  ethertype,
		"type:subports":   check(subports),
		"type:network_segments": func(_ *Checker, _ any, v any) (string, error) {
			return networkSegments(v)
		},
		"type:service_plugin_type":          servicePluginType,
		"type:list_of_subnet_service_types": raising(subnetServiceTypes),
		"type:valid_target_project":         raising(validTargetProject),
		"type:availability_zone_hint_list": all(
			func(c *Checker, _ any, v any) (string, error) { return listOf(stringValue)(c, nil, v) },
			raising(availabilityZones)),

		"type:dns_host_name":     dnsHostName,
		"type:fip_dns_host_name": floatingIPDNSName,
		"type:dns_domain_name":   dnsDomainName,

		"type:l2gwdevice_list": func(_ *Checker, _ any, v any) (string, error) {
			return gatewayDevices(v)
		},
		"type:connection_limit": connectionLimit,
		"type:db_out_of_bounds": dbOutOfBounds,
	}

	plain := func(of func(v any) (any, error)) converter {
		return func(_ *Checker, v any) (any, error) { return of(v) }
	}
	// instead replaces null.
	instead := func(fresh func() any) converter {
		return func(_ *Checker, v any) (any, error) {
			if v == nil {
				return fresh(), nil
			}
			return v, nil
		}
	}
	emptyList := func() any { return []any{} }
	emptyDict := func() any { return map[string]any{} }
	emptyString := func() any { return "" }

	converters = map[string]converter{
		"convert_to_boolean":                           plain(convertToBoolean),
		"convert_to_boolean_if_not_none":               ifNotNone(convertToBoolean),
		"convert_to_int":                               plain(convertToInt),
		"convert_to_int_if_not_none":                   ifNotNone(convertToInt),
		"convert_to_string":                            ifNotNone(convertToString),
		"convert_to_list":                              plain(convertToList),
		"convert_none_to_empty_list":                   instead(emptyList),
		"convert_none_to_empty_dict":                   instead(emptyDict),
		"convert_none_to_empty_string":                 instead(emptyString),
		"convert_string_to_case_insensitive":           plain(convertToLower),
		"convert_to_protocol":                          ifNotNone(convertToProtocol),
		"convert_uppercase_ip":                         plain(convertUppercaseIP),
		"convert_ip_to_canonical_format":               plain(convertIP),
		"convert_cidr_to_canonical_format":             plain(convertCIDR),
		"convert_allocation_pools_to_canonical_format": plain(convertAllocationPools),
		"convert_to_mac_if_none":                       convertToMAC,
		"convert_to_sanitized_mac_address":             plain(convertMAC),
		"convert_kvp_list_to_dict":                     plain(convertKeyValues),

		"convert_protocol":                      ifNotNone(convertSecurityGroupProtocol),
		"convert_ethertype_to_case_insensitive": plain(convertEthertype),
		"convert_validate_port_value":           ifNotNone(convertPort),
		"convert_ip_prefix_to_cidr":             plain(convertIPPrefix),
		"convert_valid_object_type":             convertObjectType,

		"normalize_protocol":         ifNotNone(normalizeProtocol),
		"normalize_ethertype":        plain(normalizeEthertype),
		"normalize_string":           instead(emptyString),
		"normalize_port_value":       ifNotNone(normalizePort),
		"normalize_l7parameters":     plain(normalizeL7Parameters),
		"normalize_port_pair_groups": plain(normalizePortPairGroups),
		"normalize_chain_parameters": plain(normalizeChainParameters),
		"normalize_sf_parameters":    plain(normalizeServiceFunctionParameters),
		"normalize_ppg_parameters":   plain(normalizePortPairGroupParameters),
		"normalize_service_graph":    plain(normalizeServiceGraph),
	}
}
