"""Where a sparse product's bytes go: its dataflows step by step, their traffic, and a machine that runs it."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import ipywidgets
import numpy as np

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.cells import CellImage
from widgets.canvas.source import CsrSource
from widgets.controls.choices import Choices
from widgets.controls.knob import Knob
from widgets.controls.panel import ControlPanel
from widgets.controls.stepper import Stepper
from widgets.controls.upload import UploadField
from widgets.figures.fact_table import fact_table, short_number
from widgets.figures.spgemm_dataflows import STEPPED
from widgets.figures.spgemm_kept import kept_html
from widgets.figures.spgemm_scene import TrafficScene
from widgets.figures.spgemm_steps import (
    cell_picture,
    formed_entries,
    formed_matrix,
    matrix_title,
    operand_matrix,
    pattern_words,
    positions,
    step_marks,
    table_picture,
)
from widgets.figures.spgemm_traffic import (
    bytes_figure,
    gantt_figure,
    live_figure,
    mark_now,
    probes_figure,
    readable_bytes,
    roofline_figure,
    utilisation_figure,
)
from widgets.figures.spgemm_words import (
    curve_label,
    headline,
    live_curves,
    live_words,
    machine_words,
    matrix_arrays,
    section_columns,
    total_bytes,
)
from widgets.views.frame.export import npz_bytes
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story
from widgets.views.frame.table_twin import ColumnRows
from widgets.views.frame.worker import Progress

SMALL = 64  # up to this many rows and columns every cell is drawn on its own
DATAFLOWS = tuple((key, flow.label) for key, flow in STEPPED.items())
CACHES = (("none", "none"), ("ideal", "ideal: each entry is read once"))
STEPPING = (
    Knob("dataflow", "Dataflow", "row", choices=DATAFLOWS, help="The order in which the partial products are formed."),
    Knob("step", "Step", 0, 0, 10**7),
)
TRAFFIC = (
    Knob("cache", "Cache", "none", choices=CACHES, help="Whether operands that are used again come from the chip."),
    Knob("log_axes", "Logarithmic axes", False, help="Shows small streams and short rows beside what is far larger."),
)
CONSTANT_FIELDS = ("name", "value", "unit", "tag", "source")
TABLE = Knob("table_window", "Window shown", 0, 0, 10**6, 1, help="Which window's table is drawn.")


@dataclass(frozen=True, kw_only=True)
class TrafficHooks:
    """What a view of SpGEMM traffic is told about its operands and its machine.

    Parameters
    ----------
    operands : the menu "operands" first, then all knobs of its choices.
    relevant : choice of operands -> knobs that matter with it, in the order in which they are shown.
    machine : knobs of the machine that runs the product.
    machine_name : what tabs, tables and sentences call it.
    stories : settings worth seeing, by key.
    budget : state -> None or the sentence that refuses.
    recipe : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    uploads : fields for the reader's own files, shown with the choice ``file_choice`` of operands.
    """

    operands: Sequence[Knob]
    relevant: Mapping[str, Sequence[str]] = field(default_factory=dict)
    machine: Sequence[Knob] = ()
    machine_name: str = "Machine"
    stories: Mapping[str, Story] = field(default_factory=dict)
    budget: Callable[[Mapping[str, Any]], str | None] = lambda state: None
    recipe: Callable[[str], str] = lambda words: f"view = ...  # {words}"
    uploads: Sequence[UploadField] = ()
    file_choice: str = "file"


class SpGEMMTrafficView(SectionedView):
    """C = A B as its dataflows see it: every partial product, every byte, and a model of a machine at work.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress) -> TrafficScene``; it makes the operands, counts, runs the machine.
    hooks : the knobs of operands and machine, and what to say of them.
    **state : values of knobs; ``query`` takes a link's query string.
    """

    title = "SpGEMM traffic"
    paint_only: ClassVar[frozenset[str]] = frozenset(("dataflow", "step", "log_axes", "section"))

    def __init__(
        self, compute_scene: Callable[[Mapping[str, Any], Progress], TrafficScene], hooks: TrafficHooks, **state
    ):
        self._compute_scene, self._hooks = compute_scene, hooks
        sections = (
            ("step", "Step by step"),
            ("bytes", "Bytes moved"),
            ("machine", f"{hooks.machine_name} model"),
            ("constants", "Constants"),
        )
        elsewhere = (*STEPPING, *TRAFFIC, *hooks.machine, TABLE, Knob("section", "Part", "step", choices=sections))
        self.knobs = (*hooks.operands, *elsewhere)
        self.hidden = frozenset(knob.key for knob in elsewhere)
        super().__init__(**state)

    # The widgets ----------------------------------------------------------------------------------------------------
    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts of each section."""
        self._stepper = Stepper(partial(self._turn_part, "step"), label="Partial products, step by step")
        self._cells = {name: CellImage(title=name) for name in "ABC"}
        self._rasters = {name: RasterCanvas(title=name, layout=flexible(300)) for name in "ABC"}
        self._panes = panes = {
            name: pane(title)
            for name, title in {
                "step live": "kept on the chip, step by step",
                "bytes": "bytes by dataflow",
                "live": "kept on the chip",
                "gantt": "threads at work",
                "utilisation": "utilisation",
                "machine live": "live products on the machine",
                "probes": "extra probes",
                "roofline": "roofline",
            }.items()
        }
        self._totals, self._constants, self._machine_note = (ipywidgets.HTML() for _ in range(3))
        self._kept = ipywidgets.HTML(layout=flexible(280))
        self._tables = [CellImage(title=""), CellImage(title="")]
        self._dataflows = Choices(DATAFLOWS, partial(self._turn_part, "dataflow"), label="Dataflow")
        panels = {
            "step": ControlPanel(TRAFFIC[1:], self.state, self._turn_part),
            "bytes": ControlPanel(TRAFFIC, self.state, self._turn_part),
            "machine": ControlPanel(self._hooks.machine, self.state, self._turn_part),
            "table": ControlPanel([TABLE], self.state, self._turn_part),
        }
        self._machine_parts = ipywidgets.VBox(
            (
                self._totals,
                row(panes["gantt"]),
                row(panes["utilisation"], panes["machine live"]),
                row(panes["probes"], panes["roofline"]),
                panels["table"],
                row(*self._tables),
            )
        )
        self._painted_table, self._drawn, self._curves = None, {}, (None, None, None)
        return self.framed(
            {
                "step": (
                    self._dataflows,
                    self._stepper,
                    row(*(part for name in "ABC" for part in (self._cells[name], self._rasters[name])), self._kept),
                    row(panes["step live"]),
                    panels["step"],
                ),
                "bytes": (panels["bytes"], row(panes["bytes"], panes["live"])),
                "machine": (panels["machine"], self._machine_note, self._machine_parts),
                "constants": (self._constants,),
            },
            panels,
        )

    def takes_files(self) -> bool:
        """Tell whether the fields for the reader's own files are shown."""
        return self.operands == self._hooks.file_choice

    def _shown_knobs(self):
        return [self.knob(key) for key in ("operands", *self._hooks.relevant.get(self.operands, ()))]

    def _state_shown(self):
        super()._state_shown()
        self._dataflows.selected = self.dataflow

    # Work -----------------------------------------------------------------------------------------------------------
    def compute(self, state: Mapping[str, Any], progress: Progress) -> TrafficScene:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    # The picture ----------------------------------------------------------------------------------------------------
    def paint(self, scene: TrafficScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value = headline(scene)
        self.kind = "modelled" if self.section in ("machine", "constants") else "counted"
        {
            "step": self._paint_step,
            "bytes": self._paint_bytes,
            "machine": self._paint_machine,
            "constants": self._paint_constants,
        }[self.section](scene)

    def _paint_step(self, scene):
        steps = scene.steps[self.dataflow]
        position = min(self.step, positions(steps))
        marks = step_marks(scene, self.dataflow, position)
        self._stepper.show(position, positions(steps), marks.sentence)
        self._kept.value = kept_html(scene, self.dataflow, marks)
        small = _is_small(scene)
        for name in "ABC":
            self._cells[name].layout.display = None if small else "none"
            self._rasters[name].layout.display = "none" if small else None
        (self._paint_cells if small else self._paint_rasters)(scene, marks)
        self._paint_curves(scene, marks)

    def _paint_curves(self, scene, marks):
        """Draw the curves once, and then move the mark along them."""
        look = (self.dataflow, self.log_axes, self.theme)
        before, before_look, figure = self._curves
        if before is not scene or before_look != look:
            present = curve_label(scene, self.dataflow)
            figure = live_figure(live_curves(scene), log=self.log_axes, theme=self.theme, present=present, most=300)
            self._curves = (scene, look, figure)
        mark_now(figure, marks.formed, marks.kept.total, self.theme)
        self._panes["step live"].show(figure, f"{live_words(scene, self.dataflow)} Now: {marks.kept.total:,}.")

    def _paint_cells(self, scene, marks):
        for name, image in self._cells.items():
            image.show(**cell_picture(scene, self.dataflow, marks, name, self.theme))

    def _paint_rasters(self, scene, marks):
        now = (self.dataflow, marks.formed, marks.kept.total)
        for name, operand in zip("ABC", (scene.a, scene.b, scene.c), strict=True):
            raster, shown = self._rasters[name], now if name == "C" else ()
            raster.title, raster.theme = matrix_title(operand), self.theme
            before, before_shown = self._drawn.get(name, (None, None))
            if before is not operand or before_shown != shown:
                self._drawn[name] = (operand, shown)
                used = formed_entries(scene, self.dataflow, marks) if shown else None
                matrix = formed_matrix(scene, self.dataflow, marks) if shown else operand_matrix(operand)
                raster.show(CsrSource(matrix), alt=pattern_words(operand, marks.cells[name], used), keep_window=True)
            rows, columns = marks.lines[name]
            raster.mark(rows, columns, marks.cells[name])

    def _paint_bytes(self, scene):
        totals = ", ".join(f"{flow} {readable_bytes(b)}" for flow, b in total_bytes(scene))
        self._panes["bytes"].show(
            bytes_figure(scene.traffic, log=self.log_axes, theme=self.theme), f"Off-chip bytes by dataflow: {totals}."
        )
        self._panes["live"].show(
            live_figure(live_curves(scene), log=self.log_axes, theme=self.theme, most=2000),
            live_words(scene, self.dataflow),
        )

    def _paint_machine(self, scene):
        machine = scene.machine
        self._machine_parts.layout.display = "none" if machine is None else None
        notes = (scene.machine_note,) if machine is None else machine.left_out
        self._machine_note.value = "".join(f"<p class='wb'>{html.escape(note)}</p>" for note in notes if note)
        if machine is None:
            return
        run = machine.runs[machine.shown]
        self._totals.value = fact_table(
            f"The product on {self._hooks.machine_name} by kernel version (modelled)",
            ("quantity", *(r.label for r in machine.runs)),
            [(name, *(short_number(r.totals[name]) for r in machine.runs)) for name in run.totals],
            shown=1 + machine.shown,
        )
        theme, live_title = self.theme, f"Live products in the scratchpad, {run.label}"
        figures = {
            "gantt": gantt_figure(run.gantt, theme=theme),
            "utilisation": utilisation_figure(run.utilisation, theme=theme),
            "machine live": live_figure([run.live], theme=theme, most=2000, title=live_title),
            "probes": probes_figure(machine.probes, theme=theme),
            "roofline": roofline_figure(machine.roofline, theme=theme),
        }
        for name, words in machine_words(machine).items():
            self._panes[name].show(figures[name], words)
        self._paint_tables(machine)

    def _paint_tables(self, machine):
        windows = machine.occupancy[0].windows if machine.occupancy else 1
        if self._painted_table != windows:
            self._painted_table = windows
            self._panels["table"].draw([replace(TABLE, high=max(windows - 1, 1))])
        for image, table in zip(self._tables, machine.occupancy, strict=False):
            image.layout.display = None
            image.show(**table_picture(table, self.theme))
        for image in self._tables[len(machine.occupancy) :]:
            image.layout.display = "none"

    def _paint_constants(self, scene):
        if scene.machine is None:
            self._constants.value = f"<p class='wb'>{html.escape(scene.machine_note)}</p>"
            return
        self._constants.value = fact_table(
            "Constants of the machine model, and how sure we are of each",
            ("constant", *CONSTANT_FIELDS[1:]),
            [[getattr(c, field) for field in CONSTANT_FIELDS] for c in scene.machine.constants],
        )

    # Words, data, files ---------------------------------------------------------------------------------------------
    def alt_text(self, scene: TrafficScene) -> str:
        """Say what the open section shows."""
        head = f"{scene.title}: {scene.products:,} partial products merge into {scene.c.nnz:,} entries of C. "
        if self.section == "step":
            return head + self._stepper.sentence
        if self.section == "bytes":
            return (
                head
                + "Off-chip bytes counted: "
                + ", ".join(f"{flow} {readable_bytes(total)}" for flow, total in total_bytes(scene))
                + "."
            )
        if scene.machine is None:
            return head + scene.machine_note
        times = ", ".join(f"{run.label} {run.totals['time (ms)']:.3g} ms" for run in scene.machine.runs)
        return head + f"Modelled on {self._hooks.machine_name}: {times}."

    def table(self, scene: TrafficScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = section_columns(scene, self.section, self.dataflow)
        return list(columns), ColumnRows(list(columns.values()))

    def arrays(self, scene: TrafficScene) -> dict[str, np.ndarray]:
        """Return the columns of the open section's table, and the matrices A, B and C with how to rebuild them."""
        return section_columns(scene, self.section, self.dataflow) | matrix_arrays((scene.a, scene.b, scene.c))

    def parts(self) -> dict[str, ipywidgets.Widget]:
        """Return the parts of the open section."""
        panes = self._panes
        if self.scene is None or self.section == "constants":
            return {}
        if self.section == "step":
            return (self._cells if _is_small(self.scene) else self._rasters) | {"live": panes["step live"]}
        if self.section == "bytes":
            return {"bytes": panes["bytes"], "live": panes["live"]}
        if self.scene.machine is None:
            return {}
        names = ("gantt", "utilisation", "machine live", "probes", "roofline")
        tables = {f"table, {t.label}": w for t, w in zip(self.scene.machine.occupancy, self._tables, strict=False)}
        return {name: panes[name] for name in names} | tables

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings of the operands and of the open section."""
        machine = self._hooks.machine
        mine = {"step": STEPPING, "bytes": TRAFFIC, "machine": (*machine, TABLE), "constants": machine}[self.section]
        return self.in_words([*self._shown_knobs(), self.knob("section"), *(self.knob(knob.key) for knob in mine)])

    def exports(self, scene: TrafficScene) -> dict[str, Callable[[], tuple[str, str, bytes]]]:
        """Add the Gantt's events and the probe histogram to the machine's exports."""
        if scene is None or scene.machine is None or self.section != "machine":
            return {}
        gantt = scene.machine.runs[scene.machine.shown].gantt
        arrays = {name: getattr(gantt, name) for name in ("thread", "row", "t0", "t1")}
        arrays |= {"probe_counts": scene.machine.probes.counts, "probe_labels": np.array(scene.machine.probes.labels)}
        return {"Events and probes (NPZ)": lambda: ("spgemm-events.npz", "application/x-npz", npz_bytes(arrays))}


def _is_small(scene):
    return max(*scene.a.shape, *scene.b.shape) <= SMALL
