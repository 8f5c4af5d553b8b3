package value

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is Python's str() of a value, as messages show it: None, True, text as
// it is, [1, 'a'], {'a': 'b'}. Keys are in sorted order.
func Text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return Repr(v)
}

// Repr is Python's repr() of a value: as Text, but text is quoted.
func Repr(v any) string {
	var b strings.Builder
	repr(&b, v)
	return b.String()
}

func repr(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case string:
		reprString(b, v)
	case float64:
		b.WriteString(reprFloat(v))
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			repr(b, item)
		}
		b.WriteByte(']')
	case map[string]any:
		b.WriteByte('{')
		for i, k := range sortedKeys(v) {
			if i > 0 {
				b.WriteString(", ")
			}
			reprString(b, k)
			b.WriteString(": ")
			repr(b, v[k])
		}
		b.WriteByte('}')
	case NotSpecified:
		b.WriteString("<not specified>")
	default: // int, int64, *big.Int
		fmt.Fprint(b, v)
	}
}

// reprSet is Python's repr() of a set of strings. Python's order is arbitrary;
// here it is sorted.
func reprSet(items []string) string {
	if len(items) == 0 {
		return "set()"
	}
	quoted := make([]string, len(items))
	for i, item := range slices.Sorted(slices.Values(items)) {
		quoted[i] = Repr(item)
	}
	return "{" + strings.Join(quoted, ", ") + "}"
}

func reprString(b *strings.Builder, s string) {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteRune(quote)
}

// reprFloat shows the shortest digits that read back the same, with an exponent
// below 1e-4 and from 1e16 on.
func reprFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// identity is a text that is the same for two values exactly if Python's ==
// holds between them: 1, 1.0 and true are equal.
func identity(v any) string {
	if s, ok := v.(string); ok {
		return "'" + s
	}
	var b strings.Builder
	writeIdentity(&b, v)
	return b.String()
}

func writeIdentity(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteByte('n')
	case string:
		fmt.Fprintf(b, "s%d:", len(v))
		b.WriteString(v)
	case []any:
		fmt.Fprintf(b, "l%d:", len(v))
		for _, item := range v {
			writeIdentity(b, item)
		}
	case map[string]any:
		fmt.Fprintf(b, "d%d:", len(v))
		for _, k := range sortedKeys(v) {
			writeIdentity(b, k)
			writeIdentity(b, v[k])
		}
	case NotSpecified:
		b.WriteByte('u')
	default:
		n, ok := toInt(v)
		if f, isFloat := v.(float64); isFloat && (!ok || f != math.Trunc(f)) {
			b.WriteString("f" + strconv.FormatFloat(f, 'g', -1, 64) + ";")
			return
		}
		if !ok {
			fmt.Fprintf(b, "?%T:%v;", v, v)
			return
		}
		b.WriteString("i" + n.String() + ";")
	}
}

// equal is Python's ==.
func equal(a, b any) bool { return identity(a) == identity(b) }

// contains is Python's "v in list".
func contains(list []any, v any) bool {
	id := identity(v)
	return slices.ContainsFunc(list, func(item any) bool { return identity(item) == id })
}

// truthy is Python's bool().
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	case int:
		return v != 0
	case int64:
		return v != 0
	case float64:
		return v != 0
	case *big.Int:
		return v.Sign() != 0
	}
	return true
}

// items is what a Python for loop over the value yields; not ok if it is not
// iterable.
func items(v any) (list []any, ok bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case string:
		for _, r := range v {
			list = append(list, string(r))
		}
		return list, true
	case map[string]any:
		for _, k := range sortedKeys(v) {
			list = append(list, k)
		}
		return list, true
	}
	return nil, false
}

// toInt is Python's int(): integers and booleans, floats cut to their integral
// part, and decimal text with surrounding space, a sign, and underscores
// between digits.
func toInt(v any) (n *big.Int, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewInt(1), true
		}
		return new(big.Int), true
	case int:
		return big.NewInt(int64(v)), true
	case int64:
		return big.NewInt(v), true
	case *big.Int:
		return v, v != nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, false
		}
		n, _ = big.NewFloat(v).Int(nil)
		return n, true
	case string:
		return parseInt(v)
	}
	return nil, false
}

func parseInt(s string) (n *big.Int, ok bool) {
	s = strings.TrimFunc(s, isSpace)
	if len(s) > maxDigits {
		return nil, false
	}
	digits := strings.TrimPrefix(s, "-")
	if digits == s {
		digits = strings.TrimPrefix(s, "+")
	}
	plain := make([]byte, 0, len(digits))
	last := '_'
	for _, r := range digits {
		if r == '_' {
			if last == '_' {
				return nil, false
			}
		} else {
			d, isDigit := decimal(r)
			if !isDigit {
				return nil, false
			}
			plain = append(plain, '0'+d)
		}
		last = r
	}
	if last == '_' { // empty, or an underscore at the end
		return nil, false
	}
	if n, ok = new(big.Int).SetString(string(plain), 10); ok && s[0] == '-' {
		n.Neg(n)
	}
	return n, ok
}

// decimal is the value of a decimal digit of any script: each has its ten in a
// row, zero first, and scripts that lie next to each other start at multiples
// of ten from the range's start.
func decimal(r rune) (d byte, ok bool) {
	if r < utf8.RuneSelf {
		return byte(r - '0'), '0' <= r && r <= '9'
	}
	for _, span := range unicode.Nd.R16 {
		if rune(span.Lo) <= r && r <= rune(span.Hi) {
			return byte((r - rune(span.Lo)) % 10), true
		}
	}
	for _, span := range unicode.Nd.R32 {
		if rune(span.Lo) <= r && r <= rune(span.Hi) {
			return byte((r - rune(span.Lo)) % 10), true
		}
	}
	return 0, false
}

// integer is n as a value.
func integer(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// inRange tells whether n is between low and high, of which nil is open.
func inRange(n, low, high *big.Int) bool {
	return (low == nil || n.Cmp(low) >= 0) && (high == nil || n.Cmp(high) <= 0)
}

// isSpace is what Python strips and takes for \s.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

func hasSpace(s string) bool { return strings.ContainsFunc(s, isSpace) }

// lower is Python's str.lower(), but for the sigma at the end of words.
func lower(s string) string { return strings.ToLower(strings.ReplaceAll(s, "\u0130", "i\u0307")) }

// lines counts what Python's splitlines() yields.
func lines(s string) int {
	count := 0
	open := false
	for i, r := range s {
		switch r {
		case '\n':
			if i > 0 && s[i-1] == 0x0d {
				continue
			}
			fallthrough
		case '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
			count++
			open = false
		default:
			open = true
		}
	}
	if open {
		count++
	}
	return count
}
