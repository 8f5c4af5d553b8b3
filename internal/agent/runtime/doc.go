// Package runtime holds the agent's side of the feed: the stream to the
// server, the host's desired state in memory and on disk, and the loop that
// hands it to the features and reports what they did.
//
// It must not know the kernel, Open vSwitch or SQL, nor what any feature does.
package runtime
