"""Trained nets that published records hold: their accuracies, what stays of them, and how long they take."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from widgets.figures.layer_density import AccuracyPoint
from workbench import record
from workbench.paper import Row

__all__ = ["EXPERIMENTS", "epoch_seconds", "outcomes", "recorded_points", "recorded_rows"]

EXPERIMENTS = ("evidence", "speed")
ACCURACY, KEPT, TIME, EPOCH = "test accuracy", "parameters kept", "time of an inference", "time of an epoch"
FORMS = {  # how a trained net of a name is run; masks of single weights take the time of the net that they mask
    "dense": "dense",
    "SynFlow": "masked",
    "SynFlow, shuffled": "masked",
    "uniform density": "masked",
    "PreCrop, tied": "cropped",
}
KINDS = {"scored": "SynFlow", "shuffled": "SynFlow, shuffled", "cropped": "PreCrop, tied"}
SPARSE = ("SynFlow", "masked, by sparse products")


def recorded_rows() -> list[Row]:
    """Return the rows of all published records that tell of nets pruned before training."""
    found = [each for known in record.all_records() if known["experiment"] in EXPERIMENTS for each in known["rows"]]
    return [each for each in found if "net" in each and "density" in each]


def recorded_points(rows: Sequence[Row], net: str) -> tuple[AccuracyPoint, ...]:
    """Return the trained nets of a family that rows hold; times are those of the largest batch.

    Parameters
    ----------
    rows : of `recorded_rows`.
    net : key of a source.
    """
    mine = [each for each in rows if each["net"] == net]
    cases = dict.fromkeys((r["training"], r["density"]) for r in mine if r["quantity"] == ACCURACY)
    times = _times(mine)
    found = []
    for name, density in cases:
        of = [r for r in mine if (r.get("training"), r["density"]) == (name, density)]
        seen = [float(r["value"]) for r in of if r["quantity"] == ACCURACY]
        point = AccuracyPoint(
            name=name,
            density=density,
            accuracy=fmean(seen),
            low=min(seen),
            high=max(seen),
            parameters=fmean(float(r["value"]) for r in of if r["quantity"] == KEPT),
            time_ms=_time(times, FORMS.get(name), density),
            seeds=len(seen),
        )
        found.append(point)
        if name == SPARSE[0] and (density, SPARSE[1]) in times:
            time_ms = times[density, SPARSE[1]]
            found.append(AccuracyPoint(**vars(point) | {"name": f"{name}, by sparse products", "time_ms": time_ms}))
    return tuple(found)


def epoch_seconds(rows: Sequence[Row], net: str, density: float) -> float | None:
    """Return the recorded seconds of an epoch of a net, masked and cropped to the nearest density, for 512 examples.

    None where nothing was recorded of the net.
    """
    mine = [r for r in rows if r["net"] == net and r["quantity"] == EPOCH]
    if not mine:
        return None
    nearest = min({r["density"] for r in mine}, key=lambda known: abs(known - density))
    return sum(r["value"] for r in mine if r["density"] == nearest and r["form"] in ("masked", "cropped")) / 1e3


def outcomes(points: Sequence[AccuracyPoint], density: float) -> dict[str, AccuracyPoint]:
    """Return what recorded nets with a scored, a shuffled and a cropped mask reached, by kind of mask.

    Parameters
    ----------
    points : of `recorded_points`; those that were trained on the page are left out.
    density : the nearest recorded one is taken, of those at which there is every kind.
    """
    named = {(point.name, point.density): point for point in points if not point.here}
    whole = [d for _, d in named if all((name, d) in named for name in KINDS.values())]
    if not whole:
        return {}
    nearest = min(whole, key=lambda known: abs(known - density))
    return {kind: named[name, nearest] for kind, name in KINDS.items()}


def _times(rows: Iterable[Row]) -> dict[tuple[float, str], float]:
    found = [r for r in rows if r["quantity"] == TIME]
    largest = max((r["batch"] for r in found), default=0)
    return {(r["density"], r["form"]): float(r["value"]) for r in found if r["batch"] == largest}


def _time(times, form, density):
    if form == "dense":  # it was timed beside every density
        dense = [value for (_, of), value in times.items() if of == form]
        return min(dense) if dense else None
    return times.get((density, form))
