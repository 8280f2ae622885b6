"""Labels and units of the rows of records: one meaning and one spelling everywhere; docs/labels.md explains them.

A paper adds quantities without a change here. Four rules hold for any name: its unit stands in the table of units, a
name that begins with "time" is measured or modelled, a name that this table knows keeps the table's unit and label,
and one name has one unit and one label in all records.
"""

import difflib
from collections.abc import MutableMapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from workbench.record import ROW_KINDS

LABELS = {
    "counted": "follows from structure, without a clock or a trained weight",
    "measured": "needed a clock, trained weights, or the rounding of this machine's arithmetic",
    "modelled": "comes from a machine model",
}
MEASURES = {
    "ms": "milliseconds",
    "s": "seconds",
    "fraction": "share of a whole, from 0 to 1 and never in per cent; also the difference of two shares",
    "relative": "size of a difference over the size of what is compared",
    "x": "so many times as much",
    "cosine": "cosine of the angle between two vectors",
    "nats": "logarithm of a probability to the base e",
    "dB": "decibels",
    "number": "a pure number, such as an exponent; also a count of things for which there is no word below",
}
THINGS = {
    "bit": "bits",
    "byte": "bytes",
    "block": "blocks",
    "cycle": "cycles",
    "edge": "edges",
    "element": "elements",
    "entry": "entries",
    "instruction": "instructions",
    "iteration": "iterations",
    "key": "keys",
    "logit": "logits",
    "multiply-add": "multiply-adds",
    "node": "nodes",
    "operation": "operations",
    "pair": "pairs",
    "parameter": "parameters",
    "patch": "patches",
    "pixel": "pixels",
    "probe": "probes",
    "product": "products",
    "query": "queries",
    "score": "scores",
    "token": "tokens",
    "window": "windows",
}
INSTEAD = {
    **dict.fromkeys(("", "1", "none", "absolute", "distance", "numbers"), "number"),
    **dict.fromkeys(("%", "percent", "per cent", "share", "share of attention", "weight"), "fraction"),
    **dict.fromkeys(("B", "kB", "KB", "KiB", "MB", "MiB", "GB", "GiB"), "bytes"),
    **dict.fromkeys(("times", "factor", "ratio"), "x"),
    **dict.fromkeys(("us", "µs", "msec", "milliseconds"), "ms"),
    **dict.fromkeys(("sec", "seconds"), "s"),
    **dict.fromkeys(("flop", "flops", "FLOPs"), "operations"),
    **dict.fromkeys(("MAC", "MACs", "macs"), "multiply-adds"),
    **dict.fromkeys(("nnz", "nonzeros"), "entries"),
    **dict.fromkeys(("bits/byte", "bpb"), "bits per byte"),
}


@dataclass(frozen=True)
class Quantity:
    """What every record keeps to when it uses a name that several papers use.

    Parameters
    ----------
    units : one of them; a name that stands for one quantity has one.
    labels : its label. ("counted", "measured"): by input, counted on generated inputs and closed forms, measured on
        what trained weights made. ("measured", "modelled"): by experiment, modelled in one that runs a machine model.
    """

    units: tuple[str, ...]
    labels: tuple[str, ...]


BY_INPUT = ("counted", "measured")
BY_EXPERIMENT = ("measured", "modelled")
QUANTITIES = {  # the first that fits; * stands for any letters
    "time": Quantity(("ms",), BY_EXPERIMENT),
    "time *": Quantity(("ms", "s"), BY_EXPERIMENT),
    "time, *": Quantity(("ms", "s"), BY_EXPERIMENT),
    "spread of the times": Quantity(("ms",), ("measured",)),
    "density*": Quantity(("fraction",), BY_INPUT),
    "blocks over dense*": Quantity(("x",), BY_INPUT),
    "coverage*": Quantity(("fraction",), BY_INPUT),
    "mass kept*": Quantity(("fraction",), BY_INPUT),
    "keys per query*": Quantity(("keys",), BY_INPUT),
    "test accuracy*": Quantity(("fraction",), ("measured",)),
    "bits per byte*": Quantity(("bits per byte",), ("measured",)),
    "bits per pixel*": Quantity(("bits per pixel",), ("measured",)),
    "largest error": Quantity(("relative",), ("measured",)),
    "* error": Quantity(("relative",), BY_INPUT),
    "parameters*": Quantity(("parameters",), ("counted",)),
    "operations*": Quantity(("operations",), ("counted",)),
    "multiply-adds*": Quantity(("multiply-adds",), ("counted",)),
    "largest tensor*": Quantity(("bytes",), ("counted",)),
    "bytes, *": Quantity(("bytes",), ("counted",)),
    "DRAM bytes, *": Quantity(("bytes",), ("modelled",)),
    "nnz(*)": Quantity(("entries",), ("counted",)),
}


def is_unit(unit: str) -> bool:
    """Tell whether a unit is in the table: a measure, things in the plural, or "these per one of those"."""
    above, per, below = unit.partition(" per ")
    return (above in MEASURES or above in THINGS.values()) and (not per or below in THINGS or below == "second")


def check(name: str, rows: list[dict], kind: str, said: MutableMapping[tuple, tuple] | None = None) -> None:
    """Raise ValueError that names the first row whose unit or label contradicts the tables, and says what to write.

    Parameters
    ----------
    name : where the rows come from, for the message.
    kind : of the experiment that made them.
    said : what other rows said of a quantity, to be agreed with; takes what these rows say.
    """
    said = {} if said is None else said
    for i, row in enumerate(rows):
        where, quantity = f"{name}, row {i}", row["quantity"]
        if not is_unit(row["unit"]):
            raise ValueError(f"{where}: no unit {row['unit']!r} for {quantity!r}; {_cure(row['unit'])}")
        known = next((known for pattern, known in QUANTITIES.items() if fnmatchcase(quantity, pattern)), None)
        labels = known.labels if known else ROW_KINDS
        if known and row["unit"] not in known.units:
            raise ValueError(f"{where}: {quantity!r} is in {row['unit']!r}; write it in {_words(known.units)}")
        if row["kind"] not in labels:
            raise ValueError(f"{where}: {quantity!r} is {row['kind']!r}; write {_words(labels)}")
        by = {BY_INPUT: (name, row.get("input")), BY_EXPERIMENT: (kind == "modelled",)}.get(labels, ())
        for key, word in (("unit", row["unit"]), ("label", row["kind"])):
            place = (quantity, key, *(by if key == "label" else ()))
            before, other = said.setdefault(place, (word, where))
            if word != before:
                raise ValueError(
                    f"{where}: {quantity!r} has the {key} {word!r}, but {before!r} in {other}; write {before!r}, or "
                    "give what is another quantity another name"
                )


def _words(words):
    return " or ".join(map(repr, words))


def _cure(unit):
    if unit in INSTEAD:
        return f"write {INSTEAD[unit]!r}"
    known = [*MEASURES, *THINGS.values()]
    near = difflib.get_close_matches(unit, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}there are {', '.join(known)}, 'these per one of those', and 'number' for things without a word here"
