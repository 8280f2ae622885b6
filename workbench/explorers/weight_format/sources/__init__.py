"""One file for each kind of weight."""
