package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// serviceManager tells systemd how the process does, and reloads when told to.
type serviceManager struct {
	log    *slog.Logger
	reload func() error
	hangUp chan os.Signal
}

// newServiceManager takes SIGHUP over, which would end the process otherwise.
func newServiceManager(logger *slog.Logger, reload func() error) *serviceManager {
	m := &serviceManager{log: logger, reload: reload, hangUp: make(chan os.Signal, 1)}
	signal.Notify(m.hangUp, syscall.SIGHUP)
	return m
}

func (m *serviceManager) tell(state string) {
	if err := notifySystemd(state); err != nil {
		m.log.Warn("the service manager was not told", "state", state, "error", err)
	}
}

// run reloads at each SIGHUP, and feeds the watchdog, if there is one, as long
// as alive returns nil within half of its time. It ends with ctx.
func (m *serviceManager) run(ctx context.Context, alive func(context.Context) error) {
	defer signal.Stop(m.hangUp)
	var tick <-chan time.Time
	interval := watchdogInterval() / 2
	if interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.hangUp:
			m.tell("RELOADING=1")
			if err := m.reload(); err != nil {
				m.log.Error("nothing is taken from the changed configuration", "error", err)
			} else {
				m.log.Info("configuration was read anew: the level of the log counts at once, other options after a restart")
			}
			m.tell("READY=1")
		case <-tick:
			check, cancel := context.WithTimeout(ctx, interval)
			err := alive(check)
			cancel()
			if err == nil {
				m.tell("WATCHDOG=1")
			} else if ctx.Err() == nil {
				m.log.Error("this process does not do its work; the service manager will start it anew", "error", err)
			}
		}
	}
}

// watchdogInterval is how often systemd wants to hear of this process; 0 is never.
func watchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // meant for another process
	}
	n, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// answers tells whether the API at an address answers at all. With TLS, the
// refusal of a client without a certificate is an answer.
func answers(ctx context.Context, address net.Addr, overTLS bool) error {
	conn, err := new(net.Dialer).DialContext(ctx, address.Network(), address.String())
	if err != nil {
		return fmt.Errorf("the API: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if overTLS {
		// Nothing is said to the other side that it must not know, and nothing of it is believed.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // see above
	}
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: watchdog\r\nConnection: close\r\n\r\n"))
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "remote error" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the API at %s does not answer: %w", address, errors.Join(err, ctx.Err()))
	}
	return nil
}
