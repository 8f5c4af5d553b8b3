package server

import (
	"runtime"

	"isospin/internal/config"
	"isospin/internal/rest"
)

var (
	requestLimit = config.Int("isospin", "request_limit", 64,
		"Requests of the API that are carried out at a time; more wait, and the projects take turns. 0 is no limit, neither here nor for lists.", config.Min(0))
	requestProjectLimit = config.Int("isospin", "request_limit_per_project", 16,
		"Of these, at most so many of one project; what is left, others find free at once.", config.Min(1))
	listLimit = config.Int("isospin", "list_limit", 0,
		"Lists without a limit, or with one beyond 1000, that are carried out at a time, beside other requests. 0 is one more than list_limit_per_project.", config.Min(0))
	listProjectLimit = config.Int("isospin", "list_limit_per_project", 0,
		"Of these, at most so many of one project. 0 is one less than the processors that it uses, but at least one.", config.Min(0))
	requestQueue = config.Int("isospin", "request_queue", 1024,
		"Requests that may wait, and as many lists; more are refused with 503.", config.Min(0))
	requestProjectQueue = config.Int("isospin", "request_queue_per_project", 256,
		"Of these, at most so many of one project.", config.Min(0))
)

var maxRequestBody = config.Int("oslo_middleware", "max_request_body_size", 114688,
	"Greatest body of a request, in bytes; beyond it, 413.", config.Min(1))

// limits are how much the API does at a time.
func limits(c *config.Config) rest.Limits {
	l := rest.Limits{
		Requests: requestLimit.Of(c), ProjectRequests: requestProjectLimit.Of(c),
		Lists: listLimit.Of(c), ProjectLists: listProjectLimit.Of(c),
		Queue: requestQueue.Of(c), ProjectQueue: requestProjectQueue.Of(c),
	}
	if l.Requests == 0 {
		return rest.Limits{}
	}
	if l.ProjectLists == 0 {
		l.ProjectLists = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if l.Lists == 0 {
		l.Lists = l.ProjectLists + 1
	}
	return l
}
