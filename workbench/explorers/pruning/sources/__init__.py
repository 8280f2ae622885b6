"""One file for each model that the pruning explorer prunes."""
