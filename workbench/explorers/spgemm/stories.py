"""Settings of the explorer worth seeing, and what to look at."""

from widgets.views.frame.story import Story

_FULL_TABLES = {"operands": "rmat", "scale": 12, "edge_factor": 8, "permute": True, "log2_slots": 17}
STORIES = {
    "hand": Story(
        "By hand",
        {"operands": "worked", "section": "step", "dataflow": "row", "step": 3},
        "Seven products, whichever way. This one merges with a product that is on the chip already. Step on to see the "
        "row leave the chip, then change the dataflow: what is kept, and how long?",
    ),
    "equal": Story(
        "Same work, other traffic",
        {"operands": "rmat", "scale": 8, "edge_factor": 8, "section": "bytes", "log2_slots": 13},
        "Every dataflow does the same multiplications. What differs is what it reads again and what it stores in "
        "between. Which stream makes the inner product hopeless, which one the outer product?",
    ),
    "load-low": Story(
        "V1 at load 0.125",
        _FULL_TABLES | {"section": "machine", "version": 1, "load": 0.125},
        "Remember the extra probes of V1 and V2, then press the next button: only the load changes.",
    ),
    "load-high": Story(
        "V1 at load 0.20",
        _FULL_TABLES | {"section": "machine", "version": 1, "load": 0.2},
        "A little more load, more than ten times the probes: high-order bits pile neighbours up. V2's low-order bits "
        "stay below 0.3 extra probes a product.",
    ),
    "poisson": Story(
        "No hash is free of structure",
        {"operands": "poisson2d", "scale": 12, "section": "machine", "version": 2, "log2_slots": 14, "load": 0.3},
        "On a 64 x 64 grid, rows are 4,096 long and that divides the table: low-order bits send whole rows to the same "
        "slots. Compare with high-order bits, then choose the multiplicative hash.",
    ),
}
