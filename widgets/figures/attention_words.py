"""Attention masks in words: alternative texts for those who do not see the pictures, and the table of facts."""

import numpy as np

from widgets.figures.fact_table import fact_table


def panel_words(shown, result, array, cell, scene=None):
    """Return what one picture shows, and of which queries and keys where their ``scene`` is given."""
    rows, columns = array.shape
    grain = "" if cell == 1 else f", one cell is {cell} tokens"
    share = f"; {array.mean():.1%} of the cells are set" if array.dtype == np.bool_ else ""
    of = f" Queries and keys: {scene.source}, {scene.t:,} tokens ({scene.kind})." if scene else ""
    return f"{shown.label} of {result.method}, {rows:,} x {columns:,}{grain}{share}.{of}"


def cost_rows(result, kind):
    """Return the cost of one method as (quantity, number, text): the same rows for every method, in one order.

    Parameters
    ----------
    result : an `AttentionTrace`.
    kind : how attention comes about, "counted" or "measured"; what a mask keeps comes about as the attention does.

    Returns
    -------
    list of rows; a method without reach of its own or without summaries has the text "" there.
    """
    cost = result.cost
    kept, dense, block = cost.kept, cost.dense, cost.block_size
    covered, reach = result.coverage, reached_pairs(result)
    return [
        (f"attention covered: share of the true attention on the pairs kept ({kind})", covered,
         "unknown" if covered != covered else f"{covered:.4f}"),
        (f"reach: pairs that some chain of steps connects ({kind})", reach,
         "" if reach is None else _of(reach, dense.pairs)),
        (f"pairs kept ({kind})", kept.pairs, _of(kept.pairs, dense.pairs)),
        (f"blocks that hold a pair kept ({kind})", kept.blocks,
         f"{_of(kept.blocks, dense.blocks)}; {block} x {block} tokens each"),
        ("scores with keys that stand for several, in the multiply-adds (counted)", cost.summaries,
         f"{cost.summaries:,}" if cost.summaries else ""),
        ("multiply-adds of the attention (counted)", kept.multiply_adds,
         _of(kept.multiply_adds, dense.multiply_adds)),
        ("multiply-adds before the attention, to choose, sort or summarise (counted)", cost.before, f"{cost.before:,}"),
        ("bytes moved by the attention (counted)", kept.bytes, _of(kept.bytes, dense.bytes)),
    ]  # fmt: skip


def number_rows(scene):
    """Return (what, item, value) of all that is a number: costs, facts, and the curves of coverage over density."""
    rows = []
    for result in filter(None, (scene.result, scene.other)):
        known = [(label, number) for label, number, text in cost_rows(result, scene.kind) if text and number == number]
        rows += [(result.method, label, number) for label, number in known]
    rows += scene.numbers
    for curve in scene.curves:
        for setting, density, coverage in zip(curve.settings, curve.density, curve.coverage, strict=True):
            rows.append((curve.label, f"coverage at {setting}", float(coverage)))
            rows.append((curve.label, f"density at {setting}", float(density)))
    return rows


def reached_pairs(result):
    """Count the pairs that some chain of steps connects, None where they are the pairs kept."""
    if result.reached is None:
        return None
    return int(np.count_nonzero(np.tril(result.reached) if result.causal else result.reached))


def _of(part, whole):
    return f"{part:,} of {whole:,} in dense attention ({part / whole if whole else 0:.1%})"


def facts_html(scene):
    """Return the facts of one or two methods side by side, as an HTML table; the rows of `cost_rows` come first."""
    results = [r for r in (scene.result, scene.other) if r is not None]
    costs = [cost_rows(r, scene.kind) for r in results]
    rows = [(same[0][0], *(text for _, _, text in same)) for same in zip(*costs, strict=True)]
    labels = dict.fromkeys(label for r in results for label in r.facts)
    rows = [row for row in rows if any(row[1:])]
    rows += [(label, *(r.facts.get(label, "") for r in results)) for label in labels]
    return fact_table(f"{scene.source}, {scene.t:,} tokens", ("quantity", *(r.method for r in results)), rows)


def kept_words(result):
    """Return in a few words what a method keeps of the pairs and of the attention."""
    dense, reach = result.cost.dense.pairs, reached_pairs(result)
    if result.cost.kept.pairs:
        covered = f", which hold {result.coverage:.1%} of the attention" if result.coverage == result.coverage else ""
        return f"{result.method} keeps {result.density:.1%} of the pairs of dense attention{covered}"
    connected = f"; chains of steps connect {reach / dense:.1%} of them" if reach is not None and dense else ""
    return f"{result.method} keeps none of the pairs of dense attention{connected}"


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
