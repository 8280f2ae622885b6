"""Attention masks in words: alternative texts for those who do not see the pictures, and the table of facts."""

import numpy as np

from widgets.figures.fact_table import fact_table


def panel_words(shown, result, array, cell):
    """Return what one picture shows."""
    rows, columns = array.shape
    grain = "" if cell == 1 else f", one cell is {cell} tokens"
    share = f"; {array.mean():.1%} of the cells are set" if array.dtype == np.bool_ else ""
    return f"{shown.label} of {result.method}, {rows:,} x {columns:,}{grain}{share}."


def facts_html(scene):
    """Return the facts of one or two methods side by side, as an HTML table."""
    results = [r for r in (scene.result, scene.other) if r is not None]
    labels = list(dict.fromkeys(label for r in results for label in r.facts))
    rows = [(f"attention covered ({scene.kind})", *(_share(r.coverage) for r in results))]
    rows += [(f"density ({scene.kind})", *(_share(r.density) for r in results))]
    rows += [(label, *(r.facts.get(label, "") for r in results)) for label in labels]
    return fact_table(f"{scene.source}, {scene.t:,} tokens", ("quantity", *(r.method for r in results)), rows)


def _share(value):
    return "unknown" if value != value else f"{value:.4f}"


def curves_words(scene):
    """Return where each curve of coverage ends."""
    if not scene.curves:
        return "The present settings as points of coverage over density."
    ends = [
        f"{c.label} reaches {c.coverage.max():.3f} at density {c.density[c.coverage.argmax()]:.3f}"
        for c in scene.curves
    ]
    return "Lines of coverage over density: " + "; ".join(ends) + "."


def scores_words(scores):
    """Return where the largest key score lies."""
    return f"Line of key scores; the largest, {scores.max():.4g}, is at key {int(scores.argmax())}."


def row_words(shown):
    """Return what one query of a sequence attends to."""
    top, mine = int(shown.true.argmax()), int(shown.computed.argmax())
    return (
        f"Query {shown.row}: true attention is largest at key {top} ({shown.true[top]:.3g}), {shown.method} gives most "
        f"to key {mine} ({shown.computed[mine]:.3g}); {int(shown.direct.sum()):,} keys are attended directly."
    )


def maps_words(shown):
    """Return how far one query of a picture reaches, pattern by pattern."""
    reach = "; ".join(
        f"{name} meets {shown.keys_met[name]:,} keys, {shown.reach[name]:.1%} of the pixels" for name in shown.maps
    )
    return f"Pixel {shown.row}: {reach}."
