// Package architecture holds the rules of the source tree as tests: which
// package may import which, what a package must say of itself, what it must
// not be called, and that the lists of plug-ins are complete.
package architecture
