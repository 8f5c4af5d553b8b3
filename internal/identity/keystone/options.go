package keystone

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"isospin/internal/config"
)

const section = "keystone_authtoken"

// What the operator configures.
var (
	authURL = config.String(section, "auth_url", "",
		"URL of Keystone, with or without /v3.")
	wwwAuthenticateURI = config.String(section, "www_authenticate_uri", "",
		"Where callers without a valid token are told to get one. Empty is auth_url.", config.Deprecated(section, "auth_uri"))
	authType = config.String(section, "auth_type", "password",
		"How the server logs in at Keystone.", config.Choices("password", "v3password"), config.Deprecated(section, "auth_plugin"))
	username = config.String(section, "username", "",
		"User that the server validates tokens as.", config.Deprecated(section, "user_name"))
	userID         = config.String(section, "user_id", "", "As username, by its id.")
	password       = config.String(section, "password", "", "The user's password.", config.Secret())
	userDomainName = config.String(section, "user_domain_name", "",
		"Domain of the user; without it, the domain with the id default.")
	userDomainID = config.String(section, "user_domain_id", "", "As user_domain_name, by its id.")
	projectName  = config.String(section, "project_name", "",
		"Project in which the user has a role that may validate tokens.", config.Deprecated(section, "tenant_name"))
	projectID = config.String(section, "project_id", "", "As project_name, by its id.",
		config.Deprecated(section, "tenant_id"))
	projectDomainName = config.String(section, "project_domain_name", "",
		"Domain of the project; without it, the domain with the id default.")
	projectDomainID = config.String(section, "project_domain_id", "", "As project_domain_name, by its id.")
	systemScope     = config.String(section, "system_scope", "",
		"\"all\": the user has its role in the system, not in a project.", config.Choices("", "all"))
	caFile = config.String(section, "cafile", "",
		"PEM file of the authorities that Keystone's certificate must be signed by. Empty: those of the machine.")
	insecure = config.Bool(section, "insecure", false,
		"Do not check Keystone's certificate.")
	tokenCacheTime = config.Int(section, "token_cache_time", 300,
		"Seconds for which a validated token is trusted without asking again, and so for which a revoked one may still work; -1 is none.", config.Min(-1), config.Max(86400))
	serviceTokenRoles = config.Strings(section, "service_token_roles", []string{"service"},
		"Roles of which a service token needs one.")
	serviceTokenRolesRequired = config.Bool(section, "service_token_roles_required", false,
		"Refuse service tokens without one of service_token_roles.")
	endpointInterface = config.String(section, "interface", "internal",
		"Which of Keystone's endpoints in the catalog is asked.", config.Choices("internal", "public", "admin"))
	regionName = config.String(section, "region_name", "",
		"Region of the endpoint that is asked; empty is any.")
	certFile = config.String(section, "certfile", "",
		"PEM file of the certificate that the server shows Keystone.")
	keyFile = config.String(section, "keyfile", "",
		"PEM file of the key of certfile.")
	connectTimeout = config.Int(section, "http_connect_timeout", 10,
		"Seconds after which a request to Keystone has failed.", config.Min(1), config.Max(600))
	timeout = config.Int(section, "timeout", 0,
		"Another name of http_connect_timeout.", config.Unset("http_connect_timeout counts"), config.Min(1), config.Max(600))
	retries = config.Int(section, "http_request_max_retries", 3,
		"How often a request to Keystone that failed is repeated.", config.Min(0), config.Max(20))
)

func init() {
	const inside = "validated tokens are kept in the server's own memory, under their hash"
	for _, name := range []string{
		"memcached_servers", "memcache_security_strategy", "memcache_secret_key", "memcache_pool_dead_retry", "memcache_pool_maxsize",
		"memcache_pool_socket_timeout", "memcache_pool_unused_timeout", "memcache_pool_conn_get_timeout", "memcache_use_advanced_pool",
		"memcache_tls_enabled", "memcache_tls_cafile", "memcache_tls_certfile", "memcache_tls_keyfile", "memcache_tls_allowed_ciphers",
		"memcache_sasl_enabled", "memcache_username", "memcache_password", "cache",
	} {
		config.NoEffect(section, name, inside)
	}
	config.NoEffect(section, "auth_version", "the Identity API is always v3")
	config.NoEffect(section, "delay_auth_decision", "a request without a valid token is always refused")
	config.NoEffect(section, "include_service_catalog", "nothing needs the catalog of a caller")
}

// FromConfig makes the authenticator that [keystone_authtoken] describes. uri
// is where callers are told to get a token. Errors name the option to mend.
func FromConfig(c *config.Config, log *slog.Logger) (a *Authenticator, uri string, err error) {
	var wrong []error
	missing := func(name, why string) {
		wrong = append(wrong, fmt.Errorf("[%s] %s is not set: %s", section, name, why))
	}
	at := authURL.Of(c)
	if at == "" {
		missing("auth_url", "with auth_strategy = keystone, the server must know where Keystone is")
	} else if u, err := url.Parse(at); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		wrong = append(wrong, fmt.Errorf("[%s] auth_url: it must be http://host:port or https://host:port, with a path or without", section))
	}
	patience := connectTimeout.Of(c)
	if timeout.IsSet(c) {
		patience = timeout.Of(c)
	}
	o := Options{
		AuthURL: at, Logger: log, Interface: endpointInterface.Of(c), Region: regionName.Of(c),
		ServiceTokenRoles: serviceTokenRoles.Of(c), ServiceTokenRolesRequired: serviceTokenRolesRequired.Of(c),
		CacheTime: time.Duration(max(tokenCacheTime.Of(c), 0)) * time.Second,
		Timeout:   time.Duration(patience) * time.Second, Retries: retries.Of(c),
		Credentials: Credentials{
			Username: username.Of(c), UserID: userID.Of(c), UserDomainName: userDomainName.Of(c), UserDomainID: userDomainID.Of(c),
			Password: password.Of(c), ProjectName: projectName.Of(c), ProjectID: projectID.Of(c),
			ProjectDomainName: projectDomainName.Of(c), ProjectDomainID: projectDomainID.Of(c), System: systemScope.Of(c) != "",
		},
	}
	if o.Credentials.String() == "" {
		missing("username", "Keystone tells about tokens only who has a token itself")
	}
	if o.Credentials.Password == "" {
		missing("password", "Keystone tells about tokens only who has a token itself")
	}
	if o.Credentials.ProjectName == "" && o.Credentials.ProjectID == "" && !o.Credentials.System {
		missing("project_name", "the user's role is in a project, usually service")
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: 64, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second}
	if transport.TLSClientConfig, err = tlsConfig(c); err != nil {
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, "", err
	}
	if insecure.Of(c) {
		log.Warn("[keystone_authtoken] insecure: whoever can answer in Keystone's place can be anybody")
	}
	o.Client = &http.Client{Transport: transport}
	if uri = wwwAuthenticateURI.Of(c); uri == "" {
		uri = at
	}
	_ = authType.Of(c) // its choices are all the same
	return New(o), uri, nil
}

func tlsConfig(c *config.Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure.Of(c)} //nolint:gosec // the operator's word
	if file := caFile.Of(c); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("[%s] cafile: %w", section, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[%s] cafile: there is no certificate in %s", section, file)
		}
	}
	if file := certFile.Of(c); file != "" {
		pair, err := tls.LoadX509KeyPair(file, keyFile.Of(c))
		if err != nil {
			return nil, fmt.Errorf("[%s] certfile, keyfile: %w", section, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
