"""Knobs that several methods of factorisation read."""

from widgets.controls.knob import Knob

SHARE = Knob(
    "share", "Share of the values that go", 0.5, 0.05, 0.95, 0.01,
    help="How many values the factors hold fewer than the matrix; indices come on top.",
)  # fmt: skip
SEED = Knob("seed", "Seed", 0, 0, 999, help="Of the random numbers that the method draws.")
SWEEPS = Knob("sweeps", "Sweeps", 3, 0, 20, help="Of K-SVD; each fits every atom to what uses it, one after the other.")
