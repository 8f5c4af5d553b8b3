package value

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"isospin/internal/fault"
)

// A validator returns the reason why v is refused, empty if it is not. args
// are those of the contract; arguments of another shape are an error.
type validator func(c *Checker, args any, v any) (reason string, err error)

// check makes a validator of a check that has no arguments and raises nothing.
func check(reason func(v any) string) validator {
	return func(_ *Checker, _ any, v any) (string, error) { return reason(v), nil }
}

// orNone lets null by.
func orNone(of validator) validator {
	return func(c *Checker, args any, v any) (string, error) {
		if v == nil {
			return "", nil
		}
		return of(c, args, v)
	}
}

// all runs validators until one refuses.
func all(of ...validator) validator {
	return func(c *Checker, args any, v any) (string, error) {
		for _, one := range of {
			if reason, err := one(c, args, v); reason != "" || err != nil {
				return reason, err
			}
		}
		return "", nil
	}
}

func badArgs(args any) error { return fmt.Errorf("validator arguments %.100v do not fit", args) }

// intArg reads an integer argument; nil if it is null.
func intArg(arg any) (*big.Int, error) {
	switch arg.(type) {
	case nil:
		return nil, nil
	case int, int64, float64, *big.Int:
		if n, ok := toInt(arg); ok {
			return n, nil
		}
	}
	return nil, badArgs(arg)
}

// bounds reads the argument [min, max].
func bounds(args any) (low, high *big.Int, err error) {
	list, ok := args.([]any)
	if !ok || len(list) != 2 {
		return nil, nil, badArgs(args)
	}
	if low, err = intArg(list[0]); err != nil {
		return nil, nil, err
	}
	high, err = intArg(list[1])
	return low, high, err
}

// maxLength reads the argument max_len; negative if there is none.
func maxLength(args any) (int, error) {
	n, err := intArg(args)
	switch {
	case err != nil:
		return 0, err
	case n == nil:
		return -1, nil
	case !n.IsInt64() || n.Sign() < 0 || n.Int64() > 1<<31-1:
		return 0, badArgs(args)
	}
	return int(n.Int64()), nil
}

func notInteger(v any) string { return fmt.Sprintf("'%s' is not an integer", Text(v)) }

var (
	trueTexts  = []string{"1", "t", "true", "on", "y", "yes"}
	falseTexts = []string{"0", "f", "false", "off", "n", "no"}
)

// toBoolean is oslo.utils' strict bool_from_string.
func toBoolean(v any) (is, ok bool) {
	if is, ok = v.(bool); ok {
		return is, true
	}
	text := lower(strings.TrimFunc(Text(v), isSpace))
	if slices.Contains(trueTexts, text) {
		return true, true
	}
	return false, slices.Contains(falseTexts, text)
}

func boolean(v any) string {
	if _, ok := toBoolean(v); !ok {
		return fmt.Sprintf("'%s' is not a valid boolean value", Text(v))
	}
	return ""
}

func values(_ *Checker, args any, v any) (string, error) {
	if args == nil {
		return "", nil
	}
	valid, ok := args.([]any)
	if !ok {
		return "", badArgs(args)
	}
	if !contains(valid, v) {
		return Text(v) + " is not in valid_values", nil
	}
	return "", nil
}

func integerValue(c *Checker, args any, v any) (string, error) {
	if reason, err := values(c, args, v); reason != "" || err != nil {
		return reason, err
	}
	if _, ok := v.(bool); ok {
		return fmt.Sprintf("'%s' is not an integer:boolean", Text(v)), nil
	}
	// The value must also be the same as a float; integers of more than 53
	// bits need not be.
	n, ok := toInt(v)
	if !ok {
		return notInteger(v), nil
	}
	asFloat, isFloat := v.(float64)
	if !isFloat {
		asFloat, _ = new(big.Float).SetInt(n).Float64()
	}
	if !equal(asFloat, n) {
		return notInteger(v), nil
	}
	return "", nil
}

func nonNegative(v any) string {
	n, ok := toInt(v)
	if !ok {
		return notInteger(v)
	}
	if n.Sign() < 0 {
		return fmt.Sprintf("'%s' should be non-negative", n)
	}
	return ""
}

func rangeValue(_ *Checker, args any, v any) (string, error) {
	low, high, err := bounds(args)
	if err != nil {
		return "", err
	}
	n, ok := toInt(v)
	switch {
	case !ok:
		return notInteger(v), nil
	case !inRange(n, low, nil):
		return fmt.Sprintf("'%s' is too small - must be at least '%s'", n, low), nil
	case !inRange(n, nil, high):
		return fmt.Sprintf("'%s' is too large - must be no larger than '%s'", n, high), nil
	}
	return "", nil
}

func notString(v any) string { return fmt.Sprintf("'%s' is not a valid string", Text(v)) }

func stringValue(_ *Checker, args any, v any) (string, error) {
	limit, err := maxLength(args)
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return notString(v), nil
	}
	if limit >= 0 && utf8.RuneCountInString(s) > limit {
		return fmt.Sprintf("'%s' exceeds maximum length of %d", s, limit), nil
	}
	return "", nil
}

// The checks that follow a stringValue in all() see text only.

func notBlank(v any) string {
	if s, _ := v.(string); strings.TrimFunc(s, isSpace) == "" {
		return fmt.Sprintf("'%s' Blank strings are not permitted", s)
	}
	return ""
}

func oneLine(v any) string {
	if s, _ := v.(string); lines(s) > 1 {
		return fmt.Sprintf("Multi-line string is not allowed: '%s'", s)
	}
	return ""
}

// printableName refuses all but letters, marks, numbers, punctuation, symbols
// and spaces, and spaces at the ends.
func printableName(v any) string {
	s, _ := v.(string)
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	if s != "" && (unicode.Is(unicode.Zs, first) || unicode.Is(unicode.Zs, last)) ||
		strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return notString(s)
	}
	return ""
}

func nameNotDefault(_ *Checker, _ any, v any) (string, error) {
	if s, _ := v.(string); lower(s) == "default" {
		return "", fault.New(fault.Conflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
	}
	return "", nil
}

func uuidValue(v any) string {
	if !isUUID(v) {
		return fmt.Sprintf("'%s' is not a valid UUID", Text(v))
	}
	return ""
}

func subnetPoolID(v any) string {
	if v == nil || v == "prefix_delegation" {
		return ""
	}
	return uuidValue(v)
}

func ipAddress(v any) string {
	s, ok := v.(string)
	if ok && !hasSpace(s) {
		if stripped, ok := zeroStripped(s); ok {
			if stripped != s {
				return fmt.Sprintf("'%s' is not an accepted IP address, '%s' is recommended", s, stripped)
			}
			return ""
		}
		if addr, ok := parseAddress(s); ok && addr.Is6() {
			return ""
		}
	}
	return fmt.Sprintf("'%s' is not a valid IP address", Text(v))
}

func subnet(v any) string {
	// The text is canonical for IPv4 already, or network would not take it.
	if _, ok := network(v); !ok {
		return fmt.Sprintf("'%s' is not a valid IP subnet", Text(v))
	}
	return ""
}

func ipOrSubnet(v any) string {
	if ipAddress(v) != "" && subnet(v) != "" {
		return fmt.Sprintf("'%s' is neither a valid IP address, nor is it a valid IP subnet", Text(v))
	}
	return ""
}

// routeCIDR is for destinations of routes: no host bits, no loopback.
func routeCIDR(v any) string {
	prefix, ok := network(v)
	if !ok || prefix.Masked() != prefix {
		return fmt.Sprintf("'%s' is not a valid CIDR", Text(v))
	}
	width := 8 // 127.0.0.0/8
	if prefix.Addr().Is6() {
		width = 128 // ::1/128
	}
	if prefix.Addr().IsLoopback() && !prefix.Addr().Is4In6() && prefix.Bits() >= width {
		return fmt.Sprintf("'%s' is not a routable CIDR", Text(v))
	}
	return ""
}

func macAddress(v any) string {
	s, _ := v.(string)
	if mac, ok := parseMAC(s); !ok || mac == 0 || mac == allOnesMAC {
		return fmt.Sprintf("'%s' is not a valid MAC address", Text(v))
	}
	return ""
}

// patterns are the compiled patterns of the contract.
var patterns sync.Map // string -> *regexp.Regexp

// matchStart is Python's re.match: the pattern must fit from the start of s,
// not up to its end. Other than Python's, \d stands for ASCII digits alone and
// $ for the very end, not for a newline there.
func matchStart(pattern, s string) (bool, error) {
	compiled, ok := patterns.Load(pattern)
	if !ok {
		fresh, err := regexp.Compile(`\A(?:` + pattern + `)`)
		if err != nil {
			return false, fmt.Errorf("validator pattern: %w", err)
		}
		compiled, _ = patterns.LoadOrStore(pattern, fresh)
	}
	return compiled.(*regexp.Regexp).MatchString(s), nil
}

func regex(_ *Checker, args any, v any) (string, error) {
	pattern, ok := args.(string)
	if !ok {
		return "", badArgs(args)
	}
	matched := false
	if s, ok := v.(string); ok {
		var err error
		if matched, err = matchStart(pattern, s); err != nil {
			return "", err
		}
	}
	if !matched {
		return fmt.Sprintf("'%s' is not a valid input", Text(v)), nil
	}
	return "", nil
}

// portNumber reads a port of at most 65535. Signs, space and underscores, that
// int() would pass over, are refused: what is accepted is kept as it is.
func portNumber(s string) (port int, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil
}

func portRange(_ *Checker, args any, v any) (string, error) {
	low, high := big.NewInt(0), big.NewInt(65535)
	if args != nil {
		var err error
		if low, high, err = bounds(args); err != nil {
			return "", err
		}
	}
	if v == nil {
		return "", nil
	}
	first, last, isRange := strings.Cut(Text(v), ":")
	texts := []string{first}
	if isRange {
		texts = append(texts, last)
	}
	if strings.Contains(last, ":") {
		return "Port range must be two integers separated by a colon", nil
	}
	var ports [2]int
	for i, text := range texts {
		if text == "" {
			return "Port range must be two integers separated by a colon", nil
		}
		port, ok := portNumber(text)
		if !ok {
			return "Invalid port: " + text, nil
		}
		if !inRange(big.NewInt(int64(port)), low, high) {
			return fmt.Sprintf("Invalid port: %s, the port must be in the range [%s, %s]", text, low, high), nil
		}
		ports[i] = port
	}
	if isRange && ports[0] > ports[1] {
		return "First port in a port range must be lower than the second port", nil
	}
	return "", nil
}

// ethertypeNames are os-ken's names of EtherTypes, upper case.
var ethertypeNames = []string{
	"IP", "IPV4", "ARP", "TEB", "8021Q", "IPV6", "SLOW", "MPLS", "8021AD", "LLDP", "PBB", "CFM", "NSH", "IEEE802_3",
}

func ethertype(c *Checker, _ any, v any) (string, error) {
	if !c.FilterEthertypes {
		if v == "IPv4" || v == "IPv6" {
			return "", nil
		}
		return fmt.Sprintf("Ethertype %s is not a valid ethertype, must be one of IPv4,IPv6.", Text(v)), nil
	}
	if s, ok := v.(string); ok {
		if slices.Contains(ethertypeNames, strings.ToUpper(s)) {
			return "", nil
		}
		digits := strings.TrimPrefix(strings.ToLower(s), "0x")
		if _, err := strconv.ParseUint(digits, 16, 16); err == nil {
			return "", nil
		}
	} else if n, ok := v.(int64); ok && 0 <= n && n <= 65535 {
		return "", nil
	}
	return fmt.Sprintf("Ethertype %s is not a two octet hexadecimal number or ethertype name.", Text(v)), nil
}

// servicePlugins are the types of the service plugins that a server with all
// its features has.
var servicePlugins = []string{
	"CORE", "L3_ROUTER_NAT", "VPN", "FIREWALL_V2", "METERING", "FLAVORS", "QOS", "LOGGING", "PORTFORWARDING",
	"FLOATINGIPPOOL", "NETWORK_SEGMENT_RANGE", "CONNTRACKHELPER", "LOCAL_IP", "NDPPROXY",
}

func servicePluginType(c *Checker, _ any, v any) (string, error) {
	known := servicePlugins
	if c.ServicePlugins != nil {
		known = c.ServicePlugins
	}
	if s, ok := v.(string); !ok || !slices.Contains(known, s) {
		return "", fault.New(fault.Invalid, "InvalidServiceType", "Invalid service type: %s.", Text(v))
	}
	return "", nil
}

func validTargetProject(v any) error {
	if v == "*" || isUUID(v) {
		return nil
	}
	return fault.InvalidInput("'%s' is not a valid target project ID; expected a UUID or '*'", Text(v))
}

func connectionLimit(_ *Checker, args any, v any) (string, error) {
	least, err := intArg(args)
	if err != nil {
		return "", err
	}
	n, ok := toInt(v)
	if !ok {
		return notInteger(v), nil
	}
	if least == nil {
		least = big.NewInt(-1)
	}
	if n.Cmp(least) < 0 {
		return fmt.Sprintf("'%s' is not a valid value, because it cannot be less than %s", Text(v), least), nil
	}
	return "", nil
}

func dbOutOfBounds(_ *Checker, args any, v any) (string, error) {
	most, err := intArg(args)
	if err != nil {
		return "", err
	}
	n, ok := toInt(v)
	if !ok {
		return notInteger(v), nil
	}
	if most == nil {
		most = big.NewInt(2147483647)
	}
	if n.Cmp(most) > 0 {
		return fmt.Sprintf("'%s' is not a valid value, because it is more than %s", Text(v), most), nil
	}
	return "", nil
}
