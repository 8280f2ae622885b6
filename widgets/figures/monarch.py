"""A matrix as a product of two block-diagonal ones: the spectra of its parts, and errors beside other structures."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.sentence import say_instead
from widgets.theme import CATEGORIES, PALETTE, template

__all__ = [
    "MOST_PARTS", "MOST_VALUES", "MonarchScene", "Rival", "curve_figure", "errors_figure", "part_figure",
    "spectra_figure",
]  # fmt: skip

MOST_PARTS, MOST_VALUES = 16, 12  # rows and columns of parts whose spectra are drawn, and values of each
LEAST_WIDTH = 560
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another structure with about as many parameters.

    Parameters
    ----------
    name : of the structure.
    parameters : numbers that it stores.
    error : relative Frobenius error of its nearest matrix.
    """

    name: str
    parameters: int
    error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class MonarchScene:
    """All that the view of a projection draws.

    Parameters
    ----------
    title : which matrix it is, in words.
    remark : which structure fits it and why, a sentence or "".
    matrix, product : real or complex (m, n), what is projected and the nearest Monarch matrix.
    first, second : (between, n) and (m, between), the factors with their blocks at their places; the permutation is
        part of the second.
    blocks : blocks of the first factor and of the second.
    rank : of each part.
    permuted : whether the columns stand in the order of Cooley and Tukey's first step.
    spectra, turned : float64 (l, k, values), singular values of the parts in this order of the columns, in the other.
    error : relative Frobenius error.
    parameters, multiply_adds : of the two factors, and for each row of inputs.
    rivals : this structure first, then others with about as many parameters.
    curves : name -> (share of the dense parameters, error), rising shares.
    kind : "counted", or "measured" where trained weights made the matrix.
    """

    title: str
    remark: str
    matrix: np.ndarray
    product: np.ndarray
    first: np.ndarray
    second: np.ndarray
    blocks: tuple[int, int]
    rank: int
    permuted: bool
    spectra: np.ndarray
    turned: np.ndarray
    error: float
    parameters: int
    multiply_adds: int
    rivals: tuple[Rival, ...]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    kind: str

    @property
    def columns_of_a_block(self) -> int:
        """Inputs that one block of the first factor reads."""
        return self.matrix.shape[1] // self.blocks[0]

    def share(self) -> float:
        """Return the parameters of the factors over those of the matrix."""
        return self.parameters / max(self.matrix.size, 1)

    def filled(self, step: int) -> np.ndarray:
        """Return the product of the first ``step`` blocks of the first factor: the other columns are 0."""
        done = np.zeros_like(self.product)
        done[:, : step * self.columns_of_a_block] = self.product[:, : step * self.columns_of_a_block]
        return done

    def kept(self, spectra: np.ndarray) -> np.ndarray:
        """Return the share of each part's energy in its first ``rank`` singular values; 1 for a part of zeros."""
        energy = spectra**2
        total = energy.sum(axis=-1)
        return np.divide(energy[..., : self.rank].sum(axis=-1), total, out=np.ones_like(total), where=total > 0)


def spectra_figure(scene: MonarchScene, spectra: np.ndarray, words: str, picked=(0, 0), theme="light") -> go.Figure:
    """Draw the singular values of every part as bars in a grid, those that a projection keeps in another colour.

    Parameters
    ----------
    spectra : ``scene.spectra`` or ``scene.turned``. words : which order of the columns it is.
    picked : row and column of the part that is outlined.
    """
    rows, columns = (min(count, MOST_PARTS) for count in spectra.shape[:2])
    count = min(spectra.shape[2], MOST_VALUES)
    shown = spectra[:rows, :columns, :count] / max(float(spectra.max(initial=0)), 1e-300)
    figure = go.Figure()
    first = f"kept (the first {scene.rank})" if scene.rank > 1 else "kept (the first)"
    for kept, name in ((True, first), (False, "dropped")):
        which = np.arange(count) < scene.rank
        x, y = _bars(shown, which if kept else ~which)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=name, hoverinfo="skip",
            line={"color": CATEGORIES[theme][0 if kept else 1], "width": max(1.5, 260 / columns / (count + 1) * 0.7),
                  "dash": "solid"},
        )  # fmt: skip
    place = np.indices((rows, columns)).reshape(2, -1)
    figure.add_scatter(
        x=place[1] + 0.5, y=place[0] + 0.5, mode="markers", showlegend=False,
        marker={"size": 260 / columns, "symbol": "square", "opacity": 0},
        customdata=np.stack([*place, scene.kept(spectra)[:rows, :columns].reshape(-1),
                             spectra[:rows, :columns, 0].reshape(-1)], axis=1),
        hovertemplate="part %{customdata[0]}, %{customdata[1]}: %{customdata[2]:.1%} of its energy is kept; largest "
        "singular value %{customdata[3]:.4g}<extra></extra>",
    )  # fmt: skip
    if picked[0] < rows and picked[1] < columns:
        figure.add_shape(
            type="rect", x0=picked[1], x1=picked[1] + 1, y0=picked[0], y1=picked[0] + 1,
            line={"color": PALETTE[theme]["highlight"], "width": 2},
        )  # fmt: skip
    cut = max(spectra.shape[:2]) > MOST_PARTS
    told = f"{rows} x {columns} of {spectra.shape[0]} x {spectra.shape[1]} parts, " if cut else ""
    figure.update_layout(
        template=template(theme),
        title=title_at_left(f"Spectra, {words} ({scene.kind})", f"{told}each cell one part, bars its singular values"),
        height=430, margin={"t": 70, "b": 80}, legend=LEGEND_BELOW,
    )  # fmt: skip
    grid = {"showgrid": True, "zeroline": False, "tickmode": "array", "gridwidth": 1}
    figure.update_xaxes(title="block that reads", range=[0, columns], tickvals=list(range(columns + 1)),
                        ticktext=_ticks(columns), **grid)  # fmt: skip
    figure.update_yaxes(title="block that writes", range=[rows, 0], tickvals=list(range(rows + 1)),
                        ticktext=_ticks(rows), **grid)  # fmt: skip
    if not spectra.size or not np.any(spectra):
        return say_instead(figure, "Every entry of the matrix is zero, so no part has a singular value to show.")
    return figure


def _ticks(count):
    return [str(i) if count <= 8 or i % 4 == 0 else "" for i in range(count)] + [""]


def _bars(shown, which):
    """Return the ends of upright lines, with gaps between them, for some of the values of every part."""
    count = shown.shape[2]
    j, k, i = (part.reshape(-1) for part in np.indices(shown.shape)[:, :, :, which])
    x = k + (i + 0.8) / (count + 0.6)
    low, high = j + 0.94, j + 0.94 - 0.86 * shown[:, :, which].reshape(-1)
    gap = np.full(len(x), np.nan)
    return np.stack([x, x, gap], axis=1).reshape(-1), np.stack([low, high, gap], axis=1).reshape(-1)


def part_figure(scene: MonarchScene, picked: tuple[int, int], theme="light") -> go.Figure:
    """Draw all singular values of one part, in both orders of the columns."""
    now, other = (spectra[picked[0], picked[1]] for spectra in (scene.spectra, scene.turned))
    names = _orders(scene)
    figure = go.Figure()
    for i, (values, name) in enumerate(((now, names[0]), (other, names[1]))):
        figure.add_scatter(
            x=np.arange(1, len(values) + 1), y=values, mode="lines+markers", name=name,
            line={"color": CATEGORIES[theme][i], "dash": "solid" if i == 0 else "dash"},
            marker={"symbol": _SYMBOLS[i], "size": 8},
            hovertemplate="singular value %{x}: %{y:.4g}<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            f"Part {picked[0]}, {picked[1]} ({scene.kind})", "its row and column in the grid"
        ),
        height=330, margin={"t": 70, "b": 90}, legend=LEGEND_BELOW,
        xaxis={"title": {"text": "singular value"}, "dtick": max(1, len(now) // 8)},
        yaxis={"title": {"text": "size"}, "rangemode": "tozero"},
    )  # fmt: skip
    return figure


def _orders(scene):
    names = "inputs permuted", "inputs in their order"
    return names if scene.permuted else names[::-1]


def errors_figure(scene: MonarchScene, theme="light") -> go.Figure:
    """Draw the error of each structure with about as many parameters as bars, the Monarch matrix first."""
    figure = go.Figure(
        go.Bar(
            x=[rival.error for rival in scene.rivals],
            y=[rival.name for rival in scene.rivals],
            orientation="h",
            text=[f"{rival.error:.3g} with {rival.parameters:,}" for rival in scene.rivals],
            textposition="outside",
            cliponaxis=False,
            marker={
                "color": [CATEGORIES[theme][i % 8] for i in range(len(scene.rivals))],
                "pattern": {"shape": ["" if i == 0 else "/" for i in range(len(scene.rivals))], "fillmode": "overlay",
                            "fgcolor": PALETTE[theme]["paper"]},
            },
            hovertemplate="%{x:.4g}<extra>%{y}</extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        template=template(theme),
        title=title_at_left(f"Error with as many parameters ({scene.kind})", "Frobenius norm, over that of the matrix"),
        height=150 + 40 * len(scene.rivals), margin={"t": 70, "l": 8, "b": 50}, showlegend=False,
        xaxis={"title": {"text": "relative error"}, "range": [0, 1.6 * max([0.01, *(r.error for r in scene.rivals)])]},
        yaxis={"autorange": "reversed", "type": "category"}, meta={"leastWidth": LEAST_WIDTH},
    )  # fmt: skip
    return figure


def curve_figure(scene: MonarchScene, theme="light") -> go.Figure:
    """Draw the error over the parameters for other numbers of blocks and ranks, and for low rank."""
    figure = go.Figure()
    for i, (name, (shares, errors)) in enumerate(scene.curves.items()):
        figure.add_scatter(
            x=shares, y=errors, mode="lines+markers", name=name,
            line={"color": CATEGORIES[theme][i % 8], "dash": "dash" if i == len(scene.curves) - 1 else "solid"},
            marker={"symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 7},
            hovertemplate="%{x:.1%} of the parameters: error %{y:.4g}<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[scene.share()], y=[scene.error], mode="markers", name="shown here",
        marker={"symbol": "circle-open", "size": 16, "line": {"width": 2, "color": PALETTE[theme]["highlight"]}},
        hovertemplate="%{x:.1%} of the parameters: error %{y:.4g}<extra>shown here</extra>",
    )  # fmt: skip
    figure.update_layout(
        template=template(theme),
        title=title_at_left(f"Error over parameters ({scene.kind})", "a line for each number of blocks"),
        height=430, margin={"t": 70, "b": 120}, legend=LEGEND_BELOW,
        xaxis={"title": {"text": "parameters, as a share of the dense matrix"}, "tickformat": ".0%"},
        yaxis={"title": {"text": "relative error"}, "rangemode": "tozero"},
    )  # fmt: skip
    return figure
