"""Where a sparse product's bytes go: its dataflows step by step, their traffic, and a machine that runs it."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets
import numpy as np
import scipy.sparse as sp
import traitlets

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.cells import CellImage
from widgets.canvas.source import CsrSource
from widgets.controls.choices import Choices
from widgets.controls.knob import Knob
from widgets.controls.panel import ControlPanel
from widgets.controls.stepper import Stepper
from widgets.figures.figure_widget import PlotPane
from widgets.figures.spgemm_traffic import (
    LiveCurve,
    TrafficScene,
    bytes_figure,
    cell_classes,
    gantt_figure,
    live_curve,
    live_figure,
    probes_figure,
    readable_bytes,
    roofline_figure,
    step_marks,
    utilisation_figure,
)
from widgets.theme import CATEGORIES, PALETTE
from widgets.views.view import View
from widgets.views.worker import Progress

SOURCES = (
    ("rmat", "R-MAT pair (power law)"),
    ("worked", "Worked example, 3 x 3 by 3 x 2"),
    ("poisson2d", "Poisson, square grid, squared"),
)
DATAFLOWS = (
    ("row", "row-wise (Gustavson, SMASH)"),
    ("outer", "outer product"),
    ("inner", "inner product"),
    ("column", "column-wise"),
)
SECTIONS = (("step", "Step by step"), ("bytes", "Bytes moved"), ("machine", "PIUMA model"), ("constants", "Constants"))
HIGH_LOAD = 0.5
SMALL = 64  # up to this many rows and columns every cell is drawn on its own

OPERANDS = (
    Knob("source", "Input", "rmat", choices=SOURCES, help="Operands of the product."),
    Knob("scale", "Scale (log2 rows)", 5, 4, 12, 1, help="The matrices have 2^scale rows."),
    Knob("edge_factor", "Edges per row", 3, 1, 32, 1, help="Entries drawn per row."),
    Knob("a", "R-MAT a", 0.47, 0.0, 1.0, 0.005, help="Chance of the top left quadrant; d is what a, b and c leave."),
    Knob("b", "R-MAT b", 0.115, 0.0, 1.0, 0.005, help="Chance of the top right quadrant."),
    Knob("c", "R-MAT c", 0.115, 0.0, 1.0, 0.005, help="Chance of the bottom left quadrant."),
    Knob("permute", "Relabel vertices", True, help="Random labels spread heavy rows and columns."),
    Knob("seed", "Seed", 1, 0, 999, 1, help="Seed of A; B takes the next one."),
)
STEPPING = (
    Knob("dataflow", "Dataflow", "row", choices=DATAFLOWS, help="The order in which the products are formed."),
    Knob("step", "Step", 0, 0, 10**7),
)
TRAFFIC = (
    Knob("cache", "Cache", "none", choices=(("none", "none"), ("ideal", "ideal")), help="Reads of A and B kept on chip."),
    Knob("log_axes", "Logarithmic axes", False, help="Needed to see small streams beside the inner product's."),
)
MACHINE = (
    Knob("version", "Kernel version", 3, 1, 3, 1, help="1 static split, 2 tokens, 3 tokens and DMA write-back."),
    Knob(
        "hash",
        "Hash bits",
        "own",
        choices=(("own", "the version's own"), ("high", "high"), ("low", "low"), ("multiplicative", "multiplicative")),
    ),
    Knob("log2_slots", "Table slots (log2)", 17, 4, 18, 1),
    Knob("load", "Table load", 0.16, 0.01, 0.5, 0.005, help="Share of the table that a window may fill."),
    Knob("threads_per_mtc", "Threads per pipeline", 16, 1, 64, 1, scale="log2", help="Four pipelines per block."),
    Knob("bw", "DRAM bandwidth (bytes/cycle)", 2.1, 0.5, 17.0, 0.1),
    Knob("token_pp", "Token size (products)", 64, 1, 4096, 1, scale="log2", help="Products per token, V2 and V3."),
    Knob("blocks", "PIUMA blocks", 1, 1, 16, 1, scale="log2", help="Rows spread over blocks."),
)
TABLE = (Knob("table_window", "Window shown", 0, 0, 10**6, 1, help="Which window's table is drawn."),)
SECTION = (Knob("section", "Part", "step", choices=SECTIONS),)

W0_LIKE = {"source": "rmat", "scale": 12, "edge_factor": 8, "permute": True, "log2_slots": 17}
STORIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "hand": (
        "By hand",
        {"source": "worked", "section": "step", "dataflow": "row", "step": 3},
        "Seven products, whichever way. Step on: this one merges with a product that was there before. "
        "Then change the dataflow and watch how many stay alive.",
    ),
    "equal": (
        "Same work, other traffic",
        {"source": "rmat", "scale": 8, "edge_factor": 8, "section": "bytes"},
        "Every dataflow does the same multiplications. What differs is what it reads again and what it stores in "
        "between. Which stream makes the inner product hopeless, which one the outer product?",
    ),
    "load-low": (
        "V1 at load 0.125",
        W0_LIKE | {"section": "machine", "version": 1, "load": 0.125},
        "Remember the extra probes of V1 and V2, then press the next button: only the load changes.",
    ),
    "load-high": (
        "V1 at load 0.20",
        W0_LIKE | {"section": "machine", "version": 1, "load": 0.2},
        "A little more load, more than ten times the probes: high-order bits pile neighbours up. V2's low-order bits "
        "stay below 0.3 extra probes a product.",
    ),
    "poisson": (
        "No hash is free of structure",
        {
            "source": "poisson2d", "scale": 12, "section": "machine", "version": 2, "log2_slots": 14, "load": 0.3,
        },
        "On a 64 x 64 grid, rows are 4,096 long and that divides the table: low-order bits send whole rows to the same "
        "slots. Compare with high-order bits, then choose the multiplicative hash.",
    ),
}  # fmt: skip


class SpGEMMTrafficView(View):
    """C = A B as its dataflows see it: every partial product, every byte, and the PIUMA machine model at work.

    Parameters
    ----------
    compute_scene : ``compute_scene(state, progress) -> TrafficScene``; it makes the operands, counts, runs the machine.
    knobs : knobs that take the place of those of the same key here (other choices, ranges, defaults, tags).
    **state : values of knobs.
    """

    title = "SpGEMM traffic"
    knobs = (*OPERANDS, *STEPPING, *TRAFFIC, *MACHINE, *TABLE, *SECTION)
    hidden: ClassVar[frozenset[str]] = frozenset(k.key for k in (*STEPPING, *TRAFFIC, *MACHINE, *TABLE, *SECTION))
    paint_only: ClassVar[frozenset[str]] = frozenset(("dataflow", "step", "log_axes", "section"))

    def __init__(
        self,
        compute_scene: Callable[[Mapping[str, Any], Progress], TrafficScene],
        *,
        knobs: Sequence[Knob] = (),
        **state,
    ):
        self._compute_scene = compute_scene
        given = {knob.key: knob for knob in knobs}
        self.knobs = tuple(given.get(knob.key, knob) for knob in type(self).knobs)
        super().__init__(**state)

    # The widgets ----------------------------------------------------------------------------------------------------
    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the parts: headline, stories, tabs, and one box per section."""
        self._headline = ipywidgets.HTML()
        self._stories = Choices(
            [(key, label) for key, (label, _, _) in STORIES.items()], self._tell, label="What to look at"
        )
        self._tabs = Choices(SECTIONS, self._open, form="tabs", label="Parts of the view")
        self._stepper = Stepper(self._go, label="Partial products, step by step")
        self._cells = {name: CellImage(title=name) for name in "ABC"}
        self._rasters = {name: RasterCanvas(title=name) for name in "ABC"}
        self._panes = {
            name: _pane(title)
            for name, title in {
                "step live": "live partial products, this dataflow",
                "bytes": "bytes by dataflow",
                "live": "live partial products",
                "gantt": "threads at work",
                "utilisation": "utilisation",
                "machine live": "live products on the machine",
                "probes": "extra probes",
                "roofline": "roofline",
            }.items()
        }
        self._totals, self._constants, self._machine_note = (ipywidgets.HTML() for _ in range(3))
        self._tables = [CellImage(title=""), CellImage(title="")]
        self._panels = {
            "step": ControlPanel(self._of(STEPPING[:1]), self.state, self._turn_part),
            "bytes": ControlPanel(self._of(TRAFFIC), self.state, self._turn_part),
            "machine": ControlPanel(self._of(MACHINE), self.state, self._turn_part),
            "table": ControlPanel(TABLE, self.state, self._turn_part),
        }
        panes = self._panes
        self._machine_parts = ipywidgets.VBox(
            (
                self._totals,
                panes["gantt"],
                _row(panes["utilisation"], panes["machine live"]),
                _row(panes["probes"], panes["roofline"]),
                self._panels["table"],
                _row(*self._tables),
            )
        )
        self._boxes = {
            "step": ipywidgets.VBox(
                (
                    self._panels["step"],
                    self._stepper,
                    _row(*(part for name in "ABC" for part in (self._cells[name], self._rasters[name]))),
                    panes["step live"],
                )
            ),
            "bytes": ipywidgets.VBox((self._panels["bytes"], _row(panes["bytes"], panes["live"]))),
            "machine": ipywidgets.VBox((self._panels["machine"], self._machine_note, self._machine_parts)),
            "constants": ipywidgets.VBox((self._constants,)),
        }
        self._painted_table = None
        return (self._headline, self._stories, self._tabs, *self._boxes.values())

    def _of(self, knobs):
        return [self.knob(knob.key) for knob in knobs]

    def _turn_part(self, key, value):
        try:
            setattr(self, key, value)
        except traitlets.TraitError as error:
            self._toolbar.error = f"{error}."
            self._state_shown()

    def _go(self, position):
        self.step = position

    def _open(self, section):
        self.section = section

    def _tell(self, key):
        label, settings, text = STORIES[key]
        with self.changes():
            for knob in self.knobs:
                setattr(self, knob.key, settings.get(knob.key, knob.default))
        self._stories.selected, self._stories.text = key, text

    def _state_shown(self):
        super()._state_shown()
        for panel in self._panels.values():
            panel.values = self.state
        self._tabs.selected = self.section
        for name, box in self._boxes.items():
            box.layout.display = None if name == self.section else "none"

    # Work -----------------------------------------------------------------------------------------------------------
    def budget(self, state: Mapping[str, Any]) -> str | None:
        """Refuse what cannot be shown live, naming the limit."""
        chances = state["a"] + state["b"] + state["c"]
        if state["source"] == "rmat" and chances > 1 + 1e-9:
            return f"R-MAT a + b + c is {chances:.3g}, the limit is 1: lower one of them."
        high = state["hash"] == "high" or (state["hash"] == "own" and state["version"] == 1)
        if high and state["load"] >= HIGH_LOAD:
            return (
                f"High-order bits at load {state['load']:g} need hundreds to thousands of probes a product; the limit of "
                f"the live view is a load below {HIGH_LOAD:g}: lower it or choose another hash."
            )
        return None

    def compute(self, state: Mapping[str, Any], progress: Progress) -> TrafficScene:
        """Have the scene filled."""
        return self._compute_scene(state, progress)

    # The picture ----------------------------------------------------------------------------------------------------
    def paint(self, scene: TrafficScene) -> None:
        """Draw the section that is open; the others are drawn when they are opened."""
        self._headline.value = _headline(scene)
        self.kind = "modelled" if self.section in ("machine", "constants") else "counted"
        {
            "step": self._paint_step,
            "bytes": self._paint_bytes,
            "machine": self._paint_machine,
            "constants": self._paint_constants,
        }[self.section](scene)
        exports = [[key, label] for key, (label, _) in self._export_makers().items()]
        if exports != self._toolbar.exports:
            self._toolbar.exports = exports

    def _paint_step(self, scene):
        steps = scene.steps[self.dataflow]
        position = min(self.step, len(steps.live))
        marks = step_marks(scene, self.dataflow, position)
        unit = "product" if steps.exact else "run of products"
        self._stepper.show(position, len(steps.live), marks.sentence, unit)
        small = _is_small(scene)
        for name in "ABC":
            self._cells[name].layout.display = None if small else "none"
            self._rasters[name].layout.display = "none" if small else None
        (self._paint_cells if small else self._paint_rasters)(scene, marks)
        curve = live_curve(steps, dict(DATAFLOWS)[self.dataflow])
        now = (float(marks.formed), int(steps.live[position - 1])) if position else (0.0, 0)
        self._panes["step live"].show(
            live_figure([curve], theme=self.theme, at=now, most=600),
            f"{curve.label}: at most {int(curve.live.max(initial=0)):,} partial products alive; now {now[1]:,}.",
        )

    def _paint_cells(self, scene, marks):
        colours = PALETTE[self.theme]
        tints = {"light": ("#f3efe2", "#b9c3cc"), "dark": ("#24282b", "#56616b")}[self.theme]
        palette = (colours["plot"], tints[0], tints[1], CATEGORIES[self.theme][0], colours["highlight"])
        names = {
            "A": ("", "", "entry", "entry of the current line", "used now"),
            "B": ("", "", "entry", "entry of the current line", "used now"),
            "C": ("", "", "to come", "formed", "reached now"),
        }
        for name, operand in zip("ABC", (scene.a, scene.b, scene.c), strict=True):
            rows = np.repeat(np.arange(operand.shape[0]), np.diff(operand.indptr))
            used = scene.births[self.dataflow] < marks.formed if name == "C" else None
            now = marks.cells[name]
            cells = cell_classes(operand.shape, (rows, operand.indices), marks.lines[name], now, used)
            values = operand.values
            if name == "C" and marks.formed and max(operand.shape) <= 24:
                values = _sums_so_far(scene, self.dataflow, marks.formed)
            texts = []
            if max(operand.shape) <= 24:
                written = range(len(rows)) if used is None else np.flatnonzero(used)
                texts = [(rows[e], operand.indices[e], f"{values[e]:.4g}") for e in written]
            self._cells[name].show(
                cells,
                palette,
                names[name],
                frames=now if len(now) <= 64 else (),
                frame_colour=colours["ink"],
                texts=texts,
                title=_matrix_title(operand),
                alt=_pattern_words(operand, now, used),
            )

    def _paint_rasters(self, scene, marks):
        for name, operand in zip("ABC", (scene.a, scene.b, scene.c), strict=True):
            raster = self._rasters[name]
            raster.title = _matrix_title(operand)
            raster.theme = self.theme
            used = scene.births[self.dataflow] < marks.formed if name == "C" else None
            key = (id(operand), self.dataflow, marks.formed) if name == "C" else id(operand)
            if getattr(raster, "shown", None) != key:
                raster.shown = key
                alt = _pattern_words(operand, marks.cells[name], used)
                raster.show(CsrSource(_csr(operand, used)), alt=alt, keep_window=True)
            raster.mark(*marks.lines[name], marks.cells[name])

    def _paint_bytes(self, scene):
        totals = ", ".join(f"{flow} {readable_bytes(b)}" for flow, b in _total_bytes(scene))
        self._panes["bytes"].show(
            bytes_figure(scene.traffic, log=self.log_axes, theme=self.theme), f"Off-chip bytes by dataflow: {totals}."
        )
        curves = _live_curves(scene)
        peaks = ", ".join(f"{c.label} {int(c.live.max(initial=0)):,}" for c in curves)
        self._panes["live"].show(
            live_figure(curves, log=self.log_axes, theme=self.theme, most=2000), f"Most partial products alive: {peaks}."
        )

    def _paint_machine(self, scene):
        machine = scene.machine
        self._machine_parts.layout.display = "none" if machine is None else None
        notes = (scene.machine_note,) if machine is None else machine.left_out
        self._machine_note.value = "".join(f"<p class='wb'>{html.escape(note)}</p>" for note in notes if note)
        if machine is None:
            return
        run = machine.runs[machine.shown]
        self._totals.value = _totals_table(machine)
        panes, theme = self._panes, self.theme
        panes["gantt"].show(
            gantt_figure(run.gantt, theme=theme),
            f"{run.label}: {run.gantt.events_total:,} pieces of work on {run.gantt.threads} threads over "
            f"{run.gantt.cycles:,.0f} cycles, modelled.",
        )
        panes["utilisation"].show(
            utilisation_figure(run.utilisation, theme=theme),
            f"{run.label} on average: "
            + ", ".join(f"{n} {_mean(run.utilisation, n):.0%}" for n in run.utilisation.series)
            + ", modelled.",
        )
        panes["machine live"].show(
            live_figure([run.live], theme=theme, most=2000, title=f"Live products in the scratchpad, {run.label}"),
            f"{run.label}: at most {int(run.live.live.max(initial=0)):,} live products, modelled.",
        )
        means = zip(machine.probes.labels, machine.probes.mean, strict=True)
        panes["probes"].show(
            probes_figure(machine.probes, theme=theme),
            "Extra probes a product: " + ", ".join(f"{label} {mean:.3g}" for label, mean in means) + ".",
        )
        roof = machine.roofline
        points = zip(roof.labels, roof.ops_per_cycle, roof.ops_per_byte, strict=True)
        panes["roofline"].show(
            roofline_figure(roof, theme=theme),
            "; ".join(f"{n}: {y:.3g} {roof.ops} a cycle at {x:.3g} a byte" for n, y, x in points) + "; modelled.",
        )
        self._paint_tables(machine)

    def _paint_tables(self, machine):
        windows = machine.occupancy[0].windows if machine.occupancy else 1
        if self._painted_table != windows:
            self._painted_table = windows
            knob = TABLE[0]
            self._panels["table"].draw([Knob(knob.key, knob.label, 0, 0, max(windows - 1, 1), 1, help=knob.help)])
        for image, table in zip(self._tables, machine.occupancy, strict=False):
            _show_table(image, table, self.theme)
        for image in self._tables[len(machine.occupancy) :]:
            image.layout.display = "none"

    def _paint_constants(self, scene):
        self._constants.value = _constants_table(scene.machine.constants if scene.machine else ())

    # Words, data, files ---------------------------------------------------------------------------------------------
    def alt_text(self, scene: TrafficScene) -> str:
        """Say what the open section shows."""
        head = f"{scene.title}: {scene.products:,} partial products merge into {scene.c.nnz:,} entries of C. "
        if self.section == "step":
            return head + self._stepper.sentence
        if self.section == "bytes":
            return head + "Off-chip bytes counted: " + ", ".join(
                f"{flow} {readable_bytes(total)}" for flow, total in _total_bytes(scene)
            ) + "."
        if scene.machine is None:
            return head + scene.machine_note
        times = ", ".join(f"{run.label} {run.totals['time (ms)']:.3g} ms" for run in scene.machine.runs)
        return head + f"Modelled on PIUMA: {times}."

    def table(self, scene: TrafficScene) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the data behind the open section."""
        columns = self.arrays(scene)
        return list(columns), _Rows(list(columns.values()))

    def arrays(self, scene: TrafficScene) -> dict[str, np.ndarray]:
        """Return the columns of the open section's table."""
        if self.section == "step":
            return _step_columns(scene.steps[self.dataflow])
        if self.section == "bytes":
            traffic = scene.traffic
            return {"dataflow": np.array(traffic.dataflows)} | {
                f"{stream} (bytes)": traffic.bytes[:, s] for s, stream in enumerate(traffic.streams)
            }
        machine = scene.machine
        if machine is None:
            return {"note": np.array([scene.machine_note])}
        if self.section == "machine":
            names = list(machine.runs[0].totals)
            return {"kernel": np.array([run.label for run in machine.runs])} | {
                name: np.array([float(run.totals[name]) for run in machine.runs]) for name in names
            }
        fields = ("name", "value", "unit", "tag", "source")
        return {name: np.array([getattr(c, name) for c in machine.constants]) for name in fields}

    def pictures(self) -> dict[str, ipywidgets.Widget]:
        """Return the parts of the open section, for export."""
        if self.scene is None:
            return {}
        panes = self._panes
        if self.section == "step":
            shown = self._cells if _is_small(self.scene) else self._rasters
            return dict(shown) | {"live": panes["step live"]}
        if self.section == "bytes":
            return {"bytes": panes["bytes"], "live": panes["live"]}
        if self.section == "constants" or self.scene.machine is None:
            return {}
        names = ("gantt", "utilisation", "machine live", "probes", "roofline")
        tables = {f"table, {t.label}": w for t, w in zip(self.scene.machine.occupancy, self._tables, strict=False)}
        return {name: panes[name] for name in names} | tables

    def exports(self, scene: TrafficScene) -> dict[str, Callable[[], tuple[str, str, bytes]]]:
        """Add the Gantt's events and the probe histogram to the machine's exports."""
        if scene is None or scene.machine is None or self.section != "machine":
            return {}
        from widgets.views.export import npz_bytes

        gantt = scene.machine.runs[scene.machine.shown].gantt
        arrays = {name: getattr(gantt, name) for name in ("thread", "row", "t0", "t1")}
        arrays |= {"probe_counts": scene.machine.probes.counts, "probe_labels": np.array(scene.machine.probes.labels)}
        return {"Events and probes (NPZ)": lambda: ("spgemm-events.npz", "application/x-npz", npz_bytes(arrays))}

    def recipe(self) -> str:
        """Return the Python that remakes the view in its present state."""
        given = ", ".join(f"{key}={value!r}" for key, value in self.state.items() if value != self.knob(key).default)
        return "\n".join(
            (
                "from workbench.papers import get",
                "",
                f"view = get("smash").view({given})",
                "view.wait()",
                "view",
            )
        )


class _Rows(Sequence):
    """Rows of equally long columns, made when asked for."""

    def __init__(self, columns):
        self._columns = columns

    def __len__(self):
        return len(self._columns[0]) if self._columns else 0

    def __getitem__(self, at):
        if isinstance(at, slice):
            return list(zip(*(column[at].tolist() for column in self._columns), strict=True))
        return tuple(column[at].item() for column in self._columns)


def _pane(title):
    pane = PlotPane(layout={"flex": "1 1 440px", "min_width": "0"})
    pane.title = title
    return pane


def _row(*widgets):
    return ipywidgets.Box(widgets, layout={"display": "flex", "flex_flow": "row wrap", "width": "100%"})


def _is_small(scene):
    return max(*scene.a.shape, *scene.b.shape) <= SMALL


def _csr(operand, used=None):
    if used is None:
        return sp.csr_array((operand.values, operand.indices, operand.indptr), shape=operand.shape)
    before = np.concatenate(([0], np.cumsum(used)))
    kept = (operand.values[used], operand.indices[used], before[operand.indptr])
    return sp.csr_array(kept, shape=operand.shape)


def _matrix_title(operand):
    (m, n), density = operand.shape, operand.nnz / max(operand.shape[0] * operand.shape[1], 1)
    return f"{operand.name}: {m:,} x {n:,}, {operand.nnz:,} entries (density {density:.2g})"


def _pattern_words(operand, now, used):
    text = f"Pattern of {operand.name}, {operand.shape[0]:,} rows, {operand.shape[1]:,} columns, {operand.nnz:,} entries"
    if used is not None:
        text += f", {int(used.sum()):,} of them formed"
    if len(now) == 1:
        text += f"; now at row {now[0][0]}, column {now[0][1]}"
    return text + "."


def _sums_so_far(scene, dataflow, formed):
    """Return the value of every entry of C after the first ``formed`` products."""
    from kernels.matmul.dataflow import products_between

    run = products_between(scene.orders[dataflow], 0, formed)
    n = scene.c.shape[1]
    rows = np.repeat(np.arange(scene.c.shape[0]), np.diff(scene.c.indptr))
    place = np.searchsorted(rows * n + scene.c.indices, run.i * n + run.j)
    return np.bincount(place, run.product, scene.c.nnz)


def _total_bytes(scene):
    return list(zip(scene.traffic.dataflows, scene.traffic.bytes.sum(axis=1), strict=True))


def _live_curves(scene) -> list[LiveCurve]:
    labels = {"outer": "outer", "row": f"row-wise, {len(scene.windows):,} windows (SMASH)", "column": "column-wise"}
    return [live_curve(scene.steps[flow], label) for flow, label in labels.items()]


def _step_columns(steps):
    return {
        "product": steps.edges[1:],
        "i": steps.i,
        "k": steps.k,
        "j": steps.j,
        "a_ik b_kj": steps.product,
        "merged": steps.merged,
        "alive": steps.live,
    }


def _headline(scene):
    merged = f"{scene.products / scene.c.nnz:.3g}" if scene.c.nnz else "1"
    text = (
        f"<b>{html.escape(scene.title)}</b>: {scene.a.nnz:,} entries times {scene.b.nnz:,}. Every dataflow forms the same "
        f"<b>{scene.products:,} partial products</b>; they merge into {scene.c.nnz:,} entries of C ({merged} each) "
        "(counted)."
    )
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>"


def _mean(utilisation, name):
    width = np.diff(utilisation.edges)
    return float(np.average(utilisation.series[name], weights=width)) if width.sum() else 0.0


def _totals_table(machine):
    names = list(machine.runs[0].totals)
    head = "".join(
        f"<th scope='col'{' class=wb-shown' if r == machine.shown else ''}>{run.label}"
        f"{' (shown)' if r == machine.shown else ''}</th>"
        for r, run in enumerate(machine.runs)
    )
    body = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th>"
        + "".join(f"<td>{_short(run.totals[name])}</td>" for run in machine.runs)
        + "</tr>"
        for name in names
    )
    return _html_table("One PIUMA run by kernel version (modelled)", f"<th scope='col'>quantity</th>{head}", body)


def _constants_table(constants):
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("constant", "value", "unit", "tag", "source"))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(getattr(c, f))}</td>" for f in ("name", "value", "unit", "tag", "source"))
        + "</tr>"
        for c in constants
    )
    return _html_table("Constants of the machine model, and how sure we are of each", head, body)


def _html_table(caption, head, body):
    style = (
        "<style>.wb-facts{overflow-x:auto;padding:4px}.wb-facts table{border-collapse:collapse;font-size:15px}"
        ".wb-facts caption{text-align:left;font-weight:600;font-size:16px;padding:4px 0}"
        ".wb-facts th,.wb-facts td{text-align:left;padding:3px 16px 3px 0;border-bottom:1px solid var(--wb-line);"
        "vertical-align:top}.wb-facts td{font-variant-numeric:tabular-nums}"
        ".wb-facts .wb-shown{color:var(--wb-accent)}</style>"
    )
    return (
        f"{style}<div class='wb wb-facts' tabindex='0' role='region' aria-label='{html.escape(caption, quote=True)}'>"
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _short(value):
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.4g}"


def _show_table(image, table, theme):
    slots = len(table.row)
    width = 2 ** min(9, max(2, int(np.ceil(np.log2(max(slots, 4)) / 2))))
    height = -(-slots // width)
    row = np.full(width * height, -1, np.int64)
    row[:slots] = table.row
    shades = len(CATEGORIES[theme])
    cells = np.where(row >= 0, 1 + row % (shades - 1), 0).reshape(height, width)
    if height > 512:
        cells = cells[: 512 * (height // 512)].reshape(512, -1, width).max(axis=1)
    used = float((table.row >= 0).mean()) if slots else 0.0
    image.layout.display = None
    image.show(
        cells,
        (PALETTE[theme]["plot"], *CATEGORIES[theme][: shades - 1]),
        ("", *[""] * (shades - 1)),
        shape=(height, width),
        axes=("table line", "slot"),
        title=f"Table of window {table.window + 1} of {table.windows}, {table.label} ({table.kind})",
        alt=(
            f"Hash table with {slots:,} slots, {used:.1%} taken by {table.rows:,} rows of C, colour by row; {table.label}."
        ),
    )
