package ovsdb

import (
	"encoding/json"
	"fmt"
)

// Operation is one operation of a transaction (RFC 7047, section 5.2), made by
// Insert, Update, Mutate, Delete, Select, Wait or Comment.
type Operation struct {
	Op       string       `json:"op"`
	Table    string       `json:"table,omitempty"`
	Where    *[]Condition `json:"where,omitempty"`
	Row      Row          `json:"row,omitzero"`
	UUIDName string       `json:"uuid-name,omitempty"`
	Muts     []Mutation   `json:"mutations,omitzero"`
	Columns  []string     `json:"columns,omitempty"`
	Until    string       `json:"until,omitempty"`
	Rows     []Row        `json:"rows,omitzero"`
	Timeout  *int         `json:"timeout,omitempty"`
	Comment  string       `json:"comment,omitempty"`
}

// Condition is [column, function, value]; functions are "==", "!=",
// "includes", "excludes", "<" and so on.
type Condition [3]any

// Mutation is [column, mutator, value]; mutators are "insert", "delete", "+="
// and so on.
type Mutation [3]any

// Is is the condition that the row is this one.
func Is(id UUID) Condition { return Condition{"_uuid", "==", id} }

// Insert makes a row; other operations of the transaction may refer to it as
// NamedUUID(name). name may be empty.
func Insert(table, name string, row Row) Operation {
	if row == nil {
		row = Row{}
	}
	return Operation{Op: "insert", Table: table, UUIDName: name, Row: row}
}

// Update sets columns of the rows that all conditions hold for.
func Update(table string, row Row, where ...Condition) Operation {
	return Operation{Op: "update", Table: table, Row: row, Where: conditions(where)}
}

// Mutate changes the rows that all conditions hold for.
func Mutate(table string, muts []Mutation, where ...Condition) Operation {
	return Operation{Op: "mutate", Table: table, Muts: muts, Where: conditions(where)}
}

// Delete removes the rows that all conditions hold for.
func Delete(table string, where ...Condition) Operation {
	return Operation{Op: "delete", Table: table, Where: conditions(where)}
}

// Select returns columns (none: all) of the rows that all conditions hold for.
func Select(table string, columns []string, where ...Condition) Operation {
	return Operation{Op: "select", Table: table, Columns: columns, Where: conditions(where)}
}

// Wait makes the transaction fail with "timed out", at once, unless the
// columns of the rows that the conditions hold for are equal to rows.
func Wait(table string, columns []string, rows []Row, where ...Condition) Operation {
	zero := 0
	return Operation{Op: "wait", Table: table, Columns: columns, Rows: rows, Until: "==", Timeout: &zero, Where: conditions(where)}
}

func conditions(c []Condition) *[]Condition {
	if c == nil {
		c = []Condition{}
	}
	return &c
}

// Result is the outcome of one operation.
type Result struct {
	// Count of rows touched by Update, Mutate or Delete.
	Count int `json:"count"`
	// UUID of the row made by Insert.
	UUID UUID `json:"-"`
	// Rows found by Select, as on the wire.
	Rows []map[string]json.RawMessage `json:"rows"`
}

// Error is a failed operation of a transaction (RFC 7047, section 4.1.3).
type Error struct {
	// Code is "constraint violation", "referential integrity violation", "timed out" and so on.
	Code    string
	Details string
	// Operation is the index of the operation that failed; len(operations) if the commit did.
	Operation int
}

func (e *Error) Error() string {
	return fmt.Sprintf("operation %d: %s: %s", e.Operation, e.Code, e.Details)
}

func decodeResults(raw json.RawMessage) ([]Result, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("transaction result: %w", err)
	}
	results := make([]Result, len(items))
	for i, item := range items {
		if string(item) == "null" {
			continue // an earlier operation failed
		}
		var r struct {
			Result
			UUID    []string `json:"uuid"`
			Error   string   `json:"error"`
			Details string   `json:"details"`
		}
		if err := json.Unmarshal(item, &r); err != nil {
			return nil, fmt.Errorf("result of operation %d: %w", i, err)
		}
		if r.Error != "" {
			return nil, &Error{Code: r.Error, Details: r.Details, Operation: i}
		}
		results[i] = r.Result
		if len(r.UUID) == 2 {
			results[i].UUID = UUID(r.UUID[1])
		}
	}
	return results, nil
}
