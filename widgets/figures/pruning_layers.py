"""What pruning does to each layer: one pruned model as a grid of layers and roles, several as lines."""

import math
import re
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from widgets import theme
from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.pruning import DASHES, LOSSES, SYMBOLS, TradeoffPoint
from widgets.figures.sentence import say_instead

__all__ = ["comparison_figure", "layer_figure", "layer_grid"]


def layer_grid(names: Sequence[str]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Arrange layers by number and role: row names, column names, and each layer's (row, column).

    "layers.3.feed_in" stands in row "layer 3", column "feed_in"; a name without a number in a row of its own.
    """
    parsed = []
    for name in names:
        found = re.search(r"(?:^|\.)(\d+)\.", name)
        parsed.append((f"layer {found[1]}", name[found.end() :]) if found else ("other", name))
    rows, columns = (list(dict.fromkeys(part)) for part in zip(*parsed, strict=True)) if parsed else ([], [])
    return rows, columns, [(rows.index(row), columns.index(column)) for row, column in parsed]


def layer_figure(point: TradeoffPoint | None, loss: str, layer: str, appearance: theme.Theme) -> go.Figure:
    """Draw one loss of every matrix of a point as a grid of layers and roles, the chosen layer in a frame."""
    layers = point.layers if point else ()
    rows, columns, places = layer_grid([each.name for each in layers])
    values = np.full((len(rows), len(columns)), np.nan)
    names = np.full(values.shape, "", object)
    for each, place in zip(layers, places, strict=True):
        values[place], names[place] = getattr(each, loss), each.name
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            customdata=names,
            zmin=0,
            zmax=float(np.nanmax(values, initial=0.0)) or 1.0,
            colorscale=theme.template(appearance).layout.colorscale.sequential,
            texttemplate="%{z:.2f}",
            colorbar={"thickness": 12},
            hovertemplate="%{customdata}: %{z:.4g}<extra></extra>",
        )
    )
    for each, (row, column) in zip(layers, places, strict=True):
        if each.name == layer:
            figure.add_shape(
                type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5,
                line={"width": 4, "color": theme.PALETTE[appearance]["highlight"]},
            )  # fmt: skip
    figure.update_layout(
        template=theme.template(appearance),
        title=title_at_left(_loss_title(loss)),
        height=140 + 38 * max(len(rows), 3),
        margin={"l": 70},
        xaxis={"side": "bottom", "type": "category"},
        yaxis={"autorange": "reversed", "type": "category"},
        clickmode="event",
    )
    if not layers:
        return say_instead(figure, "Choose a point above: the layers of that model are then shown one by one.")
    if np.isnan(values).all():
        return say_instead(figure, "This quantity was not taken for the chosen point.")
    return figure


def comparison_figure(points: Sequence[TradeoffPoint], loss: str, layer: str, appearance: theme.Theme) -> go.Figure:
    """Draw one loss of every matrix as a line for each point, the chosen layer marked by a line across."""
    colours = theme.CATEGORIES[appearance]
    names = list(dict.fromkeys(each.name for point in points for each in point.layers))
    rows, columns, places = layer_grid(names)
    short = {name: f"{rows[row].removeprefix('layer ')} {columns[column]}"
             for name, (row, column) in zip(names, places, strict=True)}  # fmt: skip
    figure = go.Figure()
    for i, point in enumerate(points):
        figure.add_scatter(
            x=[short[each.name] for each in point.layers],
            y=[getattr(each, loss) for each in point.layers],
            name=f"{point.method}, {point.level}",
            mode="lines+markers",
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7, "color": colours[i % len(colours)]},
            line={"dash": DASHES[i % len(DASHES)], "width": 1.5, "color": colours[i % len(colours)]},
            hovertemplate="%{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
        )
    if layer in short:
        figure.add_vline(x=names.index(layer), line={"width": 2, "color": theme.PALETTE[appearance]["highlight"]})
    figure.update_layout(
        template=theme.template(appearance),
        title=title_at_left(_loss_title(loss)),
        height=400,
        margin={"t": 44, "b": 120},
        showlegend=True,
        legend=LEGEND_BELOW,
        xaxis={"type": "category", "tickangle": -90, "tickfont": {"size": 10}, "tickmode": "linear"},
        yaxis={"rangemode": "tozero"},
        meta={"leastWidth": 12 * len(names)},
    )
    if not names:
        return say_instead(figure, "Choose a point above: its layers are then drawn as a line, beside those kept.")
    if not any(math.isfinite(getattr(each, loss)) for point in points for each in point.layers):
        return say_instead(figure, "This quantity was not taken for the points that are compared.")
    return figure


def _loss_title(loss: str) -> str:
    label, kind = dict(LOSSES)[loss], "counted" if loss in ("density", "weight_error") else "measured"
    return f"{label[0].upper()}{label[1:]} ({kind})"
