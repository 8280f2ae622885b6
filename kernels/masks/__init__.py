"""Which entries stay."""
