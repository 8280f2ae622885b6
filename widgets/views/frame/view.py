"""What every interactive view shares: typed state, controls, background work, errors, export, words and table."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

import ipywidgets
import numpy as np
import traitlets

from widgets.controls.knob import Knob, KnobError
from widgets.controls.panel import ControlPanel
from widgets.figures.plot_pane import PlotPane
from widgets.theme import THEMES, Theme
from widgets.views.frame import export
from widgets.views.frame.table_twin import TableTwin
from widgets.views.frame.toolbar import ALL, Toolbar
from widgets.views.frame.worker import DELIVERED, Cancelled, LatestWins, Progress

__all__ = ["BRUSH", "Cancelled", "View", "link_views"]

QUERY_LIMIT = 2000
BRUSH = (
    Knob("brush_rows", "Brushed rows", "", help="Rows picked on the marginal strip, as first:end."),
    Knob("brush_columns", "Brushed columns", "", help="Columns picked on the marginal strip, as first:end."),
)

_log = logging.getLogger(__name__)


class _KnobTrait(traitlets.TraitType):
    """A trait whose type, range and default are those of the view's knob of the same name."""

    def make_dynamic_default(self):
        return None

    def default(self, obj=None):
        return None if obj is None else obj.knob(self.name).default

    def validate(self, obj, value):
        try:
            return obj.knob(self.name).validate(value)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None


class View(ipywidgets.VBox):
    """A picture with its controls; its state is one typed trait per knob.

    A subclass declares ``knobs`` and implements `build`, `compute`, `paint`, `table`, `alt_text` and `recipe`; the
    rest is here. `compute` runs in a worker thread and is pure; everything else runs where the view was made. In a
    Jupyter kernel the constructor returns at once and the picture follows; `wait` blocks until it is there. Without a
    running event loop everything is computed at once.

    Attributes
    ----------
    title : names the view to screen readers and its exported files.
    kind : ``"measured"``, ``"modelled"`` or ``"counted"``: how the numbers came about; may be set per scene in `paint`.
    knobs : the parameters; an instance may replace them (choices known late) or bring its own, before it calls
        ``super().__init__``.
    hidden : keys of knobs that get no control because the picture itself changes them (a zoom window, a brush).
    play : keys of whole-number knobs that get a play button.
    paint_only : keys that only `paint` reads: turning them repaints the last scene without computing.
    renamed : keys of older links -> the knobs' keys today, so that an older link opens the same picture.
    """

    title: ClassVar[str] = "View"
    kind: str = "counted"
    knobs: Sequence[Knob] = ()
    hidden: frozenset[str] = frozenset()
    play: ClassVar[frozenset[str]] = frozenset()
    paint_only: ClassVar[frozenset[str]] = frozenset()
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    theme: traitlets.Enum[Theme] = traitlets.Enum(THEMES, default_value="light")
    _closing = False
    _worker: Any = None  # a LatestWins, once the constructor has taken its arguments

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for knob in cls.__dict__.get("knobs", ()):
            if isinstance(cls.__dict__.get(knob.key), _KnobTrait):
                continue
            trait = cls._trait_of(knob)
            setattr(cls, knob.key, trait)
            trait.class_init(cls, knob.key)

    @classmethod
    def _trait_of(cls, knob):
        if hasattr(View, knob.key):
            raise TypeError(f"{cls.__name__}: knob {knob.key!r} hides an attribute of View; rename it.")
        return _KnobTrait()

    def __init__(self, *, link_base: str = "", query: str = "", **state):
        self._knob_by_key = {knob.key: knob for knob in self.knobs}
        unknown = set(state) - set(self._knob_by_key) - {"theme"}
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: no knob {sorted(unknown)[0]!r}; knobs are {', '.join(self._knob_by_key)}."
            )
        self.scene: Any = None
        self._held = False
        self._links: list[Callable[[], None]] = []
        super().__init__()
        own = [knob for knob in self.knobs if not isinstance(getattr(type(self), knob.key, None), _KnobTrait)]
        if own:
            self.add_traits(**{knob.key: self._trait_of(knob) for knob in own})
        self.add_class("wb-view")
        for key, value in state.items():
            setattr(self, key, value)
        refused = self._read_query(query) if query else []
        self._toolbar = Toolbar(
            self._from_page, title=self.title, kind=self.kind, owned=list(self._knob_by_key), link_base=link_base
        )
        self._panel = ControlPanel(self._shown_knobs(), self.state, self._turn, play=self.play)
        self._twin = TableTwin()
        self._worker = LatestWins(self._compute, self._computed, self._progressed)
        self._picture = tuple(self.build())
        self.children = (self._panel, self._toolbar, *self._picture, self._twin)
        self._show_exports()
        self.observe(self._knob_changed, names=list(self._knob_by_key))
        self.observe(self._follow_theme, names="theme")
        self._state_shown()
        self.refresh()
        self._say_refused(refused)

    # What a subclass gives ------------------------------------------------------------------------------------------
    def build(self) -> Sequence[ipywidgets.Widget]:
        """Make the widgets of the picture, empty; called once."""
        raise NotImplementedError

    def compute(self, state: Mapping[str, Any], progress: Progress) -> Any:
        """Return the scene for ``state``: plain data. Runs in a worker thread; touch no widget here.

        A generator may yield a first scene early and better ones later; each is painted.
        """
        raise NotImplementedError

    def paint(self, scene: Any) -> None:
        """Draw ``scene`` into the widgets that `build` made."""
        raise NotImplementedError

    def table(self, scene: Any) -> tuple[Sequence[str], Sequence[Sequence]]:
        """Return the plotted data as column names and rows; a cell is a number, or a word in a column of words."""
        raise NotImplementedError

    def alt_text(self, scene: Any) -> str:
        """Return what the picture shows, in one or two sentences made from the data."""
        raise NotImplementedError

    def recipe(self) -> str:
        """Return about five lines of Python that remake the picture."""
        raise NotImplementedError

    def budget(self, state: Mapping[str, Any]) -> str | None:
        """Return None, or the sentence that refuses ``state`` before any work and names the limit."""
        return None

    def unfinished(self, scene: Any) -> str:
        """Return the CSS class of the parts that ``scene`` does not fill yet, "" if it fills all; they stay dimmed."""
        return ""

    def arrays(self, scene: Any) -> dict[str, np.ndarray]:
        """Return the plotted data as named arrays for the NPZ export; by default the table's columns."""
        columns, rows = self.table(scene)
        return {str(name): np.array([row[i] for row in rows]) for i, name in enumerate(columns)}

    def exports(self, scene: Any) -> dict[str, Callable[[], tuple[str, str, bytes]]]:
        """Return further exports: menu label -> callable that returns (file name, MIME type, bytes)."""
        return {}

    # State ----------------------------------------------------------------------------------------------------------
    def knob(self, key: str) -> Knob:
        """Return the knob named ``key``."""
        return self._knob_by_key[key]

    @property
    def state(self) -> dict[str, bool | int | float | str]:
        """Present value of every knob; JSON-safe."""
        return {key: getattr(self, key) for key in self._knob_by_key}

    @property
    def query(self) -> str:
        """The state as a query string: only what differs from the defaults, under 2,000 characters."""
        changed = {
            key: str(int(value)) if isinstance(value, bool) else str(value)
            for key, value in self.state.items()
            if value != self.knob(key).default
        }
        text = urlencode(changed)
        if len(text) >= QUERY_LIMIT:
            raise ValueError(
                f"{type(self).__name__}: the state needs {len(text)} characters; a link holds {QUERY_LIMIT}."
            )
        return text

    @classmethod
    def from_query(cls, query: str, *args, **kwargs) -> "View":
        """Make a view in the state that ``query`` describes; other arguments go to the constructor."""
        return cls(*args, query=query, **kwargs)

    def load_query(self, query: str) -> None:
        """Take the state from ``query``: knobs it does not name go to their defaults, foreign keys are ignored.

        A value that a knob refuses leaves that knob at its default and is named in the view's note.
        """
        with self.changes():
            refused = self._read_query(query)
        self._say_refused(refused)

    def _read_query(self, query):
        asked = dict(parse_qsl(query.lstrip("?"), keep_blank_values=True))
        given = {self.renamed.get(key, key): value for key, value in asked.items()}
        if given.get("theme") in ("light", "dark"):
            self.theme = given["theme"]
        refused = []
        for key, knob in self._knob_by_key.items():
            value = knob.default
            if key in given:
                try:
                    value = knob.validate(given[key])
                except ValueError as error:
                    refused.append(str(error))
            setattr(self, key, value)
        return refused

    def _say_refused(self, refused):
        if refused:
            self._toolbar.note = "Link not read in full: " + "; ".join(refused) + "."

    @contextmanager
    def changes(self):
        """Group several changes of state into one computation."""
        before, outer = self.state, self._held
        self._held = True
        try:
            yield
        finally:
            self._held = outer
            if not outer and self.state != before:
                self._state_changed({key for key, value in self.state.items() if before[key] != value})

    @property
    def error(self) -> str:
        """The sentence in the view's error line; empty when all is well."""
        return self._toolbar.error

    @property
    def note(self) -> str:
        """The remark under the view's bar, such as what a link could not restore."""
        return self._toolbar.note

    # Work -----------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Compute and paint the present state."""
        if self._closing:
            return
        state = self.state
        refusal = self.budget(state)
        if refusal:
            self._worker.cancel()
            self._toolbar.busy, self._toolbar.stale = False, ""
            self._toolbar.error = refusal
            return
        with self._toolbar.hold_sync():
            self._toolbar.busy = True
            self._toolbar.stale = ALL if self.scene is not None else ""
            self._toolbar.progress = 0.0
            self._toolbar.step = ""
            self._toolbar.note = ""
        self._worker.submit(state)

    def wait(self, timeout_s: float = 60.0) -> "View":
        """Block until the picture shows the present state; TimeoutError after ``timeout_s``. Returns the view."""
        self._worker.wait(timeout_s)
        return self

    def cancel(self) -> None:
        """Stop computing; the last picture stays."""
        if not self._worker.busy:
            return
        self._worker.cancel()
        self._toolbar.busy, self._toolbar.stale = False, ""
        kept = (
            "The picture still shows the settings before." if self.scene is not None else "Turn any control to start."
        )
        self._toolbar.note = f"Cancelled. {kept}"

    def set_knobs(self, knobs: Sequence[Knob]) -> None:
        """Replace knobs by others of the same keys (other choices, other ranges); values that no longer fit reset."""
        keep = {key: getattr(self, key) for key in self._knob_by_key}
        if {knob.key for knob in knobs} != set(keep):
            raise ValueError(f"{type(self).__name__}.set_knobs: keys must stay {', '.join(keep)}.")
        self.knobs = tuple(knobs)
        self._knob_by_key = {knob.key: knob for knob in knobs}
        with self.changes():
            for knob in knobs:
                try:
                    knob.validate(keep[knob.key])
                except ValueError:
                    setattr(self, knob.key, knob.default)
        self._panel.draw(self._shown_knobs())
        self._state_shown()

    def _shown_knobs(self):
        return [knob for knob in self.knobs if knob.key not in self.hidden]

    def _knob_changed(self, change):
        if not self._held:
            self._state_changed({change["name"]})

    def _state_changed(self, keys):
        self._state_shown()
        if self.scene is not None and keys <= self.paint_only:
            self._paint()
        else:
            self.refresh()

    def _state_shown(self):
        with self._toolbar.hold_sync():
            try:
                self._toolbar.query = self.query
            except ValueError as error:
                self._failed(error)
            self._toolbar.recipe = self.recipe()
        self._panel.values = self.state
        self._panel.notes = dict(self._readings())

    def _readings(self):
        """Yield what a knob's own reading says of its value: key, kind of note, text."""
        for knob in self._shown_knobs():
            if knob.read is None:
                continue
            try:
                remark = knob.read(getattr(self, knob.key), self.state)
            except ValueError as error:
                yield knob.key, ["error", _sentence(error)]
            else:
                if remark:
                    yield knob.key, ["note", _sentence(remark)]

    def _follow_theme(self, change):
        if self.scene is not None:
            self._paint()

    def _turn(self, key, value):
        if key not in self._knob_by_key or key in self.hidden:
            return
        try:
            setattr(self, key, value)
        except traitlets.TraitError as error:
            self._toolbar.error = f"{error}."
            self._panel.values = {}
            self._panel.values = self.state

    def _from_page(self, message):
        match message.get("type"):
            case "cancel":
                self.cancel()
            case "export":
                self._export_to_page(message.get("key"))
            case "address":
                self.load_query(message.get("query", ""))
            case "page" if message.get("theme") in ("light", "dark"):
                self.theme = message["theme"]

    def _compute(self, state, progress):
        return self.compute(state, progress)

    def _progressed(self, fraction, step):
        with self._toolbar.hold_sync():
            self._toolbar.progress = float(fraction)
            self._toolbar.step = step

    def _computed(self, state, scene, error):
        if self._closing:
            return
        stale = ""
        if scene is DELIVERED:
            pass
        elif error is None:
            self.scene = scene
            self._toolbar.error = ""
            self._paint()
            stale = self.unfinished(scene)
        else:
            self._failed(error)
        now = self.state
        newer = any(now[key] != value for key, value in state.items() if key not in self.paint_only)
        self._toolbar.stale = ALL if newer and self._worker.busy else stale
        self._toolbar.busy = self._worker.busy

    def _paint(self):
        try:
            self.paint(self.scene)
            columns, rows = self.table(self.scene)
            self._twin.show(columns, rows, self.alt_text(self.scene))
            self._toolbar.kind = self.kind
            self._show_exports()
        except Exception as error:
            self._failed(error)

    def _failed(self, error):
        if not isinstance(error, (ValueError, MemoryError, OSError, OverflowError, TypeError)):
            _log.error("%s: %s", type(self).__name__, error, exc_info=error)
        self._toolbar.error = _sentence(error)
        if isinstance(error, KnobError):
            self._panel.notes = {**self._panel.notes, error.key: ["error", _sentence(error)]}

    # Export ---------------------------------------------------------------------------------------------------------
    def parts(self) -> dict[str, ipywidgets.Widget]:
        """Return the parts of the picture by title: plot panes and canvases among the built widgets that are shown."""
        found = {}
        for widget in _descendants(self._picture, shown=True):
            if isinstance(widget, PlotPane) or hasattr(widget, "png"):
                found[getattr(widget, "title", "") or f"figure {len(found) + 1}"] = widget
        return found

    def pictures(self) -> dict[str, ipywidgets.Widget]:
        """Return the parts that have something to show, for export."""
        return {name: widget for name, widget in self.parts().items() if not widget.is_empty}

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings that the present picture depends on, as (label, value) in words."""
        return self.in_words([*self._shown_knobs(), *(knob for knob in self.knobs if knob.key in self.hidden)])

    def in_words(self, knobs: Sequence[Knob]) -> list[tuple[str, str]]:
        """Return the labels of knobs and their present values as a reader chose them."""
        return [(knob.label, _value_words(knob, getattr(self, knob.key))) for knob in knobs]

    def export(self, label: str) -> tuple[str, str, bytes]:
        """Return one export as (file name, MIME type, bytes); see ``view.export_labels`` for the labels.

        PNG and SVG of plotly figures are drawn by the browser and exist only there: ValueError here.
        """
        makers = self._export_makers()
        if label not in makers:
            raise ValueError(f"{type(self).__name__}.export: no {label!r}; there are {', '.join(makers)}.")
        if self.scene is None:
            raise ValueError(f"{type(self).__name__}.export: nothing painted yet; wait for the picture.")
        made = makers[label]()
        if made is None:
            raise ValueError(f"{type(self).__name__}.export: {label} is drawn by the browser; use the menu there.")
        return made

    @property
    def export_labels(self) -> tuple[str, ...]:
        """Labels of the export menu."""
        return tuple(self._export_makers())

    def _export_makers(self) -> dict[str, Callable[[], tuple[str, str, bytes] | None]]:
        makers, pictures = {}, self.pictures()
        for image_format, mime in (("png", "image/png"), ("svg", "image/svg+xml")):
            for name, widget in pictures.items():
                part = name if len(pictures) > 1 else ""
                filename = export.file_name(self.title.lower(), part.lower(), f".{image_format}")
                label = f"{image_format.upper()}: {name}" if part else image_format.upper()
                makers[label] = partial(_picture_file, widget, filename, image_format, mime)
        return makers | {
            "Data (CSV)": self._maker(".csv", "text/csv", self._csv),
            "Data (NPZ)": self._maker(".npz", "application/x-npz", lambda: export.npz_bytes(self.arrays(self.scene))),
            "Page (HTML, offline)": self._maker(".html", "text/html", lambda: export.html_bytes(self)),
            "Python (5 lines)": self._maker(".py", "text/x-python", lambda: (self.recipe() + "\n").encode()),
            **self.exports(self.scene),
        }

    def _maker(self, ending, mime, content):
        return lambda: (export.file_name(self.title.lower(), "", ending), mime, content())

    def _csv(self):
        columns, rows = self.table(self.scene)
        if not len(rows):
            raise ValueError(f"{self.title}: there are no data to save as CSV. {self.alt_text(self.scene)}")
        return export.csv_bytes(columns, rows)

    def _show_exports(self):
        labels = list(self._export_makers())
        if labels != self._toolbar.exports:
            self._toolbar.exports = labels

    def _export_to_page(self, key):
        makers = self._export_makers()
        if key not in makers or self.scene is None:
            self._toolbar.error = "Nothing to export yet."
            return
        try:
            made = makers[key]()
        except Exception as error:
            self._failed(error)
            return
        if made is not None:
            self._toolbar.download(*made)

    # End ------------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Stop working, take the view off the page, and let every part of it be freed."""
        if self._closing:
            return
        self._closing = True
        if self._worker is None:  # the constructor refused its arguments
            super().close()
            return
        self._worker.close()
        for unlink in list(self._links):
            unlink()
        self.unobserve_all()
        parts = list(_descendants(self.children))
        self.children = ()
        for part in parts:
            _close_with_style(part)
        self.scene = None
        _close_with_style(self, super().close)


def _sentence(said) -> str:
    text = " ".join(str(said).split()) or type(said).__name__
    return text if text.endswith((".", "!", "?")) else text + "."


def _descendants(widgets, shown=False):
    """Yield widgets and what is inside them; with ``shown``, only those that are not hidden."""
    for widget in widgets:
        if not (shown and widget.layout.display == "none"):
            yield widget
            yield from _descendants(getattr(widget, "children", ()), shown)


def _picture_file(widget, filename, image_format, mime):
    """Return a picture as a file, or have the browser save it, which alone can draw plotly's, and return None."""
    if isinstance(widget, PlotPane):
        return widget.save(filename, image_format)
    return filename, mime, getattr(widget, image_format)()


def _value_words(knob, value):
    """Return a knob's value as a reader chose it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(dict(knob.choices or ()).get(value, value))


def _close_with_style(widget, close=None):
    attached = [getattr(widget, name) for name in ("layout", "style") if widget.has_trait(name)]
    (close or widget.close)()
    for part in attached:
        if isinstance(part, ipywidgets.Widget):
            part.close()


def link_views(*views: View, keys: Sequence[str] = ("brush_rows", "brush_columns")) -> Callable[[], None]:
    """Keep the same values in several views of a page: brushing one filters every other.

    Parameters
    ----------
    views : two or more views.
    keys : knobs to share; each view takes part in those that it has.

    Returns
    -------
    A function that ends the link. Closing a view ends it for that view.
    """
    observed = [(view, [key for key in keys if view.has_trait(key)]) for view in views]

    def spread(change):
        for view, shared in observed:
            if view is not change["owner"] and change["name"] in shared:
                setattr(view, change["name"], change["new"])

    def unlink_one(view, shared):
        def unlink():
            if shared and not view._closing:
                view.unobserve(spread, names=shared)
            observed[:] = [pair for pair in observed if pair[0] is not view]
            if unlink in view._links:
                view._links.remove(unlink)

        return unlink

    ends = []
    for view, shared in observed:
        if shared:
            view.observe(spread, names=shared)
        end = unlink_one(view, shared)
        view._links.append(end)
        ends.append(end)

    def unlink_all():
        for end in ends:
            end()

    return unlink_all
