"""Colours, fonts and CSS for every picture: safe for colour-blind eyes, in a light and a dark form.

Categories use the Okabe-Ito set; counts use a single-hue ramp whose lightness alone carries the order, so that it also
reads in grey. On a dark page the ramp starts at the page's colour and rises to light, never the other way round.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import plotly.graph_objects as go

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")

LATE = (Path(__file__).parent / "late.js").read_text(encoding="utf-8")  # goes before the script of every widget
PANE = LATE + (Path(__file__).parent / "pane.js").read_text(encoding="utf-8")  # and this before that of every picture
CATEGORIES = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#B5548A", "#8A6D00", "#3A8FC4", "#4D4D4D", "#A8690A"),
    "dark": ("#56B4E9", "#E69F00", "#2CC295", "#E08FBE", "#F0E442", "#8CCBF0", "#C8C8C8", "#F08A4B"),
}
PALETTE = {
    "light": {
        "paper": "#ffffff",
        "plot": "#ffffff",
        "ink": "#1a1c1f",
        "muted": "#55595f",
        "line": "#c9ccd1",
        "control": "#74787e",
        "accent": "#005f96",
        "on_accent": "#ffffff",
        "highlight": "#D55E00",
        "error": "#a3270b",
        "error_paper": "#fdf0ec",
    },
    "dark": {
        "paper": "#111416",
        "plot": "#111416",
        "ink": "#eceff1",
        "muted": "#b3b9be",
        "line": "#3d4349",
        "control": "#8b9299",
        "accent": "#6fc0ee",
        "on_accent": "#0b1a24",
        "highlight": "#F5A623",
        "error": "#ffb4a0",
        "error_paper": "#3a1d16",
    },
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

_RAMP = {
    "light": ("#dce9f5", "#9fc5e3", "#4f97c9", "#0f66a3", "#05355f"),
    "dark": ("#1d3b52", "#24658f", "#3b95cb", "#8accf3", "#eaf6ff"),
}


def colour_map(theme: Theme = "light") -> np.ndarray:
    """Return the ramp for counts as uint8 RGB of shape (256, 3); entry 0 is the empty cell's colour (the page).

    Entries 1..255 go from "one of many" to "all"; the step from 0 to 1 is large on purpose, so that a lone entry shows.
    """
    stops = np.array([rgb(c) for c in _RAMP[theme]], dtype=float)
    at = np.linspace(0, 1, len(stops))
    levels = np.linspace(0, 1, 255)
    ramp = np.stack([np.interp(levels, at, stops[:, channel]) for channel in range(3)], axis=1)
    return np.vstack([rgb(PALETTE[theme]["plot"]), ramp]).round().astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return the parts of a colour such as ``"#0072B2"``, from 0 to 255."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


@cache
def template(theme: Theme = "light") -> go.layout.Template:
    """Return the plotly template that every figure uses: quiet grid, readable fonts, colour-blind-safe cycle."""
    p = PALETTE[theme]
    axis = {
        "gridcolor": p["line"],
        "linecolor": p["control"],
        "zerolinecolor": p["line"],
        "ticks": "outside",
        "tickcolor": p["control"],
        "automargin": True,
        "title": {"standoff": 8},
    }
    ramp = [[i / (len(_RAMP[theme]) - 1), c] for i, c in enumerate(_RAMP[theme])]
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": p["ink"]},
            "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
            "paper_bgcolor": p["paper"],
            "plot_bgcolor": p["plot"],
            "colorway": CATEGORIES[theme],
            "colorscale": {"sequential": ramp},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"family": FONT, "size": 13}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "margin": {"l": 56, "r": 16, "t": 48, "b": 48},
            "bargap": 0.15,
        }
    )


def css() -> str:
    """Return the style sheet shared by every widget: CSS variables in both themes, and the look of native controls."""
    rules = []
    for theme, selector in (("light", ":root"), ("dark", ":root[data-wb-theme=dark]")):
        variables = "".join(f"--wb-{name.replace('_', '-')}:{value};" for name, value in PALETTE[theme].items())
        rules.append(f"{selector}{{{variables}}}")
    return "\n".join(rules) + _CSS.replace("FONT", FONT)


_CSS = """
.wb{font:14px/1.45 FONT;color:var(--wb-ink);background:var(--wb-paper);box-sizing:border-box;max-width:100%;}
.wb *{box-sizing:border-box;}
:root[data-wb-theme=dark] .wb{color-scheme:dark;}
.wb button,.wb select,.wb textarea,.wb input:not([type=range]):not([type=checkbox]){font:inherit;color:var(--wb-ink);
 background:var(--wb-paper);border:1px solid var(--wb-control);border-radius:4px;padding:4px 10px;min-height:32px;}
.wb select{padding-right:4px;max-width:100%;}
.wb button{cursor:pointer;}
.wb button:hover{border-color:var(--wb-accent);color:var(--wb-accent);}
.wb button[aria-pressed=true],.wb button[aria-expanded=true]{background:var(--wb-accent);color:var(--wb-on-accent);
 border-color:var(--wb-accent);}
.wb :focus-visible{outline:3px solid var(--wb-highlight);outline-offset:2px;}
.wb input[type=range],.wb input[type=checkbox]{accent-color:var(--wb-accent);}
.wb-row{display:flex;flex-wrap:wrap;gap:8px 10px;align-items:center;}
.wb-hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap;}
.wb-note,.wb-pane-note{color:var(--wb-muted);}
.wb-pane-note{margin:6px 4px;}
.wb-stale canvas,.wb-stale .wb-plot-area,[data-pane=waiting] canvas,[data-pane=waiting] .wb-plot-area{opacity:.45;
 transition:opacity .15s .15s;}
.wb-stepper-sentence.wb-stale,.widget-html.wb-stale{opacity:.8;}
.wb-view{background:var(--wb-paper);}
.wb-view,.wb-view .widget-box,.wb-view .widget-html-content{overflow:visible;}
.wb-view .widget-html-content{min-width:0;}
.wb-numbers{border-collapse:collapse;margin:6px 4px;}
.wb-numbers caption{text-align:left;font-weight:600;font-size:15px;color:var(--wb-ink);padding:0 0 4px;}
.wb-numbers th{text-align:left;font-weight:400;padding:1px 18px 1px 0;}
.wb-numbers td{text-align:right;font-variant-numeric:tabular-nums;padding:1px 0;}
"""
