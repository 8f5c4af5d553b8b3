// Package value converts and validates attribute values of request bodies and
// query strings as neutron-lib does: the same names, the same leniency, the
// same texts. Values are decoded JSON: nil, bool, string, int64, *big.Int
// beyond int64, float64 for numbers written with a fraction or exponent, []any
// and map[string]any.
//
// It knows attribute values only: nothing of resources, stores, policies or
// HTTP. What depends on configuration is a field of Checker.
//
// It is stricter than neutron-lib where that lets by text that no later reader
// could take, see network (prefix lengths), portNumber, matchStart and
// dnsFormat. Where neutron-lib itself breaks on a value of an unexpected type
// and answers 500, the value is refused here.
package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
	"unicode/utf8"

	"isospin/internal/fault"
)

const (
	// maxDepth is how deep arrays and objects may nest in a document.
	maxDepth = 100
	// maxDigits is how many characters a number may have, as in Python.
	maxDigits = 4300
	// maxMessage is the length, in code points, to which messages are cut
	// that repeat what a client sent.
	maxMessage = 2048
)

// NotSpecified is the value of an attribute that was not given and has no
// default (neutron-lib's ATTR_NOT_SPECIFIED). Converters and validators must
// not be called with it; "type:network_segments" leaves it in segments.
type NotSpecified struct{}

// IsSet tells whether v is neither nil nor NotSpecified.
func IsSet(v any) bool { return v != nil && v != NotSpecified{} }

// Checker converts and validates under the configuration of a server. The zero
// value has Neutron's defaults. Its methods are safe for concurrent use; the
// fields must not change after first use.
type Checker struct {
	MaxAllowedAddressPairs int      // optional, max_allowed_address_pair; 10
	BaseMAC                string   // optional, base_mac; "fa:16:3e:00:00:00"
	DNSDomain              string   // optional, dns_domain as configured; "openstacklocal"
	FilterEthertypes       bool     // optional, sg_filter_ethertypes: other ethertypes than IPv4, IPv6 are known
	ServicePlugins         []string // optional, types of the loaded service plugins; those in servicePlugins
	RBACObjectTypes        []string // optional, types that RBAC policies share; those in rbacObjectTypes
}

var defaults Checker

// Validate is Checker.Validate with Neutron's defaults.
func Validate(name string, args any, v any) (reason string, err error) {
	return defaults.Validate(name, args, v)
}

// Convert is Checker.Convert with Neutron's defaults.
func Convert(name string, v any) (any, error) { return defaults.Convert(name, v) }

// KnownValidator tells whether Validate has the validator of that name.
func KnownValidator(name string) bool { return validators[name] != nil }

// KnownConverter tells whether Convert has the converter of that name.
func KnownConverter(name string) bool { return converters[name] != nil }

// Validate runs the validator of that contract name, such as "type:values",
// with its arguments as JSON-like values. The empty reason means valid; another
// belongs into "Invalid input for <attribute>. Reason: <reason>.". Validators
// that raise a fault of their own return it as a *fault.Error. An unknown name
// or arguments that do not fit the validator are an error that is none.
// Dict validators convert the values of keys in place, in v.
func (c *Checker) Validate(name string, args any, v any) (reason string, err error) {
	validate := validators[name]
	if validate == nil {
		return "", fmt.Errorf("validator %q does not exist", name)
	}
	reason, err = validate(c, args, v)
	return shorten(reason), shortenFault(err)
}

// Convert runs the converter of that contract name, such as
// "convert_to_boolean". The error is a *fault.Error, unless the name is
// unknown. Converters of objects may change v in place.
func (c *Checker) Convert(name string, v any) (any, error) {
	convert := converters[name]
	if convert == nil {
		return nil, fmt.Errorf("converter %q does not exist", name)
	}
	converted, err := convert(c, v)
	if err != nil {
		return nil, shortenFault(err)
	}
	return converted, nil
}

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	count := 0
	for i := range text {
		if count == maxMessage {
			return text[:i] + "..."
		}
		count++
	}
	return text
}

func shortenFault(err error) error {
	if f := fault.As(err); f != nil {
		f.Message = shorten(f.Message)
	}
	return err
}

// Decode parses one JSON document (RFC 8259) into values. Of equal keys the
// last wins; numbers keep their exact value if they are integers; documents
// that are not UTF-8, nest deeper than 100 or have numbers beyond a float64 or
// of more than 4300 digits are refused.
func Decode(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("JSON document is not UTF-8")
	}
	if err := checkDepth(data); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("JSON document: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("JSON document: more follows its end")
	}
	return numbers(v)
}

// checkDepth counts brackets outside of strings before anything is built.
func checkDepth(data []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch b := data[i]; {
		case inString && b == '\\':
			i++
		case b == '"':
			inString = !inString
		case inString:
		case b == '[' || b == '{':
			if depth++; depth > maxDepth {
				return fmt.Errorf("JSON document nests deeper than %d", maxDepth)
			}
		case b == ']' || b == '}':
			depth--
		}
	}
	return nil
}

// numbers replaces each json.Number in v, in place.
func numbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = numbers(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func number(text string) (any, error) {
	if len(text) > maxDigits {
		return nil, fmt.Errorf("JSON number of more than %d digits", maxDigits)
	}
	if !strings.ContainsAny(text, ".eE") {
		if n, ok := new(big.Int).SetString(text, 10); ok {
			return integer(n), nil
		}
		return nil, errors.New("JSON number is malformed")
	}
	f, err := json.Number(text).Float64()
	if err != nil || math.IsInf(f, 0) {
		return nil, errors.New("JSON number is out of range")
	}
	return f, nil
}
