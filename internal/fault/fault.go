// Package fault holds the kinds of errors that the domain returns: what went
// wrong, under Neutron's exception name and with its message. It knows no HTTP:
// the status of each kind is decided in rest/faults.go alone.
package fault

import (
	"errors"
	"fmt"
)

// Kind is the class of a fault, as a client must treat it.
type Kind int

const (
	Internal           Kind = iota // ours; the text is not shown
	Invalid                        // bad request
	Unauthenticated                // no valid token
	Forbidden                      // policy says no
	NotFound                       // absent, or hidden from the caller
	Conflict                       // the state of something forbids it now; OverQuota and InUse among them
	PreconditionFailed             // If-Match does not match
	TooLarge                       // request body
	NotImplemented                 // no loaded driver or plugin can do it
	Unavailable                    // a dependency is away, or a pool of ids is empty; retry may help
	Gone                           // it was there, and is no longer kept; ask anew
	TooMany                        // of this caller's requests at a time; later is fine
	Unmapped                       // a refusal to which Neutron gives no status of its own: a server error whose text is shown
)

// Error is a fault with the name and text that clients see.
type Error struct {
	Kind Kind
	// Type is Neutron's exception class name, e.g. "PortNotFound".
	Type string
	// Message is shown to the client.
	Message string
	// Detail is the envelope's detail; usually empty.
	Detail string
	// Cause is for logs only.
	Cause error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Type, e.Message, e.Cause)
	}
	return e.Type + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Cause }

// New makes a fault of the given kind, with a message built as by fmt.Sprintf.
func New(kind Kind, typ, format string, args ...any) *Error {
	msg := format
	if len(args) > 0 {
		msg = fmt.Sprintf(format, args...)
	}
	return &Error{Kind: kind, Type: typ, Message: msg}
}

// As returns the fault in err's chain, nil if there is none.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Is tells whether err is a fault of the given Neutron type.
func Is(err error, typ string) bool {
	e := As(err)
	return e != nil && e.Type == typ
}

// IsKind tells whether err is a fault of the given kind.
func IsKind(err error, kind Kind) bool {
	e := As(err)
	return e != nil && e.Kind == kind
}

// BadRequest is webob's HTTPBadRequest, which most validation errors are.
func BadRequest(format string, args ...any) *Error {
	return New(Invalid, "HTTPBadRequest", format, args...)
}

// InvalidInput is neutron-lib's InvalidInput: "Invalid input for operation: <reason>.".
func InvalidInput(format string, args ...any) *Error {
	return New(Invalid, "InvalidInput", "Invalid input for operation: %s.", fmt.Sprintf(format, args...))
}
