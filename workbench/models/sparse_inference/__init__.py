"""Sparse weights in linear layers: what pruning needs to know, pruning, recovery, and inference on sparse kernels."""
