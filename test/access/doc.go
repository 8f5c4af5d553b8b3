// Package access tests who may do what: every policy target against every kind
// of caller, first as the engine decides, then over HTTP.
package access
