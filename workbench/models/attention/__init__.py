"""Attention methods of the papers, one file each, and the dense attention that they are compared with."""
