"""Attention masks: true attention, a method's estimate, what it keeps and computes, its cost, another beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from scipy import sparse

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import CsrSource, WeightSource
from widgets.controls.knob import Knob
from widgets.controls.upload import Upload
from widgets.figures.attention import PANELS, AttentionScene, MaskResult, coverage_figure, key_score_figure
from widgets.figures.fact_table import fact_table
from widgets.figures.figure_widget import PlotPane
from widgets.views.view import View

UPLOAD_LIMIT_BYTES = 64_000_000
PICTURES = (
    Knob("left", "Left picture", "attention", choices=PANELS, help="What the left picture shows."),
    Knob("right", "Right picture", "allowed", choices=PANELS, help="What the right picture shows."),
)
_NAMES = dict(PANELS)


class AttentionMaskView(View):
    """Explore attention masks of real models.

    A subclass gives ``knobs``: inputs, methods and their parameters, with "method" and "versus" (choice "none" for no
    second method) among them, and `PICTURES`.

    Parameters
    ----------
    source : ``source(state, progress) -> AttentionScene``; all computing is there.
    relevant : method key -> keys of the knobs that it reads; other method knobs are not shown.
    budget : ``budget(state)`` -> None or the sentence that refuses.
    recipe_lines : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    upload : ``upload(file name, bytes)`` takes a reader's .npz of q and k; raises ValueError if it cannot be read.
    """

    title = "Attention masks"
    kind = "counted"
    paint_only = frozenset({"left", "right"})

    def __init__(
        self,
        source: Callable[[Mapping[str, Any], Callable], AttentionScene],
        *,
        relevant: Mapping[str, Sequence[str]],
        budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None,
        recipe_lines: Callable[[str], str] = lambda words: f"view = ...  # {words}",
        upload: Callable[[str, bytes], None] | None = None,
        link_base: str = "",
        query: str = "",
        **state,
    ):
        self._source, self._budget, self._recipe, self._upload = source, budget, recipe_lines, upload
        self._relevant = relevant
        self._method_knobs = {key for keys in relevant.values() for key in keys}
        self._drawn: tuple | None = None
        super().__init__(link_base=link_base, query=query, **state)
        self.observe(self._methods_changed, names=["method", "versus"])

    # Picture --------------------------------------------------------------------------------------------------------
    def build(self):
        """Make the two canvases, the table of facts and the plots."""
        self.left_canvas, self.right_canvas = RasterCanvas(title="left"), RasterCanvas(title="right")
        self._facts = ipywidgets.HTML()
        self._curves, self._scores = PlotPane(), PlotPane()
        self._curves.title, self._scores.title = "coverage over density", "key scores"
        for canvas in (self.left_canvas, self.right_canvas):
            canvas.observe(self._zoomed, names="window")
            canvas.layout.flex, canvas.layout.min_width, canvas.layout.max_width = "1 1 420px", "0", "640px"
        row = {"display": "flex", "flex_flow": "row wrap"}
        pictures = ipywidgets.Box([self.left_canvas, self.right_canvas], layout=row)
        plots = ipywidgets.VBox([self._curves, self._scores])
        for part in (self._facts, plots):
            part.layout.flex, part.layout.min_width, part.layout.max_width = "1 1 420px", "0", "640px"
        below = ipywidgets.Box([self._facts, plots], layout=row)
        if self._upload is None:
            return [pictures, below]
        label = f"Your own q and k (.npz with arrays q and k, up to {UPLOAD_LIMIT_BYTES / 1e6:g} MB)"
        return [Upload(label, ".npz", UPLOAD_LIMIT_BYTES, self._uploaded), pictures, below]

    def compute(self, state, progress):
        """Ask the source."""
        return self._source(state, progress)

    def paint(self, scene):
        """Draw both pictures, the facts and the plots."""
        versus = scene.other is not None
        left = (scene.result, self.right) if versus else (scene.result, self.left)
        right = (scene.other, self.right) if versus else (scene.result, self.right)
        drawn = (id(scene), left[1], right[1], self.theme)
        if drawn == self._drawn:
            return
        for canvas, (result, panel) in ((self.left_canvas, left), (self.right_canvas, right)):
            canvas.theme = self.theme
            name, array, cell = shown_panel(result, panel)
            canvas.title = f"{name}: {result.method}" if versus else name
            canvas.block = max(1, result.cells.get("keep", 1) // cell) if result.cells.get("keep", 1) > cell else 0
            canvas.show(_raster_source(array), alt=_panel_alt(name, result, array, cell), keep_window=True)
        self._facts.value = _facts_html(scene)
        if self._drawn is None or self._drawn[0] != id(scene) or self._drawn[3] != self.theme:
            self._curves.show(coverage_figure(scene, self.theme), _curves_alt(scene))
            scores = scene.result.key_scores
            self._scores.layout.display = "" if scores is not None else "none"
            if scores is not None:
                self._scores.show(key_score_figure(scores, self.theme), _scores_alt(scores))
        self._drawn = drawn

    def table(self, scene):
        """Return facts of the method (and of the other) and the curves as one table."""
        rows = []
        for result in filter(None, (scene.result, scene.other)):
            rows += [(result.method, "coverage", result.coverage), (result.method, "density", result.density)]
            rows += [(result.method, name, value) for name, value in result.facts.items()]
        for curve in scene.curves:
            for setting, density, coverage in zip(curve.settings, curve.density, curve.coverage, strict=True):
                rows.append((curve.label, f"coverage at {setting}", float(coverage)))
                rows.append((curve.label, f"density at {setting}", float(density)))
        return ("what", "item", "value"), rows

    def arrays(self, scene):
        """Return every panel of the method, and of the other under ``other_``."""
        found = dict(scene.result.panels)
        if scene.other is not None:
            found |= {f"other_{key}": array for key, array in scene.other.panels.items()}
        return found

    def alt_text(self, scene):
        """Return what is kept and covered, in words."""
        parts = [f"{scene.source}, {scene.t:,} tokens"]
        for result in filter(None, (scene.result, scene.other)):
            covered = f", holds {result.coverage:.1%} of the attention" if result.coverage == result.coverage else ""
            parts.append(f"{result.method} computes {result.density:.1%} of the pairs{covered}")
        return "; ".join(parts) + "."

    def recipe(self):
        """Return Python that remakes the picture."""
        changed = {key: value for key, value in self.state.items() if value != self.knob(key).default}
        return self._recipe(", ".join(f"{key}={value!r}" for key, value in changed.items()))

    def budget(self, state):
        """Refuse what the source says is too much."""
        return self._budget(state)

    # Controls -------------------------------------------------------------------------------------------------------
    def _shown_knobs(self):
        used = {*self._relevant.get(self.method, ()), *self._relevant.get(self.versus, ())}
        return [knob for knob in super()._shown_knobs() if knob.key in used or knob.key not in self._method_knobs]

    def _methods_changed(self, change):
        self._panel.draw(self._shown_knobs())
        self._state_shown()

    def _zoomed(self, change):
        other = self.right_canvas if change["owner"] is self.left_canvas else self.left_canvas
        if self._closing or self.scene is None or not change["new"] or other.size == [0, 0]:
            return
        own = change["owner"].size
        scaled = [
            round(edge * size / max(1, mine))
            for edge, size, mine in zip(change["new"], np.repeat(other.size, 2), np.repeat(own, 2), strict=True)
        ]
        if other.size == own and list(other.window) != scaled:
            other.window = scaled

    def _uploaded(self, filename, content):
        try:
            self._upload(filename, content)
        except ValueError as error:
            self._failed(error)
            return
        self.refresh()

    def close(self):
        """Take the view off the page and let it be freed."""
        if not self._closing:
            for canvas in (self.left_canvas, self.right_canvas):
                canvas.unobserve_all()
            self._source = self._upload = None
        super().close()


def shown_panel(result: MaskResult, panel: str) -> tuple[str, np.ndarray, int]:
    """Return name, array and tokens per cell of a panel, or of the nearest one that the method has."""
    for key in (panel, "allowed", "keep", "effective", "estimate"):
        if key in result.panels:
            return _NAMES[key], result.panels[key], result.cells.get(key, 1)
    raise ValueError(f"{result.method} has nothing to show")


def _raster_source(array):
    if array.dtype == np.bool_:
        return CsrSource(sparse.csr_array(array, dtype=np.float32))
    return WeightSource(array)


def _panel_alt(name, result, array, cell):
    rows, columns = array.shape
    grain = "" if cell == 1 else f", one cell is {cell} tokens"
    share = f"; {array.mean():.1%} of the cells are set" if array.dtype == np.bool_ else ""
    return f"{name} of {result.method}, {rows:,} x {columns:,}{grain}{share}."


def _facts_html(scene):
    results = [r for r in (scene.result, scene.other) if r is not None]
    labels = list(dict.fromkeys(label for r in results for label in r.facts))
    rows = [("attention covered (counted)", *(_share(r.coverage) for r in results))]
    rows += [("density (counted)", *(_share(r.density) for r in results))]
    rows += [(label, *(r.facts.get(label, "") for r in results)) for label in labels]
    return fact_table(f"{scene.source}, {scene.t:,} tokens", ("what", *(r.method for r in results)), rows)


def _share(value):
    return "unknown" if value != value else f"{value:.4f}"


def _curves_alt(scene):
    if not scene.curves:
        return "The present settings as points of coverage over density."
    ends = [
        f"{c.label} reaches {c.coverage.max():.3f} at density {c.density[c.coverage.argmax()]:.3f}"
        for c in scene.curves
    ]
    return "Lines of coverage over density: " + "; ".join(ends) + "."


def _scores_alt(scores):
    return f"Line of key scores; the largest, {scores.max():.4g}, is at key {int(scores.argmax())}."
