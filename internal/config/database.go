package config

// The SQL store.
var (
	DatabaseConnection = String("database", "connection", "sqlite:///$state_path/isospin.sqlite",
		"URL of the database: sqlite:////absolute/path for the embedded one, postgresql://user:password@host/name (also postgresql+psycopg2://) for PostgreSQL 13 or newer, or mysql+pymysql://user:password@host/name (also mysql://) for MariaDB 10.6 or newer.",
		Secret(), Deprecated("DEFAULT", "sql_connection"), Deprecated("sql", "connection"))
	DatabasePoolSize = Int("database", "max_pool_size", 5,
		"Connections to a database server that are kept while nobody needs them.", Min(1), Max(1000))
	DatabaseOverflow = Int("database", "max_overflow", 50,
		"How many connections there may be beyond max_pool_size.", Min(0), Max(10000))
	DatabasePoolTimeout = Int("database", "pool_timeout", 30,
		"Seconds for which a request waits for a connection when all are in use; then it is answered with 503.", Min(1), Max(3600))
	DatabaseRecycle = Int("database", "connection_recycle_time", 3600,
		"Age in seconds at which a connection is replaced; -1 is never.", Min(-1))
	DatabaseRetries = Int("database", "max_retries", 10,
		"How often a program that starts tries again to reach the database server; -1 is without end.", Min(-1))
	DatabaseRetryInterval = Int("database", "retry_interval", 10,
		"Seconds between those tries.", Min(1), Max(3600))
	DatabaseRepeats = Int("database", "db_max_retries", 20,
		"How often a transaction is run again that lost against another one.", Min(1), Max(1000))
)
