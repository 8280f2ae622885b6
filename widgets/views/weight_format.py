"""One sparse weight in several storage formats: their bytes, what one step of a micro-kernel reads, their roofline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import ipywidgets
import numpy as np
from scipy import sparse

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.cells import CellImage
from widgets.canvas.source import CsrSource
from widgets.controls.choices import Choices
from widgets.controls.knob import Knob
from widgets.controls.panel import ControlPanel
from widgets.controls.stepper import Stepper
from widgets.controls.upload import UploadField
from widgets.figures.fact_table import short_number
from widgets.figures.weight_format import (
    Machine,
    WeightScene,
    bytes_figure,
    product,
    roofline_figure,
    times_figure,
)
from widgets.figures.weight_format_step import (
    WHOLE,
    banks_figure,
    index_picture,
    lanes_figure,
    registers_figure,
    tile_picture,
    value_picture,
)
from widgets.figures.weight_format_words import (
    about_html,
    bytes_columns,
    bytes_words,
    headline,
    roofline_columns,
    roofline_words,
    step_columns,
    step_words,
    times_words,
)
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story
from widgets.views.frame.table_twin import ColumnRows
from widgets.views.frame.worker import Progress

__all__ = ["FormatHooks", "WeightFormatView"]

SECTIONS = (("bytes", "Bytes"), ("step", "Step by step"), ("roofline", "Roofline"))
CUSTOM = "custom"
STEP = Knob("step", "Step", 1, 0, 10**7)
REORDER = Knob(
    "reorder", "Words dealt over the banks", True,
    help="Deals the words of tiled-CSL so that 32 words stored at once meet few banks twice.",
)  # fmt: skip
TOKENS = Knob(
    "tokens", "Columns of activations", 16, 1, 4096, 1, scale="log2",
    help="Tokens that are multiplied at once: few when a language model writes, many when it reads.",
)  # fmt: skip
PEAK = Knob("peak", "Peak (Gflop/s)", 1000.0, 1.0, 1e7, scale="log10", help="Of the machine of your own.")
BANDWIDTH = Knob("bandwidth", "Bandwidth (GB/s)", 100.0, 1.0, 1e5, scale="log10", help="Of the machine of your own.")


@dataclass(frozen=True, kw_only=True)
class FormatHooks:
    """What a view of formats is told of its weights; every part but the first three may be left out.

    Parameters
    ----------
    weights : all knobs that make a weight and its formats.
    formats : (key, label) of every format that there is.
    machines : (key, label) of every machine, the key `CUSTOM` for that of the knobs among them.
    first : key of the format that is shown first; the first of them unless given.
    relevant : state -> keys of ``weights`` that matter in it, in the order in which they are shown.
    stories : settings worth seeing, by key.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    uploads : fields for the reader's own files, shown while ``shows_uploads(state)``.
    """

    weights: Sequence[Knob]
    formats: Sequence[tuple[str, str]]
    machines: Sequence[tuple[str, str]]
    first: str = ""
    relevant: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    stories: Mapping[str, Story] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    uploads: Sequence[UploadField] = ()
    shows_uploads: Callable[[Mapping[str, Any]], bool] = lambda state: False


class WeightFormatView(SectionedView):
    """Compare storage formats of one sparse weight.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress) -> WeightScene``.
    hooks : the knobs of the weight, its formats and machines, and what to say of them.
    **state : values of knobs; ``query`` takes a link's query string.
    """

    title = "Weight formats"
    paint_only: ClassVar[frozenset[str]] = frozenset(
        ("section", "format", "step", "tokens", "machine", "peak", "bandwidth")
    )

    def __init__(
        self, compute_scene: Callable[[Mapping[str, Any], Progress], WeightScene], hooks: FormatHooks, **state
    ):
        self._compute_scene, self._hooks = compute_scene, hooks
        self._machine_knob = Knob("machine", "Machine", hooks.machines[0][0], choices=tuple(hooks.machines))
        elsewhere = (
            Knob("section", "Part", SECTIONS[0][0], choices=SECTIONS),
            Knob("format", "Format shown", hooks.first or hooks.formats[0][0], choices=tuple(hooks.formats)),
            STEP, REORDER, TOKENS, self._machine_knob, PEAK, BANDWIDTH,
        )  # fmt: skip
        self.knobs = (*hooks.weights, *elsewhere)
        self.hidden = frozenset(knob.key for knob in elsewhere)
        super().__init__(**state)

    # The widgets ----------------------------------------------------------------------------------------------------
    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts of each section."""
        self._about, self._machine_note = ipywidgets.HTML(), ipywidgets.HTML()
        self._formats = Choices([], partial(self._turn_part, "format"), label="Format shown")
        self._stepper = Stepper(partial(self._turn_part, "step"), label="Steps of the micro-kernel")
        self._whole = RasterCanvas(title="The weight", layout=flexible(380))
        self._map = RasterCanvas(layout=flexible(300))
        self._cells = {name: CellImage(title=name) for name in ("tile", "values", "indices")}
        self._panes = panes = {
            name: pane(name, width)
            for name, width in (
                ("bytes", 620), ("registers", 420), ("lanes", 520), ("banks", 520), ("roofline", 520), ("times", 480),
            )
        }  # fmt: skip
        panels = {
            "step": ControlPanel([REORDER], self.state, self._turn_part),
            "roofline": ControlPanel([self._machine_knob, TOKENS], self.state, self._turn_part),
        }
        self._drawn: dict[str, Any] = {}
        return self.framed(
            {
                "bytes": (row(panes["bytes"], self._whole),),
                "step": (
                    self._formats,
                    self._about,
                    panels["step"],
                    self._stepper,
                    row(self._map, *self._cells.values()),
                    row(panes["lanes"], panes["registers"], panes["banks"]),
                ),
                "roofline": (panels["roofline"], self._machine_note, row(panes["roofline"], panes["times"])),
            },
            panels,
        )

    def takes_files(self) -> bool:
        """Tell whether the fields for the reader's own files are shown."""
        return self._hooks.shows_uploads(self.state)

    def _shown_knobs(self):
        if self._hooks.relevant is None:
            return [knob for knob in self.knobs if knob.key not in self.hidden]
        return [self.knob(key) for key in self._hooks.relevant(self.state)]

    def _state_shown(self):
        ours = self.machine == CUSTOM
        if ours != self._drawn.get("custom"):
            self._drawn["custom"] = ours
            self._panels["roofline"].draw([self._machine_knob, TOKENS, *((PEAK, BANDWIDTH) if ours else ())])
        super()._state_shown()

    # Work -----------------------------------------------------------------------------------------------------------
    def compute(self, state: Mapping[str, Any], progress: Progress) -> WeightScene:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    # The picture ----------------------------------------------------------------------------------------------------
    def paint(self, scene: WeightScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value = headline(scene)
        self.kind = "modelled" if self.section == "roofline" else "counted"
        {"bytes": self._paint_bytes, "step": self._paint_step, "roofline": self._paint_roofline}[self.section](scene)

    def _paint_bytes(self, scene):
        self._panes["bytes"].show(bytes_figure(scene, self.format, theme=self.theme), bytes_words(scene))
        self._paint_canvas(self._whole, "whole", scene)

    def _paint_canvas(self, canvas, name, scene):
        canvas.theme = self.theme
        if self._drawn.get(name) is not scene:
            self._drawn[name] = scene
            m, k = scene.weight.shape
            canvas.title = f"The weight: {m:,} x {k:,}, {scene.nnz:,} weights"
            canvas.axes = ("output", "input")
            canvas.show(
                CsrSource(sparse.csr_array(scene.weight)),
                alt=f"{scene.title}: {scene.nnz:,} of {m * k:,} places hold a weight.",
                keep_window=True,
            )

    def _paint_step(self, scene):
        stored, at = self._stored(scene), self._at(scene)
        self._formats.options = [[each.key, each.label] for each in scene.formats]
        self._formats.selected, self._about.value = stored.key, about_html(stored)
        self._panels["step"].layout.display = None if stored.banks is not None else "none"
        self._stepper.show(at + 1, stored.steps, step_words(scene, stored, at), stored.unit)
        large = max(scene.weight.shape) > WHOLE
        self._map.layout.display = None if large else "none"
        step = max(at, 0)
        if large:
            self._paint_canvas(self._map, "map", scene)
            slots = stored.slots(step) if stored.steps else np.zeros(0, np.int64)
            slots = slots[stored.row[slots] >= 0]
            rows, columns = stored.row[slots], stored.column[slots]
            self._map.mark((), (), np.column_stack([rows, columns]))
        pictures = {
            "tile": tile_picture(scene, stored, step, self.theme),
            "values": value_picture(stored, step, self.theme),
            "indices": index_picture(stored, step, self.theme),
        }
        for name, picture in pictures.items():
            self._cells[name].show(**picture)
        self._cells["indices"].layout.display = None if len(stored.index) else "none"
        on_chip = stored.banks is not None
        for name in ("lanes", "registers"):
            self._panes[name].layout.display = "none" if on_chip else None
        self._panes["banks"].layout.display = None if on_chip else "none"
        if stored.banks is not None:
            figure = banks_figure(stored.banks, step, theme=self.theme)
            self._panes["banks"].show(figure, step_words(scene, stored, step))
            return
        self._panes["lanes"].show(lanes_figure(stored, step, theme=self.theme), step_words(scene, stored, step))
        held = ", ".join(f"{count} {role}" for role, count in stored.kernel.registers.items())
        self._panes["registers"].show(
            registers_figure(stored, theme=self.theme), f"Of 32 vector registers: {held or 'not known'}."
        )

    def _paint_roofline(self, scene):
        machine, tokens = self._machine(scene), self.tokens
        products = [product(scene, each, tokens, machine) for each in scene.formats]
        self._machine_note.value = (
            f"<p class='wb wb-note'>Modelled with {machine.origin}. {machine.remark} Weight, activations and result "
            "are moved once, and every format is granted the machine's full peak, also one whose kernel cannot use it."
            "</p>"
        )
        self._panes["roofline"].show(
            roofline_figure(scene, products, machine, tokens, self.format, theme=self.theme),
            roofline_words(scene, products, machine, tokens),
        )
        self._panes["times"].show(
            times_figure(scene, products, machine, self.format, theme=self.theme), times_words(scene, products)
        )

    def _stored(self, scene):
        return scene.stored(self.format)

    def _at(self, scene):
        """Return the present step, counted from 0; -1 is before the first."""
        return min(self.step, self._stored(scene).steps) - 1

    def _machine(self, scene):
        if self.machine != CUSTOM:
            return scene.machines[self.machine]
        told = (
            f"your peak of {short_number(self.peak)} Gflop/s and your bandwidth of {short_number(self.bandwidth)} GB/s"
        )
        return Machine(label="a machine of your own", gflops=self.peak, gbps=self.bandwidth, origin=told)

    # Words, data, files ---------------------------------------------------------------------------------------------
    def alt_text(self, scene: WeightScene) -> str:
        """Say what the open section shows."""
        if self.section == "step":
            return f"{scene.title}. {step_words(scene, self._stored(scene), self._at(scene))}"
        if self.section == "bytes":
            return bytes_words(scene)
        machine = self._machine(scene)
        products = [product(scene, each, self.tokens, machine) for each in scene.formats]
        return roofline_words(scene, products, machine, self.tokens)

    def _columns(self, scene):
        if self.section == "step":
            return step_columns(self._stored(scene), self._at(scene))
        if self.section == "bytes":
            return bytes_columns(scene)
        return roofline_columns(scene, self._machine(scene), self.tokens)

    def table(self, scene: WeightScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = self._columns(scene)
        return list(columns), ColumnRows(list(columns.values()))

    def arrays(self, scene: WeightScene) -> dict[str, np.ndarray]:
        """Return the columns of the open section's table, the weight, and the arrays of the format shown."""
        stored = self._stored(scene)
        found = {"weight": scene.weight, "stored_values": stored.value}
        return self._columns(scene) | found | {"stored_indices": stored.index, "stored_pointers": stored.pointer}

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings of the weight and of the open section."""
        mine = {
            "bytes": (),
            "step": ("format", "step", *(("reorder",) if self._stored(self.scene).banks is not None else ())),
            "roofline": ("machine", "tokens", *(("peak", "bandwidth") if self.machine == CUSTOM else ())),
        }[self.section]
        return self.in_words([*self._shown_knobs(), *(self.knob(key) for key in ("section", *mine))])

    def close(self) -> None:
        """Take the view off the page and let it be freed."""
        super().close()
        self._drawn = {}
