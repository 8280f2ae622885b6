"""The controls of a view: one native slider, menu, box or field per knob, all in one light widget."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import anywidget
import traitlets

from widgets import theme
from widgets.controls.knob import Knob

_HERE = Path(__file__).parent


def control_spec(knob: Knob, *, play: bool = False) -> dict:
    """Describe the native control that a knob gets: a JSON-safe dict that ``panel.js`` draws."""
    spec = {"key": knob.key, "label": knob.label, "help": knob.help, "tag": knob.tag, "scale": knob.scale}
    spec |= {"low": knob.low, "high": knob.high, "step": knob.step, "play": play, "default": knob.default}
    if knob.choices:
        return spec | {"control": "menu", "choices": [list(choice) for choice in knob.choices]}
    if isinstance(knob.default, bool):
        return spec | {"control": "box"}
    if isinstance(knob.default, str):
        return spec | {"control": "text", "lines": knob.lines, "code": knob.code, "more": knob.more}
    whole = isinstance(knob.default, int)
    step = knob.step if knob.step is not None else (1 if whole or knob.scale != "linear" else "any")
    if knob.low is None or knob.high is None:
        return spec | {"control": "number", "step": step, "whole": whole}
    if step == "any":
        step = 10.0 ** math.floor(math.log10((knob.high - knob.low) / 50))
    return spec | {"control": "slider", "step": step, "whole": whole}


class ControlPanel(anywidget.AnyWidget):
    """Native, labelled, keyboard-operable controls for a sequence of knobs.

    Parameters
    ----------
    knobs : the knobs to draw, in order.
    values : present value by key.
    notes : what is said below a knob's field, by key: ["error" or "note", text].
    turned : ``turned(key, value)`` is called when the reader turns a knob.
    play : keys of whole-number knobs that get a play button, which steps the value until its end.
    """

    _esm = theme.LATE + (_HERE / "panel.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "panel.css").read_text(encoding="utf-8")

    controls = traitlets.List(traitlets.Dict()).tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    notes = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        knobs: Sequence[Knob],
        values: dict,
        turned: Callable[[str, object], None],
        *,
        play: Iterable[str] = (),
        **kwargs,
    ):
        self._turned = turned
        self._play = frozenset(play)
        super().__init__(controls=self._specs(knobs), values=dict(values), **kwargs)
        self.on_msg(self._receive)

    def draw(self, knobs: Sequence[Knob]) -> None:
        """Show other knobs, or other choices of the same knobs."""
        self.controls = self._specs(knobs)

    def close(self) -> None:
        """Take the panel off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._turned = None
        super().close()

    def _specs(self, knobs):
        return [control_spec(knob, play=knob.key in self._play) for knob in knobs]

    def _receive(self, _, content, buffers):
        if content.get("type") == "turn" and self._turned is not None:
            self._turned(content["key"], content["value"])
