"""The knobs of the SpGEMM traffic view, and short stories that set them and say what to look at."""

from typing import Any

from widgets.controls.knob import Knob

SOURCES = (
    ("rmat", "R-MAT pair (power law)"),
    ("worked", "Worked example, 3 x 3 by 3 x 2"),
    ("poisson2d", "Poisson, square grid, squared"),
)
DATAFLOWS = (
    ("row", "row-wise (Gustavson, SMASH)"),
    ("outer", "outer product"),
    ("inner", "inner product"),
    ("column", "column-wise"),
)
SECTIONS = (("step", "Step by step"), ("bytes", "Bytes moved"), ("machine", "PIUMA model"), ("constants", "Constants"))
HIGH_LOAD = 0.5
SMALL = 64  # up to this many rows and columns every cell is drawn on its own

OPERANDS = (
    Knob("operands", "Operands", "rmat", choices=SOURCES, help="Operands of the product."),
    Knob("scale", "Scale (log2 rows)", 5, 4, 12, 1, help="The matrices have 2^scale rows."),
    Knob("edge_factor", "Edges per row", 3, 1, 32, 1, help="Entries drawn per row."),
    Knob("a", "R-MAT a", 0.47, 0.0, 1.0, 0.005, help="Chance of the top left quadrant; d is what a, b and c leave."),
    Knob("b", "R-MAT b", 0.115, 0.0, 1.0, 0.005, help="Chance of the top right quadrant."),
    Knob("c", "R-MAT c", 0.115, 0.0, 1.0, 0.005, help="Chance of the bottom left quadrant."),
    Knob("permute", "Relabel vertices", True, help="Random labels spread heavy rows and columns."),
    Knob("seed", "Seed", 1, 0, 999, 1, help="Seed of A; B takes the next one."),
)
USED_BY = {  # which of them matter for which operands; all of them for any other
    "worked": ("operands",),
    "w0": ("operands",),
    "karate": ("operands",),
    "les_miserables": ("operands",),
    "poisson2d": ("operands", "scale"),
    "banded": ("operands", "scale"),
    "power_law": ("operands", "scale", "edge_factor", "seed"),
}
STEPPING = (
    Knob("dataflow", "Dataflow", "row", choices=DATAFLOWS, help="The order in which the products are formed."),
    Knob("step", "Step", 0, 0, 10**7),
)
TRAFFIC = (
    Knob("cache", "Cache", "none", choices=(("none", "none"), ("ideal", "ideal")), help="Operands kept on chip."),
    Knob("log_axes", "Logarithmic axes", False, help="Needed to see small streams beside the inner product's."),
)
MACHINE = (
    Knob("version", "Kernel version", 3, 1, 3, 1, help="1 static split, 2 tokens, 3 tokens and DMA write-back."),
    Knob(
        "hash",
        "Hash bits",
        "own",
        choices=(("own", "the version's own"), ("high", "high"), ("low", "low"), ("multiplicative", "multiplicative")),
    ),
    Knob("log2_slots", "Table slots (log2)", 17, 4, 18, 1),
    Knob("load", "Table load", 0.16, 0.01, 0.5, 0.005, help="Share of the table that a window may fill."),
    Knob("threads_per_mtc", "Threads per pipeline", 16, 1, 64, 1, scale="log2", help="Four pipelines per block."),
    Knob("bw", "DRAM bandwidth (bytes/cycle)", 2.1, 0.5, 17.0, 0.1),
    Knob("token_pp", "Token size (products)", 64, 1, 4096, 1, scale="log2", help="Products per token, V2 and V3."),
    Knob("blocks", "PIUMA blocks", 1, 1, 16, 1, scale="log2", help="Rows spread over blocks."),
)
TABLE = (Knob("table_window", "Window shown", 0, 0, 10**6, 1, help="Which window's table is drawn."),)
SECTION = (Knob("section", "Part", "step", choices=SECTIONS),)

W0_LIKE = {"operands": "rmat", "scale": 12, "edge_factor": 8, "permute": True, "log2_slots": 17}
STORIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "hand": (
        "By hand",
        {"operands": "worked", "section": "step", "dataflow": "row", "step": 3},
        "Seven products, whichever way. Step on: this one merges with a product that was there before. "
        "Then change the dataflow and watch how many stay alive.",
    ),
    "equal": (
        "Same work, other traffic",
        {"operands": "rmat", "scale": 8, "edge_factor": 8, "section": "bytes", "log2_slots": 13},
        "Every dataflow does the same multiplications. What differs is what it reads again and what it stores in "
        "between. Which stream makes the inner product hopeless, which one the outer product?",
    ),
    "load-low": (
        "V1 at load 0.125",
        W0_LIKE | {"section": "machine", "version": 1, "load": 0.125},
        "Remember the extra probes of V1 and V2, then press the next button: only the load changes.",
    ),
    "load-high": (
        "V1 at load 0.20",
        W0_LIKE | {"section": "machine", "version": 1, "load": 0.2},
        "A little more load, more than ten times the probes: high-order bits pile neighbours up. V2's low-order bits "
        "stay below 0.3 extra probes a product.",
    ),
    "poisson": (
        "No hash is free of structure",
        {
            "operands": "poisson2d", "scale": 12, "section": "machine", "version": 2, "log2_slots": 14, "load": 0.3,
        },
        "On a 64 x 64 grid, rows are 4,096 long and that divides the table: low-order bits send whole rows to the same "
        "slots. Compare with high-order bits, then choose the multiplicative hash.",
    ),
}  # fmt: skip
