"""The cases that the experiments share: two nets, and the densities that they are pruned to."""

RESIDUAL, INVERTED = "residual", "inverted"
DENSITIES = {RESIDUAL: (0.1, 0.03), INVERTED: (0.25,)}
