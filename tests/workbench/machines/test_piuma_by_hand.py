"""SMASH on PIUMA by hand: which slot, which window, which thread, and how many cycles each step takes."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from workbench.machines.piuma import (
    HashTableFull,
    PiumaConfig,
    baseline,
    hash_trace,
    plan_windows,
    simulate_spgemm,
    table_snapshot,
)

WIDE = {"bw": 1e9, "dma_bw": 1e9}  # so much bandwidth that nobody waits for it


def rows(*columns, n):
    """A matrix of ones with these columns in each row."""
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.array([j for row in columns for j in row], dtype=np.int64)
    return sp.csr_array((np.ones(len(indices)), indices, indptr), shape=(len(columns), n))


def occupied(table):
    return {slot: int(tag) for slot, tag in enumerate(table) if tag >= 0}


# Hash tables ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def four_rows():
    """Row i of the product is row i of B: tags 0 7 | 33 | 69 | 126 127 of the 4 x 32 in one window."""
    return sp.csr_array(np.eye(4)), rows([0, 7], [1], [5], [30, 31], n=32)


def test_high_bits_keep_the_order_and_collide(four_rows):
    """128 tags, 16 slots: eight tags share a home. 7 meets 0 at slot 0; 127 goes 15, 0, 1 and finds 2."""
    plan = plan_windows(*four_rows, 16, 1.0)
    trace = hash_trace(*four_rows, plan, 16, "high")
    assert occupied(table_snapshot(*four_rows, plan, 16, "high")) == {0: 0, 1: 7, 2: 127, 4: 33, 8: 69, 15: 126}
    assert trace.probes.tolist() == [1, 0, 0, 3] and trace.products.tolist() == trace.inserts.tolist() == [2, 1, 1, 2]
    assert trace.histogram.tolist() == [4, 1, 0, 1, *[0] * 61]
    assert trace.mean_extra_probes == 4 / 6 and trace.nnz == 6


def test_low_bits_scatter(four_rows):
    plan = plan_windows(*four_rows, 16, 1.0)
    assert occupied(table_snapshot(*four_rows, plan, 16, "low")) == {0: 0, 7: 7, 1: 33, 5: 69, 14: 126, 15: 127}
    assert hash_trace(*four_rows, plan, 16, "low").probes.sum() == 0


def test_tags_count_from_the_windows_first_row(four_rows):
    """Four claims a window: the last row stands alone, with tags 30 and 31 of 32."""
    plan = plan_windows(*four_rows, 16, 0.25)
    assert plan.row_start.tolist() == [0, 3]
    assert occupied(table_snapshot(*four_rows, plan, 16, "low", 1)) == {14: 30, 15: 31}
    assert occupied(table_snapshot(*four_rows, plan, 16, "high", 1)) == {15: 30, 0: 31}
    assert hash_trace(*four_rows, plan, 16, "high").probes.tolist() == [1, 0, 0, 1]  # 96 tags before: 0 and 7 share


def test_multiplicative_hash_takes_the_top_bits_of_the_product():
    """1, 2 and 3 times 9E3779B97F4A7C15 begin with the digits 9, 3 and D."""
    a, b = rows([0], n=1), rows([1, 2, 3], n=8)
    plan = plan_windows(a, b, 16, 1.0)
    assert occupied(table_snapshot(a, b, plan, 16, "multiplicative")) == {9: 1, 3: 2, 13: 3}


def test_a_merge_probes_as_far_as_its_insert_did():
    """Columns 3 and 19 share the home 3; the second row of B meets 19 again, one probe on, and claims nothing."""
    a, b = rows([0, 1], n=2), rows([3, 19], [19], n=32)
    trace = hash_trace(a, b, plan_windows(a, b, 16, 1.0), 16, "low")
    assert trace.products.tolist() == [2, 1] and trace.probes.tolist() == [1, 1] and trace.inserts.tolist() == [2, 0]
    assert trace.histogram[:2].tolist() == [1, 2]


def test_probes_beyond_63_share_the_last_bin():
    """68 tags of one home: the last of them probes 67 times."""
    a, b = rows([0], n=1), rows([128 * j for j in range(68)], n=128 * 68)
    trace = hash_trace(a, b, plan_windows(a, b, 128, 1.0), 128, "low")
    assert trace.histogram.tolist() == [*[1] * 64, 4] and trace.probes.sum() == 67 * 68 / 2


def test_nothing_multiplied_is_nothing_probed():
    a, b = sp.csr_array((2, 3)), sp.csr_array((3, 4))
    trace = hash_trace(a, b, plan_windows(a, b, 16, 1.0), 16, "low")
    assert trace.mean_extra_probes == 0.0 and trace.nnz == 0


def test_a_snapshot_of_a_table_that_is_too_small_is_refused():
    a, b = rows([0], n=1), rows(range(20), n=20)
    plan = plan_windows(a, b, 32, 1.0)
    with pytest.raises(HashTableFull, match="window 0"):
        table_snapshot(a, b, plan, 16, "low")
    for window in (-1, 1):
        with pytest.raises(ValueError, match="window must be from 0 to 0"):
            table_snapshot(a, b, plan, 32, "low", window)


@pytest.mark.parametrize("slots", [8, 24, 2**27, 16.0, True])
def test_tables_have_a_power_of_two_of_slots(slots):
    with pytest.raises((ValueError, TypeError), match=r"slots must be (an int|a power of two from 2\^4 to 2\^26)"):
        plan_windows(rows([0], n=1), rows([0], n=1), slots, 1.0)


def test_the_largest_table_is_accepted():
    assert len(plan_windows(rows([0], n=1), rows([0], n=1), 2**26, 1.0)) == 1


# Windows -------------------------------------------------------------------------------------------------------------


def test_rows_join_a_window_while_their_needs_fit():
    """Products 3 9 2 2 30 1 and 8 columns, so needs 3 8 2 2 8 1; a window may claim 12 of 16 slots."""
    lengths = ([3], [3, 6], [2], [2], [3, 6, 7, 8, 6], [1])
    sizes = [size for row in lengths for size in row]
    a = rows(*np.split(np.arange(len(sizes)), np.cumsum([len(row) for row in lengths])[:-1]), n=len(sizes))
    b = rows(*(range(size) for size in sizes), n=8)
    plan = plan_windows(a, b, 16, 0.75)
    assert plan.row_start.tolist() == [0, 2, 5] and plan.row_stop.tolist() == [2, 5, 6]
    assert plan.need.tolist() == [11, 12, 1] and plan.item_start.tolist() == [0, 3, 10, 11]
    assert plan.column_stop.tolist() == [8, 8, 8] and plan.rereads == 0
    assert hash_trace(a, b, plan, 16, "low").nnz == 3 + 6 + 2 + 2 + 8 + 1


def test_a_long_row_takes_equal_column_ranges():
    """Ten columns and four slots: three passes. The row before and the row after keep windows of their own."""
    a, b = rows([0], [1, 1], [0], n=2), rows([9], range(10), n=10)
    plan = plan_windows(a, b, 16, 0.25)
    ranges = list(zip(plan.row_start, plan.column_start, plan.column_stop, strict=True))
    assert ranges == [(0, 0, 10), (1, 0, 3), (1, 3, 6), (1, 6, 10), (2, 0, 10)]
    assert plan.need.tolist() == [1, 3, 3, 4, 1]
    assert plan.item_start.tolist() == [0, 1, 3, 5, 7, 8] and plan.rereads == 4
    trace = hash_trace(a, b, plan, 16, "low")
    assert trace.products.tolist() == [1, 3, 3, 3, 3, 4, 4, 1] and trace.inserts.tolist() == [1, 3, 0, 3, 0, 4, 0, 1]


def test_a_range_is_halved_while_it_could_overfill_the_table():
    """40 entries at the left of 400 columns: thirds, then 133 to 66, 33, 16 columns until 16 slots are enough."""
    plan = plan_windows(rows([0], n=1), rows(range(40), n=400), 16, 1.0)
    assert plan.column_start.tolist() == [0, 16, 24, 33, 66, 133, 266]
    assert plan.column_stop.tolist() == [16, 24, 33, 66, 133, 266, 400]
    assert plan.need.tolist() == [16, 8, 9, 7, 0, 0, 0]


# Tokens --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def long_and_short():
    """One row of A meets rows of B with 5, 1, 5 and 1 entries, all in different columns: no probe is lost."""
    return rows([0, 1, 2, 3], n=4), rows(range(5), [5], range(6, 11), [11], n=16)


TWO = PiumaConfig(log2_slots=8, n_mtc=2, threads_per_mtc=1, token_pp=1, **WIDE)


def cost(fixed, p, alloc=0):
    """Instructions and latency alone of one nonzero whose p products claim a slot each, without a lost probe.

    In V3 a claim also stores an offset and a column in the scratchpad.
    """
    instructions = fixed + 20 + p * (16 + 7) + p * 12 + 6 * p * alloc
    atomics = 2 * p + (fixed == 20) + p * alloc
    return instructions, 10 * instructions + (2 + 2 + 2) * 120 + 40 * atomics + 2 * p * alloc * 20


def counting(entries, threads):
    """Cycles of the first pass over up to eight entries of A: one line of columns, two pointers for each."""
    return (10 * 20 * entries + (1 + 2 * entries) * 120) / threads


@pytest.mark.parametrize(
    "change, cycles",
    [
        ({}, (10 * 180 + (2 + 18) * 120) / 2),  # nine entries: latency of two lines and 18 pointers, on two threads
        ({"n_mtc": 1, "threads_per_mtc": 64}, 180),  # 64 threads of one pipeline: its issue slot
        ({"bw": 0.1}, (2 * 64 + 18 * 8) / 0.1),
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_counts_its_products_first(version, change, cycles):
    a, b = rows(range(9), n=9), rows(*([0] for _ in range(9)), n=1)
    run = simulate_spgemm(a, b, version, replace(TWO, **change))
    assert run.phases["counting"] == run.window_times.start[0] == pytest.approx(cycles)
    assert run.streams["A"] + run.streams["B"] == 64 * (9 * (2 + 2) + 2) and run.streams["row pointers"] == 2 * 18 * 8


def test_the_static_split_deals_nonzeros_in_turn(long_and_short):
    """V1: thread 0 gets both long ones, and thread 1 waits for it."""
    run = simulate_spgemm(*long_and_short, 1, TWO)
    long, short = cost(4, 5)[1], cost(4, 1)[1]
    assert (long, short) == (3110, 1390)
    log = run.events
    shown = sorted(zip(log.thread.tolist(), log.start.tolist(), log.stop.tolist(), strict=True))
    t0 = counting(4, threads=2)
    pieces = [(0, 0, long), (0, long, 2 * long), (1, 0, short), (1, short, 2 * short)]
    assert shown == [(x, t0 + start, t0 + stop) for x, start, stop in pieces]
    assert run.phases["hashing"] == 2 * long and run.tokens == 4
    assert run.hashing_utilisation == (long + short) / (2 * long)
    assert run.l1_hit_rate == 1 - 4 * (2 + 2) / (2 * 12 + 2 * 4)


@pytest.mark.parametrize("version, alloc", [(2, 0), (3, 1)])
def test_tokens_go_to_whoever_is_idle(long_and_short, version, alloc):
    """V2 and V3: thread 1 takes the second long one as soon as it has done the short one."""
    run = simulate_spgemm(*long_and_short, version, TWO)
    long, short = (cost(20, p, alloc)[1] for p in (5, 1))
    shown = sorted(zip(run.events.thread.tolist(), run.events.start.tolist(), strict=True))
    t0 = counting(4, threads=2)
    assert shown == [(0, t0), (0, t0 + long), (1, t0), (1, t0 + short)]
    assert run.phases["hashing"] == long + short and run.hashing_utilisation == pytest.approx(1)
    written = {2: 256 * 6 + 12 * 47, 3: 200}[version]  # V2 scans the table, V3 tells the DMA engine
    assert run.instructions == 4 * 20 + 2 * (cost(20, 5, alloc)[0] + cost(20, 1, alloc)[0]) + written


@pytest.mark.parametrize("most, tokens", [(1, 4), (5, 4), (6, 2), (11, 2), (12, 1)])
def test_tokens_are_runs_of_one_row_within_the_limit(long_and_short, most, tokens):
    config = replace(TWO, token_pp=most)
    assert simulate_spgemm(*long_and_short, 2, config).tokens == tokens
    a = rows([0, 1, 2, 3], [1, 3], n=4)  # a token never holds two rows
    assert simulate_spgemm(a, long_and_short[1], 2, config).tokens == tokens + (1 if most > 1 else 2)
    assert simulate_spgemm(*long_and_short, 1, config).tokens == 4


def test_threads_of_a_pipeline_share_its_issue_slot():
    """Without latency every thread wants the whole slot: two threads of one pipeline take twice as long."""
    free = dict.fromkeys(("l_dram", "l_atomic", "l_spad", "l_store"), 0.0)
    config = PiumaConfig(log2_slots=8, n_mtc=2, threads_per_mtc=2, token_pp=1, l_pipe=1.0, **free, **WIDE)
    a, b = rows([0, 1, 2], n=3), rows(range(4), range(4, 8), range(8, 12), n=16)
    each = 20 + 20 + 4 * (16 + 7 + 12)
    run = simulate_spgemm(a, b, 2, config)
    log = run.events
    t0 = 3 * 20 / 2  # counting, bound by the two pipelines
    stops = dict(zip(log.thread.tolist(), log.stop.tolist(), strict=True))
    assert stops == {0: t0 + 2 * each, 1: t0 + 2 * each, 2: t0 + each}


def test_threads_share_the_bandwidth(long_and_short):
    """Each token moves 4 lines and two words; at a bandwidth of half of what it asks for it takes twice as long."""
    one = PiumaConfig(log2_slots=8, n_mtc=1, threads_per_mtc=1, token_pp=2**40, **WIDE)
    a, b = rows([0], n=1), rows(range(5), n=16)
    alone = cost(20, 5)[1]
    half = (4 * 64 + 16) / alone / 2
    assert simulate_spgemm(a, b, 2, one).phases["hashing"] == alone
    assert simulate_spgemm(a, b, 2, replace(one, bw=half)).phases["hashing"] == pytest.approx(2 * alone)


# Write-back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_all_threads_scan_the_table_and_store(long_and_short, version):
    """256 slots, 12 of them live: bound by latency, by issue, or by bandwidth, at 0.31 of the ideal speed."""
    work = 256 * 6 + 12 * 47
    latency = 10 * work + 256 * 20 + 2 * 12 * 60
    narrow = replace(TWO, n_mtc=1, threads_per_mtc=64)
    for config, ideal in ((TWO, latency / 2), (narrow, work), (replace(TWO, bw=0.001), (16 * 12 + 8) / 0.001)):
        run = simulate_spgemm(*long_and_short, version, config)
        assert run.phases["write-back"] == pytest.approx(ideal / 0.31)
        assert run.phases["DMA wait"] == run.phases["clearing"] == 0 and run.streams["C"] == 16 * 12 + 8


def two_windows():
    """Two rows that fill a window each: first 12 entries, then 12 others, from rows of B of four."""
    a = rows([0, 1, 2], [3, 4, 5], n=6)
    return a, rows(*(range(4 * k, 4 * k + 4) for k in range(6)), n=24)


@pytest.mark.parametrize("dma_bw", [0.01, 1000.0])
def test_the_next_window_is_hashed_while_the_dma_engine_writes(dma_bw):
    """200 B a window. Slow: the second window waits for the first transfer; fast: it does not. Both drain last.

    Between the two the DMA engine clears 16 slots of 16 B at 64 B a cycle, and the thread waits for it.
    """
    config = PiumaConfig(log2_slots=4, load=0.75, n_mtc=1, threads_per_mtc=1, token_pp=2**40, bw=1e9, dma_bw=dma_bw)
    run = simulate_spgemm(*two_windows(), 3, config)
    instructions = 20 + 3 * 20 + 12 * (16 + 7 + 12 + 6)
    hashing = 10 * instructions + (2 + 3 * 2 + 2 * 3) * 120 + (2 * 12 + 1 + 12) * 40 + (12 + 12) * 20
    transfer = (16 * 12 + 8) / dma_bw
    t0, done = counting(6, threads=1), 200 + 16 * 16 / 64
    wait = max(0, transfer - hashing)
    times = run.window_times
    assert times.dma_start.tolist() == pytest.approx([t0 + hashing + done, t0 + 2 * (hashing + done) + wait])
    assert times.dma_stop == pytest.approx(times.dma_start + transfer)
    assert times.hashed.tolist() == pytest.approx([t0 + hashing, t0 + 2 * hashing + done])
    assert run.phases["DMA wait"] == pytest.approx(wait + transfer) and run.phases["clearing"] == 2 * 4
    assert run.cycles == pytest.approx(t0 + 2 * (hashing + done) + wait + transfer)


def test_the_dma_engine_and_the_threads_share_the_bandwidth():
    """Both ask for more than there is: while 200 B are written, the threads get their share of the rest, no more."""
    config = PiumaConfig(log2_slots=4, load=0.75, n_mtc=1, threads_per_mtc=1, token_pp=2**40, bw=1.0, dma_bw=1.0)
    run = simulate_spgemm(*two_windows(), 3, config)
    hashing = 10 * (20 + 3 * 20 + 12 * (16 + 7 + 12 + 6)) + (2 + 3 * 2 + 2 * 3) * 120 + (2 * 12 + 1 + 12) * 40
    hashing += (12 + 12) * 20
    asked = (64 * (2 + 3 * 2) + 16 * 3) / hashing  # bytes per cycle of the token alone
    first, second = run.window_times.hashed - run.window_times.start
    assert first == pytest.approx(hashing) and second == pytest.approx(hashing + 200 * asked)
    assert run.window_times.dma_stop[0] - run.window_times.dma_start[0] == pytest.approx(200 * (1 + asked))


# Baselines and blocks ------------------------------------------------------------------------------------------------


def test_row_wise_bound_of_the_worked_example():
    """5 + 7 + 6 elements, 14 pointers and 7 products: bandwidth decides."""
    a = sp.csr_array(np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0.0]]))
    b = sp.csr_array(np.array([[0, 6], [7, 0], [8, 9.0]]))
    bound = baseline(a, b, "row")
    latency = (7 * 16 * 10 + (18 + 14) * 120) / 64
    assert bound.bounds == pytest.approx({"bandwidth": (18 * 16 + 14 * 8) / 2.6, "issue": 28, "latency": latency})
    assert bound.cycles == bound.bounds["bandwidth"] and bound.accesses == 32


def test_lines_of_another_block_come_later():
    """Both rows read row 1 of B, which lives in block 1; the two lines cost block 0 the network's latency."""
    a, b = rows([1], [1], n=2), rows([], range(5), n=8)
    config = PiumaConfig(log2_slots=8, l_net=1000.0, net_bw=1e9, **WIDE)
    run = simulate_spgemm(a, b, 2, config, blocks=2)
    assert run.block_cycles[0] - run.block_cycles[1] == pytest.approx(2 * 1000)
    assert run.network_bytes == 2 * 64


def test_a_product_that_merges_in_v3_reads_the_offset_of_its_slot():
    """Two rows of B with the same five columns: five claims store offset and column, five merges read the offset."""
    a, b = rows([0, 1], n=2), rows(range(5), range(5), n=8)
    config = PiumaConfig(log2_slots=8, n_mtc=1, threads_per_mtc=1, token_pp=2**40, **WIDE)
    times = [simulate_spgemm(a, b, 3, replace(config, l_spad=l_spad)).phases["hashing"] for l_spad in (0.0, 20.0)]
    assert times[1] - times[0] == pytest.approx((2 * 5 + 5) * 20)
