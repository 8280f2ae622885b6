"""A roofline: what memory and arithmetic allow, and where products lie under it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from widgets.theme import CATEGORIES, PALETTE, template

__all__ = ["RooflinePoint", "RooflineScene", "decades", "roofline_alt", "roofline_figure"]

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")


@dataclass(frozen=True, kw_only=True)
class RooflinePoint:
    """One product.

    Parameters
    ----------
    group : points of a group share colour and mark.
    label : what hovering says of it.
    intensity : useful operations per byte of memory, > 0.
    flops_per_s : useful operations per second, > 0.
    """

    group: str
    label: str
    intensity: float
    flops_per_s: float


@dataclass(frozen=True, kw_only=True)
class RooflineScene:
    """A machine and the products on it.

    Parameters
    ----------
    machine : its name.
    peak_flops : operations per second.
    bandwidth : bytes per second.
    points : products.
    kind : "measured" or "modelled", of the points' speeds.
    """

    machine: str
    peak_flops: float
    bandwidth: float
    points: tuple[RooflinePoint, ...]
    kind: str

    @property
    def ridge(self) -> float:
        """Operations per byte from which on arithmetic sets the pace."""
        return self.peak_flops / self.bandwidth


def decades(values: Sequence[float]) -> list[float]:
    """Return the range of a logarithmic axis over values > 0: whole powers of ten, with some room on either side."""
    return [float(np.floor(np.log10(min(values) / 1.5))), float(np.ceil(np.log10(max(values) * 1.5)))]


def roofline_figure(scene: RooflineScene, *, theme="light", height=420) -> go.Figure:
    """Draw the roof and the points, both axes logarithmic."""
    across = decades([scene.ridge, *(point.intensity for point in scene.points)])
    span = np.array([10 ** across[0], scene.ridge, 10 ** across[1]])
    figure = go.Figure(layout={"template": template(theme), "height": height})
    roof = np.minimum(scene.peak_flops, span * scene.bandwidth)
    figure.add_scatter(x=span, y=roof, mode="lines", name="roof", line={"color": PALETTE[theme]["ink"], "width": 2})
    groups = list(dict.fromkeys(point.group for point in scene.points))
    for place, group in enumerate(groups):
        mine = [point for point in scene.points if point.group == group]
        figure.add_scatter(
            x=[point.intensity for point in mine],
            y=[point.flops_per_s for point in mine],
            mode="markers",
            name=group,
            text=[point.label for point in mine],
            hovertemplate="%{text}<br>%{x:.3g} operations per byte<br>%{y:.3g} per second<extra></extra>",
            marker={"size": 10, "symbol": SYMBOLS[place % len(SYMBOLS)],
                    "color": CATEGORIES[theme][place % len(CATEGORIES[theme])]},
        )  # fmt: skip
    up = decades([scene.peak_flops, *(point.flops_per_s for point in scene.points)])
    axis = {"type": "log", "dtick": 1, "exponentformat": "SI"}  # powers of ten alone have a label
    ridge = f"operations per byte ({scene.machine}, ridge at {scene.ridge:.3g})"
    figure.update_xaxes(title=ridge, range=across, **axis)
    figure.update_yaxes(title=f"operations per second ({scene.kind})", range=up, **axis)
    return figure


def roofline_alt(scene: RooflineScene) -> str:
    """Say in words how many points lie on which side of the ridge."""
    left = sum(point.intensity < scene.ridge for point in scene.points)
    return (
        f"Roofline of {scene.machine}: {left} of {len(scene.points)} products lie left of the ridge at "
        f"{scene.ridge:.3g} operations per byte, where memory sets the pace."
    )
