"""The three versions with one constant of the model changed at a time, and those of write-back together as well."""

from dataclasses import replace

from workbench.machines.piuma import VERSION_HASH, PiumaConfig, simulate_spgemm
from workbench.paper import row
from workbench.papers.smash.inputs import main_input

SWEEPS = {
    "load": (0.05, 0.125, 0.16, 0.20),
    "threads_per_mtc": (1, 4, 8, 16, 32),
    "bw": (1.3, 2.6, 5.2, 20.8),
    "token_pp": (8, 64, 512, 4096),
    "l_dram": (60.0, 120.0, 480.0),
    "l_spad": (5.0, 20.0, 80.0),
    "wb_eff": (0.2, 0.31, 0.5, 1.0),  # 1: stores drain as fast as anything in the model allows
    "c_scan": (3.0, 6.0, 12.0),  # at least: load a slot, compare, branch
    "c_wb": (12.0, 24.0, 47.0, 94.0),  # at least: split the tag, find the place, store two words
    "fill_bw": (16.0, 64.0, 256.0),
    "blocks": (1, 2, 4, 8),
}
CHEAPEST = {"wb_eff": 1.0, "c_scan": 3.0, "c_wb": 12.0}  # the ends that favour the second version, all at once


def sensitivity(size, seed, report, matrix=None):
    """Return time and extra probes of each version by the constant that was changed, and to what."""
    title, a, b = main_input(size, seed, matrix)
    points = [(name, value) for name, values in SWEEPS.items() for value in values]
    points.append((" + ".join(CHEAPEST), ", ".join(f"{x:g}" for x in CHEAPEST.values())))
    rows = []
    for place, (name, value) in enumerate(points):
        report(place / len(points), f"{name} = {value}")
        for v in VERSION_HASH:
            result = _run(a, b, v, name, value)
            labels = {"matrix": title, "changed": name, "to": value, "version": f"V{v}"}
            rows.append(row("time", result.ms, "ms", "modelled", **labels))
            rows.append(row("extra probes", result.mean_extra_probes, "probes per product", "counted", **labels))
    return rows


def _run(a, b, version, name, value):
    together = {"bw": {"bw": value, "dma_bw": value}, "blocks": {}, " + ".join(CHEAPEST): CHEAPEST}
    changes = together.get(name, {name: value})
    blocks = value if name == "blocks" else 1
    return simulate_spgemm(a, b, version, replace(PiumaConfig(), **changes), blocks=blocks, event_limit=0)
