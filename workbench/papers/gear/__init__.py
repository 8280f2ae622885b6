"""GEAR: a compressed cache of keys and values whose quantisation error is repaired by low rank and outliers."""
