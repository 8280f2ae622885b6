"""Points as rows of records, and the points that published records hold: all in `EXPERIMENTS` of every paper."""

from collections.abc import Iterable, Sequence

from widgets.figures.pruning import Axis, LayerLoss, TradeoffPoint
from workbench import record
from workbench.explorers.pruning.frontier import COSTS, DENSE, OUTPUT_ERROR
from workbench.explorers.pruning.source import PruningSource
from workbench.paper import Row, row

__all__ = ["EXPERIMENTS", "points", "recorded_rows", "rows_of_point", "rows_of_times"]

EXPERIMENTS = ("tradeoffs", "tradeoffs_embedded", "tradeoffs_recovered", "tradeoff_times")
PART, LOSS = "bytes, as ", "output error of a layer"


def rows_of_point(point: TradeoffPoint, of: PruningSource) -> list[Row]:
    """Return the rows of a record that hold a point: qualities, what was counted, and each layer's error."""
    labels = _labels(point, of)
    axes = {axis.key: axis for axis in (*of.qualities, OUTPUT_ERROR, *COSTS)}
    values = {**point.quality, **point.cost}
    rows = [row(axes[key].label, value, axes[key].unit, axes[key].kind, **labels) for key, value in values.items()]
    rows += [row(PART + kind, value, "bytes", "counted", **labels) for kind, value in point.parts.items()]
    short = {key: labels[key] for key in ("model", "point", "stage")}  # there are many such rows
    for each in point.layers:
        about = {"layer": each.name, "density": each.density}
        rows.append(row(LOSS, each.output_error, "relative", "measured", **short, **about))
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
    return [each for found in record.all_records() if found["experiment"] in EXPERIMENTS for each in found["rows"]]


def _labels(point, of):
    return {"model": of.key, "point": point.key, "method": point.method, "level": point.level, "stage": point.stage}


def _point(rows: Sequence[Row], of: PruningSource) -> TradeoffPoint:
    first = rows[0]
    numbers = {r["quantity"]: float(r["value"]) for r in rows if r["quantity"] != LOSS}

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
            LayerLoss(name=r["layer"], density=r["density"], output_error=float(r["value"]))
            for r in rows
            if r["quantity"] == LOSS
        ),
    )
