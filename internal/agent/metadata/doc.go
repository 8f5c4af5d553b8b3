// Package metadata lets instances reach Nova's metadata API under
// 169.254.169.254 and fe80::a9fe:a9fe. It listens inside the namespaces of
// DHCP ports (qdhcp-<network id>) and of routers (qrouter-<router id>), tells
// from the source address which port asks, and forwards the request with the
// port's instance and project, signed, from the host's own namespace.
//
// A guest says nothing about itself that is believed: only a few harmless
// headers of its request go on (LP#1865036).
//
// It must not know who makes the namespaces, nor how packets get into them: it
// waits until they are there.
package metadata
