"""Whole numbers drawn at random, small enough to be read in a picture."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.explorers.weight_format.source import WeightKind

ROWS = Knob("rows", "Rows (outputs)", 16, 8, 512, 8, help="Up to 64 every place is drawn.")
COLUMNS = Knob("columns", "Columns (inputs)", 24, 8, 512, 8, help="Up to 64 every place is drawn.")
SEED = Knob("seed", "Seed", 1, 0, 999, 1, help="Draws other weights.")


def load(settings) -> np.ndarray:
    """Draw from -99 to 99, never 0."""
    rng, shape = np.random.default_rng(settings["seed"]), (settings["rows"], settings["columns"])
    return (rng.integers(1, 100, shape) * rng.choice((-1, 1), shape)).astype(np.float32)


SOURCE = WeightKind(
    key="random",
    title="Drawn at random",
    load=load,
    told=lambda settings: "weights drawn at random",
    knobs=(ROWS, COLUMNS, SEED),
)
