"""One file for each kind of cache."""
