"""The machines whose ceilings the explorer draws."""

from widgets.figures.weight_format import Machine
from widgets.views.weight_format import CUSTOM
from workbench.machines.peaks import stored_peaks

__all__ = ["MACHINES", "machines"]

MACHINES = (("cpu", "this CPU"), ("a100", "NVIDIA A100"), (CUSTOM, "one of your own"))
_A100_GFLOPS = {8: ("8-bit integers", 624e3), 16: ("half precision", 312e3), 32: ("float32", 19.5e3)}
_A100_GBPS = 1555.0


def machines(value_bits: int) -> dict[str, Machine]:
    """Return the machines by key, without the reader's own.

    Parameters
    ----------
    value_bits : 8, 16 or 32, of the values that are multiplied; a peak is that of such values where it is known.
    """
    return {"cpu": _this_cpu(value_bits), "a100": _a100(value_bits)}


def _this_cpu(value_bits):
    peaks = stored_peaks()
    narrower = (
        f"The flat ceiling is that of float32 arithmetic. Instructions for {value_bits}-bit values make more "
        "operations a second, but their peak is not measured: what arithmetic limits here is a kernel that computes in "
        "float32."
    )
    return Machine(
        label="this CPU in float32",
        gflops=peaks.ceilings.fma_gflops_f32,
        gbps=peaks.ceilings.copy_gbps,
        origin=peaks.origin,
        remark=narrower if value_bits < 32 else "",
    )


def _a100(value_bits):
    kind, gflops = _A100_GFLOPS[value_bits]
    return Machine(
        label=f"NVIDIA A100, {kind}",
        gflops=gflops,
        gbps=_A100_GBPS,
        origin=f"the peaks of an A100 of 40 GB, {gflops / 1e3:g} Tflop/s for {kind} and {_A100_GBPS:,.0f} GB/s, given "
        "from memory",
    )
