"""Sparse kernels: arrays in, arrays out. NumPy, SciPy and a C++ core; no torch, no widgets."""

from kernels._native import get_num_threads, isa, set_num_threads

__version__ = "2026.12.0"
__all__ = ["get_num_threads", "isa", "set_num_threads"]
