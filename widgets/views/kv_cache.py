"""A compressed cache of keys and values: its parts as pictures, what the corrections find, bytes, and decoding."""

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
from widgets.figures.kv_cache.plots import bytes_figure, channel_figure, drift_figure, spectrum_figure, timeline_figure
from widgets.figures.kv_cache.scene import PICTURES, CacheScene
from widgets.figures.kv_cache.words import (
    NAMES,
    bytes_columns,
    bytes_words,
    channel_words,
    corrections_columns,
    drift_columns,
    drift_words,
    headline,
    picture_columns,
    picture_words,
    spectrum_words,
    timeline_words,
)
from widgets.views.frame.colour_scale import paint_colours
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story
from widgets.views.frame.table_twin import ColumnRows
from widgets.views.frame.worker import Progress

__all__ = ["SECTIONS", "CacheHooks", "KVCacheView"]

SECTIONS = (("parts", "Parts"), ("corrections", "Corrections"), ("bytes", "Bytes and blocks"), ("drift", "Decoding"))
SECTION = Knob("section", "Part", SECTIONS[0][0], choices=SECTIONS)
STEP = Knob("step", "Tokens in the cache", 10**6, 0, 10**6)


@dataclass(frozen=True, kw_only=True)
class CacheHooks:
    """What a view of a cache is told; every part but the first may be left out.

    Parameters
    ----------
    cache : all knobs that make a cache and compress it.
    relevant : state -> keys of ``cache`` that matter in it, in the order in which they are shown.
    stories : settings worth seeing, by key.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    uploads : fields for the reader's own files, shown while ``shows_uploads(state)``.
    """

    cache: Sequence[Knob]
    relevant: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    stories: Mapping[str, Story] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    uploads: Sequence[UploadField] = ()
    shows_uploads: Callable[[Mapping[str, Any]], bool] = lambda state: False


class KVCacheView(SectionedView):
    """Take a compressed cache apart.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress) -> CacheScene``.
    hooks : the knobs of the cache, and what to say of them.
    **state : values of knobs; ``query`` takes a link's query string.
    """

    title = "Compressed cache"
    paint_only: ClassVar[frozenset[str]] = frozenset(("section", "step"))

    def __init__(self, compute_scene: Callable[[Mapping[str, Any], Progress], CacheScene], hooks: CacheHooks, **state):
        self._compute_scene, self._hooks = compute_scene, hooks
        self.knobs = (*hooks.cache, SECTION, STEP)
        self.hidden = frozenset((SECTION.key, STEP.key))
        super().__init__(**state)

    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts of each section."""
        wide = flexible(270) | {"max_width": "330px"}  # room for a title beside its buttons
        self._canvases = {name: RasterCanvas(title=NAMES[name], layout=wide) for name in PICTURES}
        self._stepper = Stepper(partial(self._turn_part, "step"), label="Tokens in the cache")
        self._panes = {
            name: pane(name, width)
            for name, width in (("spectrum", 440), ("channel", 480), ("bytes", 600), ("timeline", 600), ("drift", 700))
        }
        self._drawn: dict[str, Any] = {}
        panes = self._panes
        return self.framed(
            {
                "parts": (row(*self._canvases.values()),),
                "corrections": (row(panes["spectrum"], panes["channel"]),),
                "bytes": (row(panes["bytes"]), self._stepper, row(panes["timeline"])),
                "drift": (row(panes["drift"]),),
            },
            {},
        )

    def takes_files(self) -> bool:
        """Tell whether the fields for the reader's own files are shown."""
        return self._hooks.shows_uploads(self.state)

    def _shown_knobs(self):
        if self._hooks.relevant is None:
            return [knob for knob in self.knobs if knob.key not in self.hidden]
        return [self.knob(key) for key in self._hooks.relevant(self.state)]

    def compute(self, state: Mapping[str, Any], progress: Progress) -> CacheScene:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    def paint(self, scene: CacheScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value = headline(scene)
        self.kind = "counted" if self.section == "bytes" else scene.kind
        {
            "parts": self._paint_parts, "corrections": self._paint_corrections, "bytes": self._paint_bytes,
            "drift": self._paint_drift,
        }[self.section](scene)  # fmt: skip

    def _paint_parts(self, scene):
        for name, canvas in self._canvases.items():
            canvas.theme = self.theme
            if self._drawn.get(name) is not scene:
                self._drawn[name] = scene
                canvas.axes = ("token", "channel")
                source: Any = ValueSource.of(getattr(scene, name))
                canvas.show(source, alt=picture_words(scene, name), keep_window=True)
        paint_colours(tuple(self._canvases.values()), "shared", "")
        for canvas in self._canvases.values():
            canvas.scale_note = "one scale for all five pictures"

    def _paint_corrections(self, scene):
        self._panes["spectrum"].show(spectrum_figure(scene, self.theme), spectrum_words(scene))
        self._panes["channel"].show(channel_figure(scene, self.theme), channel_words(scene))

    def _paint_bytes(self, scene):
        at = self._at(scene)
        self._panes["bytes"].show(bytes_figure(scene, self.theme), bytes_words(scene))
        self._stepper.show(at, scene.tokens, timeline_words(scene, at), "token")
        self._panes["timeline"].show(timeline_figure(scene, at, self.theme), timeline_words(scene, at))

    def _paint_drift(self, scene):
        self._panes["drift"].show(drift_figure(scene, self.theme), drift_words(scene))

    def _at(self, scene):
        return min(self.step, scene.tokens)

    # Words, data, files ---------------------------------------------------------------------------------------------
    def alt_text(self, scene: CacheScene) -> str:
        """Say what the open section shows."""
        told = {
            "parts": lambda: " ".join(picture_words(scene, name) for name in PICTURES),
            "corrections": lambda: f"{spectrum_words(scene)} {channel_words(scene)}",
            "bytes": lambda: f"{bytes_words(scene)} {timeline_words(scene, self._at(scene))}",
            "drift": lambda: drift_words(scene),
        }
        return f"{scene.title}, {scene.what}. {told[self.section]()}"

    def _columns(self, scene):
        of = {
            "parts": picture_columns,
            "corrections": corrections_columns,
            "bytes": bytes_columns,
            "drift": drift_columns,
        }
        return of[self.section](scene)

    def table(self, scene: CacheScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = self._columns(scene)
        return list(columns), ColumnRows(list(columns.values()))

    def arrays(self, scene: CacheScene) -> dict[str, np.ndarray]:
        """Return the columns of the open section's table, and the parts of the head as matrices."""
        return self._columns(scene) | {f"{name}_matrix": getattr(scene, name) for name in PICTURES}

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings of the cache and of the open section."""
        return self.in_words([*self._shown_knobs(), self.knob("section")])

    def close(self) -> None:
        """Take the view off the page and let it be freed."""
        super().close()
        self._drawn = {}
