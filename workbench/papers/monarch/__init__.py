"""Monarch (Dao et al. 2022): two block-diagonal factors in place of a dense matrix."""
