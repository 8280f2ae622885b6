"""Ceilings are measured once, and a floor is the larger of the two times."""

import numpy as np
import pytest

from workbench.machines import roofline
from workbench.machines.roofline import Ceilings, ceilings


def test_ceilings_are_measured_once(monkeypatch):
    monkeypatch.setattr(roofline, "COPY_BYTES", 2**20)
    monkeypatch.setattr(roofline, "FMA_STEPS", 10_000)
    roofline._measured.cache_clear()
    first = ceilings(1)
    assert ceilings(1) is first and first.threads == 1
    assert first.copy_gbps > 0.1 and first.fma_gflops_f32 > 0.1 and first.fma_gflops_f64 > 0.1
    roofline._measured.cache_clear()


def test_thread_count_is_checked():
    with pytest.raises(ValueError, match="threads"):
        ceilings(0)


def test_floor_is_the_larger_time():
    machine = Ceilings(copy_gbps=10.0, fma_gflops_f32=200.0, fma_gflops_f64=100.0, threads=1, isa="baseline")
    assert machine.floor_s(flops=1e9, bytes=0) == pytest.approx(0.01)
    assert machine.floor_s(flops=1e9, bytes=0, dtype=np.float32) == pytest.approx(0.005)
    assert machine.floor_s(flops=1e9, bytes=1e9) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="dtype"):
        machine.floor_s(1, 1, dtype=np.int8)
