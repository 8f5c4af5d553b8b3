// Package openstackclient drives the server with the real `openstack` command,
// as users do.
package openstackclient
