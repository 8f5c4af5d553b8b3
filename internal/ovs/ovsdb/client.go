package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Options of a Client.
type Options struct {
	Address  string              // required: "unix:/path/db.sock" or "tcp:host:port"
	Database string              // required: "Open_vSwitch", "OVN_Northbound", ...
	Tables   map[string][]string // required: the columns to keep in the cache, by table; columns that the schema lacks are left out
	OnChange func()              // optional: called after the cache changed; must not block
	Logger   *slog.Logger        // optional
	// InactivityProbe is how long the server may be silent before it is asked for a sign of life; a silence of twice
	// that ends the connection.
	InactivityProbe time.Duration // optional: 5 s
}

// Client is a connection to one database, made anew when it is lost, with a
// cache of rows. Methods may be called from any goroutine.
type Client struct {
	options Options
	cancel  context.CancelFunc
	done    chan struct{}

	mu       sync.RWMutex
	session  *session // nil: not connected, or not in sync yet
	ready    chan struct{}
	tables   Tables
	changed  chan struct{} // closed and replaced at every change
	schema   map[string]map[string]column
	lastTxn  string
	lastFail error
	closed   bool
}

// Tables is the cache: rows by id, by table.
type Tables map[string]map[UUID]Row

const monitorID = "isospin"

// noTransaction is the id that asks monitor_cond_since for everything.
const noTransaction = "00000000-0000-0000-0000-000000000000"

// Dial connects and returns when the cache is filled. When ctx ends before
// that, it fails with the last error; the connection itself lasts until Close.
func Dial(ctx context.Context, o Options) (*Client, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.InactivityProbe == 0 {
		o.InactivityProbe = 5 * time.Second
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{options: o, cancel: cancel, done: make(chan struct{}), ready: make(chan struct{}), changed: make(chan struct{}), tables: Tables{}}
	go c.run(run)
	if _, err := c.current(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("OVSDB %s at %s: %w", o.Database, o.Address, err)
	}
	return c, nil
}

// Close ends the connection and waits for the client's goroutines.
func (c *Client) Close() {
	c.cancel()
	<-c.done
}

// Connected tells whether the cache follows the database now.
func (c *Client) Connected() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.session != nil
}

// View calls f with the cache, which must not be kept or changed; rows may be
// kept.
func (c *Client) View(f func(Tables)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	f(c.tables)
}

// WaitFor returns when ok says so of the cache, or ctx ends.
func (c *Client) WaitFor(ctx context.Context, ok func(Tables) bool) error {
	for {
		c.mu.RLock()
		yes, changed, closed := ok(c.tables), c.changed, c.closed
		c.mu.RUnlock()
		if yes {
			return nil
		}
		if closed {
			return errClosed
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Transact runs operations as one transaction and returns their results, or
// an *Error when one failed and nothing was done. The cache shows what the
// transaction did when Transact returns. While the connection is away it
// waits for a new one until ctx ends; when the connection is lost under way,
// it is unknown whether the transaction was done.
func (c *Client) Transact(ctx context.Context, operations ...Operation) ([]Result, error) {
	s, err := c.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("OVSDB %s: %w", c.options.Database, err)
	}
	params := make([]any, 0, len(operations)+1)
	params = append(params, c.options.Database)
	for _, o := range operations {
		params = append(params, o)
	}
	raw, err := s.call(ctx, "transact", params, nil)
	if err != nil {
		return nil, fmt.Errorf("OVSDB %s transaction: %w", c.options.Database, err)
	}
	// ovsdb-server sends the update of a transaction before its result, and serve handles them in that order.
	results, err := decodeResults(raw)
	if err != nil {
		return nil, fmt.Errorf("OVSDB %s transaction: %w", c.options.Database, err)
	}
	return results, nil
}

// current waits for a session that is in sync.
func (c *Client) current(ctx context.Context) (*session, error) {
	for {
		c.mu.RLock()
		s, ready, closed, last := c.session, c.ready, c.closed, c.lastFail
		c.mu.RUnlock()
		if s != nil {
			return s, nil
		}
		if closed {
			return nil, errClosed
		}
		select {
		case <-ready:
		case <-ctx.Done():
			if last != nil {
				return nil, fmt.Errorf("%w; last error: %w", ctx.Err(), last)
			}
			return nil, ctx.Err()
		}
	}
}

// run keeps a session until ctx ends.
func (c *Client) run(ctx context.Context) {
	defer close(c.done)
	const shortest, longest = 50 * time.Millisecond, 4 * time.Second
	pause := shortest
	for ctx.Err() == nil {
		started := time.Now()
		err := c.connect(ctx)
		c.mu.Lock()
		wasReady := c.session != nil
		if wasReady {
			c.session = nil
			c.ready = make(chan struct{})
		}
		c.lastFail = err
		c.mu.Unlock()
		if ctx.Err() != nil {
			break
		}
		if wasReady {
			c.options.Logger.Warn("OVSDB connection lost", "address", c.options.Address, "error", err)
			if time.Since(started) > longest {
				pause = shortest
			}
		} else {
			c.options.Logger.Debug("OVSDB connection failed", "address", c.options.Address, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
	c.mu.Lock()
	c.closed = true
	close(c.ready)
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

// connect makes one session and serves it until it ends.
func (c *Client) connect(parent context.Context) error {
	conn, err := dial(parent, c.options.Address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(parent)
	s := newSession(conn, c.notified)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.serve(); cancel() })
	wg.Go(func() { s.probe(ctx, c.options.InactivityProbe) })
	stop := context.AfterFunc(ctx, func() { _ = s.end(ctx.Err()) })
	defer func() { cancel(); stop(); _ = s.end(errClosed); wg.Wait() }()

	if err := c.synchronize(ctx, s); err != nil {
		return err
	}
	c.options.Logger.Debug("OVSDB in sync", "address", c.options.Address, "database", c.options.Database)
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// synchronize fetches the schema and starts the monitor. The cache is replaced
// as a whole, or brought up to date from where it was.
func (c *Client) synchronize(ctx context.Context, s *session) error {
	raw, err := s.call(ctx, "get_schema", []any{c.options.Database}, nil)
	if err != nil {
		return fmt.Errorf("get_schema: %w", err)
	}
	var schema struct {
		Tables map[string]struct {
			Columns map[string]struct{ Type column }
		}
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	columns := map[string]map[string]column{}
	requests := map[string]any{}
	for table, wanted := range c.options.Tables {
		have, ok := schema.Tables[table]
		if !ok {
			return fmt.Errorf("database %s has no table %s", c.options.Database, table)
		}
		columns[table] = map[string]column{}
		names := []string{}
		for _, name := range wanted {
			if t, ok := have.Columns[name]; ok {
				columns[table][name] = t.Type
				names = append(names, name)
			}
		}
		requests[table] = []any{map[string]any{"columns": names}}
	}
	c.mu.Lock()
	c.schema = columns
	last := c.lastTxn
	c.mu.Unlock()
	if last == "" {
		last = noTransaction
	}

	_, err = s.call(ctx, "monitor_cond_since", []any{c.options.Database, monitorID, requests, last}, func(raw json.RawMessage) error {
		var answer struct {
			found   bool
			last    string
			updates json.RawMessage
		}
		if err := decodeArray(raw, &answer.found, &answer.last, &answer.updates); err != nil {
			return err
		}
		return c.install(s, answer.updates, answer.last, !answer.found)
	})
	var refused *rpcError
	if errors.As(err, &refused) { // before ovsdb-server 2.12
		_, err = s.call(ctx, "monitor_cond", []any{c.options.Database, monitorID, requests}, func(raw json.RawMessage) error {
			return c.install(s, raw, "", true)
		})
	}
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	return nil
}

// install takes the answer to a monitor request: the whole content of the
// tables (anew), or what came after the transaction that we had seen last.
func (c *Client) install(s *session, updates json.RawMessage, last string, anew bool) error {
	c.mu.Lock()
	if anew {
		c.tables = Tables{}
	}
	err := c.update(updates)
	if err == nil {
		c.lastTxn = last
		c.session = s
		close(c.ready)
	} else {
		c.lastTxn = ""
	}
	c.mu.Unlock()
	if err == nil {
		c.announce()
	}
	return err
}

// notified handles update2 (monitor_cond) and update3 (monitor_cond_since).
func (c *Client) notified(method string, params json.RawMessage) error {
	var (
		id      json.RawMessage
		last    string
		updates json.RawMessage
		err     error
	)
	switch method {
	case "update2":
		err = decodeArray(params, &id, &updates)
	case "update3":
		err = decodeArray(params, &id, &last, &updates)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	if err = c.update(updates); err != nil {
		c.lastTxn = "" // the next session starts from nothing
	} else {
		c.lastTxn = last
	}
	c.mu.Unlock()
	c.announce()
	return err
}

// update applies row updates to the cache; c.mu is held.
func (c *Client) update(raw json.RawMessage) error {
	var tables map[string]map[UUID]struct {
		Initial, Insert, Modify map[string]json.RawMessage
		Delete                  json.RawMessage
	}
	if err := json.Unmarshal(raw, &tables); err != nil {
		return fmt.Errorf("table updates: %w", err)
	}
	for table, rows := range tables {
		columns, ok := c.schema[table]
		if !ok {
			return fmt.Errorf("update of table %s, which is not monitored", table)
		}
		if c.tables[table] == nil {
			c.tables[table] = map[UUID]Row{}
		}
		for id, u := range rows {
			var row Row
			values := u.Modify
			switch {
			case u.Initial != nil || u.Insert != nil:
				row = make(Row, len(columns))
				for name, t := range columns {
					row[name] = t.zero()
				}
				if values = u.Initial; values == nil {
					values = u.Insert
				}
			case u.Modify != nil:
				old, ok := c.tables[table][id]
				if !ok {
					return fmt.Errorf("update of row %s of table %s, which is not in the cache", id, table)
				}
				row = maps.Clone(old)
			default:
				delete(c.tables[table], id)
				continue
			}
			for name, raw := range values {
				t, ok := columns[name]
				if !ok {
					continue
				}
				v, err := t.decode(raw)
				if err != nil {
					return fmt.Errorf("table %s, row %s, column %s: %w", table, id, name, err)
				}
				if u.Modify != nil {
					v = t.modify(row[name], v)
				}
				row[name] = v
			}
			c.tables[table][id] = row
		}
	}
	return nil
}

// announce wakes those who wait for a change of the cache.
func (c *Client) announce() {
	c.mu.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if c.options.OnChange != nil {
		c.options.OnChange()
	}
}

// decodeArray decodes a JSON array of exactly these elements.
func decodeArray(raw json.RawMessage, into ...any) error {
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return err
	}
	if len(elements) != len(into) {
		return fmt.Errorf("%d elements instead of %d", len(elements), len(into))
	}
	for i, e := range elements {
		if err := json.Unmarshal(e, into[i]); err != nil {
			return err
		}
	}
	return nil
}
