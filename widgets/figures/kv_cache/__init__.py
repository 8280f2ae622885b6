"""Figures and words of a compressed cache of keys and values."""
