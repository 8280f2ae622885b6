"""One weight matrix as a product of factors: what a picture of it holds, and its plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go

from widgets import theme
from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.pruning import LayerLoss
from widgets.figures.sentence import say_instead

__all__ = [
    "Factor",
    "FactorizationScene",
    "History",
    "bytes_figure",
    "errors_figure",
    "history_figure",
    "spectrum_figure",
]

HATCHES = ("", "/", "x", ".", "-", "+")


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """One factor of a product.

    Parameters
    ----------
    name : such as "dictionary D".
    values : real or complex (rows, columns), zero where nothing is stored.
    about : what it holds, in a sentence.
    axes : what its rows and columns are.
    """

    name: str
    values: np.ndarray
    about: str
    axes: tuple[str, str] = ("row", "column")

    @property
    def nnz(self) -> int:
        """Entries that are not zero."""
        return int(np.count_nonzero(self.values))


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """How an error fell while the factors were sought.

    Parameters
    ----------
    label : what was measured.
    unit : what a step is, in the singular.
    errors : float (steps + 1,), before the first step and after each.
    lines : name of a method to compare with -> its error.
    """

    label: str
    unit: str
    errors: np.ndarray
    lines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorizationScene:
    """A weight and what a method made of it.

    Parameters
    ----------
    title : method and matrix, in words.
    layer : name of the matrix.
    weight, rebuilt : float32 (m, n), the matrix and the product of its factors.
    factors : in the order of the product.
    bits : what is stored, by kind.
    dense_bits : of the matrix as it was.
    multiply_adds : for each token.
    spectrum, residual_spectrum : singular values of the matrix, and of what the product leaves of it, falling.
    weight_error, output_error : relative; the latter NaN where the inputs are not known.
    history : where the method works in steps.
    layers : the errors of all layers at the same settings; empty where they were not asked for.
    """

    title: str
    layer: str
    weight: np.ndarray
    rebuilt: np.ndarray
    factors: Sequence[Factor]
    bits: Mapping[str, int]
    dense_bits: int
    multiply_adds: int
    spectrum: np.ndarray
    residual_spectrum: np.ndarray
    weight_error: float
    output_error: float
    history: History | None = None
    layers: Sequence[LayerLoss] = ()

    @property
    def total_bits(self) -> int:
        """All that is stored."""
        return sum(self.bits.values())

    @property
    def ratio(self) -> float:
        """Stored bits over those of the dense matrix."""
        return self.total_bits / self.dense_bits


def spectrum_figure(scene: FactorizationScene, appearance: theme.Theme = "light") -> go.Figure:
    """Draw the singular values of the matrix and of what is left of it, over their rank, on a logarithmic axis."""
    colours = theme.CATEGORIES[appearance]
    figure = go.Figure()
    for i, (name, values) in enumerate((("the matrix", scene.spectrum), ("what is left", scene.residual_spectrum))):
        shown = np.where(values > 0, values, np.nan)
        figure.add_scatter(
            x=np.arange(1, len(values) + 1), y=shown, name=name, mode="lines",
            line={"color": colours[i], "width": 2, "dash": ("solid", "dash")[i]},
            hovertemplate="%{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        template=theme.template(appearance), title=title_at_left("Singular values (counted)"), height=320,
        margin={"b": 96}, showlegend=True, legend=LEGEND_BELOW, xaxis={"title": {"text": "number"}},
        yaxis={"type": "log", "title": {"text": "singular value"}, "exponentformat": "power"},
    )  # fmt: skip
    if not (scene.spectrum > 0).any():
        return say_instead(figure, "The matrix is zero, so it has no singular value to draw.")
    return figure


def history_figure(scene: FactorizationScene, appearance: theme.Theme = "light") -> go.Figure:
    """Draw how the error fell step by step, with the errors of other methods as lines across."""
    colours, told = theme.CATEGORIES[appearance], scene.history
    figure = go.Figure()
    figure.update_layout(
        template=theme.template(appearance), height=320, margin={"b": 96}, showlegend=True, legend=LEGEND_BELOW,
        title=title_at_left("The error step by step (measured)"),
    )  # fmt: skip
    if told is None:
        return say_instead(figure, "This method finds its factors at once, without steps.")
    steps = np.arange(len(told.errors))
    figure.add_scatter(
        x=steps, y=told.errors, name=told.label, mode="lines+markers", marker={"size": 6, "color": colours[0]},
        line={"color": colours[0], "width": 2},
        hovertemplate=f"{told.unit} %{{x}}: %{{y:.4g}}<extra></extra>",
    )  # fmt: skip
    for i, (name, error) in enumerate(told.lines.items(), 1):
        figure.add_scatter(
            x=[0, max(1, len(steps) - 1)], y=[error, error], name=name, mode="lines",
            line={"color": colours[i % len(colours)], "dash": "dash", "width": 2},
            hovertemplate="%{y:.4g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": told.unit}}, yaxis={"title": {"text": told.label}, "rangemode": "tozero"}
    )
    return figure


def bytes_figure(scene: FactorizationScene, appearance: theme.Theme = "light") -> go.Figure:
    """Draw the stored bytes by kind, beside those of the dense matrix."""
    colours, figure = theme.CATEGORIES[appearance], go.Figure()
    figure.add_bar(
        y=["dense"], x=[scene.dense_bits / 8], orientation="h", name="dense values", showlegend=False,
        marker={"color": theme.PALETTE[appearance]["muted"]}, hovertemplate="%{x:,.0f} bytes<extra>dense</extra>",
    )  # fmt: skip
    for i, (kind, bits) in enumerate(scene.bits.items()):
        figure.add_bar(
            y=["factors"], x=[bits / 8], orientation="h", name=kind,
            marker={"color": colours[i % len(colours)], "pattern": {"shape": HATCHES[i % len(HATCHES)]}},
            hovertemplate="%{x:,.0f} bytes<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        template=theme.template(appearance), barmode="stack", title=title_at_left("Stored bytes (counted)"), height=260,
        margin={"b": 88}, showlegend=True, legend=LEGEND_BELOW, xaxis={"title": {"text": "bytes"}},
        yaxis={"autorange": "reversed", "type": "category", "title": {"text": "the matrix as"}},
    )  # fmt: skip
    return figure


def errors_figure(scene: FactorizationScene, appearance: theme.Theme = "light") -> go.Figure:
    """Draw the errors of weights and outputs of every layer at the same settings, the layer shown marked."""
    colours, names = theme.CATEGORIES[appearance], [each.name for each in scene.layers]
    figure = go.Figure()
    for i, (label, of) in enumerate((("weights", "weight_error"), ("outputs", "output_error"))):
        figure.add_scatter(
            x=names, y=[getattr(each, of) for each in scene.layers], name=label, mode="lines+markers",
            marker={"symbol": ("circle", "square")[i], "size": 7, "color": colours[i]},
            line={"color": colours[i], "width": 1.5, "dash": ("solid", "dash")[i]},
            hovertemplate="%{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    if scene.layer in names:
        figure.add_vline(x=names.index(scene.layer), line={"width": 2, "color": theme.PALETTE[appearance]["highlight"]})
    figure.update_layout(
        template=theme.template(appearance), title=title_at_left("Relative error of every layer (measured)"),
        height=400, margin={"b": 150}, showlegend=True, legend=LEGEND_BELOW,
        yaxis={"rangemode": "tozero", "title": {"text": "relative error"}},
        xaxis={"type": "category", "tickangle": -90, "tickfont": {"size": 10}, "tickmode": "linear"},
        meta={"leastWidth": 12 * len(names)},
    )  # fmt: skip
    if not names:
        return say_instead(figure, "Tick “All layers” to have every layer factorised at these settings.")
    return figure
