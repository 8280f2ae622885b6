"""One file per method that the explorer offers; adding a file adds a choice."""
