"""Knobs that several sources read: one object per key, so that their meaning and range are one."""

from widgets.controls.knob import Knob

SCALE = Knob("scale", "Scale (log2 rows)", 5, 4, 12, 1, help="The matrices have 2^scale rows.")
EDGE_FACTOR = Knob("edge_factor", "Edges per row", 3, 1, 32, 1, help="Entries drawn per row, on average.")
SEED = Knob(
    "seed", "Seed", 1, 0, 999, 1, help="Seed of the generator; where B is drawn as well, it takes the next one."
)
