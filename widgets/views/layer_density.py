"""How much of every layer is kept before training, by pruned weights and by cropped channels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import ipywidgets
import numpy as np

from widgets.canvas.cells import CellImage
from widgets.controls.choices import Choices
from widgets.controls.knob import Knob
from widgets.controls.panel import ControlPanel
from widgets.controls.upload import UploadField
from widgets.figures.layer_density import (
    AXES,
    DensityScene,
    density_figure,
    kept_figure,
    network_figure,
    points_figure,
)
from widgets.figures.layer_density_mask import KINDS, mask_picture, three_masks
from widgets.figures.layer_density_words import (
    density_words,
    group_columns,
    headline,
    kept_words,
    layer_columns,
    mask_words,
    network_words,
    point_columns,
    points_words,
    triptych_html,
)
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story
from widgets.views.frame.table_twin import ColumnRows
from widgets.views.frame.worker import Progress

__all__ = ["DensityHooks", "LayerDensityView"]

SECTIONS = (("layers", "Layers"), ("mask", "One layer's mask"), ("rounds", "Rounds"), ("accuracy", "Accuracy"))
TRAIN, AGAIN = "train", "again"
LAYER = Knob("layer", "Layer", "", help="Whose weights are shown. A click on a bar chooses it, too.")
SHUFFLE = Knob("shuffle", "Shuffled anew", 0, 0, 10**6, help="Each number is another order of the same weights.")
TRAINED = Knob("trained", "Trained on this page", False)


@dataclass(frozen=True, kw_only=True)
class DensityHooks:
    """What a view of layer densities is told of its nets; every part but the first may be left out.

    Parameters
    ----------
    pruning : all knobs that choose a net, a pruner and a way of cropping.
    relevant : state -> keys of ``pruning`` that matter in it, in the order in which they are shown.
    training : state -> about how many seconds "train it here" takes, or None where it is not offered.
    stories : settings worth seeing, by key.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    uploads : fields for the reader's own files; a model is no file, so there are none by default.
    """

    pruning: Sequence[Knob]
    relevant: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    training: Callable[[Mapping[str, Any]], float | None] = lambda state: None
    stories: Mapping[str, Story] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    uploads: Sequence[UploadField] = ()


class LayerDensityView(SectionedView):
    """Compare pruned weights with cropped channels, before and after training.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress) -> DensityScene``; with ``state["trained"]`` it trains the nets of
        the state, reports as it goes, and adds them to the scene's points.
    hooks : the knobs of the net, and what to say of them.
    **state : values of knobs; ``query`` takes a link's query string.
    """

    title = "Layer densities"
    _compute_scene: Any  # None once closed
    paint_only: ClassVar[frozenset[str]] = frozenset(("section", "layer", "shuffle", "axis"))

    def __init__(
        self, compute_scene: Callable[[Mapping[str, Any], Progress], DensityScene], hooks: DensityHooks, **state
    ):
        self._compute_scene, self._hooks = compute_scene, hooks
        self._axis = Knob("axis", "Accuracy over", AXES[0][0], choices=AXES, help="What the horizontal axis shows.")
        elsewhere = (
            Knob("section", "Part", SECTIONS[0][0], choices=SECTIONS), LAYER, SHUFFLE, self._axis, TRAINED,
        )  # fmt: skip
        self.knobs = (*hooks.pruning, *elsewhere)
        self.hidden = frozenset(knob.key for knob in elsewhere)
        super().__init__(**state)

    # The widgets ----------------------------------------------------------------------------------------------------
    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts of each section."""
        self._panes = panes = {
            name: pane(title, width)
            for name, title, width in (
                ("density", "share of each layer", 560), ("network", "layers before and after", 560),
                ("kept", "weights by rounds", 760), ("points", "accuracy", 620),
            )
        }  # fmt: skip
        for name in ("density", "kept"):
            panes[name].on_click(self._layer_clicked)
        self._cells = {kind: CellImage(title=title, layout=flexible(260)) for kind, title in KINDS}
        self._facts = ipywidgets.HTML()
        self._again = Choices([(AGAIN, "Shuffle again")], self._button_pressed, label="The shuffled mask")
        self._train = Choices([(TRAIN, "Train it here")], self._button_pressed, label="Training")
        panels = {
            "mask": ControlPanel([LAYER], self.state, self._turn_part),
            "accuracy": ControlPanel([self._axis], self.state, self._turn_part),
        }
        self._offered_layers: tuple[str, ...] = ()
        return self.framed(
            {
                "layers": (row(panes["density"], panes["network"]),),
                "mask": (panels["mask"], row(*self._cells.values()), self._again, self._facts),
                "rounds": (panes["kept"],),
                "accuracy": (panels["accuracy"], self._train, panes["points"]),
            },
            panels,
        )

    def takes_files(self) -> bool:
        """Tell whether there are fields for files."""
        return bool(self._hooks.uploads)

    def _shown_knobs(self):
        if self._hooks.relevant is None:
            return [knob for knob in self.knobs if knob.key not in self.hidden]
        return [self.knob(key) for key in self._hooks.relevant(self.state)]

    def _state_changed(self, keys):
        if self.trained and "trained" not in keys and not keys <= self.paint_only:
            held, self._held = self._held, True
            try:
                self.trained = False  # another net: nothing of it has been trained yet
            finally:
                self._held = held
            keys = {*keys, "trained"}
        super()._state_changed(keys)

    def _state_shown(self):
        super()._state_shown()
        seconds = None if self.trained else self._hooks.training(self.state)
        self._train.layout.display = "none" if seconds is None else None
        if seconds is not None:
            self._train.options = [[TRAIN, f"Train the pruned and the cropped net here, about {_duration(seconds)}"]]

    # Work -----------------------------------------------------------------------------------------------------------
    def compute(self, state: Mapping[str, Any], progress: Progress) -> DensityScene:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    # The picture ----------------------------------------------------------------------------------------------------
    def paint(self, scene: DensityScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value = headline(scene)
        self.kind = "measured" if self.section == "accuracy" else "counted"
        if scene.names != self._offered_layers:
            self._offered_layers = scene.names
            self._panels["mask"].draw([self._layer_knob(scene)])
            self._panels["mask"].values = self.state | {"layer": self._layer(scene)}
        {
            "layers": self._paint_layers,
            "mask": self._paint_mask,
            "rounds": self._paint_rounds,
            "accuracy": self._paint_accuracy,
        }[self.section](scene)

    def _layer(self, scene):
        return scene.names[scene.place(self.layer)]

    def _layer_knob(self, scene):
        return replace(LAYER, choices=tuple((name, name) for name in scene.names), default=self._layer(scene))

    def _paint_layers(self, scene):
        shown = self._layer(scene)
        self._panes["density"].show(density_figure(scene, shown, self.theme), density_words(scene))
        self._panes["network"].show(network_figure(scene, shown, self.theme), network_words(scene))

    def _paint_mask(self, scene):
        masks = three_masks(scene, self.layer, self.shuffle)
        self._panels["mask"].values = self.state | {"layer": self._layer(scene)}
        for kind, title in KINDS:
            words = mask_words(scene, self.layer, kind, masks[kind])
            self._cells[kind].show(**mask_picture(masks[kind], title, words, self.theme))
        self._facts.value = triptych_html(scene, self.layer, masks)

    def _paint_rounds(self, scene):
        self._panes["kept"].show(kept_figure(scene, self._layer(scene), self.theme), kept_words(scene))

    def _paint_accuracy(self, scene):
        self._panes["points"].show(points_figure(scene, self.axis, self.theme), points_words(scene, self.axis))

    # Controls -------------------------------------------------------------------------------------------------------
    def _layer_clicked(self, points):
        if self._closing or self.scene is None or not points:
            return
        name = str(points[0].get("y", "")).removeprefix("<b>").removesuffix("</b>")
        if name in self.scene.names:
            self.layer = name

    def _button_pressed(self, key):
        if self._closing:
            return
        if key == AGAIN:
            self.shuffle = self.shuffle + 1
        elif key == TRAIN:
            self.trained = True

    # Words, data, files ---------------------------------------------------------------------------------------------
    def alt_text(self, scene: DensityScene) -> str:
        """Say what the open section shows."""
        says = {
            "layers": lambda: f"{density_words(scene)} {network_words(scene)}",
            "mask": lambda: " ".join(
                mask_words(scene, self.layer, kind, mask)
                for kind, mask in three_masks(scene, self.layer, self.shuffle).items()
            ),
            "rounds": partial(kept_words, scene),
            "accuracy": lambda: points_words(scene, self.axis),
        }
        return says[self.section]()

    def _columns(self, scene):
        return point_columns(scene) if self.section == "accuracy" else layer_columns(scene)

    def table(self, scene: DensityScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = self._columns(scene)
        return list(columns), ColumnRows(list(columns.values()))

    def arrays(self, scene: DensityScene) -> dict[str, np.ndarray]:
        """Return the columns of the open section's table, the groups of channels, and every layer's mask."""
        masks = {f"mask {name}": mask for name, mask in zip(scene.names, scene.masks, strict=True)}
        return self._columns(scene) | group_columns(scene) | masks

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings of the net and of the open section."""
        mine = {"layers": ("layer",), "mask": ("layer", "shuffle"), "rounds": (), "accuracy": ("axis", "trained")}
        return self.in_words([*self._shown_knobs(), *map(self.knob, ("section", *mine[self.section]))])

    def close(self) -> None:
        """Take the view off the page and let it be freed."""
        super().close()
        self._compute_scene = None


def _duration(seconds):
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
