// Package gophercloud drives the server with gophercloud, the Go client that
// Terraform and Kubernetes use: each package of its networking v2 whose API the
// server has creates, lists with each of its filters, updates with a condition
// on the revision, tags and deletes.
//
// It must not know the server's packages beyond test/servertest.
package gophercloud
