// Package placement speaks to Placement: it reports the resource providers of
// hosts, and changes allocations of instances. Names and ids are Neutron's, so
// that Nova finds what it expects.
//
// It must not know agents, ports or policies.
package placement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"isospin/internal/config"
	"isospin/internal/fault"
	"isospin/internal/notify/cloud"
)

var section = cloud.Declare("placement", "placement", "endpoint_override")

// microversion has all that is used here: nested providers, codes of errors,
// generations of consumers.
const microversion = "placement 1.29"

// tries bounds how often a change is made anew that others' changes overtook.
const tries = 10

// ErrUnavailable is that Placement gives no answer.
var ErrUnavailable = errors.New("no answer")

// ErrExceeded is that an allocation does not fit into what providers have.
var ErrExceeded = errors.New("the capacity is exceeded")

// Configured tells whether there is a Placement.
func Configured(c *config.Config) bool { return section.Configured(c) }

// Client of Placement. It may be used concurrently.
type Client struct{ cloud *cloud.Client }

// NewClient returns a client. Errors name the option to mend.
func NewClient(c *config.Config) (*Client, error) {
	k, err := section.Client(c)
	if err != nil {
		return nil, err
	}
	return &Client{k}, nil
}

// answerError is an answer that is no success.
type answerError struct {
	method, path string
	status       int
	// code says more than the status, e.g. placement.concurrent_update.
	code, detail string
	// text is the whole answer.
	text string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("%s %s was answered %d (%s): %s", e.method, e.path, e.status, e.code, e.detail)
}

func answered(err error, status int) bool {
	var e *answerError
	return errors.As(err, &e) && e.status == status
}

// overtaken tells whether a change failed because of another one.
func overtaken(err error) bool {
	var e *answerError
	return errors.As(err, &e) && e.status == http.StatusConflict && e.code == "placement.concurrent_update"
}

// call sends a request and decodes the answer into result (nil: not at all).
func (c *Client) call(ctx context.Context, method, path string, body, result any) error {
	a, err := c.cloud.Do(ctx, cloud.Request{Method: method, Path: path, Header: http.Header{"Openstack-Api-Version": {microversion}}, Body: body})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if a.Status/100 != 2 {
		e := &answerError{method: method, path: path, status: a.Status, text: string(a.Body)}
		var b struct {
			Errors []struct{ Code, Detail string } `json:"errors"`
		}
		if err := json.Unmarshal(a.Body, &b); err == nil && len(b.Errors) > 0 {
			e.code, e.detail = b.Errors[0].Code, b.Errors[0].Detail
		}
		return e
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(a.Body, result); err != nil {
		return fmt.Errorf("answer to %s %s: %w", method, path, err)
	}
	return nil
}

// Difference is what is allocated more (or, negative, less), by provider and resource class.
type Difference map[string]map[string]int64

// Inverse takes back a difference.
func (d Difference) Inverse() Difference {
	inverse := Difference{}
	for provider, classes := range d {
		inverse[provider] = map[string]int64{}
		for class, n := range classes {
			inverse[provider][class] = -n
		}
	}
	return inverse
}

type allocations struct {
	Allocations        map[string]allocation `json:"allocations"`
	ConsumerGeneration *int64                `json:"consumer_generation"`
	ProjectID          string                `json:"project_id"`
	UserID             string                `json:"user_id"`
}

type allocation struct {
	Resources map[string]int64 `json:"resources"`
}

// Allocate changes what is allocated to a consumer, in all of its providers or
// in none. ErrExceeded: they do not have it.
func (c *Client) Allocate(ctx context.Context, consumer string, d Difference) error {
	path := "/allocations/" + consumer
	for range tries {
		var have allocations
		err := c.call(ctx, http.MethodGet, path, nil, &have)
		if e := (*answerError)(nil); errors.As(err, &e) && e.status/100 == 4 {
			return fault.New(fault.Unmapped, "PlacementClientError", "Placement Client Error (4xx): %s", strings.ReplaceAll(e.text, "\n", " "))
		}
		if err != nil {
			return fmt.Errorf("allocations of %s: %w", consumer, err)
		}
		if len(have.Allocations) == 0 {
			return fault.New(fault.Invalid, "PlacementAllocationRemoved", "Resource allocation is deleted for consumer %s", consumer)
		}
		for provider, classes := range d {
			a, ok := have.Allocations[provider]
			if !ok {
				return fault.New(fault.Invalid, "PlacementAllocationRpNotExists", "Resource provider %s for %s does not exist", provider, consumer)
			}
			if a.Resources == nil {
				a.Resources = map[string]int64{}
			}
			for class, n := range classes {
				if a.Resources[class] += n; a.Resources[class] <= 0 {
					delete(a.Resources, class)
				}
			}
			have.Allocations[provider] = a
			if len(a.Resources) == 0 {
				delete(have.Allocations, provider)
			}
		}
		err = c.call(ctx, http.MethodPut, path, have, nil)
		switch {
		case overtaken(err):
			continue
		case answered(err, http.StatusConflict):
			return fmt.Errorf("allocations of %s: %w: %w", consumer, ErrExceeded, err)
		case err != nil:
			return fmt.Errorf("allocations of %s: %w", consumer, err)
		}
		return nil
	}
	return Overtaken(consumer)
}

// Overtaken is the fault for allocations that others keep changing.
func Overtaken(consumer string) error {
	return fault.New(fault.Conflict, "PlacementAllocationGenerationConflict", "Resource allocation has been changed for consumer %s in Placement while Neutron tried to update it.", consumer)
}
