"""Runs experiments and writes their records."""
