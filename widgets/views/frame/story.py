"""A story: settings of a view worth seeing, offered as a button."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Story:
    """A setting worth seeing: a button's label, the knobs that differ from their defaults, and what to look at."""

    label: str
    state: Mapping[str, Any]
    text: str
