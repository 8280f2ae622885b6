"""What one pixel of a picture reads under several kinds of keys: the data that the view draws, and its figure."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from widgets import theme

COLUMNS = 4


@dataclass(frozen=True)
class ImageReading:
    """One kind of attention for the chosen query.

    Parameters
    ----------
    name : kind of attention, for readers.
    heat : (h, w) float, share of the attention that each pixel gets.
    reached : (h, w) bool, pixels that any key is made of.
    keys : keys that the query meets.
    products : multiply-adds for this query.
    weights : (m, m) float, attention to the keys on their own grid, drawn beside the map; None draws no grid.
    sources : (n, 2) int, row and column of every pixel in the chosen key; None if no key is chosen here.
    """

    name: str
    heat: np.ndarray
    reached: np.ndarray
    keys: int
    products: int
    weights: np.ndarray | None = None
    sources: np.ndarray | None = None


@dataclass(frozen=True)
class ImageScene:
    """A picture, a query in it, and what the query reads.

    Parameters
    ----------
    title : what the picture is.
    rgb : (h, w, 3) uint8.
    query : row and column.
    readings : kinds of attention, full attention first; those with a key grid come last.
    key : index of the chosen key on the grids, row by row; -1 for none.
    """

    title: str
    rgb: np.ndarray
    query: tuple[int, int]
    readings: tuple[ImageReading, ...]
    key: int = -1


def covered(scene: ImageScene, reading: ImageReading) -> float:
    """Return the share of full attention that falls on the pixels which this kind of attention reaches."""
    full = scene.readings[0].heat
    return float((full * reading.reached).sum() / full.sum())


def image_attention_figure(scene: ImageScene, appearance: theme.Theme = "light") -> go.Figure:
    """Draw the picture, a heat map per kind of attention and the key grids; pixels out of reach stay empty.

    Every trace's ``meta`` says what a click on it picks: "query" or "key".
    """
    panels = [("picture", scene.title, None)]
    for reading in scene.readings:
        panels.append(("map", reading.name, reading))
        if reading.weights is not None:
            panels.append(("keys", f"{reading.weights.shape[0]} x {reading.weights.shape[1]} keys", reading))
    rows = -(-len(panels) // COLUMNS)
    titles = [title for _, title, _ in panels]
    figure = go.Figure().set_subplots(
        rows, COLUMNS, subplot_titles=titles, horizontal_spacing=0.035, vertical_spacing=0.16
    )
    for number, (kind, _, reading) in enumerate(panels):
        place = {"row": number // COLUMNS + 1, "col": number % COLUMNS + 1}
        _DRAW[kind](figure, scene, reading, place, appearance)
    figure.update_xaxes(showticklabels=False, ticks="", showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showticklabels=False, ticks="", showgrid=False, zeroline=False, constrain="domain")
    for number in range(len(panels)):
        suffix = "" if number == 0 else str(number + 1)
        figure.layout[f"yaxis{suffix}"].update(autorange="reversed", scaleanchor=f"x{suffix}")
    figure.update_layout(
        template=theme.template(appearance),
        height=290 * rows,
        showlegend=False,
        margin={"t": 46, "b": 12, "l": 8, "r": 8},
    )
    return figure


def _picture(figure, scene, reading, place, appearance):
    figure.add_trace(go.Image(z=scene.rgb, meta="query", hovertemplate="row %{y}, column %{x}<extra></extra>"), **place)
    _mark_query(figure, scene, place, appearance)


def _map(figure, scene, reading, place, appearance):
    z = np.where(reading.reached, reading.heat, np.nan)
    top = float(np.quantile(reading.heat[reading.reached], 0.99)) or float(reading.heat.max())
    figure.add_heatmap(
        z=[[None if x != x else float(f"{x:.3g}") for x in line] for line in z.tolist()],
        zmin=0,
        zmax=top,
        colorscale=_ramp(appearance),
        showscale=False,
        meta="query",
        hovertemplate="row %{y}, column %{x}: %{z:.2%} of the attention<extra></extra>",
        **place,
    )
    if reading.sources is not None:
        figure.add_scatter(
            x=reading.sources[:, 1],
            y=reading.sources[:, 0],
            mode="markers",
            meta="query",
            marker={
                "symbol": "square-open",
                "size": 7,
                "color": theme.PALETTE[appearance]["highlight"],
                "line": {"width": 2},
            },
            hovertemplate="row %{y}, column %{x} is in key " + f"{scene.key}<extra></extra>",
            **place,
        )
    _mark_query(figure, scene, place, appearance)


def _keys(figure, scene, reading, place, appearance):
    figure.add_heatmap(
        z=reading.weights,
        colorscale=_ramp(appearance),
        showscale=False,
        xgap=1,
        ygap=1,
        meta="key",
        hovertemplate="key at (%{y}, %{x}): %{z:.2%} of the attention<extra></extra>",
        **place,
    )
    side = reading.weights.shape[1]
    if 0 <= scene.key < reading.weights.size:
        colour = theme.PALETTE[appearance]["highlight"]
        figure.add_scatter(
            x=[scene.key % side],
            y=[scene.key // side],
            mode="markers",
            meta="key",
            marker={"symbol": "square-open", "size": 18, "color": colour, "line": {"width": 3}},
            hoverinfo="skip",
            **place,
        )


_DRAW = {"picture": _picture, "map": _map, "keys": _keys}


def _mark_query(figure, scene, place, appearance):
    row, column = scene.query
    for width, colour in ((5, theme.PALETTE[appearance]["paper"]), (2, theme.PALETTE[appearance]["error"])):
        figure.add_scatter(
            x=[column],
            y=[row],
            mode="markers",
            meta="query",
            marker={"symbol": "cross-thin", "size": 15, "line": {"width": width, "color": colour}},
            hoverinfo="skip",
            **place,
        )


def _ramp(appearance):
    colours = theme.colour_map(appearance)
    return [[i / 8, "rgb({},{},{})".format(*colours[1 + int(i * 254 / 8)])] for i in range(9)]
