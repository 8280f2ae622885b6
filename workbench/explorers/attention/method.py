"""What a method tells the attention explorer of itself, and the methods there are: one file each under ``methods``."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from kernels.attention.cost import AttentionCost
from kernels.attention.trace import AttentionTrace
from widgets.controls.knob import Knob
from widgets.figures.attention import CoverageCurve, Panel
from widgets.figures.attention_query import QueryMaps, QueryRow
from widgets.views.frame.story import Story
from workbench.explorers.attention.source import AttentionInput, Source
from workbench.gathered import gathered
from workbench.models.attention.dense_attention import attention_weights

__all__ = [
    "DENSE_LIMIT",
    "Method",
    "Requires",
    "Variant",
    "compared",
    "methods",
    "offered",
    "query_row",
    "with_blocks",
]

DENSE_LIMIT = 4096
PACKAGE = "workbench.explorers.attention.methods"
Settings = Mapping[str, Any]
Query = Callable[[int, Settings], QueryRow | QueryMaps]


def query_row(given: AttentionInput, seen: AttentionTrace, row: int, **more) -> QueryRow:
    """Return what one query of a sequence reads: true and computed attention, and which keys one by one."""
    t = len(seen.attention)
    row = min(row, t - 1)
    direct = seen.allowed[row] if seen.allowed is not None else np.zeros(t, bool)
    effective = seen.effective[row] if seen.effective is not None else seen.attention[row]
    return QueryRow(
        row=row,
        method=seen.method,
        true=seen.attention[row],
        computed=effective,
        direct=direct,
        tokens=given.tokens,
        kind=given.kind,
        **more,
    )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method again with some settings fixed, to compare others with.

    Parameters
    ----------
    key, title : as in links, and what readers see.
    settings : knob -> fixed value.
    """

    key: str
    title: str
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Requires:
    """Settings that only go with certain others, such as weights trained for one layer of one model.

    Parameters
    ----------
    settings : settings -> the further settings that they go with; empty where they go with everything.
    because : why, in one sentence without its full stop.
    otherwise : settings to turn to when a reader leaves what is required.
    remark : what is said then.
    """

    settings: Callable[[Settings], Settings]
    because: str
    otherwise: Settings
    remark: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method as the attention explorer offers it.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    knobs : all that it reads, those shared with other methods from `knobs`.
    trace : (input, settings) -> what it does with the head.
    depends : knob -> choice -> knobs that only matter with that choice.
    panels : pictures of the method's own, beside those that every method may have (`widgets.figures.attention.PANELS`).
    shows : the picture that says most: "allowed" pairs, or the "effective" attention where no pair is left out.
    query : (input, trace) -> what one query reads, as a function of the row and the settings.
    picked : (settings, query, key) -> knobs to turn when a reader picks a pair in a picture.
    stories : settings worth seeing.
    curves : (input, settings, trace) -> coverage over density; one scoring pass a curve.
    runs : (input, settings, trace) -> the work itself, by part, to be timed; empty where there is none to time.
    longest : most tokens it takes here.
    limits : settings -> knob -> largest value that makes a difference.
    refuse : (settings, source) -> the sentence that refuses settings that do not fit together, or None; the source is
        None for a reader's own file.
    requires : what some of its settings were made for; None where all go with everything.
    causal : whether it can keep queries from seeing what comes later; one that cannot looks both ways.
    pictures : whether tokens must be the pixels of a picture.
    home : the source of inputs that a model of this method gives; None where there is none.
    opens : settings that the explorer opens with when it is asked for this method and nothing else.
    only_compared : whether it is offered as the second method only.
    variants : the method with settings fixed, offered as the second method.
    """

    key: str
    title: str
    knobs: tuple[Knob, ...]
    trace: Callable[[AttentionInput, Settings], AttentionTrace]
    depends: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
    panels: tuple[Panel, ...] = ()
    shows: str = "allowed"
    query: Callable[[AttentionInput, AttentionTrace], Query] = lambda given, seen: (
        lambda row, settings: query_row(given, seen, row)
    )
    picked: Callable[[Settings, int, int], Settings] = lambda s, row, column: {"row": row}
    stories: tuple[Story, ...] = ()
    curves: Callable[[AttentionInput, Settings, AttentionTrace], list[CoverageCurve]] = lambda given, s, seen: []
    runs: Callable[[AttentionInput, Settings, AttentionTrace], dict[str, Callable]] = lambda given, s, seen: {}
    longest: int = DENSE_LIMIT
    limits: Callable[[Settings], Mapping[str, float]] = lambda s: {}
    refuse: Callable[[Settings, Source | None], str | None] = lambda s, source: None
    requires: Requires | None = None
    causal: bool = True
    pictures: bool = False
    home: str | None = None
    opens: Settings = dataclasses.field(default_factory=dict)
    only_compared: bool = False
    variants: tuple[Variant, ...] = ()


@cache
def methods() -> dict[str, Method]:
    """Return every method by key, those that are only compared with included."""
    return gathered(PACKAGE, "METHOD")


@cache
def offered() -> dict[str, Method]:
    """Return the methods that a reader may choose first, by title."""
    return _by_title({key: method for key, method in methods().items() if not method.only_compared})


@cache
def compared() -> dict[str, Method]:
    """Return all that a method may be compared with, by title: every method, and its variants."""
    variants = {v.key: _fixed(method, v) for method in methods().values() for v in method.variants}
    return _by_title(methods() | variants)


def _by_title(found):
    return dict(sorted(found.items(), key=lambda item: item[1].title.lower()))


def _fixed(method: Method, variant: Variant) -> Method:
    fixed = variant.settings
    return dataclasses.replace(
        method,
        key=variant.key,
        title=variant.title,
        knobs=tuple(knob for knob in method.knobs if knob.key not in fixed),
        trace=lambda given, s: method.trace(given, {**s, **fixed}),
        curves=lambda given, s, seen: [],
        runs=lambda given, s, seen: method.runs(given, {**s, **fixed}, seen),
        refuse=lambda s, source: method.refuse({**s, **fixed}, source),
        requires=method.requires
        and dataclasses.replace(method.requires, settings=lambda s: method.requires.settings({**s, **fixed})),
        variants=(),
    )


def with_blocks(given: AttentionInput, seen: AttentionTrace, keep, allowed, cost: AttentionCost) -> AttentionTrace:
    """Return a trace with other blocks kept.

    Parameters
    ----------
    keep : (n, n) bool. allowed : (t, t) bool pairs, None where t is too long. cost : of the pairs kept.
    """
    coverage, effective = float("nan"), None
    if seen.attention is not None:
        coverage = float((seen.attention * allowed).sum() / seen.attention.sum())
        effective = attention_weights(given.q, given.k, causal=seen.causal, allowed=allowed)[0, 0].numpy()
    return dataclasses.replace(seen, keep=keep, allowed=allowed, cost=cost, coverage=coverage, effective=effective)
