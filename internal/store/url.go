package store

import (
	"fmt"
	"net/url"
	"strings"
)

// databaseURL is [database] connection of a server, taken apart as SQLAlchemy does.
type databaseURL struct {
	user, password, host, port, name string
	parameters                       url.Values
}

func parseURL(connection string) (*databaseURL, error) {
	// The text may have a password: errors must not repeat it.
	u, err := url.Parse(connection)
	if err != nil || u.Opaque != "" {
		return nil, fmt.Errorf("[database] connection: this is no URL of the form scheme://user:password@host:port/name?parameter=value; special characters of user and password are written as %%XX")
	}
	d := &databaseURL{host: u.Hostname(), port: u.Port(), name: strings.TrimPrefix(u.Path, "/")}
	if u.User != nil {
		d.user = u.User.Username()
		d.password, _ = u.User.Password()
	}
	if d.parameters, err = url.ParseQuery(u.RawQuery); err != nil {
		return nil, fmt.Errorf("[database] connection: what follows the question mark is not of the form parameter=value&…")
	}
	if d.name == "" {
		return nil, fmt.Errorf("[database] connection: the name of the database is missing after the host: scheme://user:password@host/name")
	}
	return d, nil
}

// unknownParameter refuses a parameter, naming those that are understood.
func unknownParameter(scheme, name string, known []string) error {
	return fmt.Errorf("[database] connection: %s:// has no parameter %q; understood are %s", scheme, name, strings.Join(known, ", "))
}
