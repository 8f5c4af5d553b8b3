package rest_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"isospin/internal/rest"
)

// TestWhoOnlyListens: a client that has ended its side of the connection, or
// whose body does not come, is never told of success that there was not.
func TestWhoOnlyListens(t *testing.T) {
	server := httptest.NewUnstartedServer(newWorld(func(*rest.Options) {}).handler)
	server.Config.ReadTimeout = 300 * time.Millisecond
	server.Start()
	defer server.Close()
	const post = "POST /v2.0/ports HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for what, c := range map[string]struct {
		request string
		end     bool
		times   int
	}{
		"what is not there":           {"GET /v2.0/ports/none HTTP/1.1\r\nHost: x\r\n\r\n", true, 50},
		"half a body, and its end":    {post + "Content-Length: 1000\r\n\r\n{", true, 50},
		"half a body, and no end":     {post + "Content-Length: 1000\r\n\r\n{", false, 1},
		"a port of a network not had": {post + "Content-Length: 34\r\n\r\n" + `{"port": {"network_id": "unknown"}`, true, 50},
	} {
		for range c.times {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			if c.end {
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(c.request, " ")
			answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			if err == nil && answer.StatusCode < 400 {
				t.Errorf("%s: answered %s", what, answer.Status)
			}
			conn.Close()
		}
	}
}
