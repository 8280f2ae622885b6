"""One weight matrix as a product of factors: the factors, what they miss, and what they take."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import ipywidgets
import numpy as np

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import ValueSource
from widgets.controls.knob import Knob
from widgets.controls.upload import UploadField
from widgets.figures.factorization import (
    FactorizationScene,
    bytes_figure,
    errors_figure,
    history_figure,
    spectrum_figure,
)
from widgets.figures.factorization_words import (
    bytes_columns,
    bytes_words,
    error_columns,
    error_words,
    factor_columns,
    factor_words,
    headline,
)
from widgets.views.frame.colour_scale import COLOUR_SCALE, locked_tops, paint_colours
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story
from widgets.views.frame.table_twin import ColumnRows
from widgets.views.frame.worker import Progress

__all__ = ["FactorizationHooks", "FactorizationView"]

SECTIONS = (("factors", "Factors"), ("error", "Error"), ("bytes", "Bytes"))
MOST_FACTORS = 4
WHOLE = ("weight", "rebuilt", "left")
FACTOR = {"max_width": "420px", "display": "none"}  # until there is one to show
ALL_LAYERS = Knob(
    "all_layers", "All layers", False, help="Factorises every layer of the model at these settings; it takes a while."
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FactorizationHooks:
    """What a view of factors is told of its matrices and methods.

    Parameters
    ----------
    knobs : all that choose a matrix and a method and set it.
    relevant : (state, scene or None) -> the knobs that matter in it, in the order in which they are shown.
    stories : settings worth seeing, by key.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    uploads : fields for the reader's own files, shown while ``shows_uploads(state)``.
    """

    knobs: Sequence[Knob]
    relevant: Callable[[Mapping[str, Any]], Sequence[Knob]]
    stories: Mapping[str, Story] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    uploads: Sequence[UploadField] = ()
    shows_uploads: Callable[[Mapping[str, Any]], bool] = lambda state: False


class FactorizationView(SectionedView):
    """Look at the factors of a matrix, at the error of their product and at the bytes that they take.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress)`` returns a FactorizationScene, or yields several.
    hooks : the knobs, and what to say of them.
    **state : values of knobs; ``query`` takes a link's query string.
    """

    title = "Factorisations"
    paint_only: ClassVar[frozenset[str]] = frozenset(("section", "colours", "colour_tops"))

    def __init__(self, compute_scene: Callable[[Mapping[str, Any], Progress], Any], hooks: FactorizationHooks, **state):
        self._compute_scene, self._hooks = compute_scene, hooks
        elsewhere = (Knob("section", "Part", SECTIONS[0][0], choices=SECTIONS), COLOUR_SCALE[1])
        self.knobs = (*hooks.knobs, ALL_LAYERS, *elsewhere, COLOUR_SCALE[0])
        self.hidden = frozenset(knob.key for knob in elsewhere)
        super().__init__(**state)

    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts of each section."""
        self._canvases = {name: RasterCanvas(layout=flexible(300)) for name in WHOLE}
        self._factors = [RasterCanvas(layout=flexible(300) | FACTOR) for _ in range(MOST_FACTORS)]
        self._about = ipywidgets.HTML()
        self._panes = panes = {
            name: pane(name, width)
            for name, width in (("spectrum", 440), ("history", 440), ("layers", 620), ("bytes", 620))
        }
        self._drawn: Any = None
        return self.framed(
            {
                "factors": (row(*self._factors), self._about, row(*self._canvases.values())),
                "error": (row(panes["spectrum"], panes["history"]), row(panes["layers"])),
                "bytes": (row(panes["bytes"]),),
            },
            {},
        )

    def takes_files(self) -> bool:
        """Tell whether the fields for the reader's own files are shown."""
        return self._hooks.shows_uploads(self.state)

    def _shown_knobs(self):
        shown = [*self._hooks.relevant(self.state), ALL_LAYERS]
        return [*shown, COLOUR_SCALE[0]] if self.section == "factors" else shown

    def budget(self, state: Mapping[str, Any]) -> str | None:
        """Refuse what cannot be shown live, naming the limit."""
        try:
            locked_tops(state["colour_tops"])
        except ValueError as error:
            return str(error)
        return super().budget(state)

    def compute(self, state: Mapping[str, Any], progress: Progress) -> Any:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    def paint(self, scene: FactorizationScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value = headline(scene)
        self.kind = "counted" if self.section == "bytes" else "measured"
        {"factors": self._paint_factors, "error": self._paint_error, "bytes": self._paint_bytes}[self.section](scene)

    def _paint_factors(self, scene):
        for canvas in (*self._canvases.values(), *self._factors):
            canvas.theme = self.theme
        if self._drawn is not scene:
            self._drawn = scene
            pictures = {
                "weight": ("The matrix", scene.weight),
                "rebuilt": ("The product", scene.rebuilt),
                "left": ("What is left", scene.weight - scene.rebuilt),
            }
            for name, (title, values) in pictures.items():
                canvas = self._canvases[name]
                canvas.title, canvas.axes = f"{title}: {values.shape[0]:,} x {values.shape[1]:,}", ("output", "input")
                size = np.linalg.norm(values)
                canvas.show(ValueSource.of(values), alt=f"{title}, of norm {size:.4g}.", keep_window=True)
            for canvas, factor in zip(self._factors, scene.factors, strict=False):
                rows, columns = factor.values.shape
                canvas.title, canvas.axes = f"{factor.name}: {rows:,} x {columns:,}", factor.axes
                canvas.show(ValueSource.of(factor.values), alt=f"{factor.name}: {factor.about}", keep_window=True)
            said = "".join(f"<li>{_sentence(each)}</li>" for each in scene.factors)
            self._about.value = f"<ol class='wb' style='margin:2px 4px'>{said}</ol>"
        for i, canvas in enumerate(self._factors):
            canvas.layout.display = None if i < len(scene.factors) else "none"
        tops = paint_colours(list(self._canvases.values()), self.colours, self.colour_tops)
        if tops != self.colour_tops:
            self.colour_tops = tops

    def _paint_error(self, scene):
        self._panes["spectrum"].show(spectrum_figure(scene, self.theme), error_words(scene))
        self._panes["history"].show(history_figure(scene, self.theme), error_words(scene))
        self._panes["layers"].show(errors_figure(scene, self.theme), error_words(scene))

    def _paint_bytes(self, scene):
        self._panes["bytes"].show(bytes_figure(scene, self.theme), bytes_words(scene))

    # Words, data ----------------------------------------------------------------------------------------------------
    def alt_text(self, scene: FactorizationScene) -> str:
        """Say what the open section shows."""
        return {"factors": factor_words, "error": error_words, "bytes": bytes_words}[self.section](scene)

    def _columns(self, scene):
        return {"factors": factor_columns, "error": error_columns, "bytes": bytes_columns}[self.section](scene)

    def table(self, scene: FactorizationScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = self._columns(scene)
        return list(columns), ColumnRows(list(columns.values()))

    def arrays(self, scene: FactorizationScene) -> dict[str, np.ndarray]:
        """Return the columns of the open section's table, the matrix, the product and its factors."""
        factors = {f"factor_{i}": each.values for i, each in enumerate(scene.factors, 1)}
        return self._columns(scene) | {"weight": scene.weight, "product": scene.rebuilt} | factors

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings of matrix, method and open section."""
        return self.in_words([*self._shown_knobs(), self.knob("section")])

    def close(self) -> None:
        """Take the view off the page and let it be freed."""
        super().close()
        self._drawn = None


def _sentence(factor):
    rows, columns = factor.values.shape
    return f"<b>{html.escape(factor.name)}</b>, {rows:,} x {columns:,}: {html.escape(factor.about)}"
