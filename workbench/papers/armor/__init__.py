"""ARMOR: weights as a 2:4 core between two block-diagonal matrices that a search finds together."""
