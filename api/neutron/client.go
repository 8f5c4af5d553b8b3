package neutron

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Client calls the Neutron v2.0 API of one server. It has no state of its own
// and may be used by any number of goroutines.
type Client struct {
	// Endpoint is the address of the service, without version:
	// "http://127.0.0.1:9696".
	Endpoint string // required
	// Token is sent as X-Auth-Token; empty sends none (auth_strategy noauth).
	Token string // optional
	// HTTP makes the requests; nil is http.DefaultClient.
	HTTP *http.Client // optional
}

// Error is an answer of the server other than the one that was hoped for.
type Error struct {
	// Status is the HTTP status code.
	Status int
	// Type is the name of Neutron's exception, such as "PortNotFound"; empty if
	// the answer did not come in Neutron's envelope.
	Type    string
	Message string
	Detail  string
	// Request is the method and path.
	Request string
}

func (e *Error) Error() string {
	if e.Type == "" {
		return fmt.Sprintf("%s: %d %s", e.Request, e.Status, e.Message)
	}
	return fmt.Sprintf("%s: %d %s: %s", e.Request, e.Status, e.Type, e.Message)
}

// IsNotFound tells whether err is an answer with status 404.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsConflict tells whether err is an answer with status 409.
func IsConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

func hasStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 1 << 30

// Do makes one request. path is below /v2.0/ and may have a query; its
// elements must be escaped by the caller. in, if not nil, is sent as JSON; out,
// if not nil, receives the answer. An answer with a status of 300 or more is an
// *Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode body of %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.Endpoint, "/")+"/v2.0/"+path, body)
	if err != nil {
		return fmt.Errorf("request %s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("X-Auth-Token", c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return err // names method and URL
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return parseError(method+" /v2.0/"+path, resp, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("decode answer of %s %s: %w", method, path, err)
	}
	return nil
}

// parseError reads Neutron's envelope {"NeutronError": {type, message, detail}},
// or the plain {"message": …} of middleware.
func parseError(request string, resp *http.Response, text []byte) error {
	e := &Error{Status: resp.StatusCode, Request: request}
	var envelope struct {
		NeutronError json.RawMessage `json:"NeutronError"`
		Message      string          `json:"message"`
	}
	var inner struct{ Type, Message, Detail string }
	if json.Unmarshal(text, &envelope) == nil {
		e.Message = envelope.Message
		if json.Unmarshal(envelope.NeutronError, &inner) == nil {
			e.Type, e.Message, e.Detail = inner.Type, inner.Message, inner.Detail
		} else if s := ""; json.Unmarshal(envelope.NeutronError, &s) == nil {
			e.Message = s
		}
	}
	if e.Message == "" {
		e.Message = strings.TrimSpace(string(text[:min(len(text), 500)]))
	}
	if e.Message == "" {
		e.Message = http.StatusText(resp.StatusCode)
	}
	return e
}

// Create makes one resource and returns it as the server answered.
func Create[T Resource](ctx context.Context, c *Client, body T) (T, error) {
	path, member := body.Collection()
	return one[T](ctx, c, http.MethodPost, path, member, body)
}

// CreateBulk makes several resources of one collection in one request: all of
// them, or none.
func CreateBulk[T Resource](ctx context.Context, c *Client, bodies []T) ([]T, error) {
	var zero T
	path, _ := zero.Collection()
	key := listKey(path)
	var out map[string]json.RawMessage
	if err := c.Do(ctx, http.MethodPost, path, map[string][]T{key: bodies}, &out); err != nil {
		return nil, err
	}
	var items []T
	if err := json.Unmarshal(out[key], &items); err != nil {
		return nil, fmt.Errorf("decode %s: %w", key, err)
	}
	return items, nil
}

// Get returns one resource.
func Get[T Resource](ctx context.Context, c *Client, id string) (T, error) {
	var zero T
	path, member := zero.Collection()
	return one[T](ctx, c, http.MethodGet, path+"/"+url.PathEscape(id), member, nil)
}

// Update changes attributes of one resource and returns all of it. changes is a
// T with only these set, or a map of attributes.
func Update[T Resource](ctx context.Context, c *Client, id string, changes any) (T, error) {
	var zero T
	path, member := zero.Collection()
	return one[T](ctx, c, http.MethodPut, path+"/"+url.PathEscape(id), member, changes)
}

// Delete removes one resource.
func Delete[T Resource](ctx context.Context, c *Client, id string) error {
	var zero T
	path, _ := zero.Collection()
	return c.Do(ctx, http.MethodDelete, path+"/"+url.PathEscape(id), nil, nil)
}

// List returns all resources that match the filters (nil: all that the caller
// may see), following the links of a paged answer.
func List[T Resource](ctx context.Context, c *Client, filters url.Values) ([]T, error) {
	var zero T
	path, _ := zero.Collection()
	key := listKey(path)
	var all []T
	query := filters.Encode()
	for {
		at := path
		if query != "" {
			at += "?" + query
		}
		var out map[string]json.RawMessage
		if err := c.Do(ctx, http.MethodGet, at, nil, &out); err != nil {
			return nil, err
		}
		var items []T
		if err := json.Unmarshal(out[key], &items); err != nil {
			return nil, fmt.Errorf("decode %s: %w", key, err)
		}
		all = append(all, items...)
		next, err := nextQuery(out[key+"_links"])
		if err != nil {
			return nil, fmt.Errorf("links of %s: %w", key, err)
		}
		if next == "" || next == query || len(items) == 0 {
			return all, nil
		}
		query = next
	}
}

// nextQuery returns the query of the link "next", empty if there is none. Only
// its query is followed, so that no answer can send the client, and its token,
// to another server.
func nextQuery(text json.RawMessage) (string, error) {
	if text == nil {
		return "", nil
	}
	var links []struct{ Rel, Href string }
	if err := json.Unmarshal(text, &links); err != nil {
		return "", err
	}
	for _, l := range links {
		if l.Rel == "next" {
			u, err := url.Parse(l.Href)
			if err != nil {
				return "", err
			}
			return u.RawQuery, nil
		}
	}
	return "", nil
}

// AddRouterInterface connects a router to a subnet or a port.
func (c *Client) AddRouterInterface(ctx context.Context, routerID string, to RouterInterface) (RouterInterface, error) {
	var out RouterInterface
	err := c.Do(ctx, http.MethodPut, "routers/"+url.PathEscape(routerID)+"/add_router_interface", to, &out)
	return out, err
}

// RemoveRouterInterface disconnects a router from a subnet or a port.
func (c *Client) RemoveRouterInterface(ctx context.Context, routerID string, from RouterInterface) (RouterInterface, error) {
	var out RouterInterface
	err := c.Do(ctx, http.MethodPut, "routers/"+url.PathEscape(routerID)+"/remove_router_interface", from, &out)
	return out, err
}

func one[T any](ctx context.Context, c *Client, method, path, member string, body any) (T, error) {
	var item T
	var in any
	if body != nil {
		in = map[string]any{member: body}
	}
	var out map[string]json.RawMessage
	if err := c.Do(ctx, method, path, in, &out); err != nil {
		return item, err
	}
	text, ok := out[member]
	if !ok {
		return item, fmt.Errorf("%s %s: answer has no %q", method, path, member)
	}
	if err := json.Unmarshal(text, &item); err != nil {
		return item, fmt.Errorf("decode %s: %w", member, err)
	}
	return item, nil
}

// listKey is the key of a list in a body.
func listKey(path string) string { return strings.ReplaceAll(path, "-", "_") }
