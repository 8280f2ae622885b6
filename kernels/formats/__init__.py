"""Sparse formats that SciPy lacks, one file each: frozen, validated."""
