package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/resource/value"
)

var errInvalidData = fault.BadRequest("Body contains invalid data")

// read returns the bytes of the body, empty when there is none.
func (c *call) read() ([]byte, error) {
	if !c.hasBody {
		c.hasBody = true
		c.body, c.bodyErr = c.receive()
	}
	return c.body, c.bodyErr
}

func (c *call) receive() ([]byte, error) {
	if c.r.ContentLength == 0 {
		return nil, nil
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, c.edge.MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, fault.New(fault.TooLarge, "HTTPRequestEntityTooLarge", "Request is too large.")
	case err != nil:
		return nil, &fault.Error{Kind: fault.Invalid, Type: "HTTPBadRequest", Message: textBadRequest, Cause: err}
	}
	return raw, nil
}

// document returns the decoded body; given is false when there is none.
func (c *call) document(older bool) (doc any, given bool, err error) {
	raw, err := c.read()
	if err != nil || len(raw) == 0 {
		return nil, false, err
	}
	// Besides being of no use, other types are what a web page of another
	// origin can send without being asked.
	if t := c.r.Header.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return nil, false, fault.BadRequest("Unsupported Content-Type")
		}
	}
	doc, err = value.Decode(raw)
	if err != nil || bytes.Contains(raw, []byte(`\u0000`)) && !storable(doc) {
		if older {
			return nil, false, fault.New(fault.Invalid, "MalformedRequestBody", "Malformed request body: Cannot understand JSON.")
		}
		return nil, false, errInvalidData
	}
	return doc, true, nil
}

// storable tells whether no string of the document has a NUL, which databases refuse.
func storable(v any) bool {
	switch v := v.(type) {
	case string:
		return !strings.Contains(v, "\x00")
	case []any:
		for _, item := range v {
			if !storable(item) {
				return false
			}
		}
	case map[string]any:
		for k, item := range v {
			if !storable(k) || !storable(item) {
				return false
			}
		}
	}
	return true
}

// items returns the objects of a create or update body. bulk tells that they came as a list.
func (c *call) items(r *resource.Resource, create bool) (items []map[string]any, bulk bool, err error) {
	doc, given, err := c.document(r.Older)
	if err != nil {
		return nil, false, err
	}
	unfound := fault.BadRequest("Unable to find '%s' in request body", r.Name)
	if r.Older && (!given || !truthy(doc)) {
		return nil, false, fault.BadRequest("Resource body required")
	}
	if !given {
		return nil, false, unfound
	}
	object, ok := doc.(map[string]any)
	if !ok {
		if r.Older && !create {
			return nil, false, fault.New(fault.Invalid, "BadRequest", "Bad body request: Invalid format: %s.", value.Text(doc))
		}
		return nil, false, errInvalidData
	}
	// Neutron makes this plural by appending "s", also where the collection is named otherwise.
	list, bulk := object[r.Name+"s"]
	if !bulk {
		item, err := inner(r, object)
		return []map[string]any{item}, false, err
	}
	if !create || r.NoBulk {
		return nil, false, fault.BadRequest("Bulk operation not supported")
	}
	if !truthy(list) {
		return nil, false, fault.BadRequest("Resources required")
	}
	wrong := fault.BadRequest("Object '%s' contains invalid data", r.Name)
	switch list := list.(type) {
	case []any:
		for _, v := range list {
			switch v := v.(type) {
			case map[string]any:
				item := v
				if _, wrapped := v[r.Name]; wrapped {
					if item, err = inner(r, v); err != nil {
						return nil, false, err
					}
				}
				items = append(items, item)
			case string, []any:
				return nil, false, wrong
			default:
				return nil, false, errInvalidData
			}
		}
	case string, map[string]any:
		return nil, false, wrong
	default:
		return nil, false, errInvalidData
	}
	return items, true, nil
}

// inner unwraps {"<singular>": {…}}.
func inner(r *resource.Resource, object map[string]any) (map[string]any, error) {
	v := object[r.Name]
	if v == nil {
		return nil, fault.BadRequest("Unable to find '%s' in request body", r.Name)
	}
	item, ok := v.(map[string]any)
	if !ok {
		return nil, fault.BadRequest("Object '%s' contains invalid data", r.Name)
	}
	return item, nil
}

// truthy is Python's bool() of a decoded document.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int64:
		return v != 0
	case float64:
		return v != 0
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

// withoutBody refuses a body where there must be none.
func (c *call) withoutBody() error {
	raw, err := c.read()
	if err == nil && len(raw) > 0 {
		err = fault.BadRequest("Request body is not supported in DELETE.")
	}
	return err
}

var etag = regexp.MustCompile(`(W/)?"([^"]*)"`)

const revisionEtag = "revision_number="

// match returns the condition of an If-Match header. Etags that name no
// revision, and weak ones, are no condition.
func (c *call) match(r *resource.Resource) (resource.Match, error) {
	refuse := func(about, message string) (resource.Match, error) {
		return resource.Match{}, fault.New(fault.Invalid, "BadRequest", "Bad %s request: %s.", about, message)
	}
	var tags []string
	header := strings.Join(c.r.Header.Values("If-Match"), ", ")
	if found := etag.FindAllStringSubmatch(header, -1); found == nil {
		tags = []string{strings.TrimSpace(header)}
	} else {
		for _, f := range found {
			if f[1] == "" {
				tags = append(tags, f[2])
			}
		}
	}
	var m resource.Match
	for _, tag := range tags {
		number, ok := strings.CutPrefix(tag, revisionEtag)
		if !ok {
			continue
		}
		if m.Revision != nil {
			return refuse("if-match", "Multiple revision_number etags are not supported.")
		}
		if !r.Standard {
			return refuse(r.Name, "Revision matching not supported for this resource")
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil {
			return refuse("if-match", fmt.Sprintf("Revision number etag must be in the format of %s<int>", revisionEtag))
		}
		m.Revision = &n
	}
	return m, nil
}
