"""Pruning trade-offs: what methods keep of a model's quality, over bytes, operations and time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets

from widgets.controls.choices import Choices
from widgets.controls.knob import Knob
from widgets.figures.plot_pane import PlotPane
from widgets.figures.pruning import (
    LOSSES,
    VALUE_BITS,
    Axis,
    budget_figure,
    bytes_figure,
    recounted,
    tradeoff_figure,
)
from widgets.figures.pruning_layers import comparison_figure, layer_figure
from widgets.figures.pruning_words import (
    budget_words,
    bytes_words,
    comparison_words,
    layer_words,
    number_rows,
    point_html,
    point_title,
    tradeoff_words,
)
from widgets.views.frame.story import Story
from widgets.views.frame.view import View

__all__ = ["MOST_ADDED", "MOST_KEPT", "STAGES", "PruningHooks", "PruningTradeoffView", "added_points", "pruning_knobs"]

STAGES = (("one-shot", "right after pruning"), ("recovered", "after a short training"))
MOST_ADDED = 8  # points computed on a page; each is a whole evaluation of the model
MOST_KEPT = 5  # points compared with the chosen one, layer by layer: six lines can be told apart
COUNTED_BITS = ("32", "16", "8", "4")
NOTHING = (("", "nothing yet"),)


def pruning_knobs(
    models: Sequence[tuple[str, str]],
    methods: Sequence[tuple[str, str]],
    levels: Sequence[str],
    qualities: Sequence[Axis],
    costs: Sequence[Axis],
) -> tuple[Knob, ...]:
    """Return the knobs of a view over these models, methods, levels and axes, the first of each at the start."""
    axes = [tuple((axis.key, axis.label) for axis in each) for each in (qualities, costs)]
    return (
        Knob("model", "Model", models[0][0], choices=tuple(models), help="Which model is pruned."),
        Knob("quality", "Quality", axes[0][0][0], choices=axes[0], help="What the vertical axis shows."),
        Knob("cost", "Cost", axes[1][0][0], choices=axes[1], help="What the horizontal axis shows."),
        Knob(
            "value_bits", "Bits of a value", str(VALUE_BITS), choices=tuple((bits, bits) for bits in COUNTED_BITS),
            help="What a stored weight is counted as; quality stays that of the weights that were judged.",
        ),
        Knob("indices", "Count the indices", True, help="Whether stored bytes say where the kept weights are."),
        Knob("stage", "Stage", "one-shot", choices=STAGES, help="Right after pruning, or after a short training."),
        Knob(
            "within", "Budget", 0.5, 0.05, 1.0, 0.01,
            help="Share of the cost before pruning: the bars show every method's best point within it.",
        ),
        Knob("point", "Chosen point", "", help="A click on a point or a bar chooses it, too."),
        Knob("layer", "Layer", "", help="The layer whose kept weights are shown. A click on the grid chooses it, too."),
        Knob("loss", "Layers show", LOSSES[0][0], choices=LOSSES, help="What the grid of layers shows."),
        Knob("method", "Method to compute", methods[0][0], choices=tuple(methods), help="For a point of your own."),
        Knob(
            "level", "How far", levels[0], choices=tuple((level, level) for level in levels),
            help="Share of the weights that go; n:m, which keeps n of every m; or the size of blocks or the bits.",
        ),
        Knob("added", "Points computed here", "", help="As method@level, separated by commas."),
        Knob("kept", "Kept for comparison", "", help="As method@level, separated by commas."),
    )  # fmt: skip


def added_points(text: str) -> list[tuple[str, str]]:
    """Return the (method, level) pairs of the knob "added"; ValueError if the text is none or names too many."""
    pairs = [tuple(part.split("@")) for part in text.split(",") if part]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError(f"added: must be method@level, separated by commas, such as wanda@0.6; got {text!r}")
    if len(pairs) > MOST_ADDED:
        raise ValueError(f"added: a page holds up to {MOST_ADDED} computed points, got {len(pairs)}; remove some")
    return [(method, level) for method, level in dict.fromkeys(pairs)]


@dataclass(frozen=True, kw_only=True)
class PruningHooks:
    """What a view of pruning is told of its models and methods; every part may be left out.

    Parameters
    ----------
    levels : method -> the levels it takes; all where it is not named.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    stories : settings worth seeing.
    solve : state -> (the level at which the method to compute takes the budget of stored bytes, a sentence that says
        so); ValueError where it cannot.
    """

    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    stories: Sequence[Story] = ()
    solve: Callable[[Mapping[str, Any]], tuple[str, str]] | None = None


class PruningTradeoffView(View):
    """Compare pruned models: quality over cost, methods at an equal budget, losses of the layers.

    A subclass gives ``knobs``, made by `pruning_knobs`.

    Parameters
    ----------
    source : ``source(state, progress) -> PruningScene``, or a generator of scenes, each with more points; it computes
        the points that the knob "added" names.
    hooks : what to refuse and offer.
    """

    title = "Pruning trade-offs"
    kind = "measured"
    paint_only = frozenset(
        {
            "quality",
            "cost",
            "value_bits",
            "indices",
            "stage",
            "within",
            "point",
            "layer",
            "loss",
            "method",
            "level",
            "kept",
        }
    )
    hidden = frozenset({"added", "kept"})
    _source: Any  # None once closed

    def __init__(
        self,
        source: Callable[[Mapping[str, Any], Callable], Any],
        hooks: PruningHooks | None = None,
        *,
        link_base: str = "",
        query: str = "",
        **state,
    ):
        self._source, self._hooks = source, hooks or PruningHooks()
        super().__init__(link_base=link_base, query=query, **state)

    # Picture --------------------------------------------------------------------------------------------------------
    def build(self):
        """Make the plots, the table of the chosen point and the buttons."""
        panes = [PlotPane() for _ in range(5)]
        names = ("quality over cost", "methods at the budget", "losses of the layers", "points layer by layer", "bytes")
        for pane, name in zip(panes, names, strict=True):
            pane.title = name
        self._tradeoff, self._budget_bars, self._layers, self._comparison, self._bytes = panes
        self._tradeoff.on_click(lambda points: self._point_clicked(self._tradeoff, points))
        self._budget_bars.on_click(lambda points: self._point_clicked(self._budget_bars, points))
        self._layers.on_click(self._layer_clicked)
        self._facts = ipywidgets.HTML()
        solved = [("solve", "Compute it at the budget of bytes")] if self._hooks.solve else []
        self._buttons = Choices(
            [("add", "Compute this method at this level"), *solved, ("clear", "Remove the points computed here")],
            self._button_pressed,
            label="A point of your own",
        )
        self._keeping = Choices(
            [("keep", "Keep the chosen point for comparison"), ("forget", "Forget the points that were kept")],
            self._keep_pressed,
            label="Points compared layer by layer",
        )
        self._stories = Choices(
            [(str(i), story.label) for i, story in enumerate(self._hooks.stories)],
            self._story_chosen,
            label="Settings worth seeing",
        )
        self._stories.layout.display = "" if self._hooks.stories else "none"
        row = {"display": "flex", "flex_flow": "row wrap"}
        side = ipywidgets.VBox([self._budget_bars, self._bytes])
        compared = ipywidgets.VBox([self._keeping, self._comparison])
        for part, width in (
            (self._tradeoff, 560), (side, 420), (self._layers, 460), (compared, 460), (self._facts, 460)
        ):  # fmt: skip
            part.layout.flex, part.layout.min_width, part.layout.max_width = f"1 1 {width}px", "0", "900px"
        above = ipywidgets.Box([self._tradeoff, side], layout=row)
        below = ipywidgets.Box([self._layers, compared, self._facts], layout=row)
        buttons = ipywidgets.Box([self._buttons, self._stories], layout=row)
        return [buttons, above, below]

    def compute(self, state, progress):
        """Ask the source."""
        return self._source(state, progress)

    def paint(self, scene):
        """Draw the plots and the table; axes that the model does not have give way to its first ones."""
        scene = self._recounted(scene)
        point, compared = self.chosen(scene), self.compared(scene)
        quality, cost = self._axes(scene)
        if (quality.key, cost.key) != (self.quality, self.cost):
            self._turn_along({"quality": quality.key, "cost": cost.key})
            self._state_shown()
        self._panel.draw(self._shown_knobs())
        self._tradeoff.show(
            tradeoff_figure(scene, quality, cost, self.stage, self.within, self.point, self.theme),
            tradeoff_words(scene, quality, cost, self.stage),
        )
        self._budget_bars.show(
            budget_figure(scene, quality, cost, self.stage, self.within, self.theme),
            budget_words(scene, quality, cost, self.stage, self.within),
        )
        self._layers.show(layer_figure(point, self.loss, self.layer, self.theme), layer_words(point, self.loss))
        self._comparison.show(
            comparison_figure(compared, self.loss, self.layer, self.theme), comparison_words(compared, self.loss)
        )
        self._bytes.show(bytes_figure(scene, point, self.theme), bytes_words(scene, point))
        self._facts.value = point_html(scene, point)

    def chosen(self, scene):
        """Return the point that the knob "point" names, of the stage that is shown; None where there is none."""
        return next((p for p in scene.points if p.key == self.point and p.stage == self.stage), None)

    def compared(self, scene):
        """Return the points whose layers are drawn as lines: those that were kept, and the chosen one."""
        there = {p.key: p for p in scene.points if p.stage == self.stage}
        return [there[key] for key in dict.fromkeys((*self._kept(), self.point)) if key in there]

    def table(self, scene):
        """Return every number of every point, and of the layers of those that are compared."""
        scene = self._recounted(scene)
        columns = ("method", "level", "stage", "quantity", "value")
        return columns, number_rows(scene, self.compared(scene))

    def alt_text(self, scene):
        """Return the front in words."""
        scene = self._recounted(scene)
        return tradeoff_words(scene, *self._axes(scene), self.stage)

    def recipe(self):
        """Return Python that remakes the picture."""
        changed = {key: value for key, value in self.state.items() if value != self.knob(key).default}
        return self._hooks.recipe(", ".join(f"{key}={value!r}" for key, value in changed.items()))

    def budget(self, state):
        """Refuse what cannot be computed."""
        try:
            added_points(state["added"])
        except ValueError as error:
            return str(error)
        return self._hooks.budget(state)

    def _recounted(self, scene):
        return recounted(scene, int(self.value_bits), self.indices)

    def _kept(self):
        return [key for key in self.kept.split(",") if key][:MOST_KEPT]

    def _axes(self, scene):
        return scene.axis(self.quality, "qualities"), scene.axis(self.cost, "costs")

    # Controls -------------------------------------------------------------------------------------------------------
    def _shown_knobs(self):
        scene, found = self.scene, []
        for knob in super()._shown_knobs():
            value = getattr(self, knob.key)
            if knob.key == "stage":
                there = {point.stage for point in scene.points} if scene else set()
                if len(there | {value}) < 2:
                    continue  # nothing to choose
            elif knob.key == "point":
                points = [p for p in scene.points if p.stage == self.stage] if scene else ()
                knob = _offering(knob, value, [(point.key, point_title(point)) for point in points])
            elif knob.key == "layer":
                point = self.chosen(scene) if scene else None
                knob = _offering(knob, value, [(each.name, each.name) for each in point.layers] if point else ())
            elif knob.key == "level" and self.method in self._hooks.levels:
                levels = self._hooks.levels[self.method]
                knob = replace(knob, choices=tuple((level, level) for level in levels), default=levels[0])
            elif knob.key in ("quality", "cost") and scene:
                axes = scene.qualities if knob.key == "quality" else scene.costs
                knob = replace(knob, choices=tuple((a.key, a.label) for a in axes), default=axes[0].key)
            found.append(knob)
        return found

    def _state_changed(self, keys):
        turned = {}
        levels = self._hooks.levels.get(self.method, ())
        if "method" in keys and levels and self.level not in levels:
            turned["level"] = levels[0]
        if keys & {"model", "stage"} and "point" not in keys:
            turned |= {"point": "", "layer": "", "kept": ""}
        self._turn_along(turned)
        super()._state_changed(set(keys) | set(turned))

    def _turn_along(self, changes):
        held, self._held = self._held, True
        try:
            for key, value in changes.items():
                setattr(self, key, value)
        finally:
            self._held = held

    def _point_clicked(self, pane, points):
        key = _clicked(pane, points)
        if self._closing or self.scene is None or key is None:
            return
        key = key if isinstance(key, str) else key[0]
        if any(point.key == key for point in self.scene.points):
            with self.changes():
                self.point = key

    def _layer_clicked(self, points):
        name = None if self._closing or not points else self._name_at(points[0])
        if name:
            with self.changes():
                self.layer = name

    def _name_at(self, place):
        point = self.chosen(self.scene) if self.scene else None
        if point is None or self._layers.figure is None:
            return None
        grid = self._layers.figure.data[0]
        try:
            return grid.customdata[list(grid.y).index(place["y"])][list(grid.x).index(place["x"])]
        except (KeyError, ValueError):
            return None

    def _button_pressed(self, key):
        if self._closing:
            return
        level, self._buttons.text, solve = self.level, "", self._hooks.solve
        if key == "solve" and solve is not None:
            try:
                level, self._buttons.text = solve(self.state)
            except ValueError as error:
                self._failed(error)
                return
        with self.changes():
            if key == "clear":
                self.added = ""
                return
            asked, own = [f"{by}@{how_far}" for by, how_far in added_points(self.added)], f"{self.method}@{level}"
            self.added = ",".join(dict.fromkeys([*asked, own]))
            if key == "solve":  # its level stands in no menu, so the point is shown
                self.stage, self.point = "one-shot", own

    def _keep_pressed(self, key):
        if self._closing:
            return
        keys, self._keeping.text = list(dict.fromkeys((*self._kept(), self.point))), ""
        if key == "forget":
            self.kept = ""
        elif not self.point:
            self._keeping.text = "Choose a point first: click on it, or take it from the menu of chosen points."
        elif len(keys) > MOST_KEPT:
            self._keeping.text = f"Up to {MOST_KEPT} points are kept beside the chosen one: forget them to begin anew."
        else:
            self.kept = ",".join(keys)

    def _story_chosen(self, key):
        story = self._hooks.stories[int(key)]
        with self.changes():
            for name, value in ({knob.key: knob.default for knob in self.knobs} | dict(story.state)).items():
                setattr(self, name, value)
        with self._stories.hold_sync():
            self._stories.selected, self._stories.text = key, story.text

    def close(self):
        """Take the view off the page and let it be freed."""
        if not self._closing:
            self._source, self._hooks = None, PruningHooks()
        super().close()


def _offering(knob, value, choices):
    offered = [*NOTHING, *choices]
    if value not in dict(offered):
        offered.append((value, f"{value} (not available here)"))
    return replace(knob, choices=tuple(offered), default="")


def _clicked(pane, points):
    """Return the customdata of the mark that was clicked, None where it has none."""
    if not points or pane.figure is None:
        return None
    try:
        return pane.figure.data[points[0]["curve"]].customdata[points[0]["index"]]
    except (IndexError, KeyError, TypeError):
        return None
