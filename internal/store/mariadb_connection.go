package store

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

var mariadbParameters = []string{"charset", "connect_timeout", "read_timeout", "ssl_ca", "ssl_cert", "ssl_check_hostname", "ssl_disabled", "ssl_key",
	"ssl_verify_cert", "ssl_verify_identity", "unix_socket", "use_unicode", "write_timeout"}

// mariadbConfig turns [database] connection, with the parameters of PyMySQL, into the driver's.
func mariadbConfig(connection string) (*mysql.Config, error) {
	u, err := parseURL(connection)
	if err != nil {
		return nil, err
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = u.user, u.password, u.name
	c.Net = "tcp"
	host, port := u.host, u.port
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = "3306"
	}
	c.Addr = net.JoinHostPort(host, port)
	c.Timeout, c.ReadTimeout, c.WriteTimeout = 5*time.Second, statementLimit, statementLimit
	c.ClientFoundRows = true
	// Statements of one round trip are one text, with their arguments quoted by the driver.
	c.MultiStatements, c.InterpolateParams = true, true
	c.Collation = "utf8mb4_nopad_bin"
	c.Logger = quietLogger{}
	c.Params = map[string]string{
		"autocommit": "0", "tx_isolation": "'REPEATABLE-READ'", "innodb_lock_wait_timeout": "30", "time_zone": "'+00:00'",
		// A program that has vanished must not hold what others wait for.
		"idle_write_transaction_timeout": strconv.Itoa(abandoned / 1000),
		"sql_mode":                       "'STRICT_ALL_TABLES,ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION'",
	}
	var ca, certificate, key string
	secure, verify, name, disabled := false, true, true, false
	for parameter, values := range u.parameters {
		value := values[len(values)-1]
		wrong := func(wanted string) error {
			return fmt.Errorf("[database] connection: %s is %s, not %q", parameter, wanted, value)
		}
		seconds := func(into *time.Duration) error {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || n < 0 || n > 1e6 {
				return wrong("a number of seconds")
			}
			*into = time.Duration(n * float64(time.Second))
			return nil
		}
		truth := func(into *bool) error {
			switch strings.ToLower(value) {
			case "1", "true", "yes", "on":
				*into = true
			case "0", "false", "no", "off":
				*into = false
			default:
				return wrong("true or false")
			}
			return nil
		}
		var err error
		switch parameter {
		case "charset":
			if !strings.HasPrefix(strings.ToLower(value), "utf8") {
				err = wrong("utf8mb4")
			}
		case "use_unicode": // always
		case "unix_socket":
			c.Net, c.Addr = "unix", value
		case "connect_timeout":
			err = seconds(&c.Timeout)
		case "read_timeout":
			err = seconds(&c.ReadTimeout)
		case "write_timeout":
			err = seconds(&c.WriteTimeout)
		case "ssl_ca":
			ca, secure = value, true
		case "ssl_cert":
			certificate, secure = value, true
		case "ssl_key":
			key, secure = value, true
		case "ssl_check_hostname", "ssl_verify_identity":
			secure, err = true, truth(&name)
		case "ssl_verify_cert":
			secure, err = true, truth(&verify)
		case "ssl_disabled":
			err = truth(&disabled)
		default:
			err = unknownParameter("mysql", parameter, mariadbParameters)
		}
		if err != nil {
			return nil, err
		}
	}
	if secure && !disabled {
		if c.TLS, err = mariadbTLS(host, ca, certificate, key, verify, name); err != nil {
			return nil, fmt.Errorf("[database] connection: %w", err)
		}
	}
	return c, nil
}

func mariadbTLS(host, ca, certificate, key string, verify, name bool) (*tls.Config, error) {
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("ssl_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ssl_ca: %s has no certificate", ca)
		}
	}
	if certificate != "" || key != "" {
		if key == "" {
			key = certificate
		}
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("ssl_cert, ssl_key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	if !verify || !name {
		t.InsecureSkipVerify = true // the name is not to be compared; the chain is, below
	}
	if verify && !name {
		t.VerifyConnection = func(state tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: t.RootCAs, Intermediates: x509.NewCertPool()}
			for _, c := range state.PeerCertificates[1:] {
				o.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(o)
			return err
		}
	}
	return t, nil
}
