"""One file per source of queries, keys and values; adding a file adds a choice."""
