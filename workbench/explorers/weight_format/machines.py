"""The machines whose ceilings the explorer draws."""

from widgets.figures.weight_format import Machine
from widgets.views.weight_format import CUSTOM
from workbench.machines.peaks import stored_peaks

__all__ = ["MACHINES", "machines"]

MACHINES = (("cpu", "this CPU, float32"), ("a100", "NVIDIA A100, half precision"), (CUSTOM, "one of your own"))
A100 = Machine(
    label="NVIDIA A100",
    gflops=312e3,
    gbps=1555.0,
    origin="the peaks of an A100 of 40 GB, 312 Tflop/s in half precision and 1,555 GB/s, given from memory",
)


def machines() -> dict[str, Machine]:
    """Return the machines by key, without the reader's own."""
    peaks = stored_peaks()
    own = Machine(
        label=f"this CPU, {peaks.ceilings.threads} threads",
        gflops=peaks.ceilings.fma_gflops_f32,
        gbps=peaks.ceilings.copy_gbps,
        origin=peaks.origin,
    )
    return {"cpu": own, "a100": A100}
