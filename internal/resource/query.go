package resource

import "time"

// Query asks for one page of a list.
type Query struct {
	Filters []FilterBy
	// Tags conditions; all of them hold.
	Tags []TagCondition
	// ChangedSince keeps objects updated at or after it.
	ChangedSince *time.Time
	Sort         []SortKey
	// Limit is the greatest number of objects; 0 is no limit.
	Limit int
	// Marker is the id of the last object seen; empty: from the start.
	Marker string
	// Reverse asks for the page before Marker, still in the order of Sort.
	Reverse bool
}

// FilterBy keeps objects whose attribute has one of the values.
type FilterBy struct {
	Attribute *Attribute
	// Values are converted to the attribute's type.
	Values []any
}

// SortKey is one key of the order.
type SortKey struct {
	Attribute string
	Desc      bool
}

// TagCondition is one of Neutron's four tag filters.
type TagCondition struct {
	// Tags of the filter.
	Tags []string
	// Any: one of Tags is enough; else all of them.
	Any bool
	// Not: the condition must not hold.
	Not bool
}

// Filter returns the values of the filter on an attribute, nil when there is none.
func (q *Query) Filter(name string) []any {
	for _, f := range q.Filters {
		if f.Attribute.Name == name {
			return f.Values
		}
	}
	return nil
}
