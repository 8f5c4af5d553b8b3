package config

// The SQL store.
var (
	DatabaseConnection = String("database", "connection", "sqlite:///$state_path/isospin.sqlite",
		"URL of the database: sqlite:////absolute/path for the embedded one, or postgresql://user:password@host/name (postgresql+psycopg2:// is taken as the same).",
		Secret(), Deprecated("DEFAULT", "sql_connection"), Deprecated("sql", "connection"))
	DatabaseMaxPoolSize = Int("database", "max_pool_size", 5,
		"Connections that are kept open to the database.", Min(0), Deprecated("DEFAULT", "sql_max_pool_size"))
	DatabaseMaxOverflow = Int("database", "max_overflow", 50,
		"Connections beyond max_pool_size that are opened under load.", Min(0), Deprecated("DEFAULT", "sql_max_overflow"))
	DatabasePoolTimeout = Int("database", "pool_timeout", 30,
		"Seconds to wait for a free connection.", Min(0))
	DatabaseConnectionRecycleTime = Int("database", "connection_recycle_time", 3600,
		"Seconds after which a connection is replaced.", Min(-1))
	DatabaseMaxRetries = Int("database", "max_retries", 10,
		"Attempts to connect at start; -1 is for ever.", Min(-1))
	DatabaseRetryInterval = Int("database", "retry_interval", 10,
		"Seconds between these attempts.", Min(0))
)
