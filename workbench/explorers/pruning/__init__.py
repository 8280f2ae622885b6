"""The pruning explorer: methods that make weights sparse, on one trade-off of quality, bytes, operations and time."""
