package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"isospin/internal/config"
	"isospin/internal/fault"
	"isospin/internal/identity/keystone"
	"isospin/internal/notify/nova"
	"isospin/internal/server"
)

// makeCertificate is how certificates of the feed are made.
const makeCertificate = "make it with certificates.sh (see certificates in the guide to installing)"

// Server returns the checks of the machine that a server runs on, or is to run on.
func Server(c *config.Config) []Check {
	checks := []Check{
		{"database", func(ctx context.Context) []Finding { return database(ctx, c) }},
		{"callers", func(ctx context.Context) []Finding { return callers(ctx, c) }},
		{"api", func(ctx context.Context) []Finding { return api(ctx, c) }},
	}
	if config.UseSSL.Of(c) {
		checks = append(checks, Certificates("api", time.Now(), Certificate{
			Option: "[ssl] cert_file, key_file", File: config.SSLCertFile.Of(c), Key: config.SSLKeyFile.Of(c), Cure: "get one from the authority of your cloud",
		}))
	}
	listen := config.FeedListen.Of(c)
	if strings.HasPrefix(listen, "https:") {
		checks = append(checks, Certificates("feed", time.Now(), Certificate{
			Option: "[isospin] feed_cert_file, feed_key_file, feed_ca_file", File: config.FeedCertFile.Of(c), Key: config.FeedKeyFile.Of(c),
			Authority: config.FeedCAFile.Of(c), Usage: x509.ExtKeyUsageServerAuth, Cure: makeCertificate,
		}))
	} else {
		checks = append(checks, Check{"feed", func(context.Context) []Finding {
			return note("for agents on other machines set [isospin] feed_listen = https://0.0.0.0:9697 and its certificates", "[isospin] feed_listen = %s: agents of this machine only", listen)
		}})
	}
	return append(checks,
		Check{"nova", func(context.Context) []Finding { return notified(c) }},
		Directory("state", config.StatePath.Of(c), "make it, and give it to the user of the server ([DEFAULT] state_path)"),
		Clock(),
		Rivals("stop and disable it: it serves the same port, from another database", "neutron-server", "neutron-api", "neutron-rpc-server", "neutron-periodic-workers"),
	)
}

func database(ctx context.Context, c *config.Config) []Finding {
	connection := config.DatabaseConnection.Of(c)
	if path, ok := strings.CutPrefix(connection, "sqlite:///"); ok && path != "" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			// Opening it would make it, for the wrong user perhaps.
			return append(note("start the server, which makes it", "there is no %s yet", path),
				Directory("", filepath.Dir(path), "make it, and give it to the user of the server").Look(ctx)...)
		}
	}
	const away = "see that the database runs, and that [database] connection has its host, name, user and password"
	begin := time.Now()
	s, err := server.OpenStore(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return bad(away, "%v", err)
	}
	defer s.Close()
	schemas, err := server.Schemas()
	if err != nil {
		return bad("", "%v", err)
	}
	versions, err := s.Versions(ctx, schemas...)
	if err != nil {
		return bad(away, "%v", err)
	}
	took := time.Since(begin)
	var older, newer, fresh []string
	for _, v := range versions {
		name := fmt.Sprintf("%s %d", v.Module, v.Have)
		switch {
		case v.Want == 0:
		case v.Have == 0:
			fresh = append(fresh, name)
		case v.Have < v.Want:
			older = append(older, name)
		case v.Have > v.Want:
			newer = append(newer, name)
		}
	}
	kind, _, _ := strings.Cut(connection, ":")
	findings := well("%s answers in %v", kind, took.Round(time.Millisecond))
	switch {
	case len(newer) > 0:
		return append(findings, bad("run the newer release", "tables of a newer release: %s", strings.Join(newer, ", "))...)
	case len(older)+len(fresh) > 0:
		return append(findings, note("start the server, or run isospin db upgrade; see the guide to upgrading", "tables that are older than this program: %d; that are not there yet: %d", len(older), len(fresh))...)
	}
	return append(findings, well("the tables fit this program")...)
}

// callers asks Keystone about a token that cannot be.
func callers(ctx context.Context, c *config.Config) []Finding {
	if config.AuthStrategy.Of(c) == "noauth" {
		if ip := net.ParseIP(config.BindHost.Of(c)); ip == nil || !ip.IsLoopback() {
			return bad("set auth_strategy = keystone", "[DEFAULT] auth_strategy = noauth: whoever reaches %s is an administrator", config.BindHost.Of(c))
		}
		return note("set auth_strategy = keystone for more than tests", "[DEFAULT] auth_strategy = noauth: whoever is on this machine is an administrator")
	}
	a, uri, err := keystone.FromConfig(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return bad("see [keystone_authtoken]", "%v", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/v2.0", nil)
	if err != nil {
		return bad("", "%v", err)
	}
	r.Header.Set("X-Auth-Token", "isospin-doctor-asks-about-no-token")
	begin := time.Now()
	_, err = a.Authenticate(r)
	if f := fault.As(err); f == nil || f.Kind != fault.Unauthenticated {
		if f != nil && f.Cause != nil {
			err = f.Cause
		}
		return bad("see [keystone_authtoken]: auth_url, username, password, project_name and domains; the user needs the role service or admin", "Keystone: %v", err)
	}
	findings := well("Keystone validates tokens, in %v", time.Since(begin).Round(time.Millisecond))
	return append(findings, clocks(ctx, uri)...)
}

// maxSkew is how far two clocks may be apart.
const maxSkew = 10 * time.Second

// clocks compares this machine's with that of a web server.
func clocks(ctx context.Context, uri string) []Finding {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, uri, nil)
	if err != nil {
		return nil
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil // reached by another way above
	}
	answer.Body.Close()
	there, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return nil
	}
	if skew := time.Until(there).Abs(); skew > maxSkew {
		return bad("keep both machines' clocks right, with chrony or systemd-timesyncd", "the clocks of this machine and Keystone's are %v apart", skew.Round(time.Second))
	}
	return nil
}

// api looks whether the API answers where it is to be.
func api(ctx context.Context, c *config.Config) []Finding {
	host := config.BindHost.Of(c)
	switch host {
	case "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	address := net.JoinHostPort(host, strconv.Itoa(config.BindPort.Of(c)))
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return note("systemctl start isospin-server", "no server answers at %s now", address)
	}
	conn.Close()
	if config.UseSSL.Of(c) {
		return well("somebody answers at %s", address)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Scheme: "http", Host: address, Path: "/healthcheck"}).String(), nil)
	if err != nil {
		return bad("", "%v", err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return bad("see who listens there: ss -ltnp", "%s: %v", address, err)
	}
	answer.Body.Close()
	switch {
	case answer.Header.Get("X-Openstack-Request-Id") == "":
		return bad("see who listens there: ss -ltnp", "what answers at %s is no server of networks", address)
	case answer.StatusCode != http.StatusOK:
		return bad("see its log: journalctl -u isospin-server", "the server at %s is not healthy: %s", address, answer.Status)
	}
	return well("the server at %s is healthy", address)
}

func notified(c *config.Config) []Finding {
	if !nova.Configured(c) {
		return note("set [nova] auth_url and credentials as for Neutron; without it instances wait for vif_plugging_timeout", "Nova is not told of ports that are ready")
	}
	return well("Nova is told of ports that are ready")
}

// Settings are what doctors configure otherwise than servers: a database that is away is told of at once.
func Settings() []string { return []string{"OS_DATABASE__MAX_RETRIES=0"} }
