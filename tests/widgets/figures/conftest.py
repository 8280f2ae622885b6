"""A weight of eight places in four formats, small enough to be counted on paper."""

from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.weight_format import PADDING, Banks, Kernel, Machine, StoredWeight, WeightScene

WEIGHT = np.array([[5, 0, 0, -7], [0, 0, 3, 0]], np.float32)
KERNEL = Kernel(about="A kernel.", instruction="fma", vectors=2, dot=1, registers={"sums": 6, "weight": 1}, lanes=4)


def stored(key, places, value_edges, index=(), pointer=(), **more):
    """A format whose slots are at (row, column) places, in the order in which they are read."""
    row, column = (np.array([place[i] for place in places], np.int32) for i in (0, 1))
    there = row >= 0
    value = np.where(there, WEIGHT[row, column], 0).astype(np.float32)
    index_edges = value_edges if len(index) else [0] * len(value_edges)
    given = {
        "label": key.upper(), "about": f"About {key}.", "unit": "entry", "index_bits": 16, "line": 4, "index_line": 4,
        "multiply_adds": len(places), "kernel": KERNEL,
    }  # fmt: skip
    return StoredWeight(
        key=key, row=row, column=column, value=value, read=np.arange(len(places)), index=np.array(index, np.int64),
        pointer=np.array(pointer, np.int64), value_edges=np.array(value_edges), index_edges=np.array(index_edges),
        **(given | more),
    )  # fmt: skip


@pytest.fixture
def weight_scene():
    """Values of 8 bits: dense, CSR, 1:2, and words that are stored into banks."""
    everywhere = [(r, c) for r in range(2) for c in range(4)]
    dense = stored("dense", everywhere, [0, 4, 8], unit="row", index_bits=0, kernel=replace(KERNEL, dot=2),
                   bits={"values": 24, "indices": 0, "pointers": 0, PADDING: 40})  # fmt: skip
    csr = stored("csr", [(0, 0), (0, 3), (1, 2)], [0, 1, 2, 3], [0, 3, 2], [0, 2, 3],
                 bits={"values": 24, "indices": 48, "pointers": 96, PADDING: 0})  # fmt: skip
    nm = stored("nm", [(0, 0), (0, 3), (1, 0), (1, 2)], [0, 1, 2, 3, 4], [0, 1, 0, 0], index_bits=1, choice=2,
                unit="1 of 2", bits={"values": 24, "indices": 3, "pointers": 0, PADDING: 9})  # fmt: skip
    plain, dealt = np.full((2, 32), -1, np.int8), np.full((2, 32), -1, np.int8)
    plain[0, :2], plain[1, :2], dealt[0, :2], dealt[1, :2] = (3, 3), (3, 4), (3, 4), (3, 5)
    words = stored("words", [(0, 0), (0, 3), (1, 2), (-1, -1)], [0, 2, 4], unit="word a lane", multiply_adds=8,
                   bits={"values": 48, "indices": 48, "pointers": 96, PADDING: 32},
                   banks=Banks(plain=plain, dealt=dealt, order="plain"))  # fmt: skip
    return WeightScene(
        title="A weight", weight=WEIGHT, value_bits=8, formats=(dense, csr, nm, words), left_out=("blocks: <odd>.",),
        bound_bits=30, machines={"one": Machine(label="a machine", gflops=100.0, gbps=10.0, origin="two numbers")},
    )  # fmt: skip
