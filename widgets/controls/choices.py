"""A row of buttons: tabs that show one part of a view, or short stories that set its state and say what to look at."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import anywidget
import traitlets

from widgets import theme

_HERE = Path(__file__).parent


class Choices(anywidget.AnyWidget):
    """Labelled buttons of which one may be chosen, with a text underneath.

    Parameters
    ----------
    label : names the row to screen readers.
    options : (key, label) pairs.
    form : "tabs" (arrow keys move between them) or "buttons".
    chosen : ``chosen(key)`` is called when the reader picks one.
    """

    _esm = theme.LATE + (_HERE / "choices.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "choices.css").read_text(encoding="utf-8")

    label = traitlets.Unicode("").tag(sync=True)
    options = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    form = traitlets.Enum(("tabs", "buttons"), default_value="buttons").tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        options: Sequence[tuple[str, str]],
        chosen: Callable[[str], None],
        form: Literal["tabs", "buttons"] = "buttons",
        **kwargs,
    ):
        self._chosen = chosen
        super().__init__(options=[list(option) for option in options], form=form, **kwargs)
        self.on_msg(self._receive)

    def close(self) -> None:
        """Take the row off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._chosen = None
        super().close()

    def _receive(self, _, content, buffers):
        known = [key for key, _ in self.options]
        if content.get("type") == "choose" and content.get("key") in known and self._chosen is not None:
            self._chosen(content["key"])
