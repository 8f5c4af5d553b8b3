package resource

import "context"

// Route is a call of the API that fits no Resource: quotas, what an agent
// hosts, availability zones.
type Route struct {
	// Method is GET, POST, PUT or DELETE.
	Method string // required
	// Path is below the version; a segment in braces is a parameter, which
	// matches any one segment: "/quotas/{project_id}/details". A fixed segment
	// goes before a parameter, and _ and - are alike in it.
	Path string // required
	// Action is the policy action, e.g. "get_quota". Required unless Open.
	Action string
	// OwnFree: a caller whose project is the parameter project_id needs no policy.
	OwnFree bool // optional
	// NoneIsCaller: "None" as the parameter project_id is the caller's project.
	NoneIsCaller bool // optional
	// Open: everybody with a token may call it, or the service decides.
	Open bool // optional
	// Status of success; 0 is 200. With 204 there is no body.
	Status int // optional
	// Do serves the call; its errors are faults. What it returns is shown as
	// JSON (json.RawMessage as it is).
	Do func(ctx context.Context, call Call) (any, error) // required
}

// Call is what the client sent to a Route.
type Call struct {
	// Params holds the path's parameters by name.
	Params map[string]string
	// Query holds the values of the query string by name, in their order.
	Query map[string][]string
	// Body is the decoded JSON document as package value has it; nil when there is none.
	Body any
}

// Handle registers routes.
func (r *Registry) Handle(routes ...Route) { r.routes = append(r.routes, routes...) }

// Routes returns all routes in the order of registration.
func (r *Registry) Routes() []Route { return r.routes }
