package value

import (
	"encoding/json"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"isospin/internal/fault"
)

// contract is the contract's list of validators and converters.
type contract struct {
	Validators, Converters map[string]struct {
		Errors []string
		Notes  any
	}
}

func readJSON(t testing.TB, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func decode(t testing.TB, text string) any {
	t.Helper()
	if text == "" {
		return nil
	}
	v, err := Decode([]byte(text))
	if err != nil {
		t.Fatalf("Decode(%s): %v", text, err)
	}
	return v
}

const (
	u1 = `"b5eb5c7e-0b0e-4b3a-9d7e-3f2a1c4d5e6f"`
	u2 = `"a5eb5c7e-0b0e-4b3a-9d7e-3f2a1c4d5e6f"`

	gatewaySpec = `{"network_id": {"type:uuid": null, "required": true},
		"external_fixed_ips": {"type:fixed_ips": null, "required": false},
		"enable_snat": {"type:boolean": null, "required": false, "convert_to": "convert_to_boolean"},
		"qos_policy_id": {"type:uuid_or_none": null, "required": false}}`
	extraDHCPSpecs = `[
		{"opt_name": {"type:values": ["router", "classless-static-route"], "required": true},
		 "opt_value": {"type:string_or_none": 255, "required": true},
		 "ip_version": {"convert_to": "convert_to_int", "type:values": [4, 6], "required": false}},
		{"opt_name": {"type:oneline_not_empty_string": 64, "required": true},
		 "opt_value": {"type:oneline_not_empty_string_or_none": 255, "required": true},
		 "ip_version": {"convert_to": "convert_to_int", "type:values": [4, 6], "required": false}}]`
	vlanFilter = `"^([0-9]+(-[0-9]+)?)(,([0-9]+(-[0-9]+)?))*$"`
)

var (
	sixtyThree = strings.Repeat("a", 63)
	fqdn253    = strings.Repeat(sixtyThree+".", 3) + strings.Repeat("a", 61)
)

// validations: value and arguments are JSON; want is the reason, or the fault
// as "Type: message"; with want "" the value is valid. left, if given, is what
// the validator leaves of the value.
var validations = []struct{ name, args, value, want, left string }{
	{"type:boolean", "", `true`, "", ""},
	{"type:boolean", "", `" Yes\n"`, "", ""},
	{"type:boolean", "", `0`, "", ""},
	{"type:boolean", "", `"maybe"`, "'maybe' is not a valid boolean value", ""},
	{"type:boolean", "", `null`, "'None' is not a valid boolean value", ""},
	{"type:boolean", "", `1.0`, "'1.0' is not a valid boolean value", ""},

	{"type:values", `["ingress", "egress"]`, `"egress"`, "", ""},
	{"type:values", `[null, "ACTIVE"]`, `null`, "", ""},
	{"type:values", `[1, 2]`, `true`, "", ""},
	{"type:values", `[4, 6]`, `4.0`, "", ""},
	{"type:values", `[4, 6]`, `"4"`, "4 is not in valid_values", ""},
	{"type:values", `[4, 6]`, `["a", {"b": null}]`, "['a', {'b': None}] is not in valid_values", ""},

	{"type:integer", "", `" 5 "`, "", ""},
	{"type:integer", "", `5.0`, "", ""},
	{"type:integer", "", `5.5`, "'5.5' is not an integer", ""},
	{"type:integer", "", `"5.0"`, "'5.0' is not an integer", ""},
	{"type:integer", "", `9007199254740993`, "'9007199254740993' is not an integer", ""},
	{"type:integer", "", `9007199254740992`, "", ""},
	{"type:integer", "", `true`, "'True' is not an integer:boolean", ""},
	{"type:integer", `[4, 6]`, `5`, "5 is not in valid_values", ""},

	{"type:non_negative", "", `"0"`, "", ""},
	{"type:non_negative", "", `-1.9`, "'-1' should be non-negative", ""},
	{"type:non_negative", "", `null`, "'None' is not an integer", ""},

	{"type:range", `[1, 65535]`, `"65535"`, "", ""},
	{"type:range", `[60, null]`, `100000000000000000000`, "", ""},
	{"type:range", `[1, 65535]`, `"0"`, "'0' is too small - must be at least '1'", ""},
	{"type:range", `[1, 65535]`, `100000000000000000000`, "'100000000000000000000' is too large - must be no larger than '65535'", ""},
	{"type:range", `[1, 65535]`, `"x"`, "'x' is not an integer", ""},
	{"type:range", `[1, 65535]`, `null`, "'None' is not an integer", ""},
	{"type:range_or_none", `[1, 2]`, `null`, "", ""},
	{"type:range_or_none", `[1, 2]`, `3`, "'3' is too large - must be no larger than '2'", ""},

	{"type:string", "", `""`, "", ""},
	{"type:string", "4", `"éééé"`, "", ""},
	{"type:string", "3", `"éééé"`, "'éééé' exceeds maximum length of 3", ""},
	{"type:string", "", `{"a": [1, "it's"]}`, `'{'a': [1, "it's"]}' is not a valid string`, ""},
	{"type:string_or_none", "3", `null`, "", ""},
	{"type:string_or_none", "3", `"abcd"`, "'abcd' exceeds maximum length of 3", ""},
	{"type:not_empty_string", "", `"a"`, "", ""},
	{"type:not_empty_string", "", `" \u00a0"`, "' \u00a0' Blank strings are not permitted", ""},
	{"type:not_empty_string", "", `null`, "'None' is not a valid string", ""},
	{"type:not_empty_string_or_none", "", `null`, "", ""},
	{"type:not_empty_string_or_none", "", `""`, "'' Blank strings are not permitted", ""},
	{"type:oneline_not_empty_string", "", `"a\n"`, "", ""},
	{"type:oneline_not_empty_string", "", `"a\r\nb"`, "Multi-line string is not allowed: 'a\r\nb'", ""},
	{"type:oneline_not_empty_string", "", `"a\u2028b"`, "Multi-line string is not allowed: 'a\u2028b'", ""},
	{"type:oneline_not_empty_string", "1", `"ab"`, "'ab' exceeds maximum length of 1", ""},
	{"type:oneline_not_empty_string_or_none", "", `null`, "", ""},
	{"type:oneline_not_empty_string_or_none", "", `"a\nb"`, "Multi-line string is not allowed: 'a\nb'", ""},
	{"type:name_string", "", `"Büro 1 \ud83d\ude00"`, "", ""},
	{"type:name_string", "", `""`, "", ""},
	{"type:name_string", "", `" a"`, "' a' is not a valid string", ""},
	{"type:name_string", "", `"a\u00a0"`, "'a\u00a0' is not a valid string", ""},
	{"type:name_string", "", `"a\u0000b"`, "'a\x00b' is not a valid string", ""},
	{"type:name_string", "", `"a\u200bb"`, "'a\u200bb' is not a valid string", ""},
	{"type:name_string", "2", `"abc"`, "'abc' exceeds maximum length of 2", ""},
	{"type:name_string_or_none", "", `null`, "", ""},
	{"type:name_string_or_none", "", `1`, "'1' is not a valid string", ""},
	{"type:not_empty_name_string", "", `"a"`, "", ""},
	{"type:not_empty_name_string", "", `""`, "'' Blank strings are not permitted", ""},
	{"type:not_empty_name_string", "", `"a\t"`, "'a\t' is not a valid string", ""},
	{"type:name_not_default", "255", `"web"`, "", ""},
	{"type:name_not_default", "255", `"DeFault"`, "SecurityGroupDefaultAlreadyExists: Default security group already exists.", ""},
	{"type:name_not_default", "255", `1`, "'1' is not a valid string", ""},

	{"type:regex", `"[a-z]"`, `"ab1"`, "", ""},
	{"type:regex", `"[a-z]"`, `"1ab"`, "'1ab' is not a valid input", ""},
	{"type:regex", `"[a-z]"`, `1`, "'1' is not a valid input", ""},
	{"type:regex_or_none", vlanFilter, `null`, "", ""},
	{"type:regex_or_none", vlanFilter, `"1-9,18,27-30"`, "", ""},
	{"type:regex_or_none", vlanFilter, `"1-9,"`, "'1-9,' is not a valid input", ""},
	{"type:regex_or_none", vlanFilter, `"1\n"`, "'1\n' is not a valid input", ""},
	{"type:list_of_regex_or_none", `"^[0-9]+:[0-9]+$"`, `["64512:1"]`, "", ""},
	{"type:list_of_regex_or_none", `"^[0-9]+:[0-9]+$"`, `["64512:1", "x"]`, "'x' is not a valid input", ""},
	{"type:list_of_regex_or_none", `"^[0-9]+:[0-9]+$"`, `["1:1", "1:1"]`, "Duplicate items in the list: '1:1'", ""},
	{"type:list_of_regex_or_none", `"^[0-9]+:[0-9]+$"`, `"1:1"`, "'1:1' is not a list", ""},

	{"type:list_of_unique_strings", "3", `["a", "b"]`, "", ""},
	{"type:list_of_unique_strings", "3", `["a", "b", "a", "b", "a"]`, "Duplicate items in the list: 'a, b'", ""},
	{"type:list_of_unique_strings", "3", `["abcd"]`, "'abcd' exceeds maximum length of 3", ""},
	{"type:list_of_unique_strings", "3", `{}`, "'{}' is not a list", ""},
	{"type:list_of_allowed_values", `["ip_src", "ip_dst"]`, `["ip_dst", "ip_dst"]`, "", ""},
	{"type:list_of_allowed_values", `["ip_src", "ip_dst"]`, `["z", "ip_dst", "a", "z"]`, "Illegal values in a list: a, z", ""},
	{"type:list_of_allowed_values", `["ip_src", "ip_dst"]`, `null`, "'None' is not a list", ""},

	{"type:uuid", "", u1, "", ""},
	{"type:uuid", "", `"{urn:uuid:B5EB5C7E0B0E4B3A9D7E3F2A1C4D5E6F}"`, "", ""},
	{"type:uuid", "", `"URN:UUID:b5eb5c7e-0b0e-4b3a-9d7e-3f2a1c4d5e6f"`, "'URN:UUID:b5eb5c7e-0b0e-4b3a-9d7e-3f2a1c4d5e6f' is not a valid UUID", ""},
	{"type:uuid", "", `"urn:uuid:B5EB5C7E0B0E4B3A9D7E3F2A1C4D5E6F"`, "", ""},
	{"type:uuid", "", `"b5eb5c7e-0b0e-4b3a-9d7e-3f2a1c4d5e6"`, "'b5eb5c7e-0b0e-4b3a-9d7e-3f2a1c4d5e6' is not a valid UUID", ""},
	{"type:uuid", "", `7`, "'7' is not a valid UUID", ""},
	{"type:uuid_or_none", "", `null`, "", ""},
	{"type:uuid_or_none", "", `""`, "'' is not a valid UUID", ""},
	{"type:uuid_list", "", `[]`, "", ""},
	{"type:uuid_list", "", `[` + u1 + `, ` + u2 + `]`, "", ""},
	{"type:uuid_list", "", `[` + u1 + `, ` + u1 + `]`, "Duplicate items in the list: " + strings.ReplaceAll(u1, `"`, `'`), ""},
	{"type:uuid_list", "", `[null]`, "'None' is not a valid UUID", ""},
	{"type:uuid_list", "", `5`, "'5' is not a list", ""},
	{"type:uuid_list_non_empty", "", `[` + u1 + `]`, "", ""},
	{"type:uuid_list_non_empty", "", `[]`, "List should not be empty", ""},
	{"type:uuid_list_non_empty", "", `["a", "a"]`, "Duplicate items in the list: 'a'", ""},
	{"type:uuid_list_non_empty", "", `["a"]`, "'a' is not a valid UUID", ""},
	{"type:uuid_list_non_empty", "", `null`, "'None' is not a list", ""},
	{"type:subnetpool_id", "", `"prefix_delegation"`, "", ""},
	{"type:subnetpool_id", "", `"x"`, "'x' is not a valid UUID", ""},
	{"type:subnetpool_id_or_none", "", `null`, "", ""},
	{"type:subnetpool_id_or_none", "", `"x"`, "'x' is not a valid UUID", ""},

	{"type:dict", "", `{"anything": 1}`, "", ""},
	{"type:dict", gatewaySpec, `{"network_id": ` + u1 + `, "enable_snat": "no"}`, "", `{"network_id": ` + u1 + `, "enable_snat": false}`},
	{"type:dict", gatewaySpec, `{"enable_snat": "no"}`, "Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: {'enable_snat'}", ""},
	{"type:dict", gatewaySpec, `{}`, "Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: set()", ""},
	{"type:dict", gatewaySpec, `{"network_id": ` + u1 + `, "y": 1, "x": 2}`, "Unexpected keys supplied: x, y", ""},
	{"type:dict", gatewaySpec, `{"network_id": "x"}`, "'x' is not a valid UUID", ""},
	{"type:dict", gatewaySpec, `{"network_id": ` + u1 + `, "enable_snat": "x"}`, "InvalidInput: Invalid input for operation: 'x' cannot be converted to boolean.", ""},
	{"type:dict", gatewaySpec, `{"network_id": ` + u1 + `, "external_fixed_ips": [{"ip_address": "x"}]}`, "'x' is not a valid IP address", ""},
	{"type:dict", gatewaySpec, `[]`, "'[]' is not a dictionary", ""},
	{"type:dict", `{"a": {"type:dict": {"b": {"type:dict": {"c": {"type:values": ["d"]}}}}}}`, `{"a": {"b": {"c": "e"}}}`, "e is not in valid_values", ""},
	{"type:dict_or_none", gatewaySpec, `null`, "", ""},
	{"type:dict_or_none", gatewaySpec, `{}`, "Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: set()", ""},
	{"type:dict_or_none", gatewaySpec, `""`, "'' is not a dictionary", ""},
	{"type:dict_or_none", gatewaySpec, `{"network_id": 1, "x": 2}`, "Unexpected keys supplied: x", ""},
	{"type:dict_or_empty", gatewaySpec, `{}`, "", ""},
	{"type:dict_or_empty", gatewaySpec, `null`, "'None' is not a dictionary", ""},
	{"type:dict_or_empty", gatewaySpec, `{"x": 1}`, "Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: {'x'}", ""},
	{"type:dict_or_empty", gatewaySpec, `{"network_id": 1, "x": 2}`, "Unexpected keys supplied: x", ""},
	{"type:dict_or_nodata", gatewaySpec, `null`, "", ""},
	{"type:dict_or_nodata", gatewaySpec, `{}`, "", ""},
	{"type:dict_or_nodata", gatewaySpec, `""`, "", ""},
	{"type:dict_or_nodata", gatewaySpec, `0`, "", ""},
	{"type:dict_or_nodata", gatewaySpec, `1`, "'1' is not a dictionary", ""},
	{"type:dict_or_nodata", gatewaySpec, `{"x": 1}`, "Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: {'x'}", ""},
	{"type:dict_or_nodata", gatewaySpec, `{"network_id": 1, "x": 2}`, "Unexpected keys supplied: x", ""},
	{"type:list_of_dict_or_nodata", `{"key_specs": ` + gatewaySpec + `}`, `[{"network_id": ` + u1 + `}, {}]`, "", ""},
	{"type:list_of_dict_or_nodata", gatewaySpec, `null`, "", ""},
	{"type:list_of_dict_or_nodata", gatewaySpec, `[{}, {}]`, "Duplicate items in the list: '{}'", ""},
	{"type:list_of_dict_or_nodata", gatewaySpec, `{"network_id": ` + u1 + `}`, "'{'network_id': " + strings.ReplaceAll(u1, `"`, `'`) + "}' is not a list", ""},
	{"type:list_of_dict_or_nodata", gatewaySpec, `["x"]`, "'x' is not a dictionary", ""},
	{"type:list_of_dict_or_nodata", gatewaySpec, `[{"x": 1}]`, "Validation of dictionary's keys failed. Expected keys: {'network_id'} Provided keys: {'x'}", ""},
	{"type:list_of_dict_or_nodata", gatewaySpec, `[{"network_id": 1, "x": 2}]`, "Unexpected keys supplied: x", ""},
	{"type:list_of_any_key_specs_or_none", extraDHCPSpecs, `null`, "", ""},
	{"type:list_of_any_key_specs_or_none", extraDHCPSpecs, `[{"opt_name": "router", "opt_value": ""}, {"opt_name": "mtu", "opt_value": null, "ip_version": "6"}]`, "",
		`[{"opt_name": "router", "opt_value": ""}, {"opt_name": "mtu", "opt_value": null, "ip_version": 6}]`},
	{"type:list_of_any_key_specs_or_none", extraDHCPSpecs, `[{"opt_name": "mtu", "opt_value": ""}]`, "InvalidInput: Invalid input for operation: No valid key specs matched for: {'opt_name': 'mtu', 'opt_value': ''}.", ""},
	{"type:list_of_any_key_specs_or_none", extraDHCPSpecs, `[{"opt_name": "a", "opt_value": "1", "ip_version": "x"}]`, "InvalidInput: Invalid input for operation: 'x' is not an integer.", ""},
	{"type:list_of_any_key_specs_or_none", extraDHCPSpecs, `"x"`, "InvalidInput: Invalid input for operation: 'x' is not a list.", ""},

	{"type:ip_address", "", `"10.0.0.1"`, "", ""},
	{"type:ip_address", "", `"2001:DB8::1"`, "", ""},
	{"type:ip_address", "", `"::ffff:10.0.0.1"`, "", ""},
	{"type:ip_address", "", `"10.0.0.010"`, "'10.0.0.010' is not an accepted IP address, '10.0.0.10' is recommended", ""},
	{"type:ip_address", "", `"1_0.0.0.+1"`, "'1_0.0.0.+1' is not an accepted IP address, '10.0.0.1' is recommended", ""},
	{"type:ip_address", "", `"10.0.0"`, "'10.0.0' is not a valid IP address", ""},
	{"type:ip_address", "", `"10.0.0.256"`, "'10.0.0.256' is not a valid IP address", ""},
	{"type:ip_address", "", `"10.0.0.1\n"`, "'10.0.0.1\n' is not a valid IP address", ""},
	{"type:ip_address", "", `"fe80::1%eth0"`, "'fe80::1%eth0' is not a valid IP address", ""},
	{"type:ip_address", "", `"10.0.0.1/32"`, "'10.0.0.1/32' is not a valid IP address", ""},
	{"type:ip_address", "", `167772161`, "'167772161' is not a valid IP address", ""},
	{"type:ip_address_or_none", "", `null`, "", ""},
	{"type:ip_address_or_none", "", `""`, "'' is not a valid IP address", ""},
	{"type:ip_address_or_none", "", `"10.0.0.01"`, "'10.0.0.01' is not an accepted IP address, '10.0.0.1' is recommended", ""},
	{"type:ip_or_subnet_or_none", "", `null`, "", ""},
	{"type:ip_or_subnet_or_none", "", `"10.0.0.1"`, "", ""},
	{"type:ip_or_subnet_or_none", "", `"10.0.0.0/8"`, "", ""},
	{"type:ip_or_subnet_or_none", "", `"x"`, "'x' is neither a valid IP address, nor is it a valid IP subnet", ""},

	{"type:ip_pools", "", `[{"start": "10.0.0.2", "end": "10.0.0.9"}]`, "", ""},
	{"type:ip_pools", "", `{"start": "10.0.0.2"}`, "Invalid data format for IP pool: '{'start': '10.0.0.2'}'", ""},
	{"type:ip_pools", "", `["x"]`, "Invalid input. 'x' must be a dictionary with keys: ['start', 'end']", ""},
	{"type:ip_pools", "", `[{"start": "10.0.0.2", "x": 1}]`, "Validation of dictionary's keys failed. Expected keys: {'end', 'start'} Provided keys: {'start', 'x'}", ""},
	{"type:ip_pools", "", `[{"start": "10.0.0.2", "end": "x"}]`, "'x' is not a valid IP address", ""},
	{"type:ip_pools", "", `[{"start": "10.0.0.02", "end": "x"}]`, "'10.0.0.02' is not an accepted IP address, '10.0.0.2' is recommended", ""},

	{"type:fixed_ips", "", `[{"ip_address": "10.0.0.2", "subnet_id": ` + u1 + `}, {"subnet_id": ` + u1 + `}, {"x": 1}]`, "", ""},
	{"type:fixed_ips", "", `null`, "Invalid data format for fixed IP: 'None'", ""},
	{"type:fixed_ips", "", `["x"]`, "Invalid data format for fixed IP: 'x'", ""},
	{"type:fixed_ips", "", `[{"ip_address": "10.0.0.2"}, {"ip_address": "10.0.0.2"}]`, "Duplicate IP address '10.0.0.2'", ""},
	{"type:fixed_ips", "", `[{"ip_address": null}]`, "'None' is not a valid IP address", ""},
	{"type:fixed_ips", "", `[{"ip_address": "10.0.0.02"}]`, "'10.0.0.02' is not an accepted IP address, '10.0.0.2' is recommended", ""},
	{"type:fixed_ips", "", `[{"subnet_id": null}]`, "'None' is not a valid UUID", ""},

	{"type:nameservers", "", `["8.8.8.8", "2001:4860:4860::8888"]`, "", ""},
	{"type:nameservers", "", `["8.8.8.8", "x"]`, "'x' is not a valid nameserver. 'x' is not a valid IP address", ""},
	{"type:nameservers", "", `["8.8.8.8", "8.8.8.8"]`, "Duplicate nameserver '8.8.8.8'", ""},
	{"type:nameservers", "", `"8.8.8.8"`, "'8' is not a valid nameserver. '8' is not a valid IP address", ""},
	{"type:nameservers", "", `8`, "Invalid data format for nameserver: '8'", ""},

	{"type:hostroutes", "", `[{"destination": "10.1.0.0/16", "nexthop": "10.0.0.1"}, {"destination": "::/0", "nexthop": "fe80::1"}]`, "", ""},
	{"type:hostroutes", "", `{}`, "Invalid data format for hostroute: '{}'", ""},
	{"type:hostroutes", "", `[null]`, "Invalid input. 'None' must be a dictionary with keys: ['destination', 'nexthop']", ""},
	{"type:hostroutes", "", `[{"destination": "10.1.0.0/16"}]`, "Validation of dictionary's keys failed. Expected keys: {'destination', 'nexthop'} Provided keys: {'destination'}", ""},
	{"type:hostroutes", "", `[{"destination": "10.1.0.1/16", "nexthop": "10.0.0.1"}]`, "'10.1.0.1/16' is not a valid CIDR", ""},
	{"type:hostroutes", "", `[{"destination": "10.1.0.1", "nexthop": "10.0.0.1"}]`, "'10.1.0.1' is not a valid CIDR", ""},
	{"type:hostroutes", "", `[{"destination": "127.0.0.0/8", "nexthop": "10.0.0.1"}]`, "'127.0.0.0/8' is not a routable CIDR", ""},
	{"type:hostroutes", "", `[{"destination": "::1/128", "nexthop": "::2"}]`, "'::1/128' is not a routable CIDR", ""},
	{"type:hostroutes", "", `[{"destination": "10.1.0.0/16", "nexthop": "10.0.0.1"}, {"nexthop": "10.0.0.1", "destination": "10.1.0.0/16"}]`, "Duplicate hostroute '{'destination': '10.1.0.0/16', 'nexthop': '10.0.0.1'}'", ""},
	{"type:hostroutes", "", `[{"destination": "10.1.0.0/16", "nexthop": "x"}]`, "'x' is not a valid IP address", ""},
	{"type:hostroutes", "", `[{"destination": "10.1.0.0/16", "nexthop": "10.0.0.01"}]`, "'10.0.0.01' is not an accepted IP address, '10.0.0.1' is recommended", ""},

	{"type:subnet", "", `"10.0.0.1/24"`, "", ""},
	{"type:subnet", "", `"2001:DB8::1/64"`, "", ""},
	{"type:subnet", "", `"10.0.0.0"`, "'10.0.0.0' is not a valid IP subnet", ""},
	{"type:subnet", "", `"10/8"`, "'10/8' is not a valid IP subnet", ""},
	{"type:subnet", "", `"10.0.0.0/255.0.0.0"`, "'10.0.0.0/255.0.0.0' is not a valid IP subnet", ""},
	{"type:subnet", "", `" 10.0.0.0/8"`, "' 10.0.0.0/8' is not a valid IP subnet", ""},
	{"type:subnet", "", `null`, "'None' is not a valid IP subnet", ""},
	{"type:subnet_or_none", "", `null`, "", ""},
	{"type:subnet_or_none", "", `"10.0.0.0/33"`, "'10.0.0.0/33' is not a valid IP subnet", ""},
	{"type:subnet_list", "", `["10.0.0.0/8", "::/0"]`, "", ""},
	{"type:subnet_list", "", `["10.0.0.0/8", "10.0.0.0/8"]`, "Duplicate items in the list: '10.0.0.0/8'", ""},
	{"type:subnet_list", "", `["x"]`, "'x' is not a valid IP subnet", ""},
	{"type:subnet_list", "", `null`, "'None' is not a list", ""},
	{"type:list_of_subnets_or_none", "", `null`, "", ""},
	{"type:list_of_subnets_or_none", "", `["x"]`, "'x' is not a valid IP subnet", ""},

	{"type:mac_address", "", `"FA:16:3e:0:1:2"`, "", ""},
	{"type:mac_address", "", `"fa163e-000102"`, "", ""},
	{"type:mac_address", "", `"fa16.3e00.0102"`, "", ""},
	{"type:mac_address", "", `"fa163e000102"`, "", ""},
	{"type:mac_address", "", `"ff-ff-ff-ff-ff-ff"`, "'ff-ff-ff-ff-ff-ff' is not a valid MAC address", ""},
	{"type:mac_address", "", `"0:0:0:0:0:0"`, "'0:0:0:0:0:0' is not a valid MAC address", ""},
	{"type:mac_address", "", `"fa:16:3e:00:01:0g"`, "'fa:16:3e:00:01:0g' is not a valid MAC address", ""},
	{"type:mac_address", "", `"fa:16:3e:00:01:02 "`, "'fa:16:3e:00:01:02 ' is not a valid MAC address", ""},
	{"type:mac_address", "", `null`, "'None' is not a valid MAC address", ""},
	{"type:mac_address_or_none", "", `null`, "", ""},
	{"type:mac_address_or_none", "", `""`, "'' is not a valid MAC address", ""},

	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1", "mac_address": "fa:16:3e:00:00:01"}, {"ip_address": "0.0.0.0/0"}]`, "", ""},
	{"type:allowed_address_pairs", "", `{}`, "HTTPBadRequest: Allowed address pairs must be a list.", ""},
	{"type:allowed_address_pairs", "", `[1,2,3,4,5,6,7,8,9,10,11]`, "AllowedAddressPairExhausted: The number of allowed address pair exceeds the maximum 10.", ""},
	{"type:allowed_address_pairs", "", `["x"]`, "'x' is not a dictionary", ""},
	{"type:allowed_address_pairs", "", `[{"mac_address": "fa:16:3e:00:00:01"}]`, "AllowedAddressPairsMissingIP: AllowedAddressPair must contain ip_address", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1"}]`, "DuplicateAddressPairInRequest: Request contains duplicate address pair: mac_address None ip_address 10.0.0.1.", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.1", "port": 1}]`, "HTTPBadRequest: Unrecognized attribute(s) 'port'", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.%s"}]`, "HTTPBadRequest: '10.0.0.%s' is not a valid IP address", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.0/x"}]`, "HTTPBadRequest: '10.0.0.0/x' is not a valid IP subnet", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.1", "mac_address": null}]`, "HTTPBadRequest: 'None' is not a valid MAC address", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "224.0.0.5"}]`, "HTTPBadRequest: IP 224.0.0.5 is a multicast address, which is not supported.", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "ff02::1"}]`, "HTTPBadRequest: IP ff02::1 is a multicast address, which is not supported.", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "128.0.0.0/1"}]`, "HTTPBadRequest: Subnet 128.0.0.0/1 overlaps with multicast range 224.0.0.0/4, which is not supported.", ""},
	{"type:allowed_address_pairs", "", `[{"ip_address": "10.0.0.1", "mac_address": "01:00:5e:00:00:01"}]`, "HTTPBadRequest: MAC address 01:00:5e:00:00:01 is a multicast address, which is not supported.", ""},

	{"type:port_range", "", `null`, "", ""},
	{"type:port_range", "", `80`, "", ""},
	{"type:port_range", "", `"9:1111"`, "", ""},
	{"type:port_range", "", `"1111:9"`, "First port in a port range must be lower than the second port", ""},
	{"type:port_range", "", `"80:81:82"`, "Port range must be two integers separated by a colon", ""},
	{"type:port_range", "", `":"`, "Port range must be two integers separated by a colon", ""},
	{"type:port_range", "", `"80:65536"`, "Invalid port: 65536", ""},
	{"type:port_range", "", `true`, "Invalid port: True", ""},
	{"type:port_range", "", `" 80"`, "Invalid port:  80", ""},
	{"type:port_range", `[1, 65535]`, `"0:5"`, "Invalid port: 0, the port must be in the range [1, 65535]", ""},

	{"type:ethertype", "", `"IPv4"`, "", ""},
	{"type:ethertype", "", `"ARP"`, "Ethertype ARP is not a valid ethertype, must be one of IPv4,IPv6.", ""},

	{"type:subports", "", `[]`, "", ""},
	{"type:subports", "", `[{"port_id": ` + u1 + `, "segmentation_type": "vlan", "segmentation_id": 1}, {"port_id": ` + u2 + `, "segmentation_type": "vlan", "segmentation_id": 2}]`, "", ""},
	{"type:subports", "", `[{"port_id": ` + u1 + `, "segmentation_type": "inherit"}, "not looked at"]`, "", ""},
	{"type:subports", "", `{}`, "Invalid data format for subports: '{}' is not a list", ""},
	{"type:subports", "", `[1]`, "Invalid data format for subport: '1' is not a dict", ""},
	{"type:subports", "", `[{}]`, "A valid port UUID must be specified", ""},
	{"type:subports", "", `[{"port_id": []}]`, "Invalid UUID for subport: '[]'", ""},
	{"type:subports", "", `[{"port_id": ` + u1 + `}, {"port_id": ` + u1 + `}]`, "Non unique UUID for subport: " + strings.ReplaceAll(u1, `"`, `'`), ""},
	{"type:subports", "", `[{"port_id": ` + u1 + `, "segmentation_id": 1}]`, "Invalid subport details '{'port_id': " + strings.ReplaceAll(u1, `"`, `'`) +
		", 'segmentation_id': 1}': missing segmentation information. Must specify both segmentation_id and segmentation_type", ""},
	{"type:subports", "", `[{"port_id": ` + u1 + `, "segmentation_type": "vlan", "segmentation_id": 1}, {"port_id": ` + u2 + `, "segmentation_type": "vlan", "segmentation_id": 1.0}]`,
		"Segmentation ID '1.0' for " + strings.ReplaceAll(u2, `"`, `'`) + " is not unique", ""},

	{"type:network_segments", "", `[{"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": "7"}]`, "",
		`[{"provider:network_type": "vlan", "provider:physical_network": "p", "provider:segmentation_id": 7}]`},
	{"type:network_segments", "", `[{"provider:segmentation_id": "x"}]`, "InvalidInput: Invalid input for operation: 'x' is not an integer.", ""},
	{"type:network_segments", "", `[{"vlan": 1}]`, "HTTPBadRequest: Unrecognized attribute(s) 'vlan'", ""},
	{"type:network_segments", "", `"x"`, "'x' is not a list", ""},

	{"type:service_plugin_type", "", `"VPN"`, "", ""},
	{"type:service_plugin_type", "", `"vpn"`, "InvalidServiceType: Invalid service type: vpn.", ""},
	{"type:service_plugin_type", "", `[]`, "InvalidServiceType: Invalid service type: [].", ""},
	{"type:list_of_subnet_service_types", "", `["network:dhcp", "compute:nova", "even this"]`, "", ""},
	{"type:list_of_subnet_service_types", "", `null`, "", ""},
	{"type:list_of_subnet_service_types", "", `"x"`, "HTTPBadRequest: Subnet service types must be a list.", ""},
	{"type:list_of_subnet_service_types", "", `[1]`, "InvalidInputSubnetServiceType: Subnet service type 1 is not a string.", ""},
	{"type:list_of_subnet_service_types", "", `["baremetal:x"]`, "InvalidSubnetServiceType: Subnet service type baremetal:x does not correspond to a valid device owner.", ""},
	{"type:list_of_subnet_service_types", "", `[""]`, "InvalidSubnetServiceType: Subnet service type  does not correspond to a valid device owner.", ""},
	{"type:valid_target_project", "", `"*"`, "", ""},
	{"type:valid_target_project", "", `"x"`, "InvalidInput: Invalid input for operation: 'x' is not a valid target project ID; expected a UUID or '*'.", ""},
	{"type:availability_zone_hint_list", "", `["nova", "zürich"]`, "", ""},
	{"type:availability_zone_hint_list", "", `["` + strings.Repeat("é", 41) + `"]`, "", ""},
	{"type:availability_zone_hint_list", "", `["` + strings.Repeat("é", 42) + `"]`, "InvalidInput: Invalid input for operation: Too many availability_zone_hints specified.", ""},
	{"type:availability_zone_hint_list", "", `[1]`, "'1' is not a valid string", ""},

	{"type:dns_host_name", "255", `""`, "", ""},
	{"type:dns_host_name", "255", `"vm-1.example.org."`, "", ""},
	{"type:dns_host_name", "255", `"123"`, "", ""},
	{"type:dns_host_name", "255", `"a..b"`, "'a..b' not a valid PQDN or FQDN. Reason: Encountered an empty component", ""},
	{"type:dns_host_name", "255", `"-a"`, "'-a' not a valid PQDN or FQDN. Reason: Name '-a' must not start or end with a hyphen", ""},
	{"type:dns_host_name", "255", `"a_b"`, "'a_b' not a valid PQDN or FQDN. Reason: Name 'a_b' must be 1-63 characters long, each of which can only be alphanumeric or a hyphen", ""},
	{"type:dns_host_name", "255", `"a\n"`, "'a\n' not a valid PQDN or FQDN. Reason: Name 'a\n' must be 1-63 characters long, each of which can only be alphanumeric or a hyphen", ""},
	{"type:dns_host_name", "255", `"a.12"`, "'a.12' not a valid PQDN or FQDN. Reason: TLD '12' must not be all numeric", ""},
	{"type:dns_host_name", "5", `"abcdef."`, "'abcdef.' not a valid PQDN or FQDN. Reason: 'abcdef' exceeds the 5 character FQDN limit", ""},
	{"type:fip_dns_host_name", "255", `"vm-1"`, "", ""},
	{"type:fip_dns_host_name", "255", `"vm-1."`, "'vm-1.' is a FQDN. It should be a relative domain name", ""},
	{"type:fip_dns_host_name", "255", `null`, "'None' is not a valid string", ""},
	{"type:fip_dns_host_name", "255", `"a_b"`, "'a_b' not a valid PQDN or FQDN. Reason: Name 'a_b' must be 1-63 characters long, each of which can only be alphanumeric or a hyphen", ""},
	{"type:fip_dns_host_name", "255", `"` + fqdn253 + `"`, "'" + fqdn253 + "' contains 253 characters. Adding a domain name will cause it to exceed the maximum length of a FQDN of '255'", ""},
	{"type:dns_domain_name", "255", `"example.org."`, "", ""},
	{"type:dns_domain_name", "255", `"<project_id>.example.org."`, "", ""},
	{"type:dns_domain_name", "255", `""`, "", ""},
	{"type:dns_domain_name", "255", `"example.org"`, "'example.org' is not a FQDN", ""},
	{"type:dns_domain_name", "255", `1`, "'1' is not a valid string", ""},
	{"type:dns_domain_name", "255", `"a..org."`, "'a..org.' not a valid PQDN or FQDN. Reason: Encountered an empty component", ""},
	{"type:dns_domain_name", "255", `"` + fqdn253 + `."`, "'" + fqdn253 + ".' contains 254 characters. Adding a sub-domain will cause it to exceed the maximum length of a FQDN of '255'", ""},

	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": [{"name": "i"}, {"name": "j", "segmentation_id": [1, "4094"]}]}]`, "", ""},
	{"type:l2gwdevice_list", "", `[]`, "Cannot create a gateway with an empty device list", ""},
	{"type:l2gwdevice_list", "", `[{"interfaces": [{"name": "i"}]}]`, "Cannot create a gateway with an empty device_name", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d"}]`, "Cannot create a gateway with an empty interfaces", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": "i"}]`, "interfaces format is not a type list of dicts", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": ["i"]}]`, "interfaces format is not a type dict", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": [{"x": "i"}]}]`, "Cannot create a gateway with an empty interface name", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": [{"name": "i", "segmentation_id": 5}]}]`, "segmentation_id type should be of list type ", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": [{"name": "i", "segmentation_id": []}]}]`, "segmentation_id_list should not be empty", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": [{"name": "i", "segmentation_id": ["x"]}]}]`, "InvalidInput: Invalid input for operation: Segmentation id must be a valid integer.", ""},
	{"type:l2gwdevice_list", "", `[{"device_name": "d", "interfaces": [{"name": "i", "segmentation_id": [4095]}]}]`, "InvalidInput: Invalid input for operation: Segmentation id is out of range.", ""},
	{"type:l2gwdevice_list", "", `["x"]`, "'x' is not a dictionary", ""},
	{"type:connection_limit", "-1", `-1`, "", ""},
	{"type:connection_limit", "-1", `-2`, "'-2' is not a valid value, because it cannot be less than -1", ""},
	{"type:db_out_of_bounds", "2147483647", `2147483647`, "", ""},
	{"type:db_out_of_bounds", "2147483647", `2147483648`, "'2147483648' is not a valid value, because it is more than 2147483647", ""},
}

func faultText(t *testing.T, err error) string {
	t.Helper()
	f := fault.As(err)
	if f == nil {
		t.Fatalf("error %v is no fault", err)
	}
	return f.Type + ": " + f.Message
}

func TestValidate(t *testing.T) {
	for _, test := range validations {
		v := decode(t, test.value)
		got, err := Validate(test.name, decode(t, test.args), v)
		if err != nil {
			got = faultText(t, err)
		}
		if got != test.want {
			t.Errorf("%s(%s, %s)\n got %q\nwant %q", test.name, test.args, test.value, got, test.want)
		}
		if test.left != "" {
			if want := decode(t, test.left); !reflect.DeepEqual(v, want) {
				t.Errorf("%s(%s, %s) leaves %#v, want %#v", test.name, test.args, test.value, v, want)
			}
		}
	}
}

// conversions: want is the JSON of the converted value, or the fault as
// "Type: message".
var conversions = []struct{ name, value, want string }{
	{"convert_to_boolean", `"TRUE"`, `true`},
	{"convert_to_boolean", `0`, `false`},
	{"convert_to_boolean", `null`, "InvalidInput: Invalid input for operation: 'None' cannot be converted to boolean."},
	{"convert_to_boolean", `"%d"`, "InvalidInput: Invalid input for operation: '%d' cannot be converted to boolean."},
	{"convert_to_boolean_if_not_none", `null`, `null`},
	{"convert_to_boolean_if_not_none", `"off"`, `false`},
	{"convert_to_boolean_if_not_none", `2`, "InvalidInput: Invalid input for operation: '2' cannot be converted to boolean."},
	{"convert_to_int", `" -7 "`, `-7`},
	{"convert_to_int", `7.9`, `7`},
	{"convert_to_int", `true`, `1`},
	{"convert_to_int", `"1_000"`, `1000`},
	{"convert_to_int", `"18446744073709551616"`, `18446744073709551616`},
	{"convert_to_int", `1e20`, `100000000000000000000`},
	{"convert_to_int", `"7.0"`, "InvalidInput: Invalid input for operation: '7.0' is not an integer."},
	{"convert_to_int", `null`, "InvalidInput: Invalid input for operation: 'None' is not an integer."},
	{"convert_to_int_if_not_none", `null`, `null`},
	{"convert_to_int_if_not_none", `[1]`, "InvalidInput: Invalid input for operation: '[1]' is not an integer."},
	{"convert_to_string", `null`, `null`},
	{"convert_to_string", `[80, true]`, `"[80, True]"`},
	{"convert_to_list", `null`, `[]`},
	{"convert_to_list", `"ab"`, `["ab"]`},
	{"convert_to_list", `["ab", 1]`, `["ab", 1]`},
	{"convert_to_list", `{"b": 1, "a": 2}`, `["a", "b"]`},
	{"convert_none_to_empty_list", `null`, `[]`},
	{"convert_none_to_empty_list", `0`, `0`},
	{"convert_none_to_empty_dict", `null`, `{}`},
	{"convert_none_to_empty_string", `null`, `""`},
	{"convert_string_to_case_insensitive", `"AbÄ"`, `"abä"`},
	{"convert_string_to_case_insensitive", `null`, "InvalidInput: Invalid input for operation: Input value None must be string type."},
	{"convert_to_protocol", `null`, `null`},
	{"convert_to_protocol", `"TCP"`, `"TCP"`},
	{"convert_to_protocol", `"255"`, `"255"`},
	{"convert_to_protocol", `"256"`, "InvalidInput: Invalid input for operation: IP protocol '256' is not supported. Only protocol names and their integer representation (0 to 255) are supported."},
	{"convert_to_protocol", `"vrrp"`, "InvalidInput: Invalid input for operation: IP protocol 'vrrp' is not supported. Only protocol names and their integer representation (0 to 255) are supported."},
	{"convert_to_protocol", `6`, "InvalidInput: Invalid input for operation: Input value 6 must be string type."},
	{"convert_uppercase_ip", `"ipv4"`, `"IPv4"`},
	{"convert_uppercase_ip", `"xip"`, `"xip"`},
	{"convert_uppercase_ip", `null`, `null`},
	{"convert_ip_to_canonical_format", `"2001:DB8:0:0::0001"`, `"2001:db8::1"`},
	{"convert_ip_to_canonical_format", `"::0102:0304"`, `"::1.2.3.4"`},
	{"convert_ip_to_canonical_format", `"::0:304"`, `"::304"`},
	{"convert_ip_to_canonical_format", `"10.0.0.01"`, `"10.0.0.01"`},
	{"convert_ip_to_canonical_format", `"nonsense"`, `"nonsense"`},
	{"convert_ip_to_canonical_format", `null`, `null`},
	{"convert_cidr_to_canonical_format", `"2001:DB8::1/64"`, `"2001:db8::1/64"`},
	{"convert_cidr_to_canonical_format", `"10.0.0.1/255.255.255.0"`, `"10.0.0.1/24"`},
	{"convert_cidr_to_canonical_format", `"10.0.0.1/0.0.0.255"`, `"10.0.0.1/24"`},
	{"convert_cidr_to_canonical_format", `"10.0.0.1"`, `"10.0.0.1/32"`},
	{"convert_cidr_to_canonical_format", `"10.0.0.0/255.0.255.0"`, "InvalidInput: Invalid input for operation: 10.0.0.0/255.0.255.0 is not in a CIDR format."},
	{"convert_cidr_to_canonical_format", `"10.0.0.0/33"`, "InvalidInput: Invalid input for operation: 10.0.0.0/33 is not in a CIDR format."},
	{"convert_cidr_to_canonical_format", `null`, "InvalidInput: Invalid input for operation: None is not in a CIDR format."},
	{"convert_allocation_pools_to_canonical_format", `null`, `[]`},
	{"convert_allocation_pools_to_canonical_format", `[{"start": "2001:DB8::0002", "end": "x"}]`, `[{"start": "2001:db8::2", "end": "x"}]`},
	{"convert_allocation_pools_to_canonical_format", `["x"]`, "InvalidInput: Invalid input for operation: Invalid data format for allocation pools."},
	{"convert_allocation_pools_to_canonical_format", `5`, "InvalidInput: Invalid input for operation: Invalid data format for allocation pools."},
	{"convert_to_mac_if_none", `"any text"`, `"any text"`},
	{"convert_to_sanitized_mac_address", `"FA16.3E00.0102"`, `"fa:16:3e:00:01:02"`},
	{"convert_to_sanitized_mac_address", `"any text"`, `"any text"`},
	{"convert_kvp_list_to_dict", `["True"]`, `{}`},
	{"convert_kvp_list_to_dict", `["ip_address = 10.0.0.1", "subnet_id=", "ip_address=10.0.0.2", "ip_address=10.0.0.1"]`, `{"ip_address": ["10.0.0.1", "10.0.0.2"], "subnet_id": [""]}`},
	{"convert_kvp_list_to_dict", `["x"]`, "InvalidInput: Invalid input for operation: 'x' is not of the form <key>=[value]."},
	{"convert_kvp_list_to_dict", `["=x"]`, "InvalidInput: Invalid input for operation: '=x' is not of the form <key>=[value]."},

	{"convert_protocol", `null`, `null`},
	{"convert_protocol", `"any"`, `null`},
	{"convert_protocol", `"ANY"`, `"any"`},
	{"convert_protocol", `"ICMPv6"`, `"icmpv6"`},
	{"convert_protocol", `6`, `"6"`},
	{"convert_protocol", `"255"`, `"255"`},
	{"convert_protocol", `256`, "SecurityGroupRuleInvalidProtocol: Security group rule protocol 256 not supported. Only protocol values [None, 'any', 'ah', 'dccp', 'egp', 'esp', 'gre', 'hopopt', 'icmp', 'igmp', 'ip', 'ipip', 'ipv6-encap', 'ipv6-frag', 'ipv6-icmp', 'icmpv6', 'ipv6-nonxt', 'ipv6-opts', 'ipv6-route', 'ospf', 'pgm', 'rsvp', 'sctp', 'tcp', 'udp', 'udplite', 'vrrp'] and integer representations [0 to 255] are supported."},
	{"convert_ethertype_to_case_insensitive", `"ipV6"`, `"IPv6"`},
	{"convert_ethertype_to_case_insensitive", `null`, "SecurityGroupRuleInvalidEtherType: Security group rule for ethertype 'None' not supported. Allowed values are ['IPv4', 'IPv6']."},
	{"convert_validate_port_value", `null`, `null`},
	{"convert_validate_port_value", `"65535"`, `65535`},
	{"convert_validate_port_value", `65536`, "SecurityGroupInvalidPortValue: Invalid value for port 65536"},
	{"convert_validate_port_value", `"http"`, "SecurityGroupInvalidPortValue: Invalid value for port http"},
	{"convert_ip_prefix_to_cidr", `""`, `null`},
	{"convert_ip_prefix_to_cidr", `"10.0.0.1"`, `"10.0.0.1/32"`},
	{"convert_ip_prefix_to_cidr", `"10.0.0.1/8"`, `"10.0.0.1/8"`},
	{"convert_ip_prefix_to_cidr", `"10.0.0/24"`, "InvalidCIDR: Invalid CIDR 10.0.0/24 given as IP prefix."},
	{"convert_ip_prefix_to_cidr", `[1]`, "InvalidCIDR: Invalid CIDR [1] given as IP prefix."},
	{"convert_valid_object_type", `" Network "`, `"network"`},
	{"convert_valid_object_type", `"bgpvpn"`, "InvalidInput: Invalid input for operation: 'bgpvpn' is not a valid RBAC object type."},
	{"normalize_protocol", `"TCP"`, `"tcp"`},
	{"normalize_protocol", `6`, "FlowClassifierInvalidProtocol: Flow Classifier does not support protocol 6. Supported protocol values are ['tcp', 'udp', 'icmp']."},
	{"normalize_ethertype", `null`, `"IPv4"`},
	{"normalize_ethertype", `"ipv6"`, `"IPv6"`},
	{"normalize_ethertype", `"ARP"`, "FlowClassifierInvalidEthertype: Flow Classifier does not support ethertype ARP. Supported ethertype values are ['IPv4', 'IPv6']."},
	{"normalize_string", `null`, `""`},
	{"normalize_string", `"x"`, `"x"`},
	{"normalize_port_value", `"80"`, `80`},
	{"normalize_port_value", `-1`, "FlowClassifierInvalidPortValue: Flow Classifier has invalid port value -1."},
	{"normalize_l7parameters", `null`, `{}`},
	{"normalize_l7parameters", `{"url": 1}`, "FlowClassifierInvalidL7Parameter: Invalid Flow Classifier parameters: Unknown key url.. Supported flow classifier parameters are {}."},
	{"normalize_port_pair_groups", `"x"`, `["x"]`},
	{"normalize_port_pair_groups", `null`, "PortPairGroupNotSpecified: Port Pair Group is not specified in Port Chain."},
	{"normalize_chain_parameters", `null`, `{"correlation": "mpls", "symmetric": false}`},
	{"normalize_chain_parameters", `{"symmetric": true}`, `{"correlation": "mpls", "symmetric": true}`},
	{"normalize_sf_parameters", `{}`, `{"correlation": null, "weight": 1}`},
	{"normalize_ppg_parameters", `{"lb_fields": ["ip_src"]}`, `{"lb_fields": ["ip_src"], "ppg_n_tuple_mapping": {"ingress_n_tuple": {}, "egress_n_tuple": {}}}`},
	{"normalize_ppg_parameters", `{"ppg_n_tuple_mapping": {"ingress_n_tuple": {"x": 1}}}`, "PPGParametersInvalidNTupleMappingParameter: Invalid Port Pair Group N-Tuple Mapping parameters: Unknow key x.. Supported PPG classifier N-Tuple Mapping parameters are {'source_ip_prefix': None, 'destination_ip_prefix': None, 'source_port_range_min': None, 'source_port_range_max': None, 'destination_port_range_min': None, 'destination_port_range_max': None}."},
	{"normalize_service_graph", `{` + u1 + `: [` + u2 + `]}`, `{` + u1 + `: [` + u2 + `]}`},
	{"normalize_service_graph", `{` + u1 + `: ["x"]}`, "InvalidUUID: An invalid UUID was specified: %(error_message)s. Make sure only valid UUIDs are provided."},
}

func TestConvert(t *testing.T) {
	for _, test := range conversions {
		got, err := Convert(test.name, decode(t, test.value))
		if err != nil {
			if text := faultText(t, err); text != test.want {
				t.Errorf("%s(%s)\n got %q\nwant %q", test.name, test.value, text, test.want)
			}
			continue
		}
		want, err := Decode([]byte(test.want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s(%s)\n got %#v\nwant %s", test.name, test.value, got, test.want)
		}
	}
}

var placeholder = regexp.MustCompile(`%(\([a-z_]+\))?[sd]`)

// template is a pattern for the messages that an error text of the contract
// makes; nil if the text describes instead.
func template(text string) *regexp.Regexp {
	if strings.HasPrefix(text, "as ") || strings.HasPrefix(text, "<") || strings.HasPrefix(text, "raises") {
		return nil
	}
	parts := placeholder.Split(text, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, `.*`) + `$`)
}

// TestContract shows that all names of the contract are known and that no text
// of its validators is without a case above.
func TestContract(t *testing.T) {
	var facts contract
	readJSON(t, "testdata/validators.json", &facts)
	var used struct{ Validators, Converters []string }
	readJSON(t, "testdata/used.json", &used)

	for name := range facts.Validators {
		used.Validators = append(used.Validators, name)
	}
	for name := range facts.Converters {
		used.Converters = append(used.Converters, name)
	}
	for _, name := range used.Validators {
		if !KnownValidator(name) {
			t.Errorf("validator %s is not known", name)
		}
	}
	for _, name := range used.Converters {
		if !KnownConverter(name) {
			t.Errorf("converter %s is not known", name)
		}
	}
	if len(validators) != len(facts.Validators) || len(converters) != len(facts.Converters) {
		t.Errorf("%d validators, %d converters; the contract has %d and %d",
			len(validators), len(converters), len(facts.Validators), len(facts.Converters))
	}

	seen := map[string][]string{}
	for _, test := range validations {
		seen[test.name] = append(seen[test.name], test.want)
	}
	// These two depend on configuration; they have tests of their own.
	elsewhere := map[string]bool{"type:dns_host_name": true, "type:ethertype": true}
	for name, validator := range facts.Validators {
		valid := false
		for _, want := range seen[name] {
			valid = valid || want == ""
		}
		if !valid {
			t.Errorf("%s: no case of a valid value", name)
		}
		for _, text := range validator.Errors {
			pattern := template(text)
			found := pattern == nil || elsewhere[name]
			for _, want := range seen[name] {
				found = found || pattern.MatchString(want)
			}
			if !found {
				t.Errorf("%s: no case gives %q", name, text)
			}
		}
	}
	converted := map[string]bool{}
	for _, test := range conversions {
		converted[test.name] = true
	}
	for name := range facts.Converters {
		if !converted[name] {
			t.Errorf("%s: no case", name)
		}
	}
}

func TestNetworkSegmentsWithoutDetails(t *testing.T) {
	v := decode(t, `[{"provider:network_type": "vlan", "provider:segmentation_id": null}]`)
	if reason, err := Validate("type:network_segments", nil, v); reason != "" || err != nil {
		t.Fatal(reason, err)
	}
	want := []any{map[string]any{
		"provider:network_type": "vlan", "provider:physical_network": NotSpecified{}, "provider:segmentation_id": NotSpecified{},
	}}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("left %#v, want %#v", v, want)
	}
	if IsSet(NotSpecified{}) || IsSet(nil) || !IsSet("") || !IsSet(map[string]any{}) {
		t.Error("IsSet tells NotSpecified and nil from values wrongly")
	}
}

func TestConfiguration(t *testing.T) {
	c := &Checker{
		MaxAllowedAddressPairs: 1, BaseMAC: "fa:16:3f:aa:00:00", DNSDomain: "cloud.example.org", FilterEthertypes: true,
		ServicePlugins: []string{"TAAS"}, RBACObjectTypes: []string{"bgpvpn"},
	}
	for _, test := range []struct{ name, value, want string }{
		{"type:allowed_address_pairs", `[1, 2]`, "AllowedAddressPairExhausted: The number of allowed address pair exceeds the maximum 1."},
		{"type:service_plugin_type", `"TAAS"`, ""},
		{"type:service_plugin_type", `"VPN"`, "InvalidServiceType: Invalid service type: VPN."},
		{"type:ethertype", `"arp"`, ""},
		{"type:ethertype", `"ipv4"`, ""},
		{"type:ethertype", `"0x88CC"`, ""},
		{"type:ethertype", `35020`, ""},
		{"type:ethertype", `"0x10000"`, "Ethertype 0x10000 is not a two octet hexadecimal number or ethertype name."},
		{"type:ethertype", `null`, "Ethertype None is not a two octet hexadecimal number or ethertype name."},
		{"type:dns_host_name", `"vm"`, ""},
		{"type:dns_host_name", `"vm.cloud.example.org."`, ""},
		{"type:dns_host_name", `"` + fqdn253 + `"`, "The dns_name passed is a PQDN and its size is '253'. The dns_domain option in neutron.conf is set to cloud.example.org, with a length of '19'. When the two are concatenated to form a FQDN (with a '.' at the end), the resulting length exceeds the maximum size of '255'"},
		{"type:dns_host_name", `"cloud.example.org."`, "The dns_name passed is a FQDN. Its higher level labels must be equal to the dns_domain option in neutron.conf, that has been set to 'cloud.example.org'. It must also include one or more valid DNS labels to the left of 'cloud.example.org'"},
		{"type:dns_host_name", `"vm.example.com."`, "The dns_name passed is a FQDN. Its higher level labels must be equal to the dns_domain option in neutron.conf, that has been set to 'cloud.example.org'. It must also include one or more valid DNS labels to the left of 'cloud.example.org'"},
	} {
		got, err := c.Validate(test.name, nil, decode(t, test.value))
		if err != nil {
			got = faultText(t, err)
		}
		if got != test.want {
			t.Errorf("%s(%s)\n got %q\nwant %q", test.name, test.value, got, test.want)
		}
	}
	if got, err := c.Convert("convert_valid_object_type", "BGPVPN"); got != "bgpvpn" || err != nil {
		t.Error(got, err)
	}
	for c, pattern := range map[*Checker]string{
		c:  `^fa:16:3f:aa:[0-9a-f]{2}:[0-9a-f]{2}$`,
		{}: `^fa:16:3e:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}$`,
	} {
		mac, err := c.Convert("convert_to_mac_if_none", nil)
		if text, _ := mac.(string); err != nil || !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("MAC address %v, %v, want %s", mac, err, pattern)
		}
		if again, _ := c.Convert("convert_to_mac_if_none", nil); again == mac {
			if third, _ := c.Convert("convert_to_mac_if_none", nil); third == mac {
				t.Errorf("MAC address %v three times in a row", mac)
			}
		}
	}
	if _, err := (&Checker{BaseMAC: "x"}).Convert("convert_to_mac_if_none", nil); err == nil {
		t.Error("a malformed base MAC address is taken")
	}
}

func TestMisuseIsAnErrorButNoFault(t *testing.T) {
	for name, args := range map[string]any{
		"type:nonsense": nil, "type:range": nil, "type:string": "x", "type:dict": 5, "type:regex": "(",
		"type:values": "x", "type:port_range": []any{1}, "type:list_of_any_key_specs_or_none": nil,
	} {
		if reason, err := Validate(name, args, ""); err == nil || fault.As(err) != nil || reason != "" {
			t.Errorf("%s(%v): %q, %v", name, args, reason, err)
		}
	}
	if _, err := Convert("convert_nonsense", nil); err == nil || fault.As(err) != nil {
		t.Errorf("unknown converter: %v", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	huge := strings.Repeat("é", 1<<20)
	reason, err := Validate("type:string", int64(1), huge)
	if n := len([]rune(reason)); err != nil || n != maxMessage+len("...") {
		t.Errorf("reason of %d characters, %v", n, err)
	}
	_, err = Convert("convert_to_int", huge)
	if n := len([]rune(fault.As(err).Message)); n != maxMessage+len("...") {
		t.Errorf("fault message of %d characters", n)
	}
	if v, err := Convert("convert_to_string", huge); v != huge || err != nil {
		t.Error("the value itself is cut")
	}
}

// A list as long as a request body allows must not take quadratic time.
func TestLongLists(t *testing.T) {
	list := make([]any, 200_000)
	for i := range list {
		list[i] = map[string]any{"n": int64(i)}
	}
	for _, name := range []string{"type:uuid_list", "type:hostroutes", "type:fixed_ips", "type:subports"} {
		if _, err := Validate(name, nil, list); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		`null`: "None", `true`: "True", `"a'b"`: "a'b", `-0`: "0", `1.0`: "1.0", `1e3`: "1000.0", `1e16`: "1e+16",
		`0.0001`: "0.0001", `0.00001`: "1e-05", `1e22`: "1e+22", `-0.0`: "-0.0", `123456789012345678901234567890`: "123456789012345678901234567890",
		`["a", "it's", "\"'", "\\\n\u0007\u200b\u00e9"]`: `['a', "it's", '"\'', '\\\n\x07\u200bé']`,
		`{"b": {}, "a": [false]}`:                        "{'a': [False], 'b': {}}",
		`["\ud83d\ude00\udb40\udc01"]`:                   `['😀\U000e0001']`,
	} {
		if got := Text(decode(t, text)); got != want {
			t.Errorf("Text(%s) = %s, want %s", text, got, want)
		}
	}
	if got := Repr("x"); got != "'x'" {
		t.Errorf("Repr = %s", got)
	}
}

func TestDecode(t *testing.T) {
	beyond, _ := new(big.Int).SetString("9223372036854775808", 10)
	for text, want := range map[string]any{
		` {"a": 1, "a": 2} `:                                map[string]any{"a": int64(2)},
		`9223372036854775807`:                               int64(9223372036854775807),
		`9223372036854775808`:                               beyond,
		`[1.5, 2.0, 1E2, "]["]`:                             []any{1.5, 2.0, 100.0, "]["},
		strings.Repeat("[", 100) + strings.Repeat("]", 100): nested(100),
	} {
		got, err := Decode([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Decode(%s) = %#v, %v, want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{
		``, `{`, `{} {}`, `{}x`, `NaN`, `01`, `+1`, `1e999`, `'a'`, "\"\xff\"", "\ufeff{}", `[1,]`,
		strings.Repeat("[", 101) + strings.Repeat("]", 101), strings.Repeat("9", 4301),
	} {
		if v, err := Decode([]byte(text)); err == nil {
			t.Errorf("Decode(%.40s) = %v, want an error", text, v)
		}
	}
}

func nested(depth int) any {
	var v any = []any{}
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

func FuzzDecode(f *testing.F) {
	for _, test := range validations {
		f.Add([]byte(test.value))
	}
	f.Add([]byte(strings.Repeat(`[{"a":`, 60)))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Decode(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is taken", data)
		}
		Repr(v)
		if !equal(v, v) {
			t.Fatalf("%q is not equal to itself", data)
		}
	})
}

// FuzzValidate runs all validators and converters over any JSON; they may
// refuse it but neither panic nor fail otherwise.
func FuzzValidate(f *testing.F) {
	args := map[string]any{}
	for _, test := range validations {
		args[test.name] = decode(f, test.args)
		f.Add([]byte(test.value))
	}
	for _, test := range conversions {
		f.Add([]byte(test.value))
	}
	checkers := []*Checker{{}, {FilterEthertypes: true, DNSDomain: "example.org", MaxAllowedAddressPairs: 1}}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range checkers {
			for name := range validators {
				v, err := Decode(data)
				if err != nil {
					return
				}
				reason, err := c.Validate(name, args[name], v)
				if err != nil && (fault.As(err) == nil || reason != "") {
					t.Fatalf("%s(%s): %q, %v", name, data, reason, err)
				}
			}
			for name := range converters {
				v, _ := Decode(data)
				converted, err := c.Convert(name, v)
				if err != nil && fault.As(err) == nil {
					t.Fatalf("%s(%s): %v", name, data, err)
				}
				Repr(converted)
			}
		}
	})
}
