"""ARMOR: a 2:4 core between two block-diagonal matrices, found round by round."""

import numpy as np
from scipy import linalg

from widgets.controls.knob import Knob
from widgets.figures.factorization import Factor, History
from widgets.views.frame.story import Story
from workbench.explorers.factorization.knobs import SEED
from workbench.explorers.factorization.method import Factorised, FactorMethod
from workbench.models.compression.armor import armor_factorize, sanitize_hessian_diag

SIDE = Knob(
    "armor_block", "Side of the wrappers' blocks", "16", choices=tuple((x, x) for x in ("4", "8", "16", "32", "64")),
    help="Larger blocks fit better and take more bytes.",
)  # fmt: skip
ROUNDS = Knob("armor_rounds", "Rounds", 100, 0, 1000, 10, help="Each takes a gradient step and chooses groups anew.")
SELECT = Knob(
    "armor_select", "Groups are chosen", "l1",
    choices=(("l1", "by chance, by their gradient"), ("greedy", "the largest gradient"),
             ("uniform", "by chance, all alike"), ("none", "not at all")),
)  # fmt: skip
WRAPPERS = Knob("armor_wrappers", "Wrappers move", True, help="Without them nothing moves: 2:4 pruning stays as it is.")


def factorise(weight, gram, settings, progress):
    """Search for wrappers and core."""
    rounds, side, select = settings["armor_rounds"], int(settings["armor_block"]), settings["armor_select"]
    h = sanitize_hessian_diag(np.diagonal(gram))

    def tell(step, loss):
        progress(step / max(rounds, 1), f"round {step}: relative loss {loss:.4f}")

    found = armor_factorize(
        np.ascontiguousarray(weight), h, side, iters=rounds, seed=settings["seed"],
        core_updates=0 if select == "none" else 1, select="l1" if select == "none" else select,
        wrappers=settings["armor_wrappers"], callback=tell,
    )  # fmt: skip
    core = found.core.to_dense()
    blocks = f"blocks of {side} x {side} on the diagonal"
    return Factorised(
        factors=(
            Factor(name="left wrapper A", values=linalg.block_diag(*found.left),
                   about=f"{blocks}, the rows' scale in it."),
            Factor(name="core S", values=core, axes=("row", "column"),
                   about="2 of every 4 neighbours in a row, which two is chosen by what they save."),
            Factor(name="right wrapper B", values=linalg.block_diag(*found.right),
                   about=f"{blocks}, the columns' scale in it."),
        ),
        rebuilt=found.to_dense(),
        bits=found.bits(),
        multiply_adds=found.left.size + found.right.size + found.core.values.size,
        history=History(
            label="relative proxy loss", unit="round", errors=found.history,
            lines={"NoWag-P, 2:4 pruning": float(found.history[0])},
        ),
    )  # fmt: skip


METHOD = FactorMethod(
    key="armor", title="2:4 between blocks (ARMOR)", knobs=(SIDE, ROUNDS, SELECT, WRAPPERS, SEED), factorise=factorise,
    source="Liu et al. 2025, arXiv 2510.05528", needs="gram",
    stories=(
        Story(
            "Nothing moves without wrappers",
            {"method": "armor", "armor_wrappers": False, "section": "error"},
            "The core alone is 2:4 pruning with the best values there are, so the curve is flat. Let the wrappers "
            "move: the same 2:4 budget fits the matrix better at once.",
        ),
        Story(
            "Do not always take the largest",
            {"method": "armor", "armor_select": "greedy", "armor_rounds": 200, "section": "error"},
            "Where the group with the largest gradient is always taken, the same groups are chosen again and again. "
            "Choose groups by chance instead, and compare where the curve ends.",
        ),
    ),
)  # fmt: skip
