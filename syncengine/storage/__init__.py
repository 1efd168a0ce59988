"""Where everything is kept: one SQLite file a replica, one writer, many readers."""
