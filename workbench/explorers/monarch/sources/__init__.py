"""Matrices that the Monarch explorer projects: one file each."""
