"""The frame of a view of several sections: fields for files, a headline, stories, and tabs of which one is open."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets
import traitlets

from widgets.controls.choices import Choices
from widgets.controls.panel import ControlPanel
from widgets.controls.upload import Upload
from widgets.figures.plot_pane import PlotPane
from widgets.views.frame.view import View

__all__ = ["SectionedView", "flexible", "pane", "row"]


class SectionedView(View):
    """A view whose knob "section" says which of its sections is open.

    A subclass sets ``_hooks`` before it calls ``super().__init__``: an object with ``stories`` (by key), ``uploads``,
    ``budget`` and ``recipe``. Its `build` returns what `framed` returns. `takes_files` says when the fields for files
    are shown, `_shown_knobs` which knobs matter.
    """

    _hooks: Any

    def framed(
        self, sections: Mapping[str, Sequence[ipywidgets.Widget]], panels: Mapping[str, ControlPanel]
    ) -> Sequence[ipywidgets.Widget]:
        """Return the widgets of the picture: files, headline, stories, tabs, and one box for each section.

        Parameters
        ----------
        sections : what stands in each, by the choices of the knob "section".
        panels : controls that stand in sections; they always show the present state.
        """
        self._headline = ipywidgets.HTML()
        self._uploads = ipywidgets.VBox([Upload.of(field, self._uploaded) for field in self._hooks.uploads])
        told = [(key, story.label) for key, story in self._hooks.stories.items()]
        self._stories = Choices(told, self._tell, label="What to look at")
        self._tabs = Choices(
            self.knob("section").choices, partial(self._turn_part, "section"), form="tabs", label="Parts of the view"
        )
        self._panels = dict(panels)
        self._boxes = {name: ipywidgets.VBox(parts) for name, parts in sections.items()}
        self._offered = None
        return (self._uploads, self._headline, self._stories, self._tabs, *self._boxes.values())

    def takes_files(self) -> bool:
        """Tell whether the fields for the reader's own files are shown."""
        raise NotImplementedError

    def budget(self, state: Mapping[str, Any]) -> str | None:
        """Refuse what cannot be shown live, naming the limit."""
        return self._hooks.budget(state)

    def recipe(self) -> str:
        """Return the Python that remakes the view in its present state."""
        given = ", ".join(f"{key}={value!r}" for key, value in self.state.items() if value != self.knob(key).default)
        return self._hooks.recipe(given)

    def _turn_part(self, key, value):
        try:
            setattr(self, key, value)
        except traitlets.TraitError as error:
            self._toolbar.error = f"{error}."
            self._state_shown()

    def _state_changed(self, keys):
        self._stories.selected = self._stories.text = ""  # a story tells of its own settings
        super()._state_changed(keys)

    def _tell(self, key):
        story = self._hooks.stories[key]
        with self.changes():
            for knob in self.knobs:
                setattr(self, knob.key, story.state.get(knob.key, knob.default))
        self._stories.selected, self._stories.text = key, story.text

    def _uploaded(self, received, filename, content):
        try:
            received(filename, content)
        except Exception as error:
            self._failed(error)
            return
        self.refresh()

    def _state_shown(self):
        super()._state_shown()
        self._uploads.layout.display = None if self.takes_files() else "none"
        shown = self._shown_knobs()
        if shown != self._offered:
            self._offered = shown
            self._panel.draw(shown)
        for panel in self._panels.values():
            panel.values = self.state
        self._tabs.selected = self.section
        for name, box in self._boxes.items():
            box.layout.display = None if name == self.section else "none"


def flexible(width: int) -> dict[str, str]:
    """Return the layout of a part that is about so many pixels wide, and takes what a row leaves."""
    return {"flex": f"1 1 {width}px", "min_width": "0"}


def pane(title: str, width: int = 440) -> PlotPane:
    """Return an empty plot with a title, as wide as `flexible` says."""
    found = PlotPane(layout=flexible(width))
    found.title = title
    return found


def row(*widgets: ipywidgets.Widget) -> ipywidgets.Box:
    """Return a row that wraps where the page is narrow."""
    return ipywidgets.Box(widgets, layout={"display": "flex", "flex_flow": "row wrap", "width": "100%"})
