// Package api tests the server by its HTTP API: requests and their answers,
// what is stored, and which events consumers see.
package api
