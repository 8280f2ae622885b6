"""One colour scale for pictures of a view that count the same: shared, locked as settings change, or each its own."""

from collections.abc import Sequence

from widgets.canvas.canvas import RasterCanvas
from widgets.controls.knob import Knob

COLOUR_SCALE = (
    Knob(
        "colours",
        "Colour scale",
        "shared",
        choices=(
            ("shared", "one for pictures beside each other"),
            ("locked", "one, locked while settings change"),
            ("own", "each picture its own"),
        ),
        help="What the last colour stands for. Locked, it stays what it was; denser places then have the last colour.",
    ),
    Knob("colour_tops", "Locked colour scale", "", help="What the last colour stands for, as unit:number."),
)


def paint_colours(canvases: Sequence[RasterCanvas], colours: str, locked: str) -> str:
    """Give every canvas the end of its colour scale, and return what is locked: ``unit:number,...``, or "".

    Parameters
    ----------
    canvases : those that are on the page and show something; pictures of one unit share a scale.
    colours : a choice of the knob of that name.
    locked : what was locked before; units that are not among it are locked at what they have now.
    """
    tops: dict[str, float] = {}
    for canvas in canvases:
        tops[canvas.unit] = max(tops.get(canvas.unit, 0.0), canvas.densest())
    units = [canvas.unit for canvas in canvases]
    if colours == "locked":
        tops = {unit: float(f"{top:.6g}") for unit, top in tops.items() if top > 0} | locked_tops(locked)
    for canvas in canvases:
        alike = units.count(canvas.unit)
        alone = colours == "own" or (colours == "shared" and alike == 1)
        shared = f"one scale for {'both' if alike == 2 else f'these {alike}'} pictures"
        note = {"locked": "locked", "shared": shared}.get(colours, "")
        with canvas.hold_sync():
            canvas.scale_top = 0.0 if alone else tops.get(canvas.unit, 0.0)
            canvas.scale_note = "" if alone else note
    return ",".join(f"{unit}:{top:g}" for unit, top in tops.items()) if colours == "locked" else ""


def locked_tops(text: str) -> dict[str, float]:
    """Return what is locked, by unit.

    Raises
    ------
    ValueError : the text is no list of ``unit:number`` with numbers above 0.
    """
    try:
        tops = {unit: float(number) for unit, number in (pair.split(":") for pair in text.split(",") if pair)}
    except ValueError:
        tops = {"": 0.0}
    if not all(0 < top < float("inf") for top in tops.values()):
        raise ValueError(f"colour_tops: must be unit:number pairs, numbers above 0, such as entries:0.5; got {text!r}.")
    return tops
