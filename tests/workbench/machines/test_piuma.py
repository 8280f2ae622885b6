"""The PIUMA model: counts against brute force, times against the plain-Python twin, laws that hold for every run."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from workbench.data.matrices import poisson2d, rmat, w0
from workbench.machines.piuma import (
    HASHES,
    HashTableFull,
    PiumaConfig,
    baseline,
    hash_trace,
    plan_windows,
    simulate_spgemm,
    spad_bytes_needed,
    table_snapshot,
)
from workbench.machines.piuma_reference import hash_trace_reference, simulate_reference
from workbench.machines.piuma_tables import batches

SMALL = PiumaConfig(log2_slots=8, load=0.5, n_mtc=2, threads_per_mtc=3)


def pattern(rng, m, n, density):
    """Random 0/1 matrix with some empty rows and columns."""
    dense = rng.random((m, n)) < density
    dense[::7] = False
    dense[:, ::5] = False
    return sp.csr_array(dense.astype(float))


@pytest.fixture
def pair(rng):
    return pattern(rng, 50, 40, 0.15), pattern(rng, 40, 60, 0.15)


@pytest.fixture(scope="module")
def reference_workload():
    return w0()


def structure(a, b):
    ones_a, ones_b = (sp.csr_array((np.ones(x.nnz), x.indices, x.indptr), shape=x.shape) for x in (a, b))
    return ones_a @ ones_b


# Windows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log2_slots, load", [(4, 1.0), (5, 0.5), (8, 0.16), (12, 0.9)])
def test_windows_partition_the_rows_and_fit(pair, log2_slots, load):
    a, b = pair
    plan = plan_windows(a, b, 2**log2_slots, load)
    covered = np.zeros((50, 60), dtype=int)
    for r0, r1, c0, c1 in zip(plan.row_start, plan.row_stop, plan.column_start, plan.column_stop, strict=True):
        covered[r0:r1, c0:c1] += 1
    assert np.all(covered == 1)
    alone = plan.row_stop - plan.row_start == 1
    assert np.all(alone | (plan.need <= load * plan.slots))
    assert np.all(plan.need <= plan.slots)


def test_windows_walk_rows_in_order():
    a = sp.csr_array(np.diag([1.0] * 6))
    b = sp.csr_array(np.ones((6, 10)))  # every row needs 10
    plan = plan_windows(a, b, 64, 0.5)  # 32 slots may be claimed: three rows
    assert plan.row_start.tolist() == [0, 3] and plan.row_stop.tolist() == [3, 6]


def test_a_row_beyond_the_table_is_cut_into_column_passes():
    a, b = sp.csr_array(np.ones((1, 3))), sp.csr_array(np.ones((3, 100)))
    plan = plan_windows(a, b, 64, 0.5)
    assert len(plan) == 4  # ceil(100 / 32)
    assert plan.rereads == 9
    trace = hash_trace(a, b, plan, 64, "low")
    assert trace.nnz == 100 and trace.products.sum() == 300


def test_passes_are_halved_until_skewed_columns_fit():
    # 40 products, all in the left tenth of the columns: equal ranges alone would overflow the table of 16.
    columns = np.arange(40)
    a = sp.csr_array(np.ones((1, 1)))
    b = sp.csr_array((np.ones(40), columns, [0, 40]), shape=(1, 400))
    plan = plan_windows(a, b, 16, 1.0)
    assert plan.need.max() <= 16
    assert hash_trace(a, b, plan, 16, "high").nnz == 40


def test_batches_cover_every_window_once(pair):
    plan = plan_windows(*pair, 16, 0.3)
    runs = list(batches(plan))
    assert [w for w0, w1 in runs for w in range(w0, w1)] == list(range(len(plan)))


# Hash trace ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hash", HASHES)
@pytest.mark.parametrize("log2_slots, load", [(4, 1.0), (6, 0.6), (9, 0.3)])
def test_trace_equals_plain_python(pair, hash, log2_slots, load):
    a, b = pair
    plan = plan_windows(a, b, 2**log2_slots, load)
    trace = hash_trace(a, b, plan, plan.slots, hash)
    items = [item for window in hash_trace_reference(a, b, plan, plan.slots, hash) for item in window]
    assert trace.products.tolist() == [x.p for x in items]
    assert trace.probes.tolist() == [x.q for x in items]
    assert trace.inserts.tolist() == [x.u for x in items]
    assert trace.histogram.sum() == trace.products.sum()


@pytest.mark.parametrize("hash", HASHES)
def test_inserts_and_merges(pair, hash):
    a, b = pair
    plan = plan_windows(a, b, 64, 0.5)
    trace = hash_trace(a, b, plan, 64, hash)
    c = structure(a, b)
    assert trace.nnz == c.nnz
    assert trace.products.sum() == int(c.data.sum())  # inserts + merges = F
    per_window = np.add.reduceat(trace.inserts, plan.item_start[:-1][np.diff(plan.item_start) > 0])
    assert per_window.max() <= plan.need.max()


@pytest.mark.parametrize("hash", ["high", "low"])
def test_no_extra_probe_when_every_tag_has_its_own_slot(pair, hash):
    a, b = pair
    plan = plan_windows(a, b, 2**12, 1.0)
    assert 2**12 >= 50 * 60 and len(plan) == 1
    assert hash_trace(a, b, plan, 2**12, hash).probes.sum() == 0


def test_equal_homes_cost_one_probe():
    a, b = sp.csr_array(np.ones((1, 1))), sp.csr_array((np.ones(2), [3, 19], [0, 2]), shape=(1, 32))
    plan = plan_windows(a, b, 16, 1.0)
    assert hash_trace(a, b, plan, 16, "low").probes.sum() == 1
    assert hash_trace(a, b, plan, 16, "high").probes.sum() == 0


def test_identity_and_dense():
    eye = sp.csr_array(sp.identity(40, format="csr"))
    trace = hash_trace(eye, eye, plan_windows(eye, eye, 64, 0.5), 64, "low")
    assert trace.products.sum() == trace.nnz == 40 and trace.probes.sum() == 0
    full = sp.csr_array(np.ones((12, 12)))
    trace = hash_trace(full, full, plan_windows(full, full, 64, 0.5), 64, "high")
    assert trace.products.sum() == 12**3 and trace.nnz == 144


def test_duplicates_unsorted_and_wide_indices(pair):
    a, b = pair
    order = np.concatenate([np.arange(s, e)[::-1] for s, e in zip(a.indptr, a.indptr[1:], strict=False)]).astype(int)
    shuffled = sp.csr_array(
        (a.data[order], a.indices[order].astype(np.int64), a.indptr.astype(np.int64)), shape=a.shape
    )
    plan = plan_windows(shuffled, b, 128, 0.5)
    assert hash_trace(shuffled, b, plan, 128, "low").nnz == structure(a, b).nnz
    twice = sp.csr_array((np.ones(2), [1, 1], [0, 2]), shape=(1, 3))
    b3 = sp.csr_array(np.ones((3, 4)))
    trace = hash_trace(twice, b3, plan_windows(twice, b3, 16, 1.0), 16, "low")
    assert trace.products.tolist() == [4, 4] and trace.inserts.tolist() == [4, 0]


def test_snapshot_holds_the_windows_tags(pair):
    a, b = pair
    plan = plan_windows(a, b, 256, 0.5)
    c = structure(a, b)
    for w in range(len(plan)):
        tags = table_snapshot(a, b, plan, 256, "low", w)
        rows, columns = np.divmod(np.sort(tags[tags >= 0]), 60)
        expected = sp.coo_array(c[plan.row_start[w] : plan.row_stop[w]])
        assert sorted(zip(rows, columns, strict=True)) == sorted(zip(*expected.coords, strict=True))


def test_order_preserving_table_is_almost_sorted(pair):
    a, b = pair
    plan = plan_windows(a, b, 256, 0.6)
    trace = hash_trace(a, b, plan, 256, "high")
    for w in range(len(plan)):
        tags = table_snapshot(a, b, plan, 256, "high", w)
        slots = np.flatnonzero(tags >= 0)
        shift = max(0, (int(plan.row_stop[w] - plan.row_start[w]) * 60 - 1).bit_length() - 8)
        wrapped = tags[slots] >> shift > slots
        kept = tags[slots][~wrapped]
        swaps = sum(int((kept[:i] > kept[i]).sum()) for i in range(len(kept)))
        probes = int(trace.probes[plan.item_start[w] : plan.item_start[w + 1]].sum())
        assert swaps <= probes + len(slots) * int(wrapped.sum())


def test_overfull_table_raises():
    a, b = sp.csr_array(np.ones((4, 2))), sp.csr_array(np.ones((2, 30)))
    plan = plan_windows(a, b, 128, 1.0)
    with pytest.raises(HashTableFull, match="window 0"):
        hash_trace(a, b, plan, 64, "low")


@pytest.mark.parametrize("grid, log2_slots", [(64, 12), (64, 14), (128, 17)])
def test_low_bits_suffer_on_a_grid_whose_size_divides_the_table(grid, log2_slots):
    a, slots = poisson2d(grid), 2**log2_slots
    assert slots % grid**2 == 0
    plan = plan_windows(a, a, slots, 0.16)
    probes = {h: hash_trace(a, a, plan, slots, h).mean_extra_probes for h in HASHES}
    assert probes["low"] > 10 * probes["high"] and probes["low"] > 40
    assert probes["multiplicative"] < 1


# Simulator -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"bw": 0.3, "dma_bw": 0.3},
        {"dma_bw": 0.01},
        {"fill_bw": 0.1},
        {"token_pp": 1},
        {"l_pipe": 1.0, "l_atomic": 0.0},
    ],
)
def test_simulation_equals_plain_python(pair, version, change):
    config = replace(SMALL, **change)
    run = simulate_spgemm(*pair, version, config)
    cycles, events = simulate_reference(*pair, version, config)
    assert run.cycles == pytest.approx(cycles, rel=1e-9)
    ours = sorted(zip(run.events.thread, run.events.row, run.events.start, run.events.stop, strict=True))
    assert len(events) == run.events.total == len(ours)
    np.testing.assert_allclose(np.array(ours), np.array(sorted(events)), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 3])
def test_conservation_and_bounds(pair, version, blocks):
    run = simulate_spgemm(*pair, version, SMALL, blocks=blocks)
    line = run.timeline
    assert line.bytes.sum() == pytest.approx(run.bytes)
    assert line.instructions.sum() == pytest.approx(run.instructions)
    assert line.thread_busy.sum(axis=1) == pytest.approx(run.thread_busy)
    assert np.all(run.thread_busy <= run.cycles * (1 + 1e-9))
    assert np.all(line.thread_busy <= np.diff(line.edges) * (1 + 1e-9) + 1e-6)
    assert run.lower_bound <= run.cycles * (1 + 1e-9)
    assert sum(run.phases.values()) == pytest.approx(run.cycles)
    assert line.edges[-1] == pytest.approx(run.cycles)
    assert run.inserts == structure(*pair).nnz
    assert run.window_times.inserts.sum() == run.inserts
    assert line.live_peak.max() <= 2 * blocks * run.peak_live
    assert np.all(line.live_mean <= line.live_peak + 1e-9)
    assert 0 < run.bandwidth_utilisation <= 1 + 1e-9 and 0 < run.thread_utilisation <= 1 + 1e-9


@pytest.mark.parametrize("bins", [2, 6, 64])
def test_timelines_of_uneven_blocks_add_up(rng, bins):
    heavy = sp.csr_array(np.vstack([np.ones((1, 200)), np.zeros((5, 200))]))  # all work in one row: one block runs long
    run = simulate_spgemm(heavy, pattern(rng, 200, 300, 0.3), 2, blocks=4, bins=bins)
    assert run.block_cycles.max() > 2 * run.block_cycles.min()
    assert len(run.timeline.bytes) <= bins
    assert run.timeline.bytes.sum() == pytest.approx(run.bytes)
    assert run.timeline.thread_busy.sum(axis=1) == pytest.approx(run.thread_busy)


def test_bytes_by_stream_are_those_of_the_kernel(pair):
    a, b = pair
    run = simulate_spgemm(a, b, 1, SMALL)
    lines = 2 * np.ceil(8 * np.diff(b.indptr)[a.indices] / 64)
    assert run.streams == {
        "A": 128.0 * a.nnz + 64 * np.ceil(8 * a.nnz / 64),  # the counting pass reads columns and pointers as well
        "row pointers": 2 * 16.0 * a.nnz,
        "B": 64 * lines.sum(),
        "C": 16.0 * run.inserts + 8 * 50,
    }


@pytest.mark.parametrize("version", [1, 2, 3])
def test_more_bandwidth_never_slows(pair, version):
    times = [simulate_spgemm(*pair, version, replace(SMALL, bw=bw)).cycles for bw in (0.25, 0.5, 1, 2, 4, 8)]
    assert np.all(np.diff(times) <= 1e-6 * times[0])
    assert times[0] > times[-1]


def test_one_thread_and_one_token_take_the_stand_alone_latency():
    a, b = sp.csr_array(np.ones((1, 2))), sp.csr_array(np.ones((2, 5)))
    config = PiumaConfig(log2_slots=8, n_mtc=1, threads_per_mtc=1, bw=1e6)
    run = simulate_spgemm(a, b, 2, config)
    instructions = 20 + 2 * 20 + 10 * (16 + 7) + 10 * 12
    lines = 2 + 2 * 2
    latency = instructions * 10 + (lines + 2 * 2) * 120 + (2 * 10 + 1) * 40
    assert run.tokens == 1
    assert run.phases["hashing"] == pytest.approx(latency, rel=1e-12)


def test_unbounded_tokens_are_whole_rows(pair):
    a, b = pair
    run = simulate_spgemm(a, b, 2, replace(SMALL, token_pp=2**62, log2_slots=12))
    rows = np.count_nonzero(np.diff(a.indptr))
    assert run.tokens == rows
    assert sorted(run.events.row) == np.flatnonzero(np.diff(a.indptr)).tolist()


def test_event_log_is_cut_honestly(pair):
    whole = simulate_spgemm(*pair, 1, SMALL)
    cut = simulate_spgemm(*pair, 1, SMALL, event_limit=10)
    assert not whole.events.truncated and cut.events.truncated
    assert cut.events.total == whole.events.total and len(cut.events.thread) == 10
    assert cut.cycles == whole.cycles


def test_thread_count_of_the_host_changes_nothing(pair):
    import kernels

    before = kernels.get_num_threads()
    try:
        runs = []
        for threads in (1, 3):
            kernels.set_num_threads(threads)
            runs.append(simulate_spgemm(*pair, 3, SMALL))
    finally:
        kernels.set_num_threads(before)
    assert runs[0].cycles == runs[1].cycles and runs[0].histogram.tolist() == runs[1].histogram.tolist()


def test_a_trace_can_be_reused(pair):
    trace = hash_trace(*pair, plan_windows(*pair, SMALL.slots, SMALL.load), SMALL.slots, "low")
    assert simulate_spgemm(*pair, 2, SMALL, trace=trace).cycles == simulate_spgemm(*pair, 2, SMALL).cycles
    with pytest.raises(ValueError, match="trace must come from"):
        simulate_spgemm(*pair, 1, SMALL, trace=trace)


def test_progress_rises_and_cancels(pair):
    seen = []
    simulate_spgemm(*pair, 2, SMALL, progress=lambda fraction, step: seen.append((fraction, step)))
    fractions = [f for f, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)

    class Cancelled(Exception):
        pass

    def stop(fraction, step):
        raise Cancelled

    with pytest.raises(Cancelled):
        simulate_spgemm(*pair, 2, SMALL, progress=stop)


@pytest.mark.parametrize("m, k, n", [(0, 5, 5), (5, 0, 5), (5, 5, 0), (0, 0, 0), (3, 3, 3)])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_empty_operands(m, k, n, version):
    run = simulate_spgemm(sp.csr_array((m, k)), sp.csr_array((k, n)), version, blocks=2)
    assert run.products == run.inserts == run.tokens == 0
    assert np.isfinite(run.cycles) and run.l1_hit_rate == 0
    assert run.timeline.edges[-1] == pytest.approx(run.cycles)


def test_blocks_share_the_rows_and_use_the_network():
    a = rmat(9, seed=3)
    one, four = (simulate_spgemm(a, a, 3, blocks=n) for n in (1, 4))
    assert one.network_bytes == 0 and four.network_bytes > 0
    assert one.products == four.products and one.inserts == four.inserts
    assert four.cycles < one.cycles < 8 * four.cycles
    assert len(four.thread_busy) == 256 and set(np.unique(four.events.thread // 64)) == {0, 1, 2, 3}
    slow = simulate_spgemm(a, a, 3, PiumaConfig(net_bw=0.1), blocks=4)
    assert slow.cycles > 2 * four.cycles


def test_baselines_follow_their_formula(pair):
    a, b = pair
    products, stored = int(structure(a, b).data.sum()), structure(a, b).nnz
    outer = baseline(a, b, "outer")
    assert outer.streams["partial products written"] == outer.streams["partial products read"] == 16 * products
    assert outer.instructions == 16 * products + 12 * 2 * products
    assert outer.cycles == max(outer.bounds.values()) and outer.ms == outer.cycles / 1e6
    assert outer.peak_live == products and outer.streams["C"] == 16 * stored
    assert baseline(a, b, "row").instructions == 16 * products
    inner = baseline(a, b, "inner")
    rows, columns = np.count_nonzero(np.diff(a.indptr)), np.count_nonzero(np.bincount(b.indices))
    assert inner.instructions == 16 * products + 12 * (a.nnz * columns + b.nnz * rows)


# Refusals ------------------------------------------------------------------------------------------------------------


def test_refusals(pair):
    a, b = pair
    with pytest.raises(TypeError, match="a must be"):
        simulate_spgemm(a.toarray(), b, 1)
    with pytest.raises(TypeError, match="complex"):
        simulate_spgemm(a.astype(complex), b, 1)
    with pytest.raises(ValueError, match="40 columns"):
        simulate_spgemm(a, a, 1)
    for version in (0, 4, "1", True, None):
        with pytest.raises((ValueError, TypeError), match="version must be an int from 1 to 3"):
            simulate_spgemm(a, b, version)
    for blocks in (0, 257, 1.5):
        with pytest.raises((ValueError, TypeError), match="blocks must be an int from 1 to 256"):
            simulate_spgemm(a, b, 1, blocks=blocks)
    with pytest.raises(ValueError, match="hash"):
        simulate_spgemm(a, b, 1, hash="middle")
    with pytest.raises(ValueError, match="bins"):
        simulate_spgemm(a, b, 1, bins=7)
    with pytest.raises(ValueError, match="lower bins"):
        simulate_spgemm(a, b, 1, PiumaConfig(threads_per_mtc=1024), blocks=64)


@pytest.mark.parametrize(
    "change",
    [{"log2_slots": 3}, {"log2_slots": 27}, {"load": 0.0}, {"load": 1.1}, {"load": float("nan")}, {"bw": 0.0},
     {"bw": float("inf")}, {"l_dram": -1.0}, {"token_pp": 0}, {"n_mtc": 0}, {"threads_per_mtc": 5000}],
)  # fmt: skip
def test_config_refuses(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        PiumaConfig(**change)


def test_config_refuses_types():
    with pytest.raises(TypeError, match="log2_slots"):
        PiumaConfig(log2_slots=17.0)


def test_scratchpad_budget(pair):
    assert spad_bytes_needed(1, PiumaConfig()) == 16 * 2**17
    assert spad_bytes_needed(3, PiumaConfig()) == 16 * 2**17 + 2 * 16 * 0.16 * 2**17
    simulate_spgemm(*pair, 1, PiumaConfig(log2_slots=18))
    with pytest.raises(ValueError, match="scratchpad"):
        simulate_spgemm(*pair, 3, PiumaConfig(log2_slots=18))
    simulate_spgemm(*pair, 3, PiumaConfig(log2_slots=18), check_spad=False)


def test_tags_beyond_int64_are_refused():
    a = sp.csr_array(np.ones((4, 1)))
    b = sp.csr_array((np.ones(1), np.array([5], dtype=np.int64), np.array([0, 1], dtype=np.int64)), shape=(1, 2**62))
    with pytest.raises(OverflowError, match="2\\^63"):
        plan_windows(a, b, 64, 0.5)


def test_windows_of_other_operands_are_refused(pair):
    a, b = pair
    plan = plan_windows(a, b, 64, 0.5)
    with pytest.raises(ValueError, match="planned for other operands"):
        hash_trace(a, sp.csr_array((40, 61)), plan, 64, "low")
    broken = replace(plan, row_stop=plan.row_stop + 1000)
    with pytest.raises(ValueError, match="planned for other operands"):
        hash_trace(a, b, broken, 64, "low")


def test_every_constant_has_unit_source_and_tag():
    names = {c.name for c in PiumaConfig.constants()}
    assert names == set(PiumaConfig.__dataclass_fields__)
    for constant in (*PiumaConfig.constants(), *PiumaConfig.facts()):
        assert constant.source and constant.tag in ("published", "from memory", "calibrated")
    assert all(c.unit and c.meaning and c.value == getattr(PiumaConfig(), c.name) for c in PiumaConfig.constants())


# The reference workload ----------------------------------------------------------------------------------------------


def test_reference_workload_counts(reference_workload):
    a, b = reference_workload
    assert (a.nnz, b.nnz) == (254_968, 254_893)
    plan = plan_windows(a, b, 2**17, 0.16)
    assert len(plan) == 279
    traces = {h: hash_trace(a, b, plan, 2**17, h) for h in ("high", "low")}
    for trace in traces.values():
        assert trace.products.sum() == 5_731_470 and trace.nnz == 5_222_541
    assert round(traces["high"].mean_extra_probes, 3) == 6.945
    assert round(traces["low"].mean_extra_probes, 4) == 0.1504


@pytest.mark.parametrize(
    "version, ms, ipc, bandwidth, threads, megabytes",
    [(1, 903, 1.28, 0.099, 0.305, 232), (2, 437.5, 1.57, 0.189, 0.394, 215), (3, 106.6, 2.39, 0.775, 0.842, 215)],
)
def test_reference_workload_times(reference_workload, version, ms, ipc, bandwidth, threads, megabytes):
    run = simulate_spgemm(*reference_workload, version)
    assert run.ms == pytest.approx(ms, rel=0.005)
    assert run.ipc == pytest.approx(ipc, rel=0.01)
    assert run.bandwidth_utilisation == pytest.approx(bandwidth, abs=0.005)
    assert run.phases["clearing"] == pytest.approx(279 * 2**21 / 64 if version == 3 else 0)
    assert run.thread_utilisation == pytest.approx(threads, abs=0.005)
    assert run.bytes / 1e6 == pytest.approx(megabytes, abs=1)
    assert 0.81 < run.l1_hit_rate < 0.85
    assert run.windows == 279


SENSITIVITY = [
    ({"load": 0.05}, (882, 859, 138.5)),
    ({"load": 0.125}, (673, 489, 110)),
    ({"load": 0.20}, (2046, 402, 104)),
    ({"log2_slots": 16}, (940, 446, 114)),
    ({"log2_slots": 18}, (825, 433, 103)),
    ({"threads_per_mtc": 1}, (7471, 5619, 972)),
    ({"threads_per_mtc": 8}, (1241, 707, 149)),
    ({"bw": 1.3, "dma_bw": 1.3}, (944, 480, 179)),
    ({"bw": 20.8, "dma_bw": 20.8}, (902, 437, 81)),
    ({"token_pp": 8}, (903, 441, 112)),
    ({"token_pp": 2**40}, (903, 663, 377)),
    ({"l_dram": 480.0}, (916, 447, 116.5)),
    ({"wb_eff": 1.0}, (644, 179, 106.6)),
    ({"c_wb": 12.0}, (756, 290, 106.6)),
    ({"fill_bw": 16.0}, (903, 437.5, 134)),
]


@pytest.mark.slow
@pytest.mark.parametrize("change, times", SENSITIVITY, ids=[str(c) for c, _ in SENSITIVITY])
def test_sensitivities(reference_workload, change, times):
    config = PiumaConfig(**change)
    runs = [simulate_spgemm(*reference_workload, v, config, check_spad=False).ms for v in (1, 2, 3)]
    assert runs == pytest.approx(times, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [2, 8])
def test_reference_workload_over_blocks(reference_workload, blocks):
    one, many = (simulate_spgemm(*reference_workload, 3, blocks=n) for n in (1, blocks))
    assert one.inserts == many.inserts
    assert 0.8 * blocks < one.cycles / many.cycles < 1.2 * blocks
