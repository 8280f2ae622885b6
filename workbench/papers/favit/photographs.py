"""What queries of photographs read under each attention."""

import numpy as np

from workbench.data.images import PICTURES, patch_features, picture
from workbench.models.attention.pixel_readings import pixel_readings
from workbench.paper import row
from workbench.papers.favit.reach import MAPS

QUERIES = {"tiny": 2, "small": 16, "full": 64}  # asked in each photograph
_QUANTITIES = (
    ("keys per query", "keys", "counted"),
    ("pixels reached", "fraction", "counted"),
    ("full attention's mass in reach", "fraction", "counted"),
    ("mean distance of what is read", "patches", "counted"),
    ("likeness to full attention", "cosine", "counted"),
)


def photographs(size, seed, report):
    """Ask what queries of photographs read: how far, how much of full attention's mass is in reach, how alike."""
    side, stride = MAPS[size]
    queries = QUERIES[size]
    places = np.random.default_rng(seed).choice(side * side, queries, replace=False)
    rows = []
    for number, name in enumerate(PICTURES):
        report(number / len(PICTURES), name)
        tokens = patch_features(picture(name), side)
        found = {}
        for query in places.tolist():
            full, *others = pixel_readings(tokens, side, side, query, dilation=stride, sr=stride)
            for reading in (full, *others):
                found.setdefault(reading.name, []).append(_numbers(full, reading, query, side))
        for attention, numbers in found.items():
            labels = {"attention": attention, "picture": name, "queries": queries, "side": side}
            for (quantity, unit, kind), value in zip(_QUANTITIES, np.mean(numbers, 0).tolist(), strict=True):
                rows.append(row(quantity, value, unit, kind, **labels))
    return rows


def _numbers(full, reading, query, side):
    rows, columns = np.indices((side, side))
    distance = np.hypot(rows - query // side, columns - query % side)
    likeness = (full.heat * reading.heat).sum() / np.sqrt((full.heat**2).sum() * (reading.heat**2).sum())
    inside = (full.heat * reading.reached).sum() / full.heat.sum()
    return reading.keys, reading.reached.mean(), inside, (distance * reading.heat).sum(), likeness
