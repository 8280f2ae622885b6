"""Plots of a compressed cache: what low rank and the filter find, bytes, the timeline, and how errors grow."""

import numpy as np
import plotly.graph_objects as go

from widgets.figures.kv_cache.scene import METHODS, PARTS, CacheScene
from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.sentence import say_instead
from widgets.figures.weight_format import hatched
from widgets.theme import CATEGORIES, PALETTE, template

__all__ = ["bytes_figure", "channel_figure", "drift_figure", "spectrum_figure", "timeline_figure"]

LABELS = {"quantiser": "quantiser alone", "low rank": "with low rank", "outliers": "with outliers", "both": "with both"}
_HATCHES = ("", ".", "/", "x", "-")
_DASHES = ("dot", "dash", "dashdot", "solid")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def spectrum_figure(scene: CacheScene, theme="light") -> go.Figure:
    """Draw the singular values of the error; those that the low-rank part can take are filled."""
    at = np.arange(1, len(scene.spectrum) + 1)
    taken = at <= scene.rank
    figure = go.Figure(
        go.Bar(
            x=at,
            y=scene.spectrum,
            marker={
                "color": [CATEGORIES[theme][1 if one else 0] for one in taken],
                "pattern": hatched(["" if one else "/" for one in taken], theme, size=6),
            },
            hovertemplate="singular value %{x}: %{y:.4g}<extra></extra>",
        )
    )
    energy = float((scene.spectrum**2).sum())
    share = float((scene.spectrum[: scene.rank] ** 2).sum()) / energy if energy else 0.0
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            f"Singular values of the error ({scene.kind})",
            f"plain: the first {scene.rank}, with {share:.0%} of the error's energy",
        ),
        height=340,
        showlegend=False,
        bargap=0.15,
        xaxis={"title": {"text": "number"}},
        yaxis={"title": {"text": "singular value"}, "rangemode": "tozero"},
    )
    return figure if energy else say_instead(figure, "The quantiser made no error, so there is nothing to repair.")


def channel_figure(scene: CacheScene, theme="light") -> go.Figure:
    """Draw how often values occur in one channel, before and after the filter, and the levels of its first group."""
    low, high = float(scene.before.min()), float(scene.before.max())
    edges = np.linspace(low, high if high > low else low + 1, 41)
    figure = go.Figure()
    for i, (name, values) in enumerate((("all entries", scene.before), ("without outliers", scene.after))):
        counts = np.histogram(values, edges)[0]
        figure.add_bar(
            name=name,
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": CATEGORIES[theme][i], "pattern": hatched(("", "/")[i], theme, size=6)},
            opacity=(0.55, 0.9)[i],
            hovertemplate="%{y} values near %{x:.3g}<extra>" + name + "</extra>",
        )
    top = max(np.histogram(scene.before, edges)[0].max(), np.histogram(scene.after, edges)[0].max(), 1)
    for i, (name, levels) in enumerate(zip(("levels of all", "levels without outliers"), scene.steps, strict=True)):
        figure.add_scatter(
            name=name,
            x=levels,
            y=np.full(len(levels), -0.05 * top * (i + 1)),
            mode="markers",
            marker={"symbol": ("line-ns-open", "x")[i], "size": 9, "color": CATEGORIES[theme][i]},
            hovertemplate="level %{x:.4g}<extra>" + name + "</extra>",
        )
    was, now = (float(np.ptp(x)) for x in (scene.before, scene.after))
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            f"Channel {scene.channel} of head {scene.head} ({scene.kind})",
            f"range {was:.3g}, without its outliers {now:.3g}",
        ),
        barmode="overlay",
        height=360,
        margin={"b": 110},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "value"}},
        yaxis={"title": {"text": "tokens"}},
    )
    return figure


def bytes_figure(scene: CacheScene, theme="light") -> go.Figure:
    """Draw the bytes of the layer's keys and values by part, for every method, over half precision."""
    names = [LABELS[method] for method in METHODS]
    figure = go.Figure()
    for i, part in enumerate(PARTS):
        figure.add_bar(
            name=part,
            x=[scene.bytes[method][part] for method in METHODS],
            y=names,
            orientation="h",
            marker={"color": CATEGORIES[theme][i], "pattern": hatched(_HATCHES[i], theme, size=7, solidity=0.35)},
            hovertemplate="%{x:,} B of " + part + "<extra>%{y}</extra>",
        )
    totals = [sum(scene.bytes[method].values()) for method in METHODS]
    figure.add_scatter(
        x=totals, y=names, mode="text", textposition="middle right", hoverinfo="skip", showlegend=False,
        cliponaxis=False, text=[f" {x:,} B, {x / max(scene.plain_bytes, 1):.1%}" for x in totals],
    )  # fmt: skip
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            "Bytes of the layer's cache (counted)", f"shares of half precision, {scene.plain_bytes:,} B"
        ),
        barmode="stack",
        height=340,
        margin={"t": 70, "b": 100, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "bytes"}, "range": [0, 1.6 * max([*totals, 1])], "exponentformat": "SI"},
        yaxis={"autorange": "reversed", "type": "category", "title": {"text": "method"}},
        meta={"leastWidth": 560},
    )
    return figure


def timeline_figure(scene: CacheScene, tokens: int, theme="light") -> go.Figure:
    """Draw the cache with so many tokens: the prompt's block, later blocks, and the buffer."""
    first, later, recent = scene.held(tokens)
    parts = [("block of the prompt", first)] * bool(first)
    parts += [(f"block {i + 1}", scene.buffer) for i in range(later)] + [("buffer, half precision", recent)]
    figure, shown = go.Figure(), set()
    for name, size in parts:
        role = "buffer" if name.startswith("buffer") else "prompt" if "prompt" in name else "later"
        colour = {"prompt": 0, "later": 2, "buffer": 1}[role]
        figure.add_bar(
            name={"prompt": "prompt, compressed", "later": "later blocks", "buffer": "buffer, half precision"}[role],
            x=[size],
            y=["now"],
            orientation="h",
            legendgroup=role,
            showlegend=role not in shown,
            marker={
                "color": CATEGORIES[theme][colour],
                "line": {"color": PALETTE[theme]["paper"], "width": 1.5},
                "pattern": hatched({"prompt": "", "later": ".", "buffer": "/"}[role], theme, size=6),
            },
            hovertemplate=f"{name}: {size:,} tokens<extra></extra>",
        )
        shown.add(role)
    figure.update_layout(
        template=template(theme),
        title=title_at_left(f"The cache with {tokens:,} tokens (counted)", f"{recent} of {scene.buffer} in the buffer"),
        barmode="stack",
        height=220,
        margin={"t": 60, "b": 90, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "tokens"}, "range": [0, scene.tokens]},
        yaxis={"type": "category", "title": {"text": "cache"}},
        bargap=0.3,
    )
    return figure


def drift_figure(scene: CacheScene, theme="light") -> go.Figure:
    """Draw the error of attention's output over the tokens in the cache, for every method."""
    figure = go.Figure()
    for i, method in enumerate(METHODS):
        figure.add_scatter(
            name=LABELS[method],
            x=scene.drift.tokens,
            y=scene.drift.error[method],
            mode="lines+markers",
            line={"color": CATEGORIES[theme][i], "dash": _DASHES[i], "width": 2},
            marker={"symbol": _SYMBOLS[i], "size": 7},
            hovertemplate="%{y:.3g} with %{x:,} tokens<extra>" + LABELS[method] + "</extra>",
        )
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            f"Error of attention while decoding ({scene.kind})",
            "over the output's size, all heads of the layer, up to eight steps a point",
        ),
        height=420,
        margin={"b": 120},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "tokens in the cache"}},
        yaxis={"title": {"text": "relative error"}, "rangemode": "tozero"},
    )
    if not len(scene.drift.tokens):
        return say_instead(figure, "The prompt is the whole cache, so no token was decoded: shorten the prompt.")
    return figure
