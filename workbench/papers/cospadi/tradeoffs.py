"""The two truncated SVDs and CoSpaDi as points of the pruning explorer: quality and bytes at several ratios."""

from dataclasses import replace

from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.method import methods
from workbench.explorers.pruning.recorded import rows_of_point
from workbench.explorers.pruning.source import sources

METHODS = ("svd", "asvd", "cospadi")
MODELS = {"tiny": ("small_encoder",), "small": ("tiny_lm",), "full": ("minilm", "tiny_lm")}
EMBEDDED = dict.fromkeys(("tiny", "small", "full"), ("small_encoder",))
LEVELS = {"tiny": 1, "small": 2, "full": 3}  # of each method: 50, 30 and 40 per cent
ALL_LEVELS = {"tiny": 1, "small": 2}
TINY = ("svd",)


def tradeoffs(size, seed, report, keep, models=MODELS, levels=LEVELS):
    """Compress every model by every method at the paper's levels that the explorer offers, and judge it."""
    chosen = [
        (_shortened(sources()[model], size), methods()[key], level)
        for model in models[size]
        for key in (TINY if size == "tiny" else METHODS)
        for level in methods()[key].levels[: levels.get(size)]
    ]
    rows = []
    for i, (of, by, level) in enumerate(chosen):
        part = report.part(i, len(chosen), f"{of.title}, {by.title} {level}")

        def make(of=of, by=by, level=level, part=part):
            return rows_of_point(frontier.judged_point(of, by, level, part), of)

        rows += keep({"model": of.key, "method": by.key, "level": level}, make)
    return rows


def tradeoffs_embedded(size, seed, report, keep):
    """Do the same with the sentence encoder that ships with the workbench, at every level."""
    return tradeoffs(size, seed, report, keep, EMBEDDED, ALL_LEVELS)


def _shortened(of, size):
    """Return a source with less to read at size "tiny"."""
    if size != "tiny":
        return of
    few = [batch[:2] for batch in of.calibration()[:1]]
    texts = {"calibration": lambda: few, "evaluation": lambda: few}
    return replace(of, judge=lambda model: {axis.key: float(of.loss(model, few[0])) for axis in of.qualities}, **texts)
