"""The three versions with one constant of the machine changed at a time."""

from dataclasses import replace

from workbench.machines.piuma import VERSION_HASH, PiumaConfig, simulate_spgemm
from workbench.paper import row
from workbench.papers.smash.inputs import main_input

SWEEPS = {
    "load": (0.05, 0.125, 0.16, 0.20),
    "threads_per_mtc": (1, 4, 8, 16, 32),
    "bw": (1.05, 2.1, 4.2, 16.8),
    "token_pp": (8, 64, 512, 4096),
    "l_dram": (60.0, 120.0, 480.0),
    "blocks": (1, 2, 4, 8),
}


def sensitivity(size, seed, report, matrix=None):
    """Return time and extra probes of each version by the constant that was changed, and to what."""
    title, a, b = main_input(size, seed, matrix)
    points = [(name, value) for name, values in SWEEPS.items() for value in values]
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
    changes = {"bw": {"bw": value, "dma_bw": value}, "blocks": {}}.get(name, {name: value})
    blocks = value if name == "blocks" else 1
    return simulate_spgemm(a, b, version, replace(PiumaConfig(), **changes), blocks=blocks, event_limit=0)
