"""Shen et al. 2023: sparse int8 inference on CPUs with weights in constant blocks of 4 outputs by 1 input."""
