"""Figures of a sparse product's traffic: bytes by dataflow, what is kept on the chip, and a machine at work.

Each is a pure function of a dataclass of `widgets.figures.spgemm_scene`.
"""

import itertools
import textwrap

import numpy as np
import plotly.graph_objects as go

from widgets.figures.sentence import say_instead
from widgets.theme import CATEGORIES, PALETTE, template

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
_PATTERNS = ("", "/", "x", ".", "\\", "-")
_GANTT_BARS = 6000
_NOW = "now"


def bytes_figure(traffic, *, log=False, theme="light"):
    """Draw the bytes of each dataflow by stream: stacked bars, or side by side on a logarithmic axis.

    Parameters
    ----------
    traffic : StreamBytes.
    log : logarithmic axis. Stacked lengths mean nothing there, so streams stand side by side.
    theme : "light" or "dark".

    Returns
    -------
    plotly Figure
    """
    figure = _figure(f"Off-chip bytes by dataflow ({traffic.kind})", traffic.note, theme)
    if not traffic.bytes.any():
        return say_instead(figure, "No dataflow moves a byte of these operands.")
    for s, stream in enumerate(traffic.streams):
        amount = traffic.bytes[:, s]
        if not amount.any():
            continue
        figure.add_bar(
            name=stream,
            x=[*traffic.dataflows],
            y=np.where(amount > 0, amount, np.nan) if log else amount,
            marker=_fill(s, theme),
            hovertemplate="%{x}, " + stream + ": %{customdata}<extra></extra>",
            customdata=[readable_bytes(v) for v in amount],
        )
    totals = traffic.bytes.sum(axis=1)
    if not log:
        figure.add_scatter(
            x=[*traffic.dataflows],
            y=totals,
            mode="text",
            text=[readable_bytes(v) for v in totals],
            textposition="top center",
            cliponaxis=False,
            showlegend=False,
            hoverinfo="skip",
        )
    figure.update_layout(barmode="group" if log else "stack")
    figure.update_xaxes(title="dataflow")
    figure.update_yaxes(title="bytes", exponentformat="SI")
    if log:
        some = traffic.bytes[traffic.bytes > 0]
        figure.update_yaxes(_log_axis(some.min(initial=np.inf), some.max(initial=1)))
    else:
        figure.update_yaxes(range=[0, max(float(totals.max(initial=0)), 1) * 1.12])
    return figure


def live_figure(curves, *, log=False, theme="light", title="Elements kept on the chip", present=None, most=4000):
    """Draw how many elements are kept over time, one line per curve; all curves share both axes.

    Parameters
    ----------
    curves : LiveCurves with equal ``x_unit``.
    log : logarithmic vertical axis; where nothing is kept, the line has a gap.
    present : label of the curve that stands out; None for none.
    most : points a curve may keep; beyond, only the extremes of runs of points are drawn.
    """
    units = {curve.x_unit for curve in curves}
    if len(units) > 1:
        raise ValueError(f"live_figure: curves must share one unit of time; got {', '.join(sorted(units))}")
    unit = units.pop() if units else "products"
    kinds = ", ".join(sorted({curve.kind for curve in curves})) or "counted"
    figure = _figure(f"{title} ({kinds})", "", theme)
    if not any(len(curve.x) for curve in curves):
        return say_instead(figure, "There is no partial product, so nothing is kept at any time.")
    for c, curve in enumerate(curves):
        x, live = _thin(curve.x, curve.live, most)
        figure.add_scatter(
            name=curve.label,
            x=x,
            y=np.where(live > 0, live, np.nan) if log else live,
            mode="lines+markers" if len(x) <= 40 else "lines",
            marker={"symbol": _SYMBOLS[c % len(_SYMBOLS)], "size": 7},
            line={
                "dash": _DASHES[c % len(_DASHES)],
                "width": 4 if curve.label == present else 2,
                "color": CATEGORIES[theme][c % 8],
            },
            opacity=1 if present in (None, curve.label) else 0.75,
            hovertemplate="%{y:,} kept after %{x:,.0f} " + unit + "<extra>" + curve.label + "</extra>",
        )
    last = max(float(curve.x[-1]) for curve in curves if len(curve.x))
    figure.update_xaxes(range=[-0.01 * last, 1.01 * last])
    figure.update_xaxes(title="time (cycles)" if unit == "cycles" else "products formed", exponentformat="SI")
    figure.update_yaxes(title="elements", exponentformat="SI", type="log" if log else "linear", rangemode="tozero")
    return figure


def mark_now(figure, x, live, theme="light"):
    """Point out a position in a ``live_figure``, or move the mark that it has; a sentence gets none."""
    if not figure.data:
        return
    if figure.data[-1].meta != _NOW:
        ring = {"size": 16, "symbol": "circle-open", "color": PALETTE[theme]["highlight"], "line": {"width": 4}}
        figure.add_scatter(mode="markers", marker=ring, meta=_NOW, hoverinfo="skip")
    figure.data[-1].update(x=[x], y=[live], name=f"now: {live:,} kept")


def gantt_figure(gantt, *, theme="light", height=520, bars=_GANTT_BARS):
    """Draw which thread was busy when, the row that took the longest in a second colour.

    Parameters
    ----------
    gantt : Gantt.
    bars : above this many events, events of a thread closer than a pixel are drawn as one bar, and the picture says so.
    """
    events = len(gantt.thread)
    longest = _longest_row(gantt)
    mine = gantt.row == longest
    merged = events > bars
    parts = [(f"row {longest}, the longest" if events else "", mine)]
    if merged:
        parts.insert(0, ("other rows", ~mine))
    else:
        parts[:0] = [
            ("other rows, even", ~mine & (gantt.row % 2 == 0)),
            ("other rows, odd", ~mine & (gantt.row % 2 == 1)),
        ]
    marks = []
    drawn = 0
    shades = {"other rows": 0, "other rows, even": 0, "other rows, odd": 5}
    height_of_thread = max(1.5, 0.62 * (height - 150) / max(gantt.threads, 1))
    figure = _figure("", "", theme)
    for name, chosen in parts:
        if not chosen.any():
            continue
        order = np.flatnonzero(chosen)
        order = order[np.lexsort((gantt.t0[order], gantt.thread[order]))]
        t0, t1, thread, row = (x[order] for x in (gantt.t0, gantt.t1, gantt.thread, gantt.row))
        if merged:
            t0, t1, thread, row = _merged_bars(t0, t1, thread, row, gantt.cycles / 1500)
        drawn += len(t0)
        gap = np.full(len(t0), np.nan)
        what = [f"thread {t}, row {r}: {a:,.0f} to {b:,.0f}" for t, r, a, b in zip(thread, row, t0, t1, strict=True)]
        figure.add_scatter(
            name=name,
            x=np.column_stack([t0, t1, gap]).ravel(),
            y=np.column_stack([thread, thread, gap]).ravel(),
            mode="lines",
            line={
                "width": height_of_thread,
                "color": PALETTE[theme]["highlight"] if name not in shades else CATEGORIES[theme][shades[name]],
            },
            text=None if merged else np.repeat(what, 3).tolist(),
            hoverinfo="skip" if merged else "text",
            connectgaps=False,
        )
    if merged:
        marks.append(f"{events:,} events drawn as {drawn:,} bars: those of a thread closer than a pixel are one")
    if gantt.events_total > events:
        marks.append(f"cut off: the first {events:,} of {gantt.events_total:,} events")
    _head(figure, f"Threads at work ({gantt.kind})", "; ".join(marks), theme)
    if not events:
        return say_instead(figure, "There is no partial product, so no thread has anything to do.")
    figure.update_layout(height=height, hovermode="closest")
    figure.update_xaxes(title="time (cycles)", range=[0, max(gantt.cycles, 1)], exponentformat="SI")
    figure.update_yaxes(title="thread", range=[gantt.threads - 0.5, -0.5], zeroline=False)
    return figure


def utilisation_figure(utilisation, *, theme="light"):
    """Draw the busy share of each resource over time, as steps."""
    figure = _figure(f"Utilisation ({utilisation.kind})", "", theme)
    if len(utilisation.edges) < 2 or utilisation.edges[-1] <= utilisation.edges[0]:
        return say_instead(figure, "The run takes no time, so nothing is in use.")
    for s, (name, share) in enumerate(utilisation.series.items()):
        figure.add_scatter(
            name=name,
            x=utilisation.edges,
            y=np.append(share, share[-1:]),
            mode="lines",
            line={"shape": "hv", "width": 2.5, "dash": _DASHES[s % len(_DASHES)], "color": CATEGORIES[theme][s % 8]},
            hovertemplate="%{y:.0%} at %{x:,.0f} cycles<extra>" + name + "</extra>",
        )
    figure.update_xaxes(title="time (cycles)", exponentformat="SI")
    figure.update_yaxes(title="share in use", tickformat=".0%", range=[0, 1.05])
    return figure


def probes_figure(probes, *, theme="light"):
    """Draw how many extra probes products needed, on a logarithmic axis, one bar series per hash."""
    means = "; ".join(
        f"{label}: {mean:.3g} extra probes a product" for label, mean in zip(probes.labels, probes.mean, strict=True)
    )
    figure = _figure(f"Extra probes per product ({probes.kind})", means, theme)
    if not probes.counts.any():
        return say_instead(figure, "There is no partial product, so no slot of a table is probed.")
    bins = probes.counts.shape[1]
    used = np.flatnonzero(probes.counts.any(axis=0))
    last = bins if used.size and used[-1] == bins - 1 else min(bins, max(8, int(used[-1]) + 2 if used.size else 8))
    ticks = [str(q) for q in range(bins - 1)] + [f"{bins - 1}+"]
    for h, label in enumerate(probes.labels):
        counts = probes.counts[h, :last]
        figure.add_bar(
            name=label,
            x=ticks[:last],
            y=np.where(counts > 0, counts, np.nan),
            marker=_fill(h, theme),
            customdata=counts,
            hovertemplate="%{customdata:,} products needed %{x} extra probes<extra>" + label + "</extra>",
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(title="extra probes beyond the first", type="category", nticks=16, tickangle=0)
    figure.update_yaxes(_log_axis(1, probes.counts.max(initial=1)), title="products")
    return figure


def roofline_figure(roofline, *, theme="light"):
    """Draw each run's operations per cycle against its operations per DRAM byte, under the machine's two ceilings."""
    peak, bandwidth = roofline.peak_ops_per_cycle, roofline.peak_bytes_per_cycle
    ridge = peak / bandwidth
    good = np.isfinite(roofline.ops_per_byte) & (roofline.ops_per_byte > 0) & (roofline.ops_per_cycle > 0)
    spread = np.append(roofline.ops_per_byte[good], ridge)
    low, high = 10 ** np.floor(np.log10(spread.min() / 2)), 10 ** np.ceil(np.log10(spread.max() * 2))
    figure = _figure(
        f"Roofline ({roofline.kind})",
        f"ceilings: {peak:g} {roofline.ops} a cycle, {bandwidth:g} DRAM bytes a cycle",
        theme,
    )
    if not good.any():
        return say_instead(figure, "No run has moved a byte, so there is no point between the ceilings.")
    x = np.array([low, ridge, high])
    figure.add_scatter(
        name="ceiling",
        x=x,
        y=np.minimum(peak, bandwidth * x),
        mode="lines",
        line={"color": PALETTE[theme]["muted"], "width": 2.5},
        hoverinfo="skip",
    )
    for p in np.flatnonzero(good):
        figure.add_scatter(
            name=roofline.labels[p],
            x=roofline.ops_per_byte[p : p + 1],
            y=roofline.ops_per_cycle[p : p + 1],
            mode="markers",
            marker={
                "symbol": _SYMBOLS[p % len(_SYMBOLS)],
                "size": 14,
                "color": CATEGORIES[theme][p % 8],
                "line": {"width": 1, "color": PALETTE[theme]["ink"]},
            },
            hovertemplate="%{y:.3g} "
            + roofline.ops
            + " a cycle at %{x:.3g} a byte<extra>"
            + roofline.labels[p]
            + "</extra>",
        )
    figure.update_xaxes(title=f"{roofline.ops} per DRAM byte", type="log", exponentformat="SI", dtick=1)
    figure.update_yaxes(title=f"{roofline.ops} per cycle", type="log", exponentformat="SI")
    return figure


def readable_bytes(count):
    """Return a byte count as a reader says it: ``readable_bytes(3.2e9) == "3.2 GB"``."""
    count = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            return f"{count:.3g} {unit}" if count < 999.5 else f"{count:,.0f} {unit}"
        count /= 1000


def _figure(title, note, theme, height=420):
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom"}
    figure = go.Figure(layout={"template": template(theme), "height": height, "legend": legend, "showlegend": True})
    _head(figure, title, note, theme)
    return figure


def _head(figure, title, note, theme):
    notes = textwrap.wrap(note, 52)
    muted = [f'<span style="font-size:13px;color:{PALETTE[theme]["muted"]}">{line}</span>' for line in notes]
    head = {
        "text": "<br>".join([title, *muted]),
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 18, "l": 4},
        "x": 0,
        "xref": "container",
    }
    figure.update_layout(title=head, margin={"t": 50 + 19 * len(notes), "b": 96})


def _log_axis(low, high):
    """Ticks of a logarithmic axis: decades when there are several, else plotly's choice."""
    return {"type": "log", "exponentformat": "SI"} | ({"dtick": 1} if high > 50 * max(low, 1e-300) else {})


def _fill(index, theme):
    colour = CATEGORIES[theme][index % 8]
    shape = _PATTERNS[index % len(_PATTERNS)]
    pattern = {"shape": shape, "bgcolor": colour, "fgcolor": PALETTE[theme]["paper"], "size": 8, "solidity": 0.22}
    return {"color": colour, "pattern": pattern}


def _thin(x, live, most=4000):
    """Keep at most ``most`` points: the last, the least and the greatest of each run of points."""
    if len(x) <= most:
        return x, live
    runs = np.linspace(0, len(x), most // 2 + 1).astype(int)
    keep = []
    for a, b in itertools.pairwise(runs):
        keep += sorted({a + int(live[a:b].argmin()), a + int(live[a:b].argmax())})
    keep = np.unique([0, *keep, len(x) - 1])
    return x[keep], live[keep]


def _longest_row(gantt):
    if not len(gantt.row):
        return -1
    rows, place = np.unique(gantt.row, return_inverse=True)
    return int(rows[np.bincount(place, gantt.t1 - gantt.t0).argmax()])


def _merged_bars(t0, t1, thread, row, pixel):
    """Join neighbours of a thread that lie closer than ``pixel``; the inputs are sorted by (thread, t0)."""
    starts = np.flatnonzero(np.append(True, (np.diff(thread) != 0) | (t0[1:] - t1[:-1] > pixel)))
    return t0[starts], np.maximum.reduceat(t1, starts), thread[starts], row[starts]
