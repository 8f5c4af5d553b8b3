package config

// The SQL store.
var (
	DatabaseConnection = String("database", "connection", "sqlite:///$state_path/isospin.sqlite",
		"URL of the database: sqlite:////absolute/path for the embedded one, or postgresql://user:password@host/name (postgresql+psycopg2:// is taken as the same).",
		Secret(), Deprecated("DEFAULT", "sql_connection"), Deprecated("sql", "connection"))
)
