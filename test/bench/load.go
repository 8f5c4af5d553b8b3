package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// connection is a kept-alive HTTP/1.1 connection. It costs a fraction of what
// net/http's client does: client and server share the processors.
type connection struct {
	net.Conn
	r    *bufio.Reader
	body []byte
}

func dial(address string) (*connection, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// request makes the bytes of a request; path is below /v2.0/.
func request(method, path, body string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s /v2.0/%s HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\n", method, path)
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

var errAnswer = errors.New("answer is not HTTP/1.1")

// do sends a request and reads the whole answer. The body is good until the next do.
func (c *connection) do(request []byte) (status int, body []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, errAnswer
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, errAnswer
	}
	length, chunked := 0, false
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !ok {
			break
		}
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, errAnswer
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		body, err = io.ReadAll(httputil.NewChunkedReader(c.r))
		if err == nil {
			_, err = c.r.ReadSlice('\n') // the empty line after the last chunk
		}
		return status, body, err
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	body = c.body[:length]
	_, err = io.ReadFull(c.r, body)
	return status, body, err
}

// work is n equal requests.
type work struct {
	clients, n int
	status     int // that is wanted
	items      int // made or returned by one request; 0 is 1
	// request returns the bytes of request i, before its time begins.
	request func(i int) []byte
	// answer takes the body, after its time has ended. optional
	answer func(i int, body []byte) error
}

// load carries out work against one server.
type load struct {
	address     string
	connections []*connection
}

func (l *load) close() {
	for _, c := range l.connections {
		c.Close()
	}
	l.connections = nil
}

// run does the work and fails at the first answer that is not as it should be.
func (l *load) run(ctx context.Context, w work) (samples, error) {
	for len(l.connections) < w.clients {
		c, err := dial(l.address)
		if err != nil {
			return samples{}, err
		}
		l.connections = append(l.connections, c)
	}
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, w.clients)
	taken := make([][]time.Duration, w.clients)
	begin := time.Now()
	for k := range w.clients {
		group.Go(func() {
			c := l.connections[k]
			for {
				i := int(next.Add(1)) - 1
				if i >= w.n || ctx.Err() != nil {
					return
				}
				r := w.request(i)
				before := time.Now()
				status, body, err := c.do(r)
				taken[k] = append(taken[k], time.Since(before))
				if err == nil && status != w.status {
					err = fmt.Errorf("status %d: %.300s", status, body)
				}
				if err == nil && w.answer != nil {
					err = w.answer(i, body)
				}
				if err != nil {
					line, _, _ := bytes.Cut(r, []byte("\r\n"))
					errs[k] = fmt.Errorf("%s: %w", line, err)
					next.Store(int64(w.n))
					return
				}
			}
		})
	}
	group.Wait()
	s := samples{wall: time.Since(begin), items: w.items}
	for _, t := range taken {
		s.durations = append(s.durations, t...)
	}
	return s, errors.Join(append(errs, ctx.Err())...)
}

// one sends a single request that must succeed, and returns a copy of the body.
func (l *load) one(ctx context.Context, method, path, body string, status int) ([]byte, error) {
	var out []byte
	_, err := l.run(ctx, work{clients: 1, n: 1, status: status,
		request: func(int) []byte { return request(method, path, body) },
		answer:  func(_ int, b []byte) error { out = bytes.Clone(b); return nil },
	})
	return out, err
}

var idKey = []byte(`"id":"`)

// id returns the first member "id" of an answer.
func id(body []byte) (string, error) {
	_, rest, ok := bytes.Cut(body, idKey)
	if !ok || len(rest) < 36 {
		return "", fmt.Errorf("answer without an id: %.200s", body)
	}
	return string(rest[:36]), nil
}

// ids returns all members "id" of an answer.
func ids(body []byte) []string {
	var list []string
	for {
		_, rest, ok := bytes.Cut(body, idKey)
		if !ok || len(rest) < 36 {
			return list
		}
		list, body = append(list, string(rest[:36])), rest
	}
}
