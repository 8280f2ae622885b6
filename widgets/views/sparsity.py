"""Any sparse matrix as a picture: pattern, orderings, statistics, row lengths and block density."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ipywidgets
import numpy as np
from scipy import sparse

from kernels.raster import BlockDensity, bit_block_density, block_density
from kernels.reorder import PatternStatistics, bit_statistics, permuted, reorder, statistics
from widgets.canvas.canvas import RasterCanvas, clip_window
from widgets.canvas.source import BitsSource, CsrSource
from widgets.controls.knob import Knob
from widgets.controls.upload import LIMIT_BYTES, Upload
from widgets.figures.plot_pane import PlotPane
from widgets.figures.sparsity import (
    BlockDensities,
    block_density_figure,
    row_length_figure,
    row_lengths,
)
from widgets.figures.sparsity_words import blocks_words, lengths_words, statistics_html, statistics_rows
from widgets.views.frame.colour_scale import COLOUR_SCALE, locked_tops, paint_colours
from widgets.views.frame.export import matrix_file
from widgets.views.frame.view import BRUSH, View
from widgets.views.matrix_input import as_pattern, is_large_mask

BLOCK_SIZES = (4, 8, 16, 32, 64, 128)
ORDERINGS = (
    ("none", "as given"),
    ("rcm", "RCM (narrow band)"),
    ("degree", "degree"),
    ("random", "random"),
    ("morton", "Morton (Z-curve)"),
    ("cluster", "clusters (min-hash)"),
)
DRAWN = ("random", "cluster")  # orders that a seed changes
ORDERING_HELP = (
    "Renumbers rows and columns; the entries stay the same. Reverse Cuthill-McKee gathers them near the diagonal, "
    "degree puts the longest rows first, Morton follows a Z-curve over a grid of rows, clusters join similar rows."
)
MAX_NNZ = 50_000_000
KEPT_FILES = 3  # of those uploaded, so that a visitor who tries many does not fill the memory
DATA_PIXELS = (512, 512)


@dataclass(frozen=True)
class SparsityScene:
    """What one picture shows; the parts after ``duplicates`` are None until they are counted.

    Parameters
    ----------
    name, ordering : of the matrix shown.
    source, given : the reordered matrix, and the matrix in the order in which it was given.
    duplicates : duplicate entries summed when the matrix was read.
    region : (r0, r1, c0, c1), the brushed part that the statistics are about.
    statistics, blocks : of that part.
    """

    name: str
    ordering: str
    source: CsrSource | BitsSource
    given: CsrSource | BitsSource
    duplicates: int
    region: tuple[int, int, int, int]
    statistics: PatternStatistics | None = None
    blocks: tuple[BlockDensity, ...] | None = None


class SparsityView(View):
    """Show sparse matrices: zoom to single entries, reorder, brush, count.

    Parameters
    ----------
    matrix : a matrix (NumPy, SciPy sparse, torch, `BitsSource`), or a dict of names to matrices or to functions that
        load one. A bit mask of over 10^8 positions stays packed: no ordering and no brush.
    read : ``read(file name, bytes) -> matrix`` for files that the reader uploads; no upload without it.
    upload_label, upload_endings, upload_limit_bytes : what the upload field says of these files, and the largest.
    titles : what the menu calls the matrices, by name; the name itself where there is none.
    sources : Python expressions that remake the matrices, by name, for the recipe; ``imports`` is the line they need.
    state : initial values of the knobs.
    """

    title = "Sparsity pattern"
    kind = "counted"
    knobs = (
        Knob("matrix", "Matrix", "matrix", help="Which matrix to show."),
        Knob("ordering", "Order", "none", choices=ORDERINGS, help=ORDERING_HELP),
        Knob("beside", "Matrix as given beside it", True, help="Where rows and columns are reordered: both at once."),
        Knob("seed", "Seed", 0, low=0, high=99, help="Seed of the random and the cluster order."),
        Knob("block", "Block size", 16, low=2, high=256, scale="log2", help="Side of the blocks that are counted."),
        Knob("grid", "Block grid", False, help="Draws the borders of blocks that are at least 4 pixels wide."),
        *COLOUR_SCALE,
        *BRUSH,
        Knob("window", "Window", "", help="The part of the matrix in view, as r0:r1:c0:c1."),
    )
    hidden = frozenset({"window", "colour_tops"})
    paint_only = frozenset({"beside", "colours", "colour_tops", "grid", "window"})

    def __init__(
        self,
        matrix: Any,
        *,
        read: Callable[[str, bytes], Any] | None = None,
        titles: Mapping[str, str] | None = None,
        sources: Mapping[str, str] | None = None,
        imports: str = "",
        upload_label: str = "Your own matrix",
        upload_endings: Sequence[str] = (),
        upload_limit_bytes: int = LIMIT_BYTES,
        link_base: str = "",
        **state,
    ):
        given: dict[str, Any] = dict(matrix) if isinstance(matrix, Mapping) else {"matrix": matrix}
        if not given:
            raise ValueError("SparsityView: the dict of matrices is empty; give at least one.")
        self._given, self._files, self._matrices = given, {}, given
        self._read, self._upload = read, (upload_label, upload_endings, upload_limit_bytes)
        self._titles = dict(titles or {})
        self._sources, self._imports = dict(sources or {}), imports
        self._loaded: tuple[Any, sparse.csr_array, int] | None = None
        self._ordered: tuple[Any, CsrSource, CsrSource] | None = None
        self._painted: tuple[Any, str] | None = None
        self.knobs = self._knobs_for(given)
        super().__init__(link_base=link_base, **state)

    def _knobs_for(self, given):
        choices = tuple((name, self._title(name)) for name in given)
        chosen = Knob("matrix", "Matrix", choices[0][0], choices=choices, help="Which matrix to show.")
        return (chosen, *type(self).knobs[1:])

    def _title(self, name: str) -> str:
        return self._titles.get(name, name)

    # Picture --------------------------------------------------------------------------------------------------------
    def build(self):
        """Make canvas, statistics and the two plots."""
        self.canvas = RasterCanvas(title="Pattern")
        self._given_canvas = RasterCanvas(title="Pattern as given", brushable=False)
        self._numbers = ipywidgets.HTML()
        self._numbers.add_class("wb")
        self._lengths, self._blocks = PlotPane(), PlotPane()
        self._lengths.title, self._blocks.title = "row lengths", "block density"
        self.canvas.observe(self._window_seen, names="window")
        self.canvas.observe(self._brushed, names=["brush_rows", "brush_columns"])
        self._given_canvas.observe(lambda change: self._paint_colours(), names="window")
        side = ipywidgets.VBox([self._numbers, self._lengths, self._blocks])
        side.add_class("wb-side")
        for part, width in ((self.canvas, 440), (self._given_canvas, 440), (side, 340)):
            part.layout.flex, part.layout.min_width, part.layout.max_width = f"1 1 {width}px", "0", "720px"
        self._parts = (self.canvas, self._given_canvas, side)
        self._row = ipywidgets.Box([self.canvas, side], layout={"display": "flex", "flex_flow": "row wrap"})
        if self._read is None:
            return [self._row]
        return [Upload(*self._upload, self.add_file), self._row]

    def compute(self, state, progress):
        """Yield the picture first, then the picture with its numbers."""
        name = self._title(state["matrix"])
        progress(0.0, f"loading {name}")
        matrix, duplicates = self._load(state["matrix"])
        if is_large_mask(matrix):
            yield from _mask_scenes(name, matrix, state, progress)
            return
        progress(0.2, "ordering rows and columns")
        source, given = self._order(matrix, state)
        region = _region(state, source.shape)
        scene = SparsityScene(name, state["ordering"], source, given, duplicates, region)
        yield scene
        progress(0.5, "counting")
        part = _part(source.matrix, region)
        found = statistics(part)
        blocks = []
        sizes = sorted({*BLOCK_SIZES, state["block"]})
        for i, size in enumerate(sizes):
            progress(0.7 + 0.3 * i / len(sizes), f"blocks of {size}")
            blocks.append(block_density(part, size))
        yield replace(scene, statistics=found, blocks=tuple(blocks))

    def paint(self, scene):
        """Draw what changed: the pixels, the marks over them, or the numbers beside them."""
        canvas = self.canvas
        window = _numbers_of(self.window, 4, "window")
        window = clip_window(window or (0, scene.source.shape[0], 0, scene.source.shape[1]), scene.source.shape)
        canvas.theme = self.theme
        with canvas.hold_sync():
            canvas.block = self.block if self.grid else 0
            if canvas._source is not scene.source:
                canvas.show(scene.source, window=window)
            elif tuple(canvas.window) != window:
                canvas.window = list(window)
            canvas.alt = self.alt_text(scene)
            canvas.brush_rows = list(_numbers_of(self.brush_rows, 2, "brush_rows") or [])
            canvas.brush_columns = list(_numbers_of(self.brush_columns, 2, "brush_columns") or [])
        self._paint_given(scene)
        self._paint_colours()
        painted = self._painted
        if scene.statistics is None or (painted and painted[0] is scene and painted[1] == self.theme):
            return
        self._painted = (scene, self.theme)
        self._numbers.value = statistics_html(scene)
        lengths = row_lengths(scene.statistics.row_lengths)
        self._lengths.show(row_length_figure(lengths, self.theme), lengths_words(lengths))
        blocks = _block_densities(scene, self.block)
        self._blocks.show(block_density_figure(blocks, self.theme), blocks_words(blocks))

    def unfinished(self, scene):
        """Say that the numbers beside the picture follow it."""
        return "" if scene.statistics else "wb-side"

    def _paint_given(self, scene):
        """Show the matrix as given beside the reordered one, or take it away."""
        canvas, beside = self._given_canvas, self.beside and scene.source is not scene.given
        shown = self._parts if beside else (self._parts[0], self._parts[2])
        if self._row.children != shown:
            self._row.children = shown
        if not beside:
            return
        canvas.theme, canvas.block = self.theme, self.canvas.block
        if canvas._source is not scene.given:
            canvas.show(scene.given, alt=self.alt_text(replace(scene, source=scene.given, ordering="none")))

    def _paint_colours(self):
        if self.scene is None or self._closing:
            return
        canvases = [part for part in self._row.children if isinstance(part, RasterCanvas)]
        self.colour_tops = paint_colours(canvases, self.colours, self.colour_tops)

    def table(self, scene):
        """Return statistics, row lengths and block densities as one table."""
        if scene.statistics is None:
            return ("part", "item", "value"), []
        rows = [("statistics", name, value) for name, value in statistics_rows(scene)]
        lengths = row_lengths(scene.statistics.row_lengths)
        for first, last, count in zip(lengths.first, lengths.last, lengths.rows, strict=True):
            rows.append(("rows by entries", f"{first}" if first == last else f"{first} to {last}", int(count)))
        for block in scene.blocks:
            rows.append(("density inside kept blocks", str(block.block_size), block.fill))
            rows.append(("share of blocks kept", str(block.block_size), block.kept_share))
        return ("part", "item", "value"), rows

    def arrays(self, scene):
        """Return the pixels in view, their margins, and the plotted curves."""
        window = tuple(self.canvas.window)
        counts = scene.source.counts(window, DATA_PIXELS)
        found = {"window": np.array(window), "counts": counts}
        found |= {"row_sums": counts.sum(axis=1), "column_sums": counts.sum(axis=0)}
        if scene.statistics is not None:
            found |= {"row_lengths": scene.statistics.row_lengths}
            found |= {"block_sizes": np.array([b.block_size for b in scene.blocks])}
            found |= {"block_fill": np.array([b.fill for b in scene.blocks])}
            found |= {"blocks_kept": np.array([b.kept for b in scene.blocks])}
        return found

    def settings(self):
        """Leave out the seed where the order draws nothing."""
        return [(label, value) for label, value in super().settings() if label != "Seed" or self.ordering in DRAWN]

    def exports(self, scene):
        """Offer the matrix in the order that is shown, whole, for other tools and for another visit."""

        def saved(ending):
            if not isinstance(scene.source, CsrSource):
                raise ValueError(
                    f"{scene.name}: a mask of over 10^8 positions is not saved as a matrix; save a part of it."
                )
            order = "" if scene.ordering == "none" else f"-{scene.ordering}"
            return matrix_file(scene.name, order, scene.source.matrix, ending)

        forms = (("Matrix Market", ".mtx"), ("NPZ of SciPy", ".npz"))
        return {f"Matrix in this order ({form})": partial(saved, ending) for form, ending in forms}

    def alt_text(self, scene):
        """Return the pattern in words."""
        (m, n), nnz = scene.source.shape, scene.source.nnz
        order = dict(ORDERINGS)[scene.ordering]
        text = f"Pattern of {scene.name}, {m:,} x {n:,} with {nnz:,} entries, order {order}"
        if scene.statistics is not None:
            s = scene.statistics
            part = "" if scene.region == (0, m, 0, n) else f" in the brushed part ({s.nnz:,} entries)"
            text += f"; density {s.density:.3g}, bandwidth {s.bandwidth:,}{part}"
        return text + "."

    def recipe(self):
        """Return Python that remakes the picture and its pixels."""
        state = {key: value for key, value in self.state.items() if value != self.knob(key).default and key != "matrix"}
        words = "".join(f", {key}={value!r}" for key, value in state.items())
        source = self._sources.get(self.matrix)
        made = f"matrix = {source}" if source else f"# matrix is yours: {self.matrix}"
        lines = ["from widgets.views.sparsity import SparsityView"]
        lines += [self._imports] if source and self._imports else []
        lines += [made, f"view = SparsityView(matrix{words}).wait()"]
        lines += ["pixels = view.arrays(view.scene)['counts']", "view"]
        return "\n".join(lines)

    def budget(self, state):
        """Refuse malformed brushes and colours, and more than 50 million entries where that can be told before."""
        try:
            for key, count in (("brush_rows", 2), ("brush_columns", 2), ("window", 4)):
                _numbers_of(state[key], count, key)
            locked_tops(state["colour_tops"])
        except ValueError as error:
            return str(error)
        given = self._matrices[state["matrix"]]
        nnz = 0 if is_large_mask(given) else getattr(given, "nnz", 0)
        if isinstance(nnz, (int, np.integer)) and nnz > MAX_NNZ:
            return f"{state['matrix']} has {nnz:,} entries; this view takes up to {MAX_NNZ:,}. Show a part of it."
        return None

    # Matrices -------------------------------------------------------------------------------------------------------
    def add_file(self, filename: str, content: bytes) -> None:
        """Read an uploaded file with ``read`` and show it; a file that cannot be read is named in the error line."""
        try:
            if self._read is None:
                raise ValueError("SparsityView.add_file: this view reads no files; make it with read=a function.")
            matrix = self._read(filename, content)
            as_pattern(matrix, filename)
        except Exception as error:
            self._failed(error)
            return
        older = [item for item in self._files.items() if item[0] != filename]
        self._files = dict([*older, (filename, matrix)][-KEPT_FILES:])
        self._matrices = self._given | self._files
        self._loaded = self._ordered = None
        self.set_knobs(self._knobs_for(self._matrices))
        self._turn("matrix", filename)
        self.refresh()

    def offer(self, matrices: Mapping[str, Any]) -> None:
        """Show other matrices in place of those given at first; the chosen name stays where they have it too."""
        self._given = dict(matrices)
        self._matrices = self._given | self._files
        self._loaded = self._ordered = None
        self.set_knobs(self._knobs_for(self._matrices))
        self.refresh()

    def close(self):
        """Take the view off the page and let it, and the matrices it read, be freed."""
        self._loaded = self._ordered = self._painted = None
        if not self._closing:
            for canvas in (self.canvas, self._given_canvas):
                canvas.unobserve_all()
            self._row.children = self._parts  # so that all of them are closed
        super().close()

    def _load(self, name):
        loaded = self._loaded
        if loaded is None or loaded[0] != name:
            given = self._matrices[name]
            given = given() if callable(given) else given
            if is_large_mask(given):
                loaded = self._loaded = (name, given, 0)
                return loaded[1:]
            matrix, duplicates = as_pattern(given, name)
            if matrix.nnz > MAX_NNZ:
                raise ValueError(f"{name} has {matrix.nnz:,} entries; this view takes up to {MAX_NNZ:,}.")
            loaded = self._loaded = (name, matrix, duplicates)
        return loaded[1:]

    def _order(self, matrix, state):
        """Return the matrix in the chosen order, and as given; both are kept for as long as they stay the same."""
        key = (state["matrix"], state["ordering"], state["seed"])
        ordered = self._ordered
        given = ordered[2] if ordered and ordered[2].matrix is matrix else CsrSource(matrix)
        if ordered is None or ordered[0] != key or ordered[2] is not given:
            source = given
            if state["ordering"] != "none":
                ordering = reorder(matrix, state["ordering"], seed=state["seed"])
                source = CsrSource(permuted(matrix, ordering), ordering.rows, ordering.columns)
            ordered = self._ordered = (key, source, given)
        return ordered[1:]

    # From the canvas ------------------------------------------------------------------------------------------------
    def _turn(self, key, value):
        if key != "matrix":
            super()._turn(key, value)
            return
        with self.changes():
            super()._turn(key, value)
            self.window = self.brush_rows = self.brush_columns = ""

    def _window_seen(self, change):
        if self.scene is None or self._closing:
            return
        m, n = self.scene.source.shape
        self.window = "" if change["new"] == [0, m, 0, n] else ":".join(map(str, change["new"]))

    def _brushed(self, change):
        if self.scene is not None and not self._closing:
            setattr(self, change["name"], ":".join(map(str, change["new"])))


def _numbers_of(text, count, key):
    if not text:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    if len(numbers) != count or not all(0 <= first < end for first, end in pairs):
        form = "first:end" if count == 2 else "r0:r1:c0:c1"
        raise ValueError(f"{key}: must be {form} with first < end, such as 0:100; got {text!r}.")
    return numbers


def _region(state, shape):
    region = []
    for key, size in (("brush_rows", shape[0]), ("brush_columns", shape[1])):
        first, end = _numbers_of(state[key], 2, key) or (0, size)
        region += [min(first, size), min(end, size)]
    return tuple(region)


def _part(matrix, region):
    r0, r1, c0, c1 = region
    if region == (0, matrix.shape[0], 0, matrix.shape[1]):
        return matrix
    part = sparse.csr_array(matrix[r0:r1][:, c0:c1])
    part.sort_indices()
    return part


def _mask_scenes(name, mask, state, progress):
    """Yield the scenes of a bit mask that stays packed: as given, whole, blocks where they divide it."""
    if state["ordering"] != "none" or state["brush_rows"] or state["brush_columns"]:
        raise ValueError(f"{name}: masks of over 10^8 positions are shown as given; clear order and brush.")
    whole = (0, mask.shape[0], 0, mask.shape[1])
    scene = SparsityScene(name, "none", mask, mask, 0, whole)
    yield scene
    progress(0.3, "counting")
    found = bit_statistics(mask.bits, mask.columns)
    blocks = []
    for size in sorted({*BLOCK_SIZES, state["block"]}):
        progress(0.8, f"blocks of {size}")
        if all(side % size == 0 and side // size <= 8192 for side in mask.shape):
            blocks.append(bit_block_density(mask.bits, mask.columns, size))
    yield replace(scene, statistics=found, blocks=tuple(blocks))


def _block_densities(scene, chosen):
    sizes = np.array([b.block_size for b in scene.blocks])
    kept = np.array([b.kept_share for b in scene.blocks])
    return BlockDensities(sizes, kept, np.array([b.fill for b in scene.blocks]), chosen)
