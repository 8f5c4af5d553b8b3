package collection

import "isospin/internal/resource"

// Shared makes resource.Resource.Shared of what objects of type T say.
func Shared[T any](targets func(o *T) []string) func(resource.Object) []string {
	return func(o resource.Object) []string {
		if of, ok := o.(*T); ok {
			return targets(of)
		}
		return nil
	}
}

// WithAll is the resource.Resource.Shared of objects that are for every project to see.
func WithAll(resource.Object) []string { return []string{"*"} }
