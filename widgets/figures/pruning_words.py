"""Pruning in words: the table of a point's numbers, and alternative texts of the plots."""

import html

import numpy as np

from widgets.figures.fact_table import fact_table, short_number
from widgets.figures.pruning import LOSSES, at_budget, front_points, shown_points
from widgets.figures.pruning_layers import layer_grid

__all__ = [
    "budget_words", "bytes_words", "comparison_words", "layer_words", "number_rows", "point_html", "point_title",
    "tradeoff_words",
]  # fmt: skip


def point_title(point) -> str:
    """Return what a point is called in menus and texts."""
    return f"{point.method}, {point.level}" + (" (computed here)" if point.added else "")


def tradeoff_words(scene, quality, cost, stage) -> str:
    """Return what the plot of quality over cost shows."""
    points = shown_points(scene, quality, cost, stage)
    if not points:
        return f"No point has {quality.label} over {cost.label}."
    front = front_points(points, quality, cost)
    told = "; ".join(
        f"{point_title(point)}: {point.quality[quality.key]:.3g} at {short_number(point.cost[cost.key])}"
        for point in front[:6]
    )
    more = f", and {len(front) - 6} more" if len(front) > 6 else ""
    return (
        f"{quality.label} over {cost.label} of {len(points)} pruned models, {scene.model}. "
        f"On the Pareto front: {told}{more}."
    )


def budget_words(scene, quality, cost, stage, budget) -> str:
    """Return which method is best at the budget."""
    most = budget * scene.dense.cost.get(cost.key, float("nan"))
    found = at_budget(shown_points(scene, quality, cost, stage), quality, cost, most)
    told = "; ".join(f"{point_title(point)} {point.quality[quality.key]:.3g}" for point in found)
    return f"{quality.label} within {budget:.3g} of the cost before pruning: {told or 'no method reaches it'}."


def layer_words(point, loss) -> str:
    """Return which layers lose most."""
    if point is None or not point.layers:
        return "No point is chosen."
    known = [each for each in point.layers if np.isfinite(getattr(each, loss))]
    if not known:
        return f"{dict(LOSSES)[loss]} is not known for {point_title(point)}."
    rows, columns, _ = layer_grid([each.name for each in point.layers])
    worst = max(known, key=lambda each: getattr(each, loss))
    return (
        f"{dict(LOSSES)[loss]} of {len(known)} matrices in {len(rows)} layers and {len(columns)} roles, "
        f"{point_title(point)}; largest {getattr(worst, loss):.3g} in {worst.name}."
    )


def comparison_words(points, loss) -> str:
    """Return the mean and the worst layer of every point that is compared."""
    told = []
    for point in points:
        known = {each.name: getattr(each, loss) for each in point.layers if np.isfinite(getattr(each, loss))}
        if known:
            worst = max(known, key=lambda name: known[name])
            mean = np.mean(list(known.values()))
            told.append(f"{point_title(point)}: mean {mean:.3g}, largest {known[worst]:.3g} in {worst}")
    return f"{dict(LOSSES)[loss]}, layer by layer. " + ("; ".join(told) or "No point is compared") + "."


def bytes_words(scene, point) -> str:
    """Return the bytes of the chosen point beside those before."""
    before = sum(scene.dense.parts.values())
    if point is None:
        return f"The matrices take {before / 1e6:.3f} MB before pruning."
    parts = ", ".join(f"{kind} {n / 1e6:.3f} MB" for kind, n in point.parts.items())
    return f"{point_title(point)}: {parts}; before pruning {before / 1e6:.3f} MB."


def point_html(scene, point) -> str:
    """Return the numbers of a point beside those of the dense model, and the note of the scene."""
    chosen = point or scene.dense
    rows = []
    for axis, values in [(axis, "quality") for axis in scene.qualities] + [(axis, "cost") for axis in scene.costs]:
        numbers = [getattr(each, values).get(axis.key) for each in (chosen, scene.dense)]
        if any(number is not None for number in numbers):
            rows.append((axis.told, *("not taken" if number is None else short_number(number) for number in numbers)))
    note = f"<p class='wb wb-note'>{html.escape(scene.note)}</p>" if scene.note else ""
    name = point_title(point) if point else "no point chosen"
    return fact_table(f"{scene.model}", ("quantity", name, "before pruning"), rows) + note


def number_rows(scene, compared=()):
    """Return (method, level, stage, quantity, value) of every number of every point, and of the layers of some."""
    found = []
    for point in (scene.dense, *scene.points):
        words = (point.method, point.level, point.stage)
        found += [(*words, axis.told, float(point.quality[axis.key])) for axis in scene.qualities
                  if axis.key in point.quality]  # fmt: skip
        found += [(*words, axis.told, float(point.cost[axis.key])) for axis in scene.costs if axis.key in point.cost]
        found += [(*words, f"bytes of {kind} (counted)", float(n)) for kind, n in point.parts.items()]
    for point in compared:
        words = (point.method, point.level, point.stage)
        found += [(*words, f"{label}, {each.name}", getattr(each, loss)) for loss, label in LOSSES
                  for each in point.layers if np.isfinite(getattr(each, loss))]  # fmt: skip
    return found
