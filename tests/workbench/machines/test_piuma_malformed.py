"""Whatever arrays come in, the model answers with a result or an error, never with a crash."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.machines.piuma import (
    HashTableFull,
    PiumaConfig,
    baseline,
    hash_trace,
    plan_windows,
    simulate_spgemm,
    table_snapshot,
)

REFUSALS = (ValueError, TypeError, OverflowError, HashTableFull)
INDEX = st.one_of(st.integers(-3, 12), st.sampled_from([2**31, -(2**31), 2**62, -(2**62)]))


@st.composite
def csr(draw, rows, columns):
    """A CSR matrix whose arrays may be anything: indices out of range, pointers that fall, lengths that differ."""
    dtype = draw(st.sampled_from([np.int32, np.int64]))
    limits = np.iinfo(dtype)

    def ints(values):
        return np.array([min(max(v, limits.min), limits.max) for v in values], dtype=dtype)

    matrix = sp.csr_array((rows, columns))
    nnz = draw(st.integers(0, 10))
    sane = draw(st.booleans())
    index = st.integers(0, max(columns - 1, 0)) if sane else INDEX
    pointer = st.integers(0, nnz) if sane else INDEX
    matrix.indices = ints(draw(st.lists(index, min_size=nnz, max_size=nnz)))
    inner = sorted(draw(st.lists(pointer, min_size=max(rows - 1, 0), max_size=max(rows - 1, 0))))
    matrix.indptr = ints([0, *inner, nnz][: rows + 1] if sane else [*inner, nnz, draw(INDEX)])
    matrix.data = np.array(draw(st.lists(st.floats(allow_nan=True), min_size=nnz, max_size=nnz)), dtype=np.float64)
    return matrix


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_arrays_give_a_result_or_a_refusal(data):
    m, k, n = (data.draw(st.integers(0, 5)) for _ in range(3))
    a, b = data.draw(csr(m, k)), data.draw(csr(k, n))
    version, blocks = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    config = PiumaConfig(log2_slots=4, load=data.draw(st.sampled_from([0.01, 0.3, 1.0])))
    try:
        run = simulate_spgemm(a, b, version, config, blocks=blocks, bins=4, event_limit=data.draw(st.integers(0, 5)))
    except REFUSALS as error:
        assert str(error)
        return
    assert np.isfinite(run.cycles) and run.inserts <= run.products
    assert baseline(a, b, "row", config).cycles >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"row_start": [0, -1, 2]},
        {"row_stop": [1, 2, 2**40]},
        {"column_stop": [7, 7, 2**62]},
        {"item_start": [0, 1, 2, 2**40]},
        {"item_start": [5, 6, 7, 8]},
        {"row_start": [0]},
    ],
)
def test_tampered_windows_are_refused(change):
    from dataclasses import replace

    a, b = sp.csr_array(np.eye(3)), sp.csr_array(np.ones((3, 7)))
    plan = plan_windows(a, b, 16, 0.5)
    assert len(plan) == 3
    broken = replace(plan, **{name: np.array(value, dtype=np.int64) for name, value in change.items()})
    with pytest.raises(REFUSALS):
        hash_trace(a, b, broken, 16, "low")
    with pytest.raises(REFUSALS):
        table_snapshot(a, b, broken, 16, "low", 0)


def test_extreme_constants_still_end():
    a = sp.csr_array(np.ones((4, 4)))
    for config in (
        PiumaConfig(log2_slots=4, bw=1e-6, dma_bw=1e-6),
        PiumaConfig(log2_slots=4, l_pipe=1e9, l_dram=1e9, c_pp=1e9),
        PiumaConfig(log2_slots=4, bw=1e9, dma_bw=1e9, c_probe=0.0, c_merge=0.0, l_atomic=0.0),
        PiumaConfig(log2_slots=4, n_mtc=1, threads_per_mtc=4096),
        PiumaConfig(log2_slots=4, line=1, word=10**9),
    ):
        for version in (1, 2, 3):
            run = simulate_spgemm(a, a, version, config, blocks=2)
            assert np.isfinite(run.cycles) and run.cycles >= run.lower_bound * (1 - 1e-9)
