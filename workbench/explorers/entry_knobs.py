"""The knobs of an explorer's entries, each key once."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from widgets.controls.knob import Knob


def entry_knobs(entries: Mapping[str, Any], shared: ModuleType) -> tuple[Knob, ...]:
    """Return the knobs of all entries, the shared ones first; a second definition of a key is an error.

    Parameters
    ----------
    entries : what was gathered, by key; each has ``knobs``.
    shared : the module that holds the knobs which several entries read.
    """
    in_common = [knob for knob in vars(shared).values() if isinstance(knob, Knob)]
    used = {id(knob) for entry in entries.values() for knob in entry.knobs}
    found = {knob.key: (knob, "knobs.py") for knob in in_common if id(knob) in used}
    for entry in entries.values():
        for knob in entry.knobs:
            known, where = found.setdefault(knob.key, (knob, entry.key))
            if known is not knob:
                raise ValueError(
                    f"explorer: {entry.key} defines the knob {knob.key!r} again, which {where} has; "
                    "put one object into knobs.py and use it in both"
                )
    return tuple(knob for knob, _ in found.values())
