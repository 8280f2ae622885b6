"""One file for each method of pruning."""
