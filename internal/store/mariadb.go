package store

import (
	"context"
	"errors"
)

func openMariaDB(context.Context, Options, func()) (backend, error) {
	return nil, errors.New("[database] connection: MariaDB is not a database this release can use; use sqlite:////absolute/path or postgresql://user:password@host/name")
}
