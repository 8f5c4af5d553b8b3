package neutron

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Change is one line of a watch. A line without Kind only says where the
// stream is.
type Change struct {
	// Sequence is where to go on (WatchOptions.Since), once this line is taken.
	Sequence int64 `json:"sequence"`
	// Kind is the resource's singular name, such as "port".
	Kind string `json:"kind"`
	// Op is create, update or delete: what becomes of the object for the caller.
	Op        string `json:"op"`
	ID        string `json:"id"`
	Revision  int64  `json:"revision"`
	ProjectID string `json:"project_id"`
	// ParentID is the id of the object below which this one is; empty: none.
	ParentID  string    `json:"parent_id"`
	RequestID string    `json:"request_id"`
	At        time.Time `json:"at"`
	// Object is as GET shows it; null when Op is delete.
	Object json.RawMessage `json:"object"`
}

// WatchOptions of Client.Watch.
type WatchOptions struct {
	// Since is the sequence after which changes are wanted: that of the last
	// line that was taken, or of the answer to a list (X-Isospin-Sequence). nil: from now.
	Since *int64 // optional
	// Kinds of objects; none: all.
	Kinds []string // optional
}

// maxLine bounds a line of a watch, in bytes.
const maxLine = 16 << 20

// Watch calls each with the changes that the caller may see, in their order
// (extension isospin-watch), until each returns an error, which it returns, ctx
// ends, or the stream does: with an *Error when the server says why. An *Error
// of status 410 asks to list anew; after others, go on from the last Sequence.
// Errors within the stream have status 200.
func (c *Client) Watch(ctx context.Context, o WatchOptions, each func(*Change) error) error {
	query := url.Values{}
	if o.Since != nil {
		query.Set("since", strconv.FormatInt(*o.Since, 10))
	}
	if len(o.Kinds) > 0 {
		query["kind"] = o.Kinds
	}
	path := "/v2.0/watch"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.Endpoint, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("request GET %s: %w", path, err)
	}
	if c.Token != "" {
		req.Header.Set("X-Auth-Token", c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return err // names method and URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
		if err != nil {
			return fmt.Errorf("read answer of GET %s: %w", path, err)
		}
		return parseError("GET "+path, resp, text)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var line struct {
			Change
			Error *struct{ Type, Message, Detail string }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("decode line of GET %s: %w", path, err)
		}
		if e := line.Error; e != nil {
			return &Error{Status: resp.StatusCode, Type: e.Type, Message: e.Message, Detail: e.Detail, Request: "GET " + path}
		}
		if err := each(&line.Change); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read GET %s: %w", path, err)
	}
	return io.ErrUnexpectedEOF
}
