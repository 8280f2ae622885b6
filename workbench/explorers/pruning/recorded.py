"""Points as rows of records, and the points that published records hold: all in `EXPERIMENTS` of every paper.

What differs from layer to layer stands in the row of its mean, one label for each layer: a row for every layer would
make most of a record.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from widgets.figures.pruning import Axis, LayerLoss, TradeoffPoint
from workbench import record
from workbench.explorers.pruning.frontier import COSTS, DENSE, OUTPUT_ERROR
from workbench.explorers.pruning.source import PruningSource
from workbench.paper import Row, row

__all__ = ["EXPERIMENTS", "points", "recorded_rows", "rows_of_point", "rows_of_times"]

EXPERIMENTS = ("tradeoffs", "tradeoffs_embedded", "tradeoffs_recovered", "tradeoff_times")
PART, DENSITY, LAYER = "bytes, as ", "density of the layers", record.WITHIN
DIGITS = 4  # of a layer's density


def rows_of_point(point: TradeoffPoint, of: PruningSource) -> list[Row]:
    """Return the rows of a record that hold a point: qualities, errors and densities of layers, what was counted."""
    labels = _labels(point, of)
    short = {key: labels[key] for key in ("model", "point", "stage")}  # there are many such rows
    axes = {axis.key: axis for axis in (*of.qualities, OUTPUT_ERROR, *COSTS)}
    errors = {LAYER + each.name: each.output_error for each in point.layers}
    about = {axis.key: labels for axis in of.qualities} | {OUTPUT_ERROR.key: short | errors}
    values = {**point.quality, **point.cost}
    rows = [
        row(axes[key].label, _whole(value), axes[key].unit, axes[key].kind, **about.get(key, short))
        for key, value in values.items()
    ]
    rows += [row(PART + kind, _whole(value), "bytes", "counted", **short) for kind, value in point.parts.items()]
    if any(each.density < 1 for each in point.layers):
        mean = round(fmean(each.density for each in point.layers), DIGITS)
        found = {LAYER + each.name: round(each.density, DIGITS) for each in point.layers}
        others = {name: density for name, density in found.items() if density != mean}
        rows.append(row(DENSITY, mean, "fraction", "counted", **short, **others))
    return rows


def rows_of_times(times, of: PruningSource, axis: Axis, titles) -> list[Row]:
    """Return the rows of measured times.

    Parameters
    ----------
    times : what `frontier.times` returned.
    axis : which of `COSTS`.
    titles : method key -> title.
    """
    rows = []
    for (key, level), timing in times.items():
        dense = key == DENSE
        point = TradeoffPoint(key=DENSE if dense else f"{key}@{level}", method=titles.get(key, key), level=level)
        rows.append(
            row(
                axis.label,
                1e3 * timing.median_s,
                "ms",
                "measured",
                **_labels(point, of),
                spread_ms=1e3 * timing.spread_s,
            )
        )
    return rows


def points(rows: Iterable[Row], of: PruningSource) -> list[TradeoffPoint]:
    """Return the points of a model that rows hold, the dense model (key `DENSE`) among them, in the rows' order.

    Rows about one point may come from several records; a time holds for every stage of its point.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    times: dict[str, list[Row]] = {}
    clocks = {axis.label for axis in COSTS if axis.kind == "measured"}
    for each in rows:
        if each.get("model") != of.key or "point" not in each:
            continue
        if each["quantity"] in clocks:
            times.setdefault(each["point"], []).append(each)
        else:
            found.setdefault((each["point"], each["stage"]), []).append(each)
    return [_point([*own, *times.get(key, ())], of) for (key, _), own in found.items()]


def recorded_rows() -> list[Row]:
    """Return the rows of all published records of trade-offs."""
    return [each for found in record.all_records(EXPERIMENTS) for each in found["rows"]]


def _labels(point, of):
    return {"model": of.key, "point": point.key, "method": point.method, "level": point.level, "stage": point.stage}


def _point(rows: Sequence[Row], of: PruningSource) -> TradeoffPoint:
    first = rows[0]  # of a quality, which names method and level
    numbers = {r["quantity"]: float(r["value"]) for r in rows}
    errors, densities = ({name.removeprefix(LAYER): x for r in rows if r["quantity"] == quantity
                          for name, x in r.items() if name.startswith(LAYER)}
                         for quantity in (OUTPUT_ERROR.label, DENSITY))  # fmt: skip

    def known(axes):
        return {axis.key: numbers[axis.label] for axis in axes if axis.label in numbers}

    return TradeoffPoint(
        key=first["point"],
        method=first["method"],
        level=first["level"],
        stage=first["stage"],
        quality=known((*of.qualities, OUTPUT_ERROR)),
        cost=known(COSTS),
        parts={name.removeprefix(PART): value for name, value in numbers.items() if name.startswith(PART)},
        layers=tuple(
            LayerLoss(name=name, density=densities.get(name, numbers.get(DENSITY, 1.0)), output_error=error)
            for name, error in errors.items()
        ),
    )


def _whole(value):
    """Return a whole number as such: records keep all of its digits, so that no share of bytes is off."""
    return int(value) if float(value).is_integer() and abs(value) > 1 else value
