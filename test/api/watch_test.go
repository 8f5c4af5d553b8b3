package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"testing"
	"time"

	"isospin/test/servertest"
)

// Whatever the parameters of a watch or of a history are, the answer is no 5xx.
func TestWatchParameters(t *testing.T) {
	s := servertest.Start(t, servertest.Networks+"[isospin]\nwatch_limit_per_project = 1000\n")
	network := s.Must(t, http.StatusCreated, "POST", "/networks", `{"network": {"name": "n"}}`)["id"]
	random := rand.New(rand.NewPCG(1, 1))
	names := []string{"since", "kind", "fields", "limit", "marker", "", "sort_key", "since", "kind", "limit"}
	values := []string{"", "0", "1", "-1", "9223372036854775807", "9223372036854775808", "1e3", "0x10", " 1", "+1", "port", "network,port", ",", "network,", "PORT", "id", "name", "nothing",
		"%00", "\x00", "\xff\xfe", "';--", "{}", "null", "true", "٣", "network\n"}
	statuses := map[int]int{}
	for i := range 400 {
		query := ""
		for range random.IntN(4) {
			name, value := names[random.IntN(len(names))], values[random.IntN(len(values))]
			if random.IntN(5) > 0 {
				name, value = url.QueryEscape(name), url.QueryEscape(value)
			} else {
				value = url.PathEscape(value)
			}
			query += "&" + name + "=" + value
		}
		path := []string{"/watch", fmt.Sprintf("/networks/%s/history", network), "/ports/x/history", "/qos/policies/x/dscp_marking_rules/y/history"}[i%4]
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/v2.0"+path+"?"+query, nil)
		if err != nil {
			cancel()
			continue // no client can send it
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", r.URL, err)
		}
		statuses[answer.StatusCode]++
		text := make([]byte, 512)
		n, err := io.ReadAtLeast(answer.Body, text, 1) // a line, or an error document
		if answer.StatusCode >= 500 || err != nil || bytes.Contains(text[:n], []byte("HTTPInternalServerError")) {
			t.Errorf("%s: %d %s %v", r.URL, answer.StatusCode, text[:n], err)
		}
		cancel()
		answer.Body.Close()
	}
	if statuses[200] == 0 || statuses[400] == 0 || statuses[404] == 0 {
		t.Errorf("the requests are of few kinds: %v", statuses)
	}
}
