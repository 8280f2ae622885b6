"""Torch components, one file per method."""
