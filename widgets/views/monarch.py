"""A matrix and its nearest Monarch matrix: spectra of the parts, the factors that fill it, errors beside others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import ipywidgets
import numpy as np

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import ValueSource
from widgets.controls.knob import Knob
from widgets.controls.stepper import Stepper
from widgets.controls.upload import UploadField
from widgets.figures.monarch import MonarchScene, curve_figure, errors_figure, part_figure, spectra_figure
from widgets.figures.monarch_words import (
    curve_columns,
    errors_words,
    factor_words,
    headline,
    spectra_columns,
    spectra_words,
)
from widgets.views.frame.colour_scale import COLOUR_SCALE, locked_tops, paint_colours
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story
from widgets.views.frame.table_twin import ColumnRows
from widgets.views.frame.worker import Progress

__all__ = ["MonarchHooks", "MonarchView"]

SECTIONS = (("spectra", "Spectra of the parts"), ("factors", "The factors"), ("errors", "Error and size"))
FILLED = Knob("filled", "Blocks multiplied", 10**4, 0, 10**4)
PART = (Knob("part_row", "Row of the part", 0, 0, 10**4), Knob("part_column", "Column of the part", 0, 0, 10**4))
ORDERS = {True: "inputs permuted", False: "inputs in their order"}


@dataclass(frozen=True, kw_only=True)
class MonarchHooks:
    """What a view of projections is told of its matrices; every part but the first may be left out.

    Parameters
    ----------
    matrices : all knobs that make a matrix and its projection.
    relevant : state -> keys of ``matrices`` that matter in it, in the order in which they are shown.
    stories : settings worth seeing, by key.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    uploads : fields for the reader's own files, shown while ``shows_uploads(state)``.
    """

    matrices: Sequence[Knob]
    relevant: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    stories: Mapping[str, Story] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    uploads: Sequence[UploadField] = ()
    shows_uploads: Callable[[Mapping[str, Any]], bool] = lambda state: False


class MonarchView(SectionedView):
    """Look at a matrix as a Monarch matrix.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress) -> MonarchScene``.
    hooks : the knobs of the matrix and what to say of them.
    **state : values of knobs; ``query`` takes a link's query string.
    """

    title = "Monarch matrices"
    paint_only: ClassVar[frozenset[str]] = frozenset(
        ("section", "filled", "part_row", "part_column", "colours", "colour_tops")
    )

    def __init__(
        self, compute_scene: Callable[[Mapping[str, Any], Progress], MonarchScene], hooks: MonarchHooks, **state
    ):
        self._compute_scene, self._hooks = compute_scene, hooks
        elsewhere = (Knob("section", "Part", SECTIONS[0][0], choices=SECTIONS), FILLED, *PART, COLOUR_SCALE[1])
        self.knobs = (*hooks.matrices, *elsewhere, COLOUR_SCALE[0])
        self.hidden = frozenset(knob.key for knob in elsewhere)
        super().__init__(**state)

    # The widgets ----------------------------------------------------------------------------------------------------
    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts of each section."""
        self._stepper = Stepper(partial(self._turn_part, "filled"), label="Blocks of the first factor")
        self._canvases = {
            name: RasterCanvas(title=title, layout=flexible(270))
            for name, title in (
                ("kept", "Energy kept"), ("first", "Factor R"), ("second", "Factor L"), ("product", "Product"),
                ("matrix", "Matrix"),
            )
        }  # fmt: skip
        self._canvases["kept"].on_pick(self._pick)
        self._panes = panes = {
            name: pane(title, width)
            for name, title, width in (
                ("now", "spectra, order chosen", 430), ("other", "spectra, other order", 430),
                ("part", "one part", 430), ("errors", "errors", 520), ("curve", "error over parameters", 520),
            )
        }  # fmt: skip
        self._drawn: dict[str, Any] = {}
        canvas = self._canvases
        return self.framed(
            {
                "spectra": (row(panes["now"], panes["other"]), row(canvas["kept"], panes["part"])),
                "factors": (
                    self._stepper,
                    row(*(canvas[name] for name in ("second", "first", "product", "matrix"))),
                ),
                "errors": (row(panes["errors"], panes["curve"]),),
            },
            {},
        )

    def takes_files(self) -> bool:
        """Tell whether the fields for the reader's own files are shown."""
        return self._hooks.shows_uploads(self.state)

    def _shown_knobs(self):
        if self._hooks.relevant is None:
            return [knob for knob in self.knobs if knob.key not in self.hidden]
        shown = [self.knob(key) for key in self._hooks.relevant(self.state)]
        return [*shown, COLOUR_SCALE[0]] if self.section == "factors" else shown

    def _pick(self, part_row, part_column):
        with self.changes():
            self.part_row, self.part_column = part_row, part_column

    # Work -----------------------------------------------------------------------------------------------------------
    def compute(self, state: Mapping[str, Any], progress: Progress) -> MonarchScene:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    def budget(self, state: Mapping[str, Any]) -> str | None:
        """Refuse what cannot be shown live, naming the limit."""
        try:
            locked_tops(state["colour_tops"])
        except ValueError as error:
            return str(error)
        return super().budget(state)

    # The picture ----------------------------------------------------------------------------------------------------
    def paint(self, scene: MonarchScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value, self.kind = headline(scene), scene.kind
        {"spectra": self._paint_spectra, "factors": self._paint_factors, "errors": self._paint_errors}[self.section](
            scene
        )

    def _paint_spectra(self, scene):
        picked = self._picked(scene)
        for name, spectra, permuted in (
            ("now", scene.spectra, scene.permuted),
            ("other", scene.turned, not scene.permuted),
        ):
            words = ORDERS[permuted] + (" (chosen)" if name == "now" else "")
            self._panes[name].show(
                spectra_figure(scene, spectra, words, picked, theme=self.theme), spectra_words(scene, spectra, permuted)
            )
        self._panes["part"].show(
            part_figure(scene, picked, theme=self.theme),
            f"Singular values of part {picked[0]}, {picked[1]} in both orders of the inputs.",
        )
        kept = scene.kept(scene.spectra).astype(np.float32)
        words = f"Energy kept in each part, from {kept.min():.1%} to {kept.max():.1%}; choose a part to see its values."
        self._show("kept", ("block that writes", "block that reads"), ValueSource.of(kept), words, scene)
        self._canvases["kept"].title = f"Energy kept of each part ({scene.kind})"
        self._canvases["kept"].mark((), (), [picked])

    def _paint_factors(self, scene):
        step, steps = self._step(scene), scene.blocks[0]
        self._stepper.show(step, steps, factor_words(scene, step), "block")
        k, l = scene.blocks
        names = {
            "first": (scene.first, f"Factor R, {k} blocks", ("number between", "input")),
            "second": (scene.second, f"Factor L, permuted, {l} blocks", ("output", "number between")),
            "product": (scene.filled(step), f"Product of {step} of {steps} blocks", ("output", "input")),
            "matrix": (scene.matrix, "The matrix", ("output", "input")),
        }
        for name, (values, title, axes) in names.items():
            m, n = values.shape
            words = f"{title}: {m:,} x {n:,}, {np.count_nonzero(values):,} numbers that are not zero."
            key = (scene, step) if name == "product" else scene
            self._show(name, axes, ValueSource.of(values), words, key)
        pair = [self._canvases[name] for name in ("product", "matrix")]
        tops = paint_colours(pair, self.colours, self.colour_tops)
        if tops != self.colour_tops:
            self.colour_tops = tops

    def _show(self, name, axes, source, words, key):
        canvas = self._canvases[name]
        canvas.theme = self.theme
        if self._drawn.get(name) == key:
            return
        self._drawn[name] = key
        canvas.axes = axes
        canvas.show(source, alt=words, keep_window=True)

    def _paint_errors(self, scene):
        self._panes["errors"].show(errors_figure(scene, theme=self.theme), errors_words(scene))
        self._panes["curve"].show(
            curve_figure(scene, theme=self.theme), f"{errors_words(scene)} Curves for {', '.join(scene.curves)}."
        )

    def _picked(self, scene):
        l, k = scene.spectra.shape[:2]
        return min(self.part_row, l - 1), min(self.part_column, k - 1)

    def _step(self, scene):
        return min(self.filled, scene.blocks[0])

    # Words, data ----------------------------------------------------------------------------------------------------
    def alt_text(self, scene: MonarchScene) -> str:
        """Say what the open section shows."""
        if self.section == "spectra":
            return spectra_words(scene, scene.spectra, scene.permuted)
        if self.section == "factors":
            return f"{scene.title}. {factor_words(scene, self._step(scene))}"
        return errors_words(scene)

    def table(self, scene: MonarchScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = curve_columns(scene) if self.section == "errors" else spectra_columns(scene)
        return list(columns), ColumnRows(list(columns.values()))

    def arrays(self, scene: MonarchScene) -> dict[str, np.ndarray]:
        """Return the matrix, its factors and their product, and the spectra in both orders of the inputs."""
        return {
            "matrix": scene.matrix,
            "product": scene.product,
            "first_factor": scene.first,
            "second_factor": scene.second,
            "spectra": scene.spectra,
            "spectra_in_the_other_order": scene.turned,
        }

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings of the matrix and of the open section."""
        mine = {"spectra": ("part_row", "part_column"), "factors": ("filled", "colours"), "errors": ()}[self.section]
        return self.in_words([*self._shown_knobs(), *(self.knob(key) for key in ("section", *mine))])

    def close(self) -> None:
        """Take the view off the page and let it be freed."""
        super().close()
        self._drawn = {}
