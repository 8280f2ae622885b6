"""Every method's best recorded point within a budget of bytes: as data, and as tables of a page."""

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets

from kernels.check import as_number
from widgets.figures.fact_table import fact_table, short_number
from widgets.figures.pruning import TradeoffPoint, at_budget
from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.measured import BUDGETS, MODELS
from workbench.explorers.pruning.recorded import points, recorded_rows
from workbench.explorers.pruning.source import source
from workbench.paper import Row

__all__ = ["BestPoint", "budget_table", "budget_tables"]

SHOWN = (0.5625, 0.35, 0.25)  # of `BUDGETS`


@dataclass(frozen=True, kw_only=True)
class BestPoint:
    """The best that a method makes of a model within a budget.

    Parameters
    ----------
    budget : share of the bytes of the dense matrices that it may take.
    method, level : title of the method, and how far it prunes.
    share : of the bytes of the dense matrices that it takes, at most the budget.
    quality : by the first axis of the model, such as a cosine.
    times_ms : tokens -> milliseconds of one pass through all layers; without those that no record holds.
    """

    budget: float
    method: str
    level: str
    share: float
    quality: float
    times_ms: dict[int, float]


def budget_table(of: str, budgets: Sequence[float] = BUDGETS, *, rows: Sequence[Row] | None = None) -> list[BestPoint]:
    """Return for each budget and method the best recorded point that was pruned without training.

    Parameters
    ----------
    of : key of the model, such as "minilm".
    budgets : shares of the bytes of the dense matrices, each in (0, 1].
    rows : what `recorded_rows` returned; None reads the records.

    Returns
    -------
    For each budget the methods that have a point within it, the best one first.

    Raises
    ------
    KeyError : no such model. TypeError, ValueError : a budget out of range. LookupError : no record of this model.

    Examples
    --------
    ``[(each.method, each.share) for each in budget_table("minilm", [0.25])]``
    """
    chosen = source(of)
    budgets = [as_number(each, function="budget_table", name="each budget", above=0, high=1) for each in budgets]
    dense, others = _recorded(chosen, rows)
    stored, quality = frontier.COSTS[0], chosen.qualities[0]
    before = dense.cost[stored.key]
    return [
        BestPoint(
            budget=budget,
            method=best.method,
            level=best.level,
            share=best.cost[stored.key] / before,
            quality=best.quality[quality.key],
            times_ms=_times(best),
        )
        for budget in budgets
        for best in at_budget(others, quality, stored, budget * before)
    ]


def budget_tables(models: Sequence[str] = MODELS["full"], budgets: Sequence[float] = SHOWN) -> ipywidgets.HTML:
    """Return the tables of some models at some budgets, each under a line that opens it, the first one open.

    Parameters
    ----------
    models, budgets : as for `budget_table`, several models.
    """
    rows, parts = recorded_rows(), []
    for of in map(source, models):
        dense, _ = _recorded(of, rows)
        found = budget_table(of.key, budgets, rows=rows)
        clocks = [axis.label for axis in frontier.COSTS if axis.kind == "measured"]
        columns = ("method", "level", "share of the bytes (counted)", f"{of.qualities[0].label} (measured)",
                   *(f"{label} [ms] (measured)" for label in clocks))  # fmt: skip
        whole = ("before pruning", dense.level, "1", *_cells(dense.quality[of.qualities[0].key], _times(dense)))
        for budget in budgets:
            best = [each for each in found if each.budget == budget]
            lines = [(p.method, p.level, f"{p.share:.4f}", *_cells(p.quality, p.times_ms)) for p in best]
            told = f"{of.title}, at most {budget:g} of the bytes: {len(best)} methods"
            table = fact_table(f"The best point of each method within {budget:g}", columns, [*lines, whole])
            parts.append(
                f"<details class='wb' style='white-space:normal'{'' if parts else ' open'}><summary>{told}</summary>"
                f"{table}</details>"
            )
    return ipywidgets.HTML("".join(parts))


def _recorded(of, rows) -> tuple[TradeoffPoint, list[TradeoffPoint]]:
    """Return the dense model and the points that were pruned without training."""
    found = points(recorded_rows() if rows is None else rows, of)
    dense = [point for point in found if point.key == frontier.DENSE]
    if not dense:
        raise LookupError(f"budget_table: no record holds {of.key}; workbench run sparse_cpu_inference --publish")
    return dense[0], [point for point in found if point.key != frontier.DENSE and point.stage == "one-shot"]


def _times(point) -> dict[int, float]:
    clocks = {tokens: f"time_{tokens}" for tokens in frontier.TOKENS}
    return {tokens: point.cost[key] for tokens, key in clocks.items() if key in point.cost}


def _cells(quality, times_ms):
    return short_number(quality), *(
        short_number(times_ms[tokens]) if tokens in times_ms else "not taken" for tokens in frontier.TOKENS
    )
