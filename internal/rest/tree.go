package rest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// node is a place in the tree of paths below the version. Fixed segments go
// before the parameter; _ and - are alike in them.
type node struct {
	fixed     map[string]*node
	parameter *node
	endpoints map[string]*endpoint // by method
}

// endpoint serves one method of one path.
type endpoint struct {
	// label names it in metrics: a resource, or the path of a route.
	label string
	// params are the names of the path's parameters, in order.
	params []string
	// ownTurn: it enters by itself, when it knows what it is going to do.
	ownTurn bool
	serve   func(*call) error
}

// add registers an endpoint; segments in braces are parameters. A duplicate
// panics: two owners of one path are a mistake in the program.
func (n *node) add(method, path, label string, serve func(*call) error) *endpoint {
	e := &endpoint{label: label, serve: serve}
	for _, segment := range strings.Split(strings.Trim(path, "/"), "/") {
		if strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}") {
			e.params = append(e.params, segment[1:len(segment)-1])
			if n.parameter == nil {
				n.parameter = &node{}
			}
			n = n.parameter
			continue
		}
		if n.fixed == nil {
			n.fixed = map[string]*node{}
		}
		key := alike(segment)
		if n.fixed[key] == nil {
			n.fixed[key] = &node{}
		}
		n = n.fixed[key]
	}
	if n.endpoints == nil {
		n.endpoints = map[string]*endpoint{}
	}
	if n.endpoints[method] != nil {
		panic(fmt.Sprintf("route %s %s is registered twice", method, path))
	}
	n.endpoints[method] = e
	return e
}

func alike(segment string) string { return strings.ReplaceAll(segment, "-", "_") }

// find returns the endpoint of a path and the values of its parameters. When
// only other methods are there, end is their node.
func (n *node) find(method string, segments, values []string) (e *endpoint, params []string, end *node) {
	if len(segments) == 0 {
		if n.endpoints == nil {
			return nil, nil, nil
		}
		return n.endpoints[method], values, n
	}
	segment, rest := segments[0], segments[1:]
	if next := n.fixed[alike(segment)]; next != nil {
		if e, params, end = next.find(method, rest, values); e != nil {
			return e, params, end
		}
	}
	if n.parameter != nil && segment != "" {
		e, params, other := n.parameter.find(method, rest, append(slices.Clip(values), segment))
		if e != nil {
			return e, params, other
		}
		if end == nil {
			end = other
		}
	}
	return nil, nil, end
}

// allow lists the methods of a node as the Allow header has them.
func (n *node) allow() string {
	var methods []string
	for m := range n.endpoints {
		methods = append(methods, m)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// segments splits an escaped path below the version, without a trailing slash
// and without the suffix .json, which names the only format there is (but may
// end a tag).
func segments(escaped string) ([]string, bool) {
	parts := strings.Split(strings.TrimSuffix(escaped, "/"), "/")
	for i, part := range parts {
		s, err := url.PathUnescape(part)
		if err != nil || !text(s) {
			return nil, false
		}
		parts[i] = s
	}
	if last := len(parts) - 1; last == 0 || parts[last-1] != "tags" {
		parts[last] = strings.TrimSuffix(parts[last], ".json")
	}
	return parts, true
}

// text tells whether every part of the system can hold s: UTF-8 without NUL.
func text(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
