"""One sparse weight in several storage formats: what each takes in bytes, and its place on a roofline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from widgets.figures.fact_table import short_number
from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.roofline import decades
from widgets.figures.sentence import say_instead
from widgets.theme import CATEGORIES, PALETTE, template

__all__ = [
    "KINDS", "PADDING", "Banks", "Kernel", "Machine", "Product", "StoredWeight", "WeightScene", "bytes_figure",
    "hatched", "product", "roofline_figure", "share_of_dense", "times_figure",
]  # fmt: skip

PADDING = "stored zeros (padding)"
KINDS = ("values", "indices", "pointers", PADDING)
_PATTERNS = {"values": "", "indices": ".", "pointers": "x", PADDING: "/"}
LEAST_WIDTH = 620  # of bars with their names and numbers, in pixels: a narrower page scrolls them
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "pentagon")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What multiplies a format, one step at a time, and the vector registers that it holds.

    Parameters
    ----------
    about : which kernel it is, a sentence.
    instruction : what one instruction of a step is called.
    vectors : vector registers of activations that a step works on; each instruction takes one of them.
    dot : weights of a row that one instruction multiplies, in every lane; 1 for a fused multiply-add.
    registers : what 32 registers hold, by role; the rest is free. Empty where the registers are not known.
    lanes : numbers in a vector register.
    """

    about: str
    instruction: str
    vectors: int = 1
    dot: int = 1
    registers: Mapping[str, int] = field(default_factory=dict)
    lanes: int = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Banks:
    """Which bank of on-chip memory each lane stores to at every step, in two orders of the same words.

    Parameters
    ----------
    plain, dealt : int8 (steps, 32), row by row and dealt over the banks; -1 for a lane without a word.
    order : the one in which the words are stored here.
    """

    plain: np.ndarray
    dealt: np.ndarray
    order: Literal["plain", "dealt"]

    @property
    def shown(self) -> np.ndarray:
        """The banks of the order in which the words are stored."""
        return self.dealt if self.order == "dealt" else self.plain

    def fullest(self, order: Literal["plain", "dealt"]) -> np.ndarray:
        """Return how many words meet in the fullest bank at every step of an order."""
        bank = self.dealt if order == "dealt" else self.plain
        steps, lanes = np.nonzero(bank >= 0)
        return (
            np.bincount(steps * 32 + bank[steps, lanes].astype(np.int64), minlength=32 * len(bank))
            .reshape(-1, 32)
            .max(axis=1)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight:
    """A weight in one format, as plain arrays. A slot is a stored value; steps read slots and indices in order.

    Parameters
    ----------
    key, label : in links, and what readers see.
    about : how the format stores a weight, a sentence.
    bits : what is stored, by kind of `KINDS`; padding is every stored zero, together with the indices of what holds
        nothing but zeros.
    row, column : int32 (slots,), the place of each slot; -1 for a slot that stands for no place of the matrix.
    value : float32 (slots,); 0 is padding.
    index : int64 (indices,), as stored.
    pointer : int64, where rows, block rows or tiles begin, as stored.
    read : int64 (slots,), slots in the order in which they are read.
    value_edges, index_edges : int64 (steps + 1,): step s reads ``read[value_edges[s] : value_edges[s + 1]]``, and the
        indices from ``index_edges[s]`` on.
    unit : what one step reads, in the singular.
    index_bits : of one stored index.
    line, index_line : slots and indices in one line of a picture.
    multiply_adds : of the product, for each column of activations; those with stored zeros count.
    choice : inputs of which the index picks some, 0 where it names columns.
    banks : where the format is unpacked into memory of banks.
    """

    key: str
    label: str
    about: str
    bits: Mapping[str, int]
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray
    index: np.ndarray
    pointer: np.ndarray
    read: np.ndarray
    value_edges: np.ndarray
    index_edges: np.ndarray
    unit: str
    index_bits: int
    line: int
    index_line: int
    multiply_adds: int
    kernel: Kernel
    choice: int = 0
    banks: Banks | None = None

    @property
    def steps(self) -> int:
        """How many steps read the whole weight once."""
        return len(self.value_edges) - 1

    @property
    def total_bits(self) -> int:
        """All that is stored."""
        return sum(self.bits.values())

    @property
    def nbytes(self) -> int:
        """All that is stored, in whole bytes."""
        return -(-self.total_bits // 8)

    def slots(self, step: int) -> np.ndarray:
        """Return the slots that a step reads, in their order."""
        return self.read[self.value_edges[step] : self.value_edges[step + 1]]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Two ceilings.

    Parameters
    ----------
    gflops, gbps : 10^9 operations and 10^9 bytes a second.
    origin : where they come from, words that go on after "with".
    remark : what the ceilings do not hold for, a sentence, or "".
    """

    label: str
    gflops: float
    gbps: float
    origin: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightScene:
    """All that the view of formats draws.

    Parameters
    ----------
    title : which weight it is, in words.
    weight : float32 (m, k), with its zeros.
    value_bits : bits of a stored value.
    formats : the weight in each format, dense first.
    left_out : why other formats are not here, a sentence each.
    bound_bits : what no format of unknown patterns can beat.
    machines : key -> machine.
    """

    title: str
    weight: np.ndarray
    value_bits: int
    formats: tuple[StoredWeight, ...]
    left_out: tuple[str, ...]
    bound_bits: int
    machines: Mapping[str, Machine]

    @property
    def nnz(self) -> int:
        """Weights that are not zero."""
        return int(np.count_nonzero(self.weight))

    def stored(self, key: str) -> StoredWeight:
        """Return the weight in a format, dense where it is left out."""
        return next((each for each in self.formats if each.key == key), self.formats[0])


@dataclass(frozen=True, kw_only=True)
class Product:
    """The product of a stored weight with some columns of activations, on a machine (modelled).

    Parameters
    ----------
    flops : two for each multiply-add that the format makes.
    bytes : weight, activations and result, each moved once.
    gflops : attainable under the two ceilings.
    """

    flops: int
    bytes: int
    gflops: float

    @property
    def intensity(self) -> float:
        """Flops for each byte."""
        return self.flops / max(self.bytes, 1)

    @property
    def least_us(self) -> float:
        """Least time in microseconds."""
        return self.flops / self.gflops / 1e3 if self.gflops else 0.0


def product(scene: WeightScene, stored: StoredWeight, tokens: int, machine: Machine) -> Product:
    """Return what a format's product does and how fast the machine can do it; activations take ``value_bits`` each."""
    m, k = scene.weight.shape
    flops = 2 * stored.multiply_adds * tokens
    moved = stored.nbytes + -(-(m + k) * tokens * scene.value_bits // 8)
    return Product(flops=flops, bytes=moved, gflops=min(machine.gflops, machine.gbps * flops / max(moved, 1)))


def share_of_dense(scene: WeightScene, bits: int) -> float:
    """Return bits over those of the dense weight."""
    return bits / max(scene.formats[0].total_bits, 1)


def hatched(shape, theme, **more) -> dict:
    """Return the pattern of bars that are drawn in their colour, with marks in the page's colour over it."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": PALETTE[theme]["paper"], **more}


def bytes_figure(scene: WeightScene, shown: str, theme="light") -> go.Figure:
    """Draw the bytes of every format by kind, padding hatched, over the lower bound; the format ``shown`` is bold."""
    names = [f"<b>{each.label}</b>" if each.key == shown else each.label for each in scene.formats]
    figure = go.Figure()
    for i, kind in enumerate(KINDS):
        figure.add_bar(
            name=kind,
            x=[each.bits[kind] / 8 for each in scene.formats],
            y=names,
            orientation="h",
            marker={
                "color": CATEGORIES[theme][(0, 1, 2, 6)[i]],
                "pattern": hatched(_PATTERNS[kind], theme, size=7, solidity=0.35),
            },
            hovertemplate="%{x:,} B of " + kind + "<extra>%{y}</extra>",
        )
    totals = [each.total_bits / 8 for each in scene.formats]
    figure.add_scatter(
        x=totals,
        y=names,
        mode="text",
        text=[f" {each.nbytes:,} B, {share_of_dense(scene, each.total_bits):.2f} x dense" for each in scene.formats],
        textposition="middle right",
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )
    bound = scene.bound_bits / 8
    figure.add_scatter(
        name="least at unknown places",
        x=[bound, bound],
        y=[names[0], names[-1]],
        mode="lines",
        line={"color": PALETTE[theme]["ink"], "width": 1.5, "dash": "dash"},
        hovertemplate="no format of unknown places takes less than %{x:,.0f} B<extra></extra>",
    )
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            "Bytes of the weight, by format (counted)",
            f"dashed: the least for values at unknown places, {bound:,.0f} B",
        ),
        barmode="stack",
        height=170 + 40 * len(names),
        margin={"t": 70, "b": 110, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "bytes"}, "range": [0, 1.6 * max([*totals, bound, 1])], "exponentformat": "SI"},
        yaxis={"autorange": "reversed", "type": "category"},
        bargap=0.3,
        meta={"leastWidth": LEAST_WIDTH},
    )  # fmt: skip
    if not scene.weight.size:
        return say_instead(figure, "The weight has no place at all, so there is nothing to store.")
    return figure


def roofline_figure(
    scene: WeightScene, products: Sequence[Product], machine: Machine, tokens: int, shown: str, theme="light"
) -> go.Figure:
    """Draw every format's attainable operations a second over its operations for each byte, under two ceilings.

    Parameters
    ----------
    products : of `product`, one for each format of the scene.
    """
    ridge = machine.gflops / machine.gbps
    across = decades([ridge, *(each.intensity for each in products if each.intensity > 0)])
    low, high = 10.0 ** np.array(across)
    figure = go.Figure()
    figure.add_scatter(
        name="ceilings",
        x=[low, ridge, high],
        y=[machine.gbps * low, machine.gflops, machine.gflops],
        mode="lines",
        line={"color": PALETTE[theme]["muted"], "width": 2.5},
        hoverinfo="skip",
    )
    for i, (stored, each) in enumerate(zip(scene.formats, products, strict=True)):
        figure.add_scatter(
            name=stored.label,
            x=[each.intensity],
            y=[each.gflops],
            mode="markers",
            marker={
                "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                "size": 18 if stored.key == shown else 11,
                "color": CATEGORIES[theme][i % 8],
                "line": {"width": 2 if stored.key == shown else 1, "color": PALETTE[theme]["ink"]},
            },
            hovertemplate="%{y:,.4g} Gflop/s at %{x:.4g} flops a byte<extra>" + stored.label + "</extra>",
        )
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            f"Roofline, {machine.label} (modelled)",
            f"{tokens:,} columns; ceilings {short_number(machine.gflops)} Gflop/s, {short_number(machine.gbps)} GB/s",
        ),
        height=480,
        margin={"t": 70, "b": 150},
        legend=LEGEND_BELOW,
    )
    up = decades([machine.gflops, machine.gbps * low, *(each.gflops for each in products if each.gflops > 0)])
    figure.update_xaxes(title="flops for each byte", type="log", exponentformat="SI", dtick=1, range=across)
    figure.update_yaxes(title="Gflop/s", type="log", exponentformat="SI", dtick=1, range=up)
    if not any(each.flops for each in products):
        return say_instead(figure, "There is nothing to multiply, so no format has a place under the ceilings.")
    return figure


def times_figure(scene: WeightScene, products: Sequence[Product], machine: Machine, shown: str, theme="light"):
    """Draw the least time of every format's product as bars, and what limits it."""
    names = [f"<b>{each.label}</b>" if each.key == shown else each.label for each in scene.formats]
    dense = products[0].least_us
    bound = [each.intensity < machine.gflops / machine.gbps for each in products]
    figure = go.Figure(
        go.Bar(
            x=[each.least_us for each in products],
            y=names,
            orientation="h",
            text=[
                f"{each.least_us:.3g} us, {dense / each.least_us:.2f} x as fast as dense" if each.least_us else "0 us"
                for each in products
            ],
            textposition="outside",
            cliponaxis=False,
            marker={
                "color": [CATEGORIES[theme][0 if memory else 1] for memory in bound],
                "pattern": hatched(["" if memory else "/" for memory in bound], theme),
            },
            customdata=["memory" if memory else "arithmetic" for memory in bound],
            hovertemplate="%{x:.4g} us, limited by %{customdata}<extra>%{y}</extra>",
        )
    )
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            "Least time of the product (modelled)", "plain: memory limits it; hatched: arithmetic does"
        ),
        height=140 + 38 * len(names),
        margin={"t": 70, "l": 8},
        showlegend=False,
        xaxis={"title": {"text": "microseconds"}, "range": [0, 2.3 * max([each.least_us for each in products])]},
        yaxis={"autorange": "reversed", "type": "category"},
        meta={"leastWidth": LEAST_WIDTH},
    )
    if not any(each.flops for each in products):
        return say_instead(figure, "There is nothing to multiply, so no product takes any time.")
    return figure
