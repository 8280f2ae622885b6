"""Attention masks: true attention, a method's estimate, what it keeps and computes, its cost, another beside it."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets
import numpy as np

from kernels.attention.trace import AttentionTrace
from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import BitsSource, WeightSource
from widgets.controls.choices import Choices
from widgets.controls.knob import Knob
from widgets.controls.upload import LIMIT_BYTES, Upload
from widgets.figures.attention import (
    PANELS,
    Panel,
    coverage_figure,
    is_sorted,
    key_score_figure,
    panel,
    panel_axes,
    panel_keys,
    panel_labels,
    pictures_of,
    tokens_per_cell,
)
from widgets.figures.attention_query import QueryMaps, query_maps_figure, query_row_figure
from widgets.figures.attention_words import (
    curves_words,
    facts_html,
    kept_words,
    maps_words,
    number_rows,
    panel_words,
    row_words,
    scores_words,
)
from widgets.figures.plot_pane import PlotPane
from widgets.views.frame.colour_scale import COLOUR_SCALE, locked_tops, paint_colours
from widgets.views.frame.story import Story
from widgets.views.frame.view import View

EXPORTED_CELLS = 2**22
_IN_METHODS_ORDER = frozenset({"keep", "blocks", "estimate", "sorted", "permuted"})


def picture_knobs(panels: Sequence[Panel] = PANELS) -> tuple[Knob, ...]:
    """Return the knobs that choose both pictures, their colours and the query, for the panels that may be shown."""
    choices = tuple((each.key, each.label) for each in panels)
    return (
        Knob("left", "Left picture", "attention", choices=choices, help="What the left picture shows."),
        Knob("right", "Right picture", "allowed", choices=choices, help="What the right picture shows."),
        Knob(
            "row",
            "Query (row)",
            300,
            0,
            65535,
            1,
            help="The query drawn below. A click on a picture chooses it, too.",
        ),
        *COLOUR_SCALE,
    )


@dataclass(frozen=True, kw_only=True)
class ViewHooks:
    """What a view of attention masks is told about its inputs and methods; every part may be left out.

    Parameters
    ----------
    relevant : knob -> choice -> knobs that only matter with that choice, a knob after those that it depends on; what
        no choice names is always shown.
    limits : state -> knob -> largest value that makes a difference.
    adjust : (state, knobs just turned) -> (knobs to turn along, a remark that says so or "").
    budget : state -> None or the sentence that refuses.
    picked : (state, query, key) -> knobs to turn when a reader picks a pair in a picture.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    stories : method -> settings worth seeing.
    upload : ``upload(file name, bytes)`` takes a reader's file of heads; raises ValueError if it cannot be read.
    upload_limit_bytes : largest file.
    file_choice : the choice of "input" that the uploaded file is.
    """

    relevant: Mapping[str, Mapping[Any, Sequence[str]]] = field(default_factory=dict)
    limits: Callable[[Mapping[str, Any]], Mapping[str, float]] = lambda state: {}
    adjust: Callable[[Mapping[str, Any], set[str]], tuple[dict[str, Any], str]] = lambda state, keys: ({}, "")
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    picked: Callable[[Mapping[str, Any], int, int], dict[str, Any]] = lambda state, row, column: {"row": row}
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    stories: Mapping[str, Sequence[Story]] = field(default_factory=dict)
    upload: Callable[[str, bytes], None] | None = None
    upload_limit_bytes: int = LIMIT_BYTES
    file_choice: str = "file"


class AttentionMaskView(View):
    """Explore attention masks of real models.

    A subclass gives ``panels``, all pictures that its methods may have, and ``knobs``: inputs, methods and their
    parameters, with "method" and "compare_with" (choice "none" for no second method) among them, and those that
    `picture_knobs` returns.

    Parameters
    ----------
    source : ``source(state, progress) -> AttentionScene``, or a generator of scenes, each more complete; all computing
        is there.
    wiring : what to show, refuse and offer.
    """

    title = "Attention masks"
    kind = "counted"
    panels: Sequence[Panel] = PANELS
    paint_only = frozenset({"left", "right", "row", "place", "colours", "colour_tops"})
    hidden = frozenset({"colour_tops"})
    _source: Any  # None once closed

    def __init__(
        self,
        source: Callable[[Mapping[str, Any], Callable], Any],
        wiring: ViewHooks | None = None,
        *,
        link_base: str = "",
        query: str = "",
        **state,
    ):
        self._source, self._wiring = source, wiring or ViewHooks()
        choices = self._wiring.relevant.values()
        self._depending = {key for choice in choices for keys in choice.values() for key in keys}
        self._panels = {each.key: each for each in self.panels}
        self._drawn: dict = {}
        self._offered: tuple = ()
        super().__init__(link_base=link_base, query=query, **state)
        self._tell_stories()

    # Picture --------------------------------------------------------------------------------------------------------
    def build(self):
        """Make the two canvases, the table of facts and the plots."""
        self.left_canvas, self.right_canvas = RasterCanvas(title="left"), RasterCanvas(title="right")
        self._facts, self._query_note = ipywidgets.HTML(), ipywidgets.HTML()
        self._curves, self._scores, self._query_pane = PlotPane(), PlotPane(), PlotPane()
        self._curves.title, self._scores.title = "coverage over density", "key scores"
        self._query_pane.title = "one query"
        self._query_pane.on_click(self._query_clicked)
        for canvas in (self.left_canvas, self.right_canvas):
            canvas.observe(self._zoomed, names="window")
            canvas.marks_are = "the query in focus"
            canvas.on_pick(lambda row, column, canvas=canvas: self._pair_picked(canvas, row, column))
            canvas.layout.flex, canvas.layout.min_width, canvas.layout.max_width = "1 1 420px", "0", "640px"
        row = {"display": "flex", "flex_flow": "row wrap"}
        pictures = ipywidgets.Box([self.left_canvas, self.right_canvas], layout=row)
        plots = ipywidgets.VBox([self._curves, self._scores])
        for part in (self._facts, plots):
            part.layout.flex, part.layout.min_width, part.layout.max_width = "1 1 420px", "0", "640px"
        self._query_pane.layout.max_width = "1280px"
        self._stories = Choices([], self._story_chosen, label="Settings worth seeing")
        below = ipywidgets.Box([self._facts, plots], layout=row)
        found = [self._stories, pictures, self._query_pane, self._query_note, below]
        if self._wiring.upload is not None:
            label = "Your own queries and keys: .npz with arrays q and k, and v if there are values"
            self._upload_field = Upload(label, (".npz", ".npy"), self._wiring.upload_limit_bytes, self._uploaded)
            found.insert(0, self._upload_field)
            self._show_upload()
        return found

    def compute(self, state, progress):
        """Ask the source."""
        return self._source(state, progress)

    def paint(self, scene):
        """Draw both pictures, one query, the facts and the plots."""
        offered = panel_keys(scene.result, scene.other)
        if scene.other is not None:
            offered = tuple(key for key in offered if key in panel_keys(scene.other, scene.result))
        if (offered, scene.t) != self._offered:
            self._offered = (offered, scene.t)
            self._panel.draw(self._shown_knobs())
        row = min(self.row, scene.t - 1)
        if row != self.row:
            self._turn_along({"row": row})
        compared = scene.other is not None
        left = (scene.result, scene.other, self.right if compared else self.left)
        right = (scene.other, scene.result, self.right) if compared else (scene.result, None, self.right)
        for canvas, (result, other, wanted) in ((self.left_canvas, left), (self.right_canvas, right)):
            self._paint_canvas(canvas, scene, result, other, wanted)
            self._mark_row(canvas, result, row)
        self._paint_colours()
        self.kind = scene.kind
        if self._changed("facts", scene, self.theme):
            self._facts.value = facts_html(scene)
            self._curves.show(coverage_figure(scene, self.theme), curves_words(scene))
            scores = scene.result.key_scores
            self._scores.layout.display = "" if scores is not None else "none"
            if scores is not None:
                self._scores.show(key_score_figure(scores, scene.kind, self.theme), scores_words(scores))
        self._paint_query(scene, row)

    def _paint_colours(self):
        locked = paint_colours((self.left_canvas, self.right_canvas), self.colours, self.colour_tops)
        self._turn_along({"colour_tops": locked})

    def _changed(self, part, *now):
        """Tell whether a part was last drawn from other things; words and numbers by value, data by identity."""
        before, self._drawn[part] = self._drawn.get(part), now
        if before is None or len(before) != len(now):
            return True
        plain = (str, int, float, bool)
        return any(a is not b and not (isinstance(b, plain) and a == b) for a, b in zip(before, now, strict=True))

    def _paint_canvas(self, canvas, scene, result, other, wanted):
        key = shown_panel(result, wanted, other)
        compared = other.maps if other is not None else None
        if not self._changed(canvas, key, result.maps, compared, self.theme):
            return
        array, shown = panel(result, key, other), self._panels[key]
        cell, block = tokens_per_cell(result, key), result.block_size or 1
        canvas.theme = self.theme
        canvas.title = f"{shown.label}: {result.method}" if scene.other is not None else shown.label
        canvas.block = block // cell if block > cell else 0
        labels = panel_labels(scene, result, shown, array.shape)
        canvas.axes = panel_axes(result, shown, array.shape)
        words = panel_words(shown, result, array, cell, scene)
        canvas.show(_raster_source(array, *labels), alt=words, keep_window=True)

    def _mark_row(self, canvas, result, row):
        key = self._drawn[canvas][0]
        cell = tokens_per_cell(result, key)
        if result.query_order is not None and key in _IN_METHODS_ORDER:
            row = int(np.flatnonzero(result.query_order == row)[0])
        canvas.mark(rows=[row // cell])

    def _paint_query(self, scene, row):
        for part in (self._query_pane, self._query_note):
            part.layout.display = "none" if scene.query is None else ""
        place = self.state.get("place")
        if scene.query is None or not self._changed("query", scene.result.maps, row, place, self.theme):
            return
        shown = scene.query(row, self.state)
        if isinstance(shown, QueryMaps):
            self._query_pane.show(query_maps_figure(shown, self.theme), maps_words(shown))
            note = (
                "Click a pixel to choose another query. Point at a fused key to see its pixels, click it to mark them."
            )
        else:
            self._query_pane.show(query_row_figure(shown, self.theme), row_words(shown))
            note = shown.note
        self._query_note.value = f"<p class='wb wb-note'>{html.escape(note)}</p>" if note else ""

    def table(self, scene):
        """Return the numbers of the method (and of the other) and the curves as one table."""
        return ("what", "item", "value"), number_rows(scene)

    def arrays(self, scene):
        """Return what both pictures show, and every other panel of up to four million cells."""
        found = {}
        for prefix, result, other in (("", scene.result, scene.other), ("other_", scene.other, scene.result)):
            if result is None:
                continue
            shown = {shown_panel(result, key, other) for key in (self.left, self.right)}
            held = pictures_of(result)
            keys = [key for key, array in held.items() if key in shown or array.size <= EXPORTED_CELLS]
            found |= {prefix + key: panel(result, key, other) for key in dict.fromkeys((*keys, *sorted(shown)))}
            if result.order is not None and is_sorted(result):
                found[prefix + "order"] = result.order
        return found

    def alt_text(self, scene):
        """Return what is kept and covered, in words."""
        parts = [f"{scene.source}, {scene.t:,} tokens"]
        parts += [kept_words(result) for result in filter(None, (scene.result, scene.other))]
        return "; ".join(parts) + "."

    def recipe(self):
        """Return Python that remakes the picture."""
        changed = {key: value for key, value in self.state.items() if value != self.knob(key).default}
        return self._wiring.recipe(", ".join(f"{key}={value!r}" for key, value in changed.items()))

    def budget(self, state):
        """Refuse what the source says is too much, and a link's colours that are none."""
        try:
            locked_tops(state["colour_tops"])
        except ValueError as error:
            return str(error)
        return self._wiring.budget(state)

    # Controls -------------------------------------------------------------------------------------------------------
    def _shown_knobs(self):
        state, wiring = self.state, self._wiring
        used: set[str] = set()
        for knob, choice in wiring.relevant.items():
            if knob in used or knob not in self._depending:
                used |= set(choice.get(state[knob], ()))
        limits = wiring.limits(state)
        if self._offered:
            limits = {**limits, "row": self._offered[1] - 1}
        found = []
        for knob in super()._shown_knobs():
            if knob.key in self._depending - used or (knob.key == "left" and self.compare_with != "none"):
                continue
            if knob.key in limits and knob.high is not None:
                knob = replace(knob, default=min(knob.default, limits[knob.key]), high=limits[knob.key])
            if knob.key in ("left", "right") and self._offered:
                knob = self._with_offered(knob, state[knob.key])
            found.append(knob)
        return found

    def _with_offered(self, knob, chosen):
        choices = tuple((key, name) for key, name in knob.choices if key in self._offered[0])
        if chosen not in self._offered[0]:
            choices += ((chosen, f"{self._panels[chosen].label} (not available here)"),)
        label = "Both pictures show" if self.compare_with != "none" else knob.label
        return replace(knob, choices=choices, default=choices[0][0], label=label)

    def _state_changed(self, keys):
        changes, remark = self._wiring.adjust(self.state, set(keys))
        if changes:
            held, self._held = self._held, True
            try:
                for key, value in changes.items():
                    setattr(self, key, value)
            finally:
                self._held = held
            keys = set(keys) | set(changes)
        if keys & {*self._wiring.relevant, *changes}:
            self._panel.draw(self._shown_knobs())
            self._show_upload()
        if "method" in keys:
            self._tell_stories()
        elif keys - {"row", "place", "colour_tops"}:  # a story tells of its settings, whichever query is drawn
            self._stories.selected = self._stories.text = ""
        super()._state_changed(keys)
        try:
            self.query  # noqa: B018
        except ValueError:
            remark = f"{remark} These settings are too long for a link, so the address keeps those before.".strip()
        if remark:
            self._toolbar.note = remark

    def _tell_stories(self):
        told = self._wiring.stories.get(self.method, ())
        with self._stories.hold_sync():
            self._stories.options = [[str(i), story.label] for i, story in enumerate(told)]
            self._stories.selected, self._stories.text = "", ""
        self._stories.layout.display = "" if told else "none"

    def _story_chosen(self, key):
        story = self._wiring.stories[self.method][int(key)]
        state = {knob.key: knob.default for knob in self.knobs} | {"method": self.method} | dict(story.state)
        with self.changes():
            for name, value in state.items():
                setattr(self, name, value)
        with self._stories.hold_sync():
            self._stories.selected, self._stories.text = key, story.text

    def _pair_picked(self, canvas, row, column):
        if self._closing or self.scene is None:
            return
        result = self.scene.result
        if canvas is self.right_canvas and self.scene.other is not None:
            result = self.scene.other
        key = self._drawn[canvas][0]
        cell = tokens_per_cell(result, key)
        row, column = min(row * cell, self.scene.t - 1), min(column * cell, self.scene.t - 1)
        if self._panels[key].columns == "channel":
            column = row
        if result.query_order is not None and key in _IN_METHODS_ORDER:
            row = int(result.query_order[row])
        self._turn_along(self._wiring.picked(self.state, row, column))

    def _query_clicked(self, points):
        if self._closing or self.scene is None or self.scene.query is None or not points:
            return
        shown = self.scene.query(min(self.row, self.scene.t - 1), self.state)
        point = points[0]
        if not isinstance(shown, QueryMaps) or not all(isinstance(point.get(axis), int | float) for axis in "xy"):
            return
        x, y = round(point["x"]), round(point["y"])
        if point["curve"] == 1 + len(shown.maps):
            self._turn_along({"place": y * shown.keys.shape[1] + x})
        elif point["curve"] <= len(shown.maps):
            self._turn_along({"row": y * shown.picture.shape[1] + x})

    def _turn_along(self, changes):
        with self.changes():
            for key, value in changes.items():
                setattr(self, key, value)

    def _zoomed(self, change):
        other = self.right_canvas if change["owner"] is self.left_canvas else self.left_canvas
        if self._closing or self.scene is None or not change["new"] or other.size == [0, 0]:
            return
        if other.size == change["owner"].size and list(other.window) != list(change["new"]):
            other.window = list(change["new"])
        self._paint_colours()

    def _show_upload(self):
        if self._wiring.upload is not None:
            chosen = self.state.get("input") == self._wiring.file_choice
            self._upload_field.layout.display = "" if chosen else "none"

    def _uploaded(self, filename, content):
        if self._wiring.upload is None:  # closed meanwhile
            return
        try:
            self._wiring.upload(filename, content)
        except Exception as error:
            self._failed(error)
            return
        self.refresh()

    def close(self):
        """Take the view off the page and let it be freed."""
        if not self._closing and self._worker is not None:
            for canvas in (self.left_canvas, self.right_canvas):
                canvas.unobserve_all()
            self._source, self._wiring = None, ViewHooks()
            self._drawn = {}
        super().close()


def shown_panel(result: AttentionTrace, wanted: str, other: AttentionTrace | None = None) -> str:
    """Return the key of the panel that is asked for, or of the nearest one that the method has."""
    has = panel_keys(result, other)
    for key in (wanted, "allowed", "keep", "effective", "estimate"):
        if key in has:
            return key
    raise ValueError(f"{result.method} has nothing to show")


def _raster_source(array, rows, columns):
    if array.dtype == np.bool_:
        return BitsSource(np.packbits(array, axis=1, bitorder="little"), array.shape[1], rows)
    return WeightSource(array, rows, columns)
