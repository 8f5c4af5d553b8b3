// Package packaging compares what is packaged and documented with what the
// program really does: metrics, alerts, pages of metrics, files of containers,
// links and commands of the guides.
//
// It must not be imported.
package packaging
