"""Sparse matrix products."""
