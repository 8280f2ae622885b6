"""Two graphs whose degrees follow a power law, drawn by R-MAT."""

from widgets.controls.knob import Knob
from workbench.data.product_pairs import rmat_pair
from workbench.explorers.spgemm.knobs import EDGE_FACTOR, SCALE, SEED
from workbench.explorers.spgemm.source import Source, small_values

KNOBS = (
    SCALE,
    EDGE_FACTOR,
    Knob("a", "R-MAT a", 0.47, 0.0, 1.0, 0.005, help="Chance of the top left quadrant; d is what a, b and c leave."),
    Knob("b", "R-MAT b", 0.115, 0.0, 1.0, 0.005, help="Chance of the top right quadrant."),
    Knob("c", "R-MAT c", 0.115, 0.0, 1.0, 0.005, help="Chance of the bottom left quadrant."),
    Knob("permute", "Relabel vertices", True, help="Random labels; without them heavy rows and columns come first."),
    SEED,
)


def _refuse(settings):
    chances = settings["a"] + settings["b"] + settings["c"]
    if chances > 1 + 1e-9:
        return f"R-MAT a + b + c is {chances:.3g}, the limit is 1: lower one of them."
    return None


SOURCE = Source(
    key="rmat",
    title="R-MAT pair (power law)",
    make=lambda settings: small_values(*rmat_pair(**settings)),
    knobs=KNOBS,
    remark=lambda settings: (
        f"{'relabelled at random' if settings['permute'] else 'labels as generated'}, values drawn from 1 to 9"
    ),
    refuse=_refuse,
)
