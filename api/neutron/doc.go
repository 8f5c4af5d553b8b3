// Package neutron holds the wire types of the OpenStack Networking (Neutron)
// v2.0 API and a small client for it.
//
// The structs serve requests and answers alike. A field that may be left out
// of a request is omitted when it has its zero value; where the zero value is
// itself something to ask for (false, "", no elements), the field is a pointer.
// To send an explicit null, or an attribute that has no field here, give
// Update or Client.Do a map.
//
// The package knows nothing of the server: it depends on the standard library
// alone, so that programs outside may use it.
package neutron

// Ptr returns a pointer to a copy of v, for the optional fields of requests.
func Ptr[T any](v T) *T { return &v }

// Value returns what p points to, or the zero value if p is nil.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
