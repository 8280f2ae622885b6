"""A figure with its controls and its state in traits, one class per view."""
