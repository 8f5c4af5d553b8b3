// Package cloud is a client of the other services of the cloud: it logs in at
// Keystone with the credentials of a section of the configuration, finds the
// service in the catalog, and sends requests.
//
// It must not know what any service understands.
package cloud

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"isospin/internal/config"
	"isospin/internal/identity/keystone"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 8 << 20

// Retries is how often a request that failed is repeated at once.
var Retries = config.Int("DEFAULT", "http_retries", 3,
	"How often a request to another service that failed is repeated at once; after that, it waits.", config.Min(0), config.Max(20))

// Section is the options by which a service is reached.
type Section struct {
	name, serviceType string

	authURL, authType, username, userID, password, userDomainName, userDomainID  *config.Option[string]
	projectName, projectID, projectDomainName, projectDomainID, systemScope      *config.Option[string]
	caFile, certFile, keyFile, region, endpointType, endpointInterface, override *config.Option[string]
	validInterfaces                                                              *config.Option[[]string]
	insecure                                                                     *config.Option[bool]
	timeout                                                                      *config.Option[int]
}

// Declare declares the options of a section. serviceType is the service's in
// the catalog; override is the option that has its URL instead.
func Declare(section, serviceType, override string) *Section {
	text := func(name, help string, settings ...config.Setting) *config.Option[string] {
		return config.String(section, name, "", help, settings...)
	}
	return &Section{
		name: section, serviceType: serviceType,
		authURL:           text("auth_url", "URL of Keystone, with or without /v3. Empty: the service is not told of anything."),
		authType:          config.String(section, "auth_type", "password", "How the server logs in at Keystone; none: not at all.", config.Choices("password", "v3password", "none"), config.Deprecated(section, "auth_plugin")),
		username:          text("username", "User that the server is for the service.", config.Deprecated(section, "user_name")),
		userID:            text("user_id", "As username, by its id."),
		password:          text("password", "The user's password.", config.Secret()),
		userDomainName:    text("user_domain_name", "Domain of the user; without it, the domain with the id default."),
		userDomainID:      text("user_domain_id", "As user_domain_name, by its id."),
		projectName:       text("project_name", "Project in which the user has its role.", config.Deprecated(section, "tenant_name")),
		projectID:         text("project_id", "As project_name, by its id.", config.Deprecated(section, "tenant_id")),
		projectDomainName: text("project_domain_name", "Domain of the project; without it, the domain with the id default."),
		projectDomainID:   text("project_domain_id", "As project_domain_name, by its id."),
		systemScope:       config.String(section, "system_scope", "", "\"all\": the user has its role in the system, not in a project.", config.Choices("", "all")),
		caFile:            text("cafile", "PEM file of the authorities that certificates must be signed by. Empty: those of the machine."),
		certFile:          text("certfile", "PEM file of the certificate that the server shows."),
		keyFile:           text("keyfile", "PEM file of the key of certfile."),
		insecure:          config.Bool(section, "insecure", false, "Do not check certificates."),
		timeout:           config.Int(section, "timeout", 30, "Seconds after which a request has failed.", config.Min(1), config.Max(600)),
		region:            text("region_name", "Region of the service in the catalog; empty is any."),
		endpointType:      config.String(section, "endpoint_type", "public", "Which of the service's endpoints in the catalog is used.", config.Choices("public", "admin", "internal")),
		endpointInterface: text("interface", "As endpoint_type."),
		validInterfaces:   config.Strings(section, "valid_interfaces", nil, "As endpoint_type, in order of preference."),
		override:          text(override, "URL of the service, in place of the one in the catalog."),
	}
}

// Configured tells whether there is a way to reach the service.
func (s *Section) Configured(c *config.Config) bool {
	return s.authURL.Of(c) != "" || s.authType.Of(c) == "none" && s.override.Of(c) != ""
}

// Client of the service that the section describes. Errors name the option to mend.
func (s *Section) Client(c *config.Config) (*Client, error) {
	k := &Client{
		section: s.name, serviceType: s.serviceType, override: strings.TrimRight(s.override.Of(c), "/"), region: s.region.Of(c),
		anonymous: s.authType.Of(c) == "none", retries: Retries.Of(c), Pause: 100 * time.Millisecond,
		credentials: keystone.Credentials{
			Username: s.username.Of(c), UserID: s.userID.Of(c), UserDomainName: s.userDomainName.Of(c), UserDomainID: s.userDomainID.Of(c),
			Password: s.password.Of(c), ProjectName: s.projectName.Of(c), ProjectID: s.projectID.Of(c),
			ProjectDomainName: s.projectDomainName.Of(c), ProjectDomainID: s.projectDomainID.Of(c), System: s.systemScope.Of(c) != "",
		},
	}
	switch {
	case s.validInterfaces.IsSet(c):
		k.interfaces = s.validInterfaces.Of(c)
	case s.endpointInterface.Of(c) != "":
		k.interfaces = []string{s.endpointInterface.Of(c)}
	default:
		k.interfaces = []string{s.endpointType.Of(c)}
	}
	for i, name := range k.interfaces {
		k.interfaces[i] = strings.TrimSuffix(name, "URL")
	}
	if !k.anonymous {
		at := strings.TrimRight(s.authURL.Of(c), "/")
		if u, err := url.Parse(at); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("[%s] auth_url: it must be http://host:port or https://host:port, with a path or without", s.name)
		}
		if !strings.HasSuffix(at, "/v3") {
			at += "/v3"
		}
		k.authURL = at
		if k.credentials.String() == "" || k.credentials.Password == "" {
			return nil, fmt.Errorf("[%s] username, password: they are not set", s.name)
		}
	}
	t, err := s.tls(c)
	if err != nil {
		return nil, err
	}
	k.http = &http.Client{
		Timeout:   time.Duration(s.timeout.Of(c)) * time.Second,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second},
		// A redirect would take the token along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return k, nil
}

func (s *Section) tls(c *config.Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.insecure.Of(c)} //nolint:gosec // the operator's word
	if file := s.caFile.Of(c); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("[%s] cafile: %w", s.name, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[%s] cafile: there is no certificate in %s", s.name, file)
		}
	}
	if file := s.certFile.Of(c); file != "" {
		pair, err := tls.LoadX509KeyPair(file, s.keyFile.Of(c))
		if err != nil {
			return nil, fmt.Errorf("[%s] certfile, keyfile: %w", s.name, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Client speaks to one service. It may be used concurrently.
type Client struct {
	section, serviceType, override, region, authURL string
	interfaces                                      []string
	anonymous                                       bool
	credentials                                     keystone.Credentials
	http                                            *http.Client
	retries                                         int
	// Pause before the first repetition; it doubles.
	Pause time.Duration

	mu       sync.Mutex
	token    string
	until    time.Time
	endpoint string
}

// Request is one request to the service.
type Request struct {
	Method string      // required
	Path   string      // required: below the service's endpoint, with its query
	Header http.Header // optional
	Body   any         // optional: becomes JSON
	// Versioned is the beginning of Path that endpoints may already end with. // optional
	Versioned string
}

// Answer of the service.
type Answer struct {
	Status int
	Body   []byte
}

// Do sends a request. Any answer of the service that it will also give to a
// repetition is one; the error is for what may pass: the service cannot be
// reached, says that it has trouble, or Keystone has.
func (c *Client) Do(ctx context.Context, r Request) (Answer, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return Answer{}, fmt.Errorf("%s: %w", c.serviceType, err)
		}
	}
	pause := c.Pause
	renewed := false
	for try := 0; ; try++ {
		a, err := c.once(ctx, r, body)
		if err == nil && a.Status == http.StatusUnauthorized && !renewed && !c.anonymous {
			renewed = true
			c.forget()
			continue
		}
		if err == nil && a.Status == http.StatusUnauthorized {
			err = errors.New("the service refuses the server's token")
		} else if err == nil && (a.Status >= 500 || a.Status == http.StatusTooManyRequests || a.Status == http.StatusRequestTimeout) {
			err = fmt.Errorf("%s was answered %d", r.Method, a.Status)
		}
		if err == nil {
			return a, nil
		}
		if try >= c.retries || ctx.Err() != nil {
			// The endpoint may have moved.
			c.forget()
			return Answer{}, fmt.Errorf("%s ([%s]): %w", c.serviceType, c.section, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause *= 2
	}
}

func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.endpoint = "", ""
}

func (c *Client) once(ctx context.Context, r Request, body []byte) (Answer, error) {
	token, endpoint, err := c.session(ctx)
	if err != nil {
		return Answer{}, err
	}
	header := http.Header{}
	for name, values := range r.Header {
		header[name] = values
	}
	if token != "" {
		header.Set("X-Auth-Token", token)
	}
	a, _, err := c.send(ctx, r.Method, strings.TrimSuffix(endpoint, r.Versioned)+r.Path, header, body)
	return a, err
}

func (c *Client) send(ctx context.Context, method, at string, header http.Header, body []byte) (Answer, http.Header, error) {
	q, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return Answer{}, nil, err
	}
	q.Header = header
	q.Header.Set("Accept", "application/json")
	q.Header.Set("User-Agent", "isospin")
	if len(body) > 0 {
		q.Header.Set("Content-Type", "application/json")
	}
	got, err := c.http.Do(q)
	if err != nil {
		return Answer{}, nil, err
	}
	defer got.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer))
	if err != nil {
		return Answer{}, nil, fmt.Errorf("%s: %w", method, err)
	}
	return Answer{got.StatusCode, raw}, got.Header, nil
}

// session is the token and where the service is.
func (c *Client) session(ctx context.Context) (token, endpoint string, err error) {
	if c.anonymous {
		return "", c.override, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == "" || !time.Now().Before(c.until) {
		if err := c.logIn(ctx); err != nil {
			return "", "", err
		}
	}
	return c.token, c.endpoint, nil
}

// logIn gets a token and finds the service in its catalog.
func (c *Client) logIn(ctx context.Context) error {
	request, err := c.credentials.Request()
	if err != nil {
		return err
	}
	a, header, err := c.send(ctx, http.MethodPost, c.authURL+"/auth/tokens", http.Header{}, request)
	if err != nil {
		return fmt.Errorf("keystone: %w", err)
	}
	if a.Status != http.StatusCreated {
		return fmt.Errorf("keystone: the log in of user %s was answered %d", c.credentials, a.Status)
	}
	var b struct {
		Token struct {
			Expires time.Time `json:"expires_at"`
			Catalog []struct {
				Type      string `json:"type"`
				Endpoints []struct {
					Interface string `json:"interface"`
					Region    string `json:"region"`
					RegionID  string `json:"region_id"`
					URL       string `json:"url"`
				} `json:"endpoints"`
			} `json:"catalog"`
		} `json:"token"`
	}
	if err := json.Unmarshal(a.Body, &b); err != nil {
		return fmt.Errorf("keystone: the answer to the log in: %w", err)
	}
	at := c.override
	for _, wanted := range c.interfaces {
		for _, s := range b.Token.Catalog {
			for _, e := range s.Endpoints {
				region := c.region == "" || e.Region == c.region || e.RegionID == c.region
				if at == "" && s.Type == c.serviceType && e.Interface == wanted && region {
					at = strings.TrimRight(e.URL, "/")
				}
			}
		}
	}
	if at == "" {
		return fmt.Errorf("the catalog has no %s endpoint of the service %s", strings.Join(c.interfaces, " or "), c.serviceType)
	}
	c.token, c.endpoint = header.Get("X-Subject-Token"), at
	// A minute before its end, so that it lasts for the request.
	c.until = b.Token.Expires.Add(-time.Minute)
	if c.token == "" {
		return errors.New("keystone: the answer to the log in has no token")
	}
	return nil
}
