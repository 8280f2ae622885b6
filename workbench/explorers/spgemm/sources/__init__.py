"""One file per pair of operands; adding a file adds a choice."""
