package keystone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// renewBefore is how long before its end the own token is replaced.
	renewBefore = time.Minute
	// refusedPause is how long refused credentials are not tried again: Keystone
	// may lock out users that fail too often.
	refusedPause = 5 * time.Second
	// retryPause is the pause before the first repetition of a failed request; it doubles.
	retryPause = 100 * time.Millisecond
	// maxAnswer bounds an answer of Keystone, in bytes: catalogs are long.
	maxAnswer = 8 << 20
)

// Credentials of a user, with a password. Of a name and an id, the id counts;
// without a domain, it is the domain with the id "default".
type Credentials struct {
	Username, UserID                   string
	UserDomainName, UserDomainID       string
	Password                           string
	ProjectName, ProjectID             string
	ProjectDomainName, ProjectDomainID string
	// System: the token is of the system ("all") instead of a project.
	System bool
}

// LogValue keeps the password out of logs.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.Username + c.UserID) }

// String keeps the password out of texts.
func (c Credentials) String() string { return c.Username + c.UserID }

// GoString keeps the password out of texts.
func (c Credentials) GoString() string { return c.String() }

// Request is the body of POST /v3/auth/tokens.
func (c Credentials) Request() ([]byte, error) {
	domain := func(id, name string) map[string]any {
		switch {
		case id != "":
			return map[string]any{"id": id}
		case name != "":
			return map[string]any{"name": name}
		}
		return map[string]any{"id": "default"}
	}
	user := map[string]any{"password": c.Password}
	if c.UserID != "" {
		user["id"] = c.UserID
	} else {
		user["name"], user["domain"] = c.Username, domain(c.UserDomainID, c.UserDomainName)
	}
	scope := map[string]any{}
	switch {
	case c.System:
		scope["system"] = map[string]any{"all": true}
	case c.ProjectID != "":
		scope["project"] = map[string]any{"id": c.ProjectID}
	default:
		scope["project"] = map[string]any{"name": c.ProjectName, "domain": domain(c.ProjectDomainID, c.ProjectDomainName)}
	}
	return json.Marshal(map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": user}},
		"scope":    scope,
	}})
}

// client speaks to Keystone with a token of its own.
type client struct {
	options Options
	base    string // .../v3

	// renewing makes one log in of all that wait for it.
	renewing singleflight.Group

	mu    sync.Mutex
	own   string
	until time.Time
	at    string // where tokens are validated, from the catalog
	// refused is when the credentials may be tried again.
	refused time.Time
	away    bool // what was last logged
}

func newClient(o Options) *client {
	if o.Client == nil {
		o.Client = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: 64, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
		}}
	}
	// A redirect would take the tokens along.
	own := *o.Client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.Client = &own
	return &client{options: o, base: versioned(o.AuthURL)}
}

// versioned is a Keystone URL with its version.
func versioned(u string) string {
	u = strings.TrimRight(u, "/")
	if strings.HasSuffix(u, "/v3") {
		return u
	}
	return u + "/v3"
}

// validate asks about a token. Errors: errInvalid; all others are Keystone's trouble or ours.
func (c *client) validate(ctx context.Context, token string, allowExpired bool) (*identified, error) {
	found, err := c.tryValidate(ctx, token, allowExpired, "")
	if err != nil && !errors.Is(err, errInvalid) {
		c.note(err)
		return nil, err
	}
	c.note(nil)
	return found, err
}

// note logs when Keystone goes away and when it is back, not every request in between.
func (c *client) note(err error) {
	c.mu.Lock()
	before := c.away
	c.away = err != nil
	c.mu.Unlock()
	switch {
	case err != nil && !before:
		c.options.Logger.Error("tokens cannot be validated: requests are answered 503 until they can", "error", err)
	case err == nil && before:
		c.options.Logger.Info("tokens are validated again")
	}
}

// tryValidate asks with the own token; when Keystone does not know that (any
// more), with a new one. former is the own token that was refused before.
func (c *client) tryValidate(ctx context.Context, token string, allowExpired bool, former string) (*identified, error) {
	own, at, err := c.token(ctx, former)
	if err != nil {
		return nil, err
	}
	query := "?nocatalog"
	if allowExpired {
		query += "&allow_expired=1"
	}
	status, _, raw, err := c.send(ctx, http.MethodGet, at+"/auth/tokens"+query, nil, http.Header{
		"X-Auth-Token": {own}, "X-Subject-Token": {token}, "Accept": {"application/json"},
	})
	if err != nil {
		return nil, err
	}
	switch status {
	case http.StatusOK:
		var b body
		if err := json.Unmarshal(raw, &b); err != nil {
			return nil, fmt.Errorf("keystone: the answer about a token: %w", err)
		}
		return b.identified()
	case http.StatusNotFound:
		return nil, errInvalid
	case http.StatusUnauthorized:
		if former == "" {
			return c.tryValidate(ctx, token, allowExpired, own)
		}
	}
	return nil, fmt.Errorf("keystone: the validation of a token was answered %d", status)
}

// token returns the own token and where to validate others: a new one when it
// ends soon or is the refused one.
func (c *client) token(ctx context.Context, refused string) (token, at string, err error) {
	if own, at, ok := c.present(refused); ok {
		return own, at, nil
	}
	_, err, _ = c.renewing.Do("", func() (any, error) {
		if _, _, ok := c.present(refused); ok { // by another, meanwhile
			return nil, nil
		}
		return nil, c.logIn(ctx)
	})
	if err != nil {
		return "", "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own, c.at, nil
}

// present returns the own token if it may be used.
func (c *client) present(refused string) (token, at string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own, c.at, c.own != "" && c.own != refused && c.options.Now().Before(c.until)
}

// logIn gets a new own token.
func (c *client) logIn(ctx context.Context) error {
	now := c.options.Now()
	c.mu.Lock()
	wait := now.Before(c.refused)
	c.mu.Unlock()
	if wait {
		return errors.New("keystone: the credentials in [keystone_authtoken] were refused a moment ago")
	}
	request, err := c.options.Credentials.Request()
	if err != nil {
		return err
	}
	status, header, raw, err := c.send(ctx, http.MethodPost, c.base+"/auth/tokens", request, http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json"},
	})
	if err != nil {
		return err
	}
	if status != http.StatusCreated {
		c.mu.Lock()
		c.refused = now.Add(refusedPause)
		c.mu.Unlock()
		return fmt.Errorf("keystone: the log in of user %s ([keystone_authtoken]) was answered %d", c.options.Credentials, status)
	}
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		return fmt.Errorf("keystone: the answer to the log in: %w", err)
	}
	own, err := b.identified()
	if err != nil {
		return err
	}
	got := header.Get("X-Subject-Token")
	if !printable(got) {
		return errors.New("keystone: the answer to the log in has no token")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own, c.at = got, c.endpoint(&b)
	// A token that lives shorter than renewBefore is renewed at every use.
	c.until = own.expires.Add(-renewBefore)
	return nil
}

// endpoint is the catalog's URL of Keystone for the chosen interface and
// region, else the one of the configuration.
func (c *client) endpoint(b *body) string {
	wanted := c.options.Interface
	if wanted == "" {
		wanted = "internal"
	}
	for _, s := range b.Token.Catalog {
		if s.Type != "identity" {
			continue
		}
		for _, e := range s.Endpoints {
			region := c.options.Region == "" || e.Region == c.options.Region || e.RegionID == c.options.Region
			if u, err := url.Parse(e.URL); e.Interface == wanted && region && err == nil && u.Host != "" {
				return versioned(e.URL)
			}
		}
	}
	return c.base
}

// send sends a request, again when it fails or Keystone says that it has trouble.
func (c *client) send(ctx context.Context, method, url string, content []byte, header http.Header) (status int, answer http.Header, raw []byte, err error) {
	pause := retryPause
	for try := 0; ; try++ {
		status, answer, raw, err = c.sendOnce(ctx, method, url, content, header)
		trouble := err != nil || status >= 500 || status == http.StatusTooManyRequests
		if !trouble {
			return status, answer, raw, nil
		}
		if try >= c.options.Retries {
			if err == nil {
				err = fmt.Errorf("keystone: %s %s was answered %d", method, url, status)
			}
			return 0, nil, nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, nil, nil, ctx.Err()
		}
		pause *= 2
	}
}

func (c *client) sendOnce(ctx context.Context, method, url string, content []byte, header http.Header) (int, http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("keystone: %w", err)
	}
	r.Header = header
	answer, err := c.options.Client.Do(r)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("keystone: %w", err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("keystone: %s %s: %w", method, url, err)
	}
	return answer.StatusCode, answer.Header, raw, nil
}
