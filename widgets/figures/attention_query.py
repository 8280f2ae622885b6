"""What one query attends to: bars over the keys of a sequence, or heat maps over the pixels of a picture."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from widgets import theme

BARS = 1500
REGIONS = 300
LEAST_WIDTH = 820  # of the maps, in pixels: a narrower page scrolls them
_TICKS = (0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1)


@dataclass(frozen=True, kw_only=True)
class QueryRow:
    """One row of attention over a sequence.

    Parameters
    ----------
    row : position of the query.
    method : name of the method.
    true, computed : (t,) weights; ``computed`` as the method gives them.
    direct : (t,) bool, keys that the method computes one by one; the others share a summary.
    regions : positions of every summary, as arrays; empty where the method makes none.
    tokens : texts of the keys; empty where there are none.
    note : one sentence on this row; may be empty.
    kind : how the weights come about: "measured" where trained weights made them, else "counted".
    """

    row: int
    method: str
    true: np.ndarray
    computed: np.ndarray
    direct: np.ndarray
    regions: tuple[np.ndarray, ...] = ()
    tokens: tuple[str, ...] = ()
    note: str = ""
    kind: str = "counted"


@dataclass(frozen=True, kw_only=True)
class QueryMaps:
    """What one pixel attends to, under several patterns.

    Parameters
    ----------
    row : number of the pixel in raster order.
    picture : (rows, columns, 3) uint8.
    maps : title -> (rows, columns) float, the weight of every pixel; each adds up to 1.
    keys_met : title -> keys that the query meets.
    reach : title -> share of the pixels that any of those keys is made of.
    fused : title of the map whose keys are shown.
    keys : (M, M) weights of its fused keys.
    place : the fused key that is marked.
    sources : pixels behind each fused key.
    """

    row: int
    picture: np.ndarray
    maps: dict[str, np.ndarray]
    keys_met: dict[str, int]
    reach: dict[str, float]
    fused: str
    keys: np.ndarray
    place: int
    sources: tuple[np.ndarray, ...]


def query_row_figure(shown: QueryRow, appearance: theme.Theme = "light") -> go.Figure:
    """Draw a row: true attention as a line, computed weights as bars, plain for direct, hatched for summarised keys."""
    colours, p = theme.CATEGORIES[appearance], theme.PALETTE[appearance]
    at = np.arange(len(shown.true))
    named = [f"key {j} {_quoted(shown.tokens[j])}" if shown.tokens else f"key {j}" for j in at]
    figure = go.Figure()
    parts = (
        ("attended directly", shown.direct, colours[0], ""),
        ("attended by a summary", ~shown.direct & (shown.computed > 0), colours[1], "/"),
    )
    for name, where, colour, hatch in parts:
        if not where.any():
            continue
        where = np.flatnonzero(where)
        how = {
            "x": where,
            "y": np.sqrt(shown.computed[where]),
            "customdata": shown.computed[where],
            "name": name,
            "text": [named[j] for j in where],
        }
        how["hovertemplate"] = "%{text}: %{customdata:.4g}<extra>" + name + "</extra>"
        if len(at) <= BARS:
            figure.add_bar(
                **how,
                marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": hatch}},
                width=0.9,
                textposition="none",
            )
        else:
            symbol = "circle" if not hatch else "x"
            figure.add_scatter(**how, mode="markers", marker={"color": colour, "size": 4, "symbol": symbol})
    figure.add_scatter(
        x=at,
        y=np.sqrt(shown.true),
        customdata=shown.true,
        name="true attention",
        mode="lines",
        line={"color": p["ink"], "width": 1.4, "shape": "hvh"},
        text=named,
        hovertemplate="%{text}: %{customdata:.4g}<extra>true attention</extra>",
    )
    top = float(np.sqrt(max(shown.true.max(initial=0), shown.computed.max(initial=0), 1e-9)))
    levels = _levels(shown.regions)
    if 0 < len(shown.regions) <= REGIONS:
        x, y, text = [], [], []
        for region, level in zip(shown.regions, levels, strict=True):
            for first, last in _runs(region):
                x += [first - 0.4, last + 0.4, None]
                y += [-top * (0.05 + 0.05 * level)] * 2 + [None]
                said = f"a summary of {len(region):,} keys, {region[0]} to {region[-1]}"
                text += [said, said, ""]
        figure.add_scatter(
            x=x, y=y, text=text, mode="lines", name="keys that share a summary", line={"color": colours[1], "width": 4},
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    said = f" {_quoted(shown.tokens[shown.row])}" if shown.tokens else ""
    figure.update_layout(
        template=theme.template(appearance),
        title=f"Attention of query {shown.row}{said}: {shown.method} ({shown.kind})",
        height=380,
        barmode="overlay",
        bargap=0,
        margin={"t": 60, "b": 110},
        legend={"orientation": "h", "yanchor": "top", "y": -0.25, "x": 0},
        xaxis={"title": {"text": "key position"}, "range": [-1, len(at)]},
        yaxis={
            "title": {"text": "weight (square-root scale)"},
            "tickvals": np.sqrt(_TICKS),
            "ticktext": [f"{x:g}" for x in _TICKS],
        },
    )
    return figure


def _levels(regions):
    """Heights for regions such that neighbours stand apart."""
    return [i % 2 for i in range(len(regions))]


def _runs(region):
    """First and last of every run of consecutive positions."""
    cuts = np.flatnonzero(np.diff(region) > 1)
    firsts, lasts = np.r_[region[0], region[cuts + 1]], np.r_[region[cuts], region[-1]]
    return zip(firsts.tolist(), lasts.tolist(), strict=True)


def _quoted(text):
    return "'" + text.replace("\n", "\u21b5").replace("<", "&lt;") + "'"


def query_maps_figure(shown: QueryMaps, appearance: theme.Theme = "light", columns: int = 4) -> go.Figure:
    """Draw the picture, one heat map per pattern, and the fused keys; a cross is the pixel, rings a key's sources.

    The rings follow the pointer over the keys, without asking Python (`PlotPane`'s ``preview``).
    """
    p, colours = theme.PALETTE[appearance], theme.CATEGORIES[appearance]
    width = shown.picture.shape[1]
    titles = [f"{name}<br>{shown.keys_met[name]:,} keys, {shown.reach[name]:.1%} of the pixels" for name in shown.maps]
    titles = ["the picture", *titles, f"the {shown.keys.size} keys of {shown.fused}"]
    rows, last = -(-len(titles) // columns), len(titles) - 1
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.075, vertical_spacing=0.6 / rows / 3
    )
    ramp = [[i / 255, f"rgb({r},{g},{b})"] for i, (r, g, b) in enumerate(theme.colour_map(appearance))]
    places = [{"row": number // columns + 1, "col": number % columns + 1} for number in range(len(titles))]
    weights = [None, *shown.maps.values(), shown.keys]
    for number, at in enumerate(places):
        if number == 0:
            figure.add_trace(
                go.Image(z=shown.picture.tolist(), hovertemplate="row %{y}, column %{x}<extra></extra>"), **at
            )
        else:
            tip = "key (%{y}, %{x})" if number == last else "row %{y}, column %{x}"
            roots = np.sqrt(weights[number]).round(5)
            heat = go.Heatmap(
                z=roots, customdata=weights[number].round(6), colorscale=ramp,
                colorbar=_scale(figure, number, float(roots.min()), float(roots.max())),
                hovertemplate=tip + ": %{customdata}<extra></extra>",
            )  # fmt: skip
            figure.add_trace(heat, **at)
        axes = {"constrain": "domain", "showgrid": False, "zeroline": False, "nticks": 5, "tickfont": {"size": 10}}
        figure.update_xaxes(**axes, title={"text": "column", "font": {"size": 11}, "standoff": 2}, **at)
        figure.update_yaxes(**axes, autorange="reversed", scaleanchor=f"x{number + 1 if number else ''}", **at)
    figure.update_yaxes(title={"text": "row", "font": {"size": 11}, "standoff": 2}, col=1)
    y, x = divmod(shown.row, width)
    for at in places[:-1]:
        figure.add_trace(_marks([x], [y], "x", p["highlight"], 11, "the query", at == places[0]), **at)
    rings = [[(pixels % width).tolist(), (pixels // width).tolist()] for pixels in shown.sources]
    behind = [len(figure.data), len(figure.data) + 1]
    for number in (0, 1 + list(shown.maps).index(shown.fused)):
        name = "pixels behind one fused key"
        across, down = rings[shown.place]
        figure.add_trace(_marks(across, down, "circle-open", colours[1], 7, name, number == 0), **places[number])
    b, a = divmod(shown.place, shown.keys.shape[1])
    figure.add_trace(_marks([a], [b], "square-open", colours[1], 20, "the marked key"), **places[-1])
    shade = "darkness" if appearance == "light" else "brightness"
    figure.update_layout(
        template=theme.template(appearance),
        title=f"Attention of pixel ({y}, {x}) (counted); {shade} is the square root of the weight",
        height=300 * rows + 130,
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        margin={"l": 10, "r": 60, "t": 80, "b": 80},
        meta={
            "preview": {"curve": last, "traces": behind, "columns": shown.keys.shape[1], "points": rings},
            "leastWidth": LEAST_WIDTH,
        },
    )
    figure.update_annotations(font={"size": 12})
    return figure


def _scale(figure, number, least, most):
    """Return the colour bar beside a map of square roots from ``least`` to ``most``, with weights at three places."""
    name = "" if number == 0 else str(number + 1)
    across, down = (figure.layout[f"{axis}axis{name}"].domain for axis in "xy")
    roots = [least + (most - least) * place for place in (0, 0.5, 1)]
    inside = [least + (most - least) * place for place in (0.01, 0.5, 0.99)]  # plotly may leave out the very ends
    return {
        "x": across[1] + 0.004, "xanchor": "left", "y": sum(down) / 2, "len": down[1] - down[0], "thickness": 8,
        "tickvals": inside, "ticktext": [f"{root**2:.2g}" for root in roots], "tickfont": {"size": 10},
        "ticks": "outside", "ticklen": 2, "outlinewidth": 0,
    }  # fmt: skip


def _marks(x, y, symbol, colour, size, name, told=True):
    return go.Scatter(
        x=x, y=y, mode="markers", name=name, hoverinfo="skip", showlegend=told,
        marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 2, "color": colour}},
    )  # fmt: skip
