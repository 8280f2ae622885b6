"""Ceilings are measured once, and a floor is the larger of the two times."""

import numpy as np
import pytest

from workbench.machines import roofline as module
from workbench.machines.roofline import WEIGHT_FORMATS, Ceilings, ceilings, roofline


def test_ceilings_are_measured_once(monkeypatch):
    monkeypatch.setattr(module, "COPY_BYTES", 2**20)
    monkeypatch.setattr(module, "FMA_STEPS", 10_000)
    module._measured.cache_clear()
    first = ceilings(1)
    assert ceilings(1) is first and first.threads == 1
    assert first.copy_gbps > 0.1 and first.fma_gflops_f32 > 0.1 and first.fma_gflops_f64 > 0.1
    module._measured.cache_clear()


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


MACHINE = {"peak_flops": 1e12, "bandwidth": 1e11}


@pytest.mark.parametrize(
    "fmt, flops, moved",
    [
        ("dense16", 2 * 256 * 128 * 4, 2 * 256 * 128 + 2 * 4 * (256 + 128)),
        ("dense32", 2 * 256 * 128 * 4, 4 * 256 * 128 + 2 * 4 * (256 + 128)),
        ("tiled-csl", 2 * 256 * 128 * 4, 4 * 8192 + 4 * (4 + 2) + 2 * 4 * (256 + 128)),
        ("csr", 2 * 8192 * 4, 8 * 8192 + 4 * 257 + 2 * 4 * (256 + 128)),
    ],
)
def test_a_products_counts_worked_out_by_hand(fmt, flops, moved):
    found = roofline(256, 128, 4, 0.75, fmt=fmt, **MACHINE)
    assert (found.flops, found.bytes) == (flops, moved) and found.intensity == flops / moved
    assert found.time_s == pytest.approx(moved / 1e11) and found.bound == "memory"


def test_wide_activations_weigh_more():
    narrow, wide = (roofline(64, 32, 8, fmt="dense32", activation_bytes=x, **MACHINE) for x in (2, 4))
    assert wide.bytes - narrow.bytes == 2 * 8 * (64 + 32)


def test_many_columns_are_bound_by_arithmetic():
    found = roofline(4096, 4096, 4096, fmt="dense16", **MACHINE)
    assert found.bound == "arithmetic" and found.time_s == pytest.approx(2 * 4096**3 / 1e12)


def test_half_of_the_weights_in_words_of_twice_the_width_take_the_bytes_of_all():
    dense, sparse = (roofline(4096, 4096, 8, 0.5, fmt=fmt, **MACHINE) for fmt in ("dense16", "tiled-csl"))
    assert sparse.bytes - dense.bytes == 4 * (32 * 64 + 2)


def test_while_memory_sets_the_pace_time_falls_with_sparsity():
    times = [roofline(4096, 4096, 8, s / 10, fmt="tiled-csl", **MACHINE).time_s for s in range(11)]
    assert times == sorted(times, reverse=True) and times[0] > 2 * times[8]


@pytest.mark.parametrize(
    "change, told",
    [({"m": 0}, "m"), ({"sparsity": 1.1}, "sparsity"), ({"peak_flops": 0}, "peak_flops"),
     ({"bandwidth": -1.0}, "bandwidth"), ({"fmt": "coo"}, "fmt"), ({"activation_bytes": 9}, "activation_bytes")],
)  # fmt: skip
def test_arguments_of_the_roofline_are_checked(change, told):
    given = {"m": 64, "k": 64, "n": 8, "sparsity": 0.5, "fmt": WEIGHT_FORMATS[0]} | MACHINE | change
    with pytest.raises(ValueError, match=f"roofline: {told}"):
        roofline(**given)
