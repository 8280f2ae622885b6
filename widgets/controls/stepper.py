"""Walk through a numbered sequence: scrub with a slider, play at a chosen speed, step with buttons or keys."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

from widgets import theme

_HERE = Path(__file__).parent


class Stepper(anywidget.AnyWidget):
    """Buttons, slider and play button for a position between 0 and ``steps``, with a sentence about it.

    The browser sends the newest position only after Python has shown the one before, so scrubbing never queues up.
    Arrow keys step by one, with Shift by ten; Home and End go to the ends.

    Parameters
    ----------
    label : names the group to screen readers.
    unit : what one position is, in the singular.
    moved : ``moved(position)`` is called when the reader goes somewhere.
    """

    _esm = theme.LATE + (_HERE / "stepper.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "stepper.css").read_text(encoding="utf-8")

    label = traitlets.Unicode("Steps").tag(sync=True)
    unit = traitlets.Unicode("step").tag(sync=True)
    steps = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    sentence = traitlets.Unicode("").tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)

    def __init__(self, moved: Callable[[int], None], **kwargs):
        self._moved = moved
        super().__init__(**kwargs)
        self.on_msg(self._receive)

    def show(self, position: int, steps: int, sentence: str, unit: str = "step") -> None:
        """Go to ``position`` of ``steps`` and say ``sentence``."""
        with self.hold_sync():
            self.unit, self.steps, self.position, self.sentence = unit, steps, position, sentence

    def close(self) -> None:
        """Take the stepper off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._moved = None
        super().close()

    def _receive(self, _, content, buffers):
        if content.get("type") != "go" or self._moved is None:
            return
        try:
            position = int(content["position"])
        except (KeyError, TypeError, ValueError):
            return
        with self.hold_sync():
            try:
                self._moved(min(max(position, 0), self.steps))
            finally:
                self.answered = int(content.get("question", 0))
