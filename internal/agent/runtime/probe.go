package runtime

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"isospin/api/feed"
)

// Probe tells whether a server answers on its feed, with the certificates that
// an agent would use (nil: none). It attaches no host.
func Probe(ctx context.Context, server string, t *TLS) error {
	if err := checkServer(server, t); err != nil {
		return err
	}
	client, closeIdle, err := NewClient(server, t.Load)
	if err != nil {
		return err
	}
	defer closeIdle()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := client.Attach(ctx)
	err = stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Hello{Hello: new(feed.Hello)}})
	if _, answer := stream.Receive(); answer != nil {
		err = answer
	}
	// Whoever refuses a hello without a host understands what it is.
	var refused *connect.Error
	if errors.As(err, &refused) && refused.Code() == connect.CodeInvalidArgument {
		return nil
	}
	if err == nil {
		err = errors.New("the answer is not that of a server")
	}
	return err
}
