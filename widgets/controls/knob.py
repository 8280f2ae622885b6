"""One adjustable parameter, described once: the command line, the views and the records all read it from here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


class KnobError(ValueError):
    """What is wrong with the value of one knob, found only while it was used; ``key`` is the knob's."""

    def __init__(self, key: str, words: str):
        super().__init__(words)
        self.key = key


@dataclass(frozen=True)
class Knob:
    """A parameter that a user may turn.

    Parameters
    ----------
    key : name in code, in records and in query strings; a Python identifier.
    label : what the user reads beside the control, with the unit in brackets.
    default : value at the start; its type (bool, int, float, str) is the knob's type.
    low, high, step : inclusive range of a number. ``scale="log2"`` makes the slider move in powers of two.
    choices : allowed values of a text knob, as ``(value, label)`` pairs.
    help : one sentence for the tooltip.
    lines : height of a text knob's field; more than one lets the text wrap.
    tag : where a machine constant comes from: "published", "from memory", "calibrated"; empty for a user's choice.
    code : a text knob whose text is code: letters of one width, a whole row of its own if it has more than one line,
        and the help below it.
    more : what the help leaves out, shown below the field when a reader asks for it.
    read : ``read(value, values of all knobs)`` returns a remark on the value, shown below its field, or "". It raises
        ValueError where the value cannot be used.
    """

    key: str
    label: str
    default: bool | int | float | str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    scale: Literal["linear", "log10", "log2"] = "linear"
    choices: tuple[tuple[str, str], ...] = ()
    help: str = ""
    tag: str = ""
    lines: int = 1
    code: bool = False
    more: str = ""
    read: Callable[[Any, Mapping[str, Any]], str] | None = None

    def __post_init__(self):
        if not self.key.isidentifier():
            raise ValueError(f"Knob: key must be a Python identifier, got {self.key!r}")
        self.validate(self.default)

    def validate(self, value):
        """Return ``value`` as this knob's type; raise ValueError naming the knob, what it takes and what it got."""
        if self.choices:
            allowed = [v for v, _ in self.choices]
            if value not in allowed:
                raise ValueError(f"{self.key}: must be one of {', '.join(map(str, allowed))}; got {value!r}")
            return value
        kind = type(self.default)
        try:
            if kind is bool and isinstance(value, str):
                typed = {"1": True, "true": True, "0": False, "false": False}[value.lower()]
            else:
                typed = kind(value)
        except (TypeError, ValueError, KeyError):
            raise ValueError(f"{self.key}: must be a {kind.__name__}; got {value!r}") from None
        if not isinstance(typed, (bool, str)):
            below = self.low is not None and not typed >= self.low
            above = self.high is not None and not typed <= self.high
            if below or above or typed != typed:
                raise ValueError(f"{self.key}: must be from {self.low} to {self.high}; got {value!r}")
        return typed
