package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"isospin/internal/fault"
)

// statusOf is the one map from kinds of faults to HTTP statuses.
var statusOf = map[fault.Kind]int{
	fault.Internal:           http.StatusInternalServerError,
	fault.Invalid:            http.StatusBadRequest,
	fault.Unauthenticated:    http.StatusUnauthorized,
	fault.Forbidden:          http.StatusForbidden,
	fault.NotFound:           http.StatusNotFound,
	fault.Conflict:           http.StatusConflict,
	fault.PreconditionFailed: http.StatusPreconditionFailed,
	fault.TooLarge:           http.StatusRequestEntityTooLarge,
	fault.NotImplemented:     http.StatusNotImplemented,
	fault.Gone:               http.StatusGone,
	fault.Unavailable:        http.StatusServiceUnavailable,
	fault.TooMany:            http.StatusTooManyRequests,
	fault.Unmapped:           http.StatusInternalServerError,
}

const (
	// statusClientGone is logged when nobody is there to read the answer.
	statusClientGone = 499
	// maxMessage bounds how much of a request an error document repeats.
	maxMessage = 8 << 10
	// retryAfter is how long, in seconds, clients are asked to wait after a 503 or 429.
	retryAfter = "1"
)

// Texts of webob's errors that come without a text of their own.
const (
	textBadRequest = "The server could not comply with the request since it is either malformed or otherwise incorrect."
	textNotFound   = "The resource could not be found."
	textInternal   = "Request Failed: internal server error while processing your request."
)

// methodNotAllowed is the answer to a method that a path does not have.
type methodNotAllowed struct{ allow string }

func (e *methodNotAllowed) Error() string { return "method not allowed; allowed: " + e.allow }

// hidden is a NotFound without the usual envelope: how the newer request path
// answers when policy refuses to show one object.
type hidden struct{}

func (hidden) Error() string { return "hidden by policy" }

func notFound() error { return fault.New(fault.NotFound, "HTTPNotFound", textNotFound) }

// neutronError is the content of an error document.
type neutronError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Detail  string `json:"detail"`
}

// fail answers with an error. Causes of server errors are logged, never shown.
func (c *call) fail(err error) {
	var (
		notAllowed *methodNotAllowed
		f          = fault.As(err)
	)
	switch {
	case errors.As(err, &notAllowed):
		c.w.Header().Set("Allow", notAllowed.allow)
		c.failWith(http.StatusMethodNotAllowed, "HTTPMethodNotAllowed", textBadRequest, "")
	case errors.Is(err, hidden{}):
		c.show(http.StatusNotFound, neutronError{"HTTPNotFound", textNotFound, ""})
	case c.r.Context().Err() != nil && (f == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		// Most likely nobody is there. One that has only ended its own side
		// reads on, and must not take silence, which net/http makes a 200 of, for success.
		c.w.Header().Set("Connection", "close")
		c.failWith(http.StatusRequestTimeout, "HTTPRequestTimeout", "The request was ended before it was answered.", "")
		c.status = statusClientGone
	case f == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || c.edge.away(err)):
		c.logCause(err)
		f = fault.New(fault.Unavailable, "ServiceUnavailable", "The service is unavailable.")
		fallthrough
	case f != nil && f.Kind == fault.Unavailable:
		c.w.Header().Set("Retry-After", retryAfter)
		c.failWith(http.StatusServiceUnavailable, f.Type, f.Message, f.Detail)
	case f == nil || f.Kind == fault.Internal:
		c.logCause(err)
		c.failWith(http.StatusInternalServerError, "HTTPInternalServerError", textInternal, "")
	case f.Kind == fault.Unauthenticated:
		c.w.Header().Set("WWW-Authenticate", fmt.Sprintf("Keystone uri=%q", c.edge.AuthenticateURI))
		c.show(http.StatusUnauthorized, map[string]any{"error": map[string]any{
			"code": http.StatusUnauthorized, "title": "Unauthorized",
			"message": "The request you have made requires authentication.",
		}})
	case f.Kind == fault.NotImplemented && f.Type == "NotImplementedError":
		c.show(http.StatusNotImplemented, map[string]neutronError{"NotImplementedError": {f.Type, cut(f.Message), f.Detail}})
	default:
		if f.Kind == fault.TooMany {
			c.w.Header().Set("Retry-After", retryAfter)
		}
		c.failWith(statusOf[f.Kind], f.Type, f.Message, f.Detail)
	}
}

func (c *call) failWith(status int, typ, message, detail string) {
	c.show(status, map[string]neutronError{"NeutronError": {typ, cut(message), detail}})
}

func (c *call) logCause(err error) {
	c.edge.Logger.ErrorContext(c.ctx, "request failed", "method", c.r.Method, "path", c.r.URL.Path,
		"request_id", c.id, "error", err)
}

func cut(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return message[:maxMessage] + "..."
}
