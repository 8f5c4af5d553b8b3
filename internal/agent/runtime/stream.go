package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"isospin/api/feed"
)

// Results to a Report.
const reportChunk = 1000

// A server that says nothing for so long although the host is not yet synced
// is given up: another one may do better.
const syncStall = 2 * time.Minute

var errStalled = fmt.Errorf("the server said nothing for %v before the host was synced", syncStall)

type clientStream = connect.BidiStreamForClient[feed.AgentMessage, feed.ServerMessage]

// follow keeps a stream to one of the servers open until ctx ends. Losing it
// changes nothing on the host.
func (a *Agent) follow(ctx context.Context) {
	wait := backoff{min: a.options.ReconnectMin, max: a.options.ReconnectMax}
	// An order of its own: the hosts spread over the servers, and those of a lost one over the rest.
	order := rand.Perm(len(a.options.Servers))
	for n := 0; ; n++ {
		server := a.options.Servers[order[n%len(order)]]
		begin := time.Now()
		synced, err := a.attach(ctx, server)
		if ctx.Err() != nil {
			return
		}
		// A stream that ends soon is no reason to hurry back: perhaps another
		// host has this host's name, and the server ends one for the other.
		if synced && time.Since(begin) > a.options.ReconnectMax {
			wait.reset()
		}
		pause := wait.next()
		a.logger.Warn("not attached to the server, the host stays as it is", "server", server, "error", err, "retry_in", pause.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// attach opens a stream and serves it until it breaks. It tells whether the
// stream got as far as synced.
func (a *Agent) attach(ctx context.Context, server string) (synced bool, err error) {
	client, closeIdle, err := NewClient(server, a.options.TLS.Load)
	if err != nil {
		return false, err
	}
	defer closeIdle()
	ctx, giveUp := context.WithCancelCause(ctx)
	cancel := func() { giveUp(nil) }
	defer cancel()
	stall := time.AfterFunc(syncStall, func() { giveUp(errStalled) })
	defer stall.Stop()

	stream := client.Attach(ctx)
	functions := a.functions()
	hello := &feed.Hello{
		Host: a.options.Host, Functions: functions, Have: a.desired.beginSync(), BinaryVersion: a.options.BinaryVersion,
		Started: a.started.Unix(),
	}
	received := make(chan error, 1)
	go func() {
		defer cancel()
		received <- a.receive(stream, server, func() { stall.Reset(syncStall) }, func() { stall.Stop(); synced = true })
	}()
	sendErr := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Hello{Hello: hello}})
	if sendErr == nil {
		sendErr = a.send(ctx, stream, functions)
	}
	cancel()
	receiveErr := <-received
	a.reports.detach()
	a.metrics.attached.Set(0)
	if context.Cause(ctx) == errStalled {
		return synced, errStalled
	}
	// A failed send says only that the stream is over; why, the receiver knows.
	if sendErr != nil && !errors.Is(sendErr, io.EOF) && !errors.Is(sendErr, context.Canceled) {
		receiveErr = errors.Join(sendErr, receiveErr)
	}
	return synced, receiveErr
}

// receive takes messages until the stream ends. It calls progress for each
// before the host is synced, and synced once.
func (a *Agent) receive(stream *clientStream, server string, progress, synced func()) error {
	defer stream.CloseResponse()
	done := false
	for first := true; ; first = false {
		msg, err := stream.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the server closed the stream")
			}
			return err
		}
		if first {
			a.metrics.attaches.Inc()
		}
		a.metrics.messages.Inc()
		switch err := a.desired.apply(msg); {
		case errors.Is(err, errNotHeld):
			return fmt.Errorf("opening the stream again: %w", err)
		case err != nil:
			a.logger.Warn("left out of a message of the server", "error", err)
		}
		if !done {
			progress()
		}
		if msg.Synced && !done {
			done = true
			synced()
			a.metrics.attached.Set(1)
			a.logger.Info("attached", "server", server, "sequence", msg.Sequence)
		}
	}
}

// send reports results and sends heartbeats until ctx or the stream ends.
func (a *Agent) send(ctx context.Context, stream *clientStream, told []*feed.Function) error {
	defer stream.CloseRequest()
	if err := a.sendReports(stream, a.reports.attach()); err != nil {
		return err
	}
	heartbeat := time.NewTicker(a.options.ReportInterval)
	defer heartbeat.Stop()
	for {
		beat := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.reports.wake:
			if err := a.sendReports(stream, a.reports.take()); err != nil {
				return err
			}
			continue
		case <-a.described:
		case <-heartbeat.C:
			beat = true
			a.reports.prune(a.desired.state())
			for _, r := range a.runners {
				signal(r.describe)
			}
		}
		functions := a.functions()
		news := slices.DeleteFunc(slices.Clone(functions), func(f *feed.Function) bool {
			return slices.ContainsFunc(told, func(t *feed.Function) bool { return proto.Equal(f, t) })
		})
		if !beat && len(news) == 0 {
			continue
		}
		if err := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Heartbeat{Heartbeat: &feed.Heartbeat{Functions: news}}}); err != nil {
			return err
		}
		told = functions
	}
}

func (a *Agent) sendReports(stream *clientStream, applied []*feed.Applied) error {
	for chunk := range slices.Chunk(applied, reportChunk) {
		if err := stream.Send(&feed.AgentMessage{Body: &feed.AgentMessage_Report{Report: &feed.Report{Applied: chunk}}}); err != nil {
			return err
		}
		a.metrics.reported.Add(float64(len(chunk)))
	}
	return nil
}
